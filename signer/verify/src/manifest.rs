//! The manifest and the key files: does the bundle hold exactly what was signed, and do the files
//! of keys say what the admin trail says?

use std::collections::BTreeSet;

use countersign_trail::admin::AdminState;
use countersign_trail::checkpoint::SignedCheckpoint;
use countersign_trail::dsse::Envelope;
use countersign_trail::evidence::{FileName, Statement, TrailFile, TrailHead, derive_key_files};
use countersign_trail::hash::Hash;
use countersign_trail::id::PartName;
use countersign_trail::signing::STATEMENT_PAYLOAD_TYPE;

use crate::bundle::Bundle;
use crate::exit::Outcome;
use crate::parallel;
use crate::report::Checks;

type Problem = (Outcome, String);

fn tampered(problem: impl ToString) -> Problem {
    (Outcome::Tampered, problem.to_string())
}

fn malformed(problem: impl ToString) -> Problem {
    (Outcome::Malformed, problem.to_string())
}

/// Checks `manifest` (form, files, statement) and `manifest-signature`, and gives the names of parts
/// that it says were withheld.
pub(crate) fn check(
    bundle: &Bundle<'_>,
    state: Option<&AdminState>,
    threads: usize,
    checks: &mut Checks,
) -> BTreeSet<PartName> {
    let read = bundle.get(&FileName::Manifest).ok_or_else(|| malformed("the evidence has no manifest"));
    let read = read.and_then(|bytes| Envelope::parse(bytes).map_err(malformed));
    let read = read.and_then(|envelope| Ok((Statement::parse(envelope.payload()).map_err(malformed)?, envelope)));
    let (statement, envelope) = match read {
        Ok(read) => read,
        Err((outcome, problem)) => {
            checks.failed("manifest", None, outcome, problem);
            checks.not_checked("manifest-signature", None, "the manifest cannot be read");
            return BTreeSet::new();
        }
    };
    let files = check_files(bundle, &statement, threads);
    checks.result(
        "manifest",
        None,
        files.and_then(|detail| check_predicate(bundle, state, &statement).map(|()| detail)),
    );
    match state {
        None => checks.not_checked("manifest-signature", None, "the evidence key is not known without a genesis"),
        Some(state) => checks.result("manifest-signature", None, check_signature(state, &envelope, &statement)),
    }
    statement.predicate.withheld.into_iter().collect()
}

fn check_signature(state: &AdminState, envelope: &Envelope, statement: &Statement) -> Result<String, Problem> {
    let entry = state.evidence_key().ok_or_else(|| tampered("the genesis names no evidence key"))?;
    let kid = entry.key.kid();
    if envelope.signatures().len() != 1 {
        return Err(malformed(format!("{} signatures, wants one", envelope.signatures().len())));
    }
    envelope.verify(STATEMENT_PAYLOAD_TYPE, &entry.key).map_err(tampered)?;
    let predicate = &statement.predicate;
    if predicate.kid != kid {
        return Err(tampered(format!("the statement names key {}, the evidence key is {kid}", predicate.kid)));
    }
    Ok(format!("statement {} of the evidence key {kid}, made {}", predicate.number, predicate.created))
}

/// Every file is named once, in order, with its digest, and none beyond.
fn check_files(bundle: &Bundle<'_>, statement: &Statement, threads: usize) -> Result<String, Problem> {
    let manifest = FileName::Manifest.to_string();
    let files: Vec<(&str, &[u8])> = bundle.archive().iter().filter(|(name, _)| *name != manifest).collect();
    let named = &statement.subject;
    let digests = parallel::map(threads, files.len(), |at| Hash::of(files[at].1));
    for (at, ((name, _), digest)) in files.iter().zip(digests).enumerate() {
        match named.get(at) {
            Some(subject) if subject.name != *name => {
                return Err(tampered(format!("file {at} is {name}, the manifest names {}", subject.name)));
            }
            Some(subject) if subject.digest.sha256 != digest => {
                let stated = subject.digest.sha256;
                return Err(tampered(format!("{name} has SHA-256 {digest}, the manifest says {stated}")));
            }
            Some(_) => {}
            None => return Err(tampered(format!("the manifest does not name {name}"))),
        }
    }
    match named.get(files.len()) {
        Some(missing) => Err(tampered(format!("{} is named by the manifest and missing", missing.name))),
        None => Ok(format!("names every one of {} files with its digest, and no other", files.len())),
    }
}

/// What the statement says of instance, genesis and heads is what the bundle holds.
fn check_predicate(bundle: &Bundle<'_>, state: Option<&AdminState>, statement: &Statement) -> Result<(), Problem> {
    let predicate = &statement.predicate;
    if let Some(state) = state {
        if predicate.genesis != state.fingerprint {
            return Err(tampered(format!("the manifest is of genesis {}", predicate.genesis)));
        }
        if predicate.instance != state.plan.instance {
            return Err(tampered(format!("the manifest is of instance {}", predicate.instance)));
        }
    }
    let head = |name: &FileName| match name {
        FileName::Trail(_, TrailFile::Checkpoint) => {
            let signed = SignedCheckpoint::parse(bundle.get(name)?).ok()?;
            let checkpoint = signed.checkpoint();
            Some(TrailHead { origin: checkpoint.origin.clone(), root: checkpoint.root, size: checkpoint.size })
        }
        _ => None,
    };
    let heads: Vec<TrailHead> = bundle.names().iter().filter_map(head).collect();
    if heads != predicate.trails {
        return Err(tampered("the heads that the manifest states are not those of the checkpoints"));
    }
    Ok(())
}

/// Checks `keys-file`, `jwks`, `pem` and `vkeys` byte by byte against what follows from the admin
/// trail.
pub(crate) fn check_keys(bundle: &Bundle<'_>, state: &AdminState, checks: &mut Checks) {
    let derived = match derive_key_files(state) {
        Ok(derived) => derived,
        Err(error) => {
            checks.failed("keys-file", None, Outcome::Tampered, error);
            return;
        }
    };
    let same = |name: &FileName, expected: &[u8]| match bundle.get(name) {
        Some(found) if found == expected => Ok(format!("{name} is what follows from the admin trail")),
        Some(found) => {
            let at = found.iter().zip(expected).take_while(|(a, b)| a == b).count();
            Err(tampered(format!("{name} differs from what follows from the admin trail, from byte {at} on")))
        }
        None => Err(malformed(format!("{name} is missing"))),
    };
    checks.result("keys-file", None, same(&FileName::KeyFile, &derived.key_file));
    checks.result("jwks", None, same(&FileName::Jwks, &derived.jwks));
    checks.result("vkeys", None, same(&FileName::Vkeys, &derived.vkeys));
    let wrong = derived.pems.iter().find_map(|(kid, pem)| same(&FileName::Pem(*kid), pem).err());
    let known = |name: &&FileName| matches!(name, FileName::Pem(kid) if !state.keys.contains_key(kid));
    let foreign = bundle.names().iter().find(known);
    let pems = match (wrong, foreign) {
        (Some(problem), _) => Err(problem),
        (None, Some(name)) => Err(tampered(format!("{name} is of no key of the admin trail"))),
        (None, None) => Ok(format!("{} PEM files are what follows from the admin trail", derived.pems.len())),
    };
    checks.result("pem", None, pems);
}
