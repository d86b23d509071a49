//! The token alone: one process, some sessions, nothing but C_Sign.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use countersign_stage::Stage;
use countersign_stage::binaries::run;
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::eddsa::{EddsaParams, EddsaSignatureScheme};
use cryptoki::object::{Attribute, ObjectClass};
use cryptoki::session::{Session, UserType};
use cryptoki::types::AuthPin;

/// Signatures a second with 1, 2 and 4 sessions.
pub(crate) fn rates(stage: &Stage, algorithm: &str, seconds: u64) -> Result<Vec<(u32, f64)>> {
    let mut rates = Vec::new();
    for sessions in [1, 2, 4] {
        let mut child = Command::new(std::env::current_exe()?);
        child.args(["raw", "countersign-record"]).arg(stage.folder.join("hsm/pins/record.pin"));
        child.args([algorithm, &sessions.to_string(), &seconds.to_string()]);
        child.env("SOFTHSM2_CONF", stage.folder.join("hsm/softhsm2.conf"));
        let output = run(&mut child)?;
        rates.push((sessions, String::from_utf8(output.stdout)?.trim().parse()?));
    }
    Ok(rates)
}

/// The child: prints its rate.
pub(crate) fn child(label: &str, pin_file: &Path, algorithm: &str, sessions: &str, seconds: &str) -> Result<()> {
    let module = Pkcs11::new("/usr/lib/softhsm/libsofthsm2.so")?;
    module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK))?;
    let mut slots = module.get_slots_with_token()?.into_iter();
    let slot = slots.find(|slot| module.get_token_info(*slot).is_ok_and(|info| info.label() == label));
    let slot = slot.with_context(|| format!("no token {label}"))?;
    let pin = AuthPin::new(std::fs::read_to_string(pin_file)?.trim().to_owned().into());
    let login = module.open_rw_session(slot)?;
    login.login(UserType::User, Some(&pin))?;
    let time = Duration::from_secs(seconds.parse()?);
    let sessions =
        (0..sessions.parse::<u32>()?).map(|_| module.open_ro_session(slot)).collect::<Result<Vec<_>, _>>()?;
    let ed25519 = match algorithm {
        "ed25519" => true,
        "ecdsa-p256" => false,
        other => bail!("unknown algorithm {other}"),
    };
    let begun = Instant::now();
    let threads: Vec<_> =
        sessions.into_iter().map(|session| std::thread::spawn(move || sign(&session, ed25519, time))).collect();
    let mut count = 0;
    for thread in threads {
        count += thread.join().map_err(|_| anyhow::anyhow!("a signing thread panicked"))??;
    }
    println!("{}", f64::from(count) / begun.elapsed().as_secs_f64());
    Ok(())
}

/// Signs as fast as one session can: messages of a record's size, or its digest.
fn sign(session: &Session, ed25519: bool, time: Duration) -> Result<u32> {
    let template = |kind: &str| {
        [
            Attribute::Class(ObjectClass::PRIVATE_KEY),
            Attribute::Label(format!("countersign:quickstart:{kind}").into_bytes()),
        ]
    };
    let name = if ed25519 { "record/demo.example/record/ed25519" } else { "record/demo.example/record/ecdsa-p256" };
    let key = *session.find_objects(&template(name))?.first().with_context(|| format!("no key {name}"))?;
    let (mechanism, message) = if ed25519 {
        (Mechanism::Eddsa(EddsaParams::new(EddsaSignatureScheme::Ed25519)), vec![7u8; 900])
    } else {
        (Mechanism::Ecdsa, vec![7u8; 32])
    };
    let begun = Instant::now();
    let mut count = 0;
    while begun.elapsed() < time {
        for _ in 0..32 {
            session.sign(&mechanism, key, &message)?;
        }
        count += 32;
    }
    Ok(count)
}
