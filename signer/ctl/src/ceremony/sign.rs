//! `countersign ceremony sign`: shows the genesis document, decoded, and has its person sign exactly
//! those bytes.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use countersign_trail::document::{Genesis, Member, Plan};
use countersign_trail::hash::Hash;
use countersign_trail::id::MemberId;
use countersign_trail::sshsig::{Act, SshSignature};
use serde::Serialize;

use super::{Read, check_against, read_genesis, read_plan, show, ssh};
use crate::cli::CeremonySignArgs;
use crate::exit::{Exit, Failure, Outcome, failed, usage};
use crate::files;
use crate::output::Output;

/// What was signed, by whom, and where it stands.
#[derive(Serialize)]
struct Signed {
    fingerprint: Hash,
    member: Option<MemberId>,
    namespace: &'static str,
    key: String,
    signature: PathBuf,
}

/// `countersign ceremony sign`.
pub(crate) fn run(args: &CeremonySignArgs, output: Output) -> Outcome {
    let genesis = read_genesis(&args.file)?;
    let plan = args.plan.as_deref().map(read_plan).transpose()?;
    if let Some(plan) = &plan {
        check_against(&genesis, plan)?;
    }
    let fingerprint = ssh::fingerprint(&args.key)?;
    let member = match &plan {
        Some(plan) => Some(signer(&plan.document, &fingerprint, args.member.as_ref())?),
        None => None,
    };
    let id = member.map(|member| &member.id).or(args.member.as_ref());
    let path = signature_path(args, id)?;
    if path.exists() && !args.force {
        return Err(failed(format!("{} exists", path.display()))
            .todo("Give --force to sign again and replace it, or another --out."));
    }
    let shown = show::genesis_text(&show::genesis_view(&genesis, plan.is_some()));
    eprintln!("{shown}");
    confirm(args, &genesis, id, &fingerprint)?;
    let armor = ssh::sign(&args.key, Act::Genesis.namespace(), &genesis.bytes)?;
    verify(&armor, member, &fingerprint, &genesis)?;
    files::write(&path, armor.as_bytes(), args.force)?;
    let signed = Signed {
        fingerprint: genesis.hash,
        member: id.cloned(),
        namespace: Act::Genesis.namespace(),
        key: fingerprint,
        signature: path,
    };
    output.show(&signed, |signed| {
        let name = signed.member.as_ref().map_or("MEMBER", MemberId::as_str);
        let file = signed.signature.display();
        format!("Signed, and the signature verifies: {file}\nWhoever runs the host passes it on:\n  countersignd --config FILE seal --genesis {} --signature {name}={file} …\n", args.file.display())
    })
}

/// The administrator who holds the key.
fn signer<'a>(plan: &'a Plan, fingerprint: &str, claimed: Option<&MemberId>) -> Outcome<&'a Member> {
    let holds = |member: &&Member| member.ssh_keys.iter().any(|key| key.fingerprint() == fingerprint);
    let member = plan.administrators().find(holds).ok_or_else(|| {
        let roster: Vec<String> = plan.administrators().map(|member| member.id.to_string()).collect();
        failed(format!("no administrator of the plan has the SSH key {fingerprint}"))
            .todo(format!("Sign with the key that stands in the plan for one of: {}.", roster.join(", ")))
    })?;
    match claimed {
        Some(claimed) if *claimed != member.id => {
            Err(usage(format!("the key {fingerprint} is {}'s, not {claimed}'s", member.id))
                .todo("Leave --member out, or sign with that person's key."))
        }
        _ => Ok(member),
    }
}

fn signature_path(args: &CeremonySignArgs, member: Option<&MemberId>) -> Outcome<PathBuf> {
    match (&args.out, member) {
        (Some(out), _) => Ok(out.clone()),
        (None, Some(member)) => {
            let mut name = args.file.clone().into_os_string();
            name.push(format!(".{member}.sig"));
            Ok(PathBuf::from(name))
        }
        (None, None) => Err(usage("whose signature this is cannot be told without the plan")
            .todo("Give --plan plan.json (best: it also checks the genesis), --member ID, or --out FILE.")),
    }
}

/// Asks the person, who types the beginning of the fingerprint.
fn confirm(args: &CeremonySignArgs, genesis: &Read<Genesis>, member: Option<&MemberId>, key: &str) -> Outcome {
    let who = member.map_or("you".to_owned(), ToString::to_string);
    eprintln!("About to sign this genesis document as {who} with the SSH key {key}, namespace {}.", Act::Genesis);
    if args.yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() {
        return Err(usage("nobody can be asked: standard input is not a terminal")
            .todo("Give --yes once you have reviewed the document."));
    }
    let begin: String = genesis.hash.to_string().chars().take(8).collect();
    eprint!("Compare the fingerprint with the other administrators, then type its first 8 digits: ");
    let _ = io::stderr().flush();
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).map_err(|error| files::io("read", Path::new("standard input"), &error))?;
    if line.trim() == begin {
        Ok(())
    } else {
        Err(failed("not signed: those are not the first 8 digits of the fingerprint"))
    }
}

/// Verifies what ssh-keygen made, with our own code.
fn verify(armor: &str, member: Option<&Member>, fingerprint: &str, genesis: &Read<Genesis>) -> Outcome {
    let refused = |problem: String| {
        Failure::new(Exit::Tampered, format!("the signature that ssh-keygen made is refused: {problem}"))
            .todo("Nothing was written. Use a key of a kind that is accepted, and OpenSSH 8.2 or later.")
    };
    let signature = SshSignature::parse(armor).map_err(|error| refused(error.to_string()))?;
    let key = match member {
        Some(member) => member.ssh_keys.iter().find(|key| *key == signature.key()),
        None => Some(signature.key()).filter(|key| key.fingerprint() == fingerprint),
    };
    let key =
        key.ok_or_else(|| refused(format!("it is by the key {}, not {fingerprint}", signature.key().fingerprint())))?;
    signature.verify(key, Act::Genesis, &genesis.bytes).map(|_| ()).map_err(|error| refused(error.to_string()))
}
