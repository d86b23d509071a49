//! `countersign keys`: every public key, in the forms that other tools read.

use std::collections::BTreeMap;
use std::fs;

use countersign_proto::v1;
use countersign_trail::jcs;
use countersign_trail::keys::{Kid, PublicKey};
use countersign_trail::note::VerifierKey;
use serde::Serialize;
use serde_json::{Value, json};

use crate::cli::KeysArgs;
use crate::exit::{Exit, Failure, Outcome, failed};
use crate::files;
use crate::output::{Output, table};
use crate::remote::{Remote, Trust, of_status};

/// A key as it is shown.
#[derive(Serialize)]
struct View {
    kid: String,
    algorithm: String,
    purpose: String,
    trail: Option<String>,
    state: String,
    from_seq: u64,
    from_time: String,
    /// Whether the pinned genesis authorises it; none without a pinned fingerprint.
    authorised: Option<bool>,
    vkey: Option<String>,
    #[serde(skip)]
    key: PublicKey,
}

/// `countersign keys`.
pub(crate) async fn run(args: &KeysArgs, output: Output) -> Outcome {
    let mut remote = Remote::connect(&args.connect).await?;
    let trust = match remote.profile.pinned() {
        Some(_) => Some(remote.trust().await?),
        None => None,
    };
    let request = v1::ListKeysRequest {
        kid: args.kid.as_ref().map(ToString::to_string).unwrap_or_default(),
        trail: args.trail.as_ref().map(ToString::to_string).unwrap_or_default(),
        at_seq: args.at_seq,
        at_time: args.at_time.map(|time| time.to_string()).unwrap_or_default(),
    };
    let answer = remote.audit.list_keys(request).await.map_err(|status| of_status(&status))?;
    let views = answer.into_inner().keys.iter().map(|key| view(key, trust.as_ref())).collect::<Outcome<Vec<View>>>()?;
    if let Some(folder) = &args.out {
        write_all(folder, &views, args.force)?;
    }
    if args.pem {
        let pems: Vec<String> = views.iter().map(|view| view.key.pem()).collect();
        return output.show(&pems, |pems| pems.concat());
    }
    if args.jwks {
        return output.line(&serde_json::to_string_pretty(&jwks(&views)).map_err(|error| failed(error.to_string()))?);
    }
    if args.vkey {
        let lines: Vec<&String> = views.iter().filter_map(|view| view.vkey.as_ref()).collect();
        return output.show(&lines, |lines| lines.iter().map(|line| format!("{line}\n")).collect());
    }
    output.show(&views, |views| text(views))
}

/// Checks what can be checked of a listed key: its kid, its vkey line, and, with a pinned genesis,
/// that and for what the genesis authorises it.
fn view(key: &v1::Key, trust: Option<&Trust>) -> Outcome<View> {
    let broken = |problem: String| {
        Failure::new(Exit::Tampered, format!("key {:.64} as the daemon lists it: {problem}", key.kid))
    };
    let public = PublicKey::from_spki_der(&key.spki).map_err(|error| broken(error.to_string()))?;
    if public.kid().to_string() != key.kid {
        return Err(broken(format!("the thumbprint of its SPKI is {}", public.kid())));
    }
    let trail = Some(key.trail.clone()).filter(|trail| !trail.is_empty());
    let vkey = match (&trail, key.purpose.as_str()) {
        (Some(trail), "checkpoint" | "admin-checkpoint") => {
            let line = VerifierKey::new(trail, public.clone()).map_err(|error| broken(error.to_string()))?;
            Some(line.to_string())
        }
        _ => None,
    };
    if vkey.clone().unwrap_or_default() != key.vkey {
        return Err(broken("its vkey line is not that of its SPKI and trail".to_owned()));
    }
    let authorised = trust.map(|trust| {
        trust.state.keys.get(&public.kid()).is_some_and(|entry| {
            entry.purpose.word() == key.purpose && entry.trail.as_ref().map(ToString::to_string) == trail
        })
    });
    if authorised == Some(false) {
        return Err(broken("the pinned genesis does not authorise it for this".to_owned()));
    }
    Ok(View {
        kid: key.kid.clone(),
        algorithm: public.algorithm().to_string(),
        purpose: key.purpose.clone(),
        trail,
        state: key.state.clone(),
        from_seq: key.from_seq,
        from_time: key.from_time.clone(),
        authorised,
        vkey,
        key: public,
    })
}

/// A JSON Web Key Set (RFC 7517, section 5), ascending by the bytes of the kid as in evidence.
fn jwks(views: &[View]) -> Value {
    let keys: BTreeMap<Kid, Value> = views.iter().map(|view| (view.key.kid(), view.key.jwk())).collect();
    json!({ "keys": keys.into_values().collect::<Vec<_>>() })
}

/// `<kid>.pem` for each key, `jwks.json` and `vkeys.txt`, as in an evidence bundle: all of them, or
/// none where one exists that may not be replaced.
fn write_all(folder: &std::path::Path, views: &[View], replace: bool) -> Outcome {
    let pem = |view: &View| (format!("{}.pem", view.kid), view.key.pem().into_bytes());
    let mut written: Vec<(String, Vec<u8>)> = views.iter().map(pem).collect();
    let set = jcs::to_canonical(&jwks(views)).map_err(|error| failed(error.to_string()))?;
    written.push(("jwks.json".to_owned(), set));
    let mut lines: Vec<&str> = views.iter().filter_map(|view| view.vkey.as_deref()).collect();
    lines.sort_unstable();
    let lines: String = lines.into_iter().map(|line| format!("{line}\n")).collect();
    written.push(("vkeys.txt".to_owned(), lines.into_bytes()));
    for (name, _) in &written {
        files::must_be_free(&folder.join(name), replace)?;
    }
    fs::create_dir_all(folder).map_err(|error| files::io("make the folder", folder, &error))?;
    written.iter().try_for_each(|(name, bytes)| files::write(&folder.join(name), bytes, replace))
}

fn text(views: &[View]) -> String {
    let rows: Vec<Vec<String>> = views
        .iter()
        .map(|view| {
            let authorised = match view.authorised {
                Some(true) => "by the pinned genesis",
                Some(false) => "NO",
                None => "not checked: no genesis pinned",
            };
            let trail = view.trail.clone().unwrap_or_else(|| "(instance)".to_owned());
            vec![
                view.kid.clone(),
                view.algorithm.clone(),
                view.purpose.clone(),
                trail,
                view.state.clone(),
                view.from_seq.to_string(),
                view.from_time.clone(),
                authorised.to_owned(),
            ]
        })
        .collect();
    table(&["KID", "ALGORITHM", "PURPOSE", "TRAIL", "STATE", "FROM SEQ", "FROM TIME", "AUTHORISED"], &rows)
}
