//! `countersign ceremony`: what people do before and around the genesis.
//!
//! - [`mod@file`]: the ceremony file, TOML that people write.
//! - [`plan`]: from the ceremony file to the plan, canonical JSON that people review.
//! - [`show`]: plan and genesis, decoded.
//! - [`sign`]: a person's SSHSIG over exactly the bytes that were decoded and shown.
//! - [`ssh`]: `ssh-keygen`, which holds the way to key files, agents and security keys.

pub(crate) mod file;
pub(crate) mod plan;
pub(crate) mod show;
pub(crate) mod sign;
pub(crate) mod ssh;

use std::path::Path;

use countersign_trail::document::{Genesis, MAX_DOCUMENT_LEN, Plan};
use countersign_trail::hash::Hash;

use crate::cli::CeremonyCommand;
use crate::exit::{Exit, Failure, Outcome};
use crate::files;
use crate::output::Output;

/// Runs one of the ceremony's commands.
pub(crate) fn run(command: &CeremonyCommand, output: Output) -> Outcome {
    match command {
        CeremonyCommand::Plan(args) => plan::run(args, output),
        CeremonyCommand::Show(args) => show::run(args, output),
        CeremonyCommand::Sign(args) => sign::run(args, output),
        CeremonyCommand::Fingerprint(args) => show::fingerprint(args, output),
    }
}

/// A document as it was read: its exact bytes and what they say.
pub(crate) struct Read<T> {
    /// The bytes that are hashed and signed.
    pub(crate) bytes: Vec<u8>,
    /// SHA-256 of the bytes.
    pub(crate) hash: Hash,
    /// What they say.
    pub(crate) document: T,
}

/// Reads a plan and checks its rules.
pub(crate) fn read_plan(path: &Path) -> Outcome<Read<Plan>> {
    let bytes = files::read(path, MAX_DOCUMENT_LEN)?;
    let document = Plan::parse(&bytes).map_err(|error| malformed(path, &error))?;
    Ok(Read { hash: Hash::of(&bytes), bytes, document })
}

/// Reads a genesis document and checks each of its keys; its plan is checked where there is one.
pub(crate) fn read_genesis(path: &Path) -> Outcome<Read<Genesis>> {
    let bytes = files::read(path, MAX_DOCUMENT_LEN)?;
    let document = Genesis::parse(&bytes).map_err(|error| malformed(path, &error))?;
    for key in &document.keys {
        key.check(&document.instance).map_err(|error| malformed(path, &error))?;
    }
    Ok(Read { hash: Hash::of(&bytes), bytes, document })
}

/// Holds a genesis against the plan that it should follow.
pub(crate) fn check_against(genesis: &Read<Genesis>, plan: &Read<Plan>) -> Outcome {
    if genesis.document.plan != plan.hash {
        let message = format!("the genesis names plan {}, this plan is {}", genesis.document.plan, plan.hash);
        return Err(Failure::new(Exit::Malformed, message)
            .todo("Do not sign it. Get the plan that was reviewed, or ask whoever ran init which plan it followed."));
    }
    genesis.document.check(&plan.document, &plan.hash).map(|_| ()).map_err(|error| {
        Failure::new(Exit::Malformed, error.to_string())
            .todo("Do not sign it: the genesis is not what its plan asks for.")
    })
}

fn malformed(path: &Path, error: &dyn std::fmt::Display) -> Failure {
    Failure::new(Exit::Malformed, format!("{}: {error}", path.display()))
        .todo("The file must be byte for byte as it was written: an editor that reformats it breaks it.")
}
