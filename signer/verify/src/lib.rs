//! The independent offline verifier of Countersign evidence.
//!
//! [`verify`] walks the chain of proof, link by link: pinned genesis fingerprint -> plan and the
//! people in it -> their own signatures -> the keys that they approved -> checkpoints and record
//! signatures -> records -> parts. Every link is a named [`Check`] with its own verdict; nothing is
//! believed because the evidence says so, and no key counts that the pinned genesis does not lead
//! to. It opens no file and no connection, and knows no clock.
//!
//! # Checks, in order
//! | check | holds when |
//! |---|---|
//! | `archive` | the bytes are one archive of the strict profile, with right checksums |
//! | `layout` | it has only files of a bundle, in their order |
//! | `documents` | each document has the SHA-256 that names it |
//! | `genesis` | the genesis document has the pinned fingerprint |
//! | `plan`, `genesis-keys` | plan and genesis follow their rules; each key signed its probe |
//! | `admin-records` | each admin record may stand where it stands |
//! | `genesis-signatures`, `genesis-sealed` | every administrator of the plan signed the genesis |
//! | `documents-named` | the documents are those that the admin trail names |
//! | `keys-file`, `jwks`, `vkeys`, `pem` | each is byte for byte what follows from the admin trail |
//! | `manifest`, `manifest-signature` | the evidence key signed the digest of every file |
//! | `files`, `chain`, `first-record`, `tiles`, `checkpoint`, `gaps` | of each trail: its files are complete; sequence, `prev`, time; record 0 is the genesis's; hash tiles; signed root; silences (with `admin-` before the name for the admin trail) |
//! | `kids`, `control`, `clients`, `event-ids`, `signatures`, `parts` | of each other trail: keys in force, control bodies, writers with a grant, unique event ids, record signatures, commitments |
//! | `links` | linked records are what the links name |
//! | `admin-heads`, `head`, `receipt` | what admin records, the auditor's checkpoints and gateways' receipts say of a trail agrees with it |
//! | `as-of` | the trail reaches the time asked for (the admin trail, which may be quiet, excepted) |
//!
//! # The report
//! [`Report`] serialises to the JSON that the command prints: `v` (1), `outcome`, `exit_code`,
//! `summary`, `pinned`, `genesis`, `instance`, `first_broken` {trail, seq, check, expected, actual,
//! reason} or null, `trails` [{origin, admin, mode, records, proven {size, root, last_time} or null,
//! parts_given, parts_withheld, verdict}], `checks` [{name, trail?, verdict: passed | noted | failed
//! | not-checked, outcome, detail}]. 64-bit numbers are decimal strings, hashes lower-case hex.
//!
//! Withheld parts are reported and are no reservation: each proof holds without them.

mod anchors;
mod bundle;
mod chain;
mod exit;
mod genesis;
mod input;
mod known_tree;
mod locate;
mod manifest;
mod parallel;
mod parts;
mod records;
mod report;
mod signatures;
mod summary;
mod tally;
pub mod text;
mod trail;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use countersign_trail::admin::AdminState;
use countersign_trail::archive::Archive;
use countersign_trail::hash::Hash;
use countersign_trail::origin::Origin;
use countersign_trail::time::Timestamp;

use crate::anchors::Anchors;
use crate::bundle::Bundle;
use crate::input::TrailInput;
use crate::report::Checks;
use crate::trail::{Context, TrailFacts};

pub use crate::anchors::{KnownHead, KnownReceipt};
pub use crate::exit::{Outcome, USAGE};
pub use crate::report::{BrokenRecord, Check, Proven, Report, TrailReport, Verdict};

/// Told how many records are done, of how many.
pub type Progress<'a> = &'a (dyn Fn(u64, u64) + Sync);

/// What a verification is held against beside the pinned fingerprint.
#[derive(Clone, Default)]
pub struct Options<'a> {
    /// Signed checkpoints that the evidence must contain.
    pub heads: Vec<KnownHead>,
    /// A time that every exported trail but the admin trail must reach.
    pub as_of: Option<Timestamp>,
    /// Receipts whose records the evidence must contain.
    pub receipts: Vec<KnownReceipt>,
    /// Threads to use; 0 for as many as there are cores.
    pub threads: usize,
    /// Called from any of the threads after every 256 records at most.
    pub progress: Option<Progress<'a>>,
}

impl Options<'_> {
    /// Says of everything that was given that the evidence was not held against it.
    fn not_checked(&self, why: &str, checks: &mut Checks) {
        let given =
            [("head", !self.heads.is_empty()), ("receipt", !self.receipts.is_empty()), ("as-of", self.as_of.is_some())];
        for (name, _) in given.iter().filter(|(_, given)| *given) {
            checks.not_checked(name, None, why);
        }
    }
}

/// Verifies a bundle against a pinned genesis fingerprint. Without one everything else is checked,
/// and the outcome is [`Outcome::NotAnchored`] at best.
///
/// Never panics, whatever the bytes. Memory: the bundle, and some 200 bytes a record.
pub fn verify(bundle: &[u8], pinned: Option<Hash>, options: &Options<'_>) -> Report {
    let mut checks = Checks::default();
    let (bytes, damaged) = match bundle::open(bundle) {
        Ok(opened) => opened,
        Err(_) if !bundle.starts_with(b"PK") => return unreadable("not a zip archive", pinned, options, checks),
        Err(error) => return unreadable(error, pinned, options, checks),
    };
    match damaged.first() {
        None => checks.passed("archive", None, format!("{} bytes, of the strict profile", bundle.len())),
        Some(first) => {
            let files =
                report::count(damaged.len(), "file does not have its checksum", "files do not have their checksums");
            let problem = format!("{files}, the first is {first}");
            checks.failed("archive", None, Outcome::Malformed, problem);
        }
    }
    match Archive::parse(&bytes) {
        Ok(archive) => verify_bundle(&Bundle::new(archive), pinned, options, checks),
        Err(error) => unreadable(error, pinned, options, checks),
    }
}

/// The report where the archive cannot be opened.
fn unreadable(problem: impl ToString, pinned: Option<Hash>, options: &Options<'_>, mut checks: Checks) -> Report {
    checks.failed("archive", None, Outcome::Malformed, problem);
    let why = "the archive cannot be read: nothing in it was looked at";
    checks.not_checked("genesis", None, why);
    options.not_checked(why, &mut checks);
    summary::report(pinned, None, Vec::new(), None, checks)
}

fn verify_bundle(bundle: &Bundle<'_>, pinned: Option<Hash>, options: &Options<'_>, mut checks: Checks) -> Report {
    let threads = parallel::threads(options.threads);
    let state = genesis::begin(bundle, pinned, &mut checks);
    let Some(mut state) = state else {
        bundle.check_layout(None, &mut checks);
        manifest::check(bundle, None, threads, &mut checks);
        for origin in bundle.origins() {
            checks.not_checked("trail", Some(origin), genesis::NO_KEY);
        }
        options.not_checked(genesis::NO_KEY, &mut checks);
        return summary::report(pinned, None, Vec::new(), None, checks);
    };
    bundle.check_layout(Some(&state.plan.admin_trail), &mut checks);
    let inputs = inputs(bundle, &state, &mut checks);
    let admin_broken = match inputs.first().filter(|input| input.origin == state.plan.admin_trail) {
        Some(admin) => genesis::replay(&mut state, &admin.records, bundle, &mut checks),
        None => genesis::replay(&mut state, &[], bundle, &mut checks),
    };
    manifest::check_keys(bundle, &state, &mut checks);
    let withheld = manifest::check(bundle, Some(&state), threads, &mut checks);
    let total = inputs.iter().map(|input| input.records.len() as u64).sum();
    let done = AtomicU64::new(0);
    let progress = |records: u64| {
        let done = done.fetch_add(records, Ordering::Relaxed) + records;
        if let Some(progress) = options.progress {
            progress(done, total);
        }
    };
    let context = Context { state: &state, withheld: &withheld, threads, progress: &progress };
    let facts: Vec<TrailFacts> = inputs.iter().map(|input| trail::check(&context, input, &mut checks)).collect();
    let order: Vec<Origin> = facts.iter().map(|facts| facts.origin.clone()).collect();
    let trails: BTreeMap<Origin, TrailFacts> = facts.into_iter().map(|facts| (facts.origin.clone(), facts)).collect();
    let mut anchors = Anchors { state: &state, trails: &trails, known_beyond: BTreeMap::new() };
    anchors.check_links(&mut checks);
    anchors.check_noted(&mut checks);
    anchors.check_heads(&options.heads, &mut checks);
    anchors.check_receipts(&options.receipts, threads, &mut checks);
    if let Some(as_of) = options.as_of {
        anchors.check_as_of(as_of, &mut checks);
    }
    let known_beyond = anchors.known_beyond;
    let reports = order.iter().filter_map(|origin| trails.get(origin));
    let reports: Vec<TrailReport> = reports
        .map(|facts| summary::trail(facts, &state, pinned.is_some(), known_beyond.get(&facts.origin), &checks))
        .collect();
    let broken = order.iter().filter_map(|origin| trails.get(origin)).find_map(|facts| facts.broken.clone());
    // What the replay refuses is of the admin trail, which comes first.
    let broken = match (broken, admin_broken) {
        (Some(broken), Some(admin)) if broken.trail != admin.trail => Some(admin),
        (broken, admin) => broken.or(admin),
    };
    summary::report(pinned, Some(&state), reports, broken, checks)
}

/// The trails of the genesis that have files, the admin trail first; what does not fit is a check.
fn inputs<'a>(bundle: &'a Bundle<'a>, state: &AdminState, checks: &mut Checks) -> Vec<TrailInput<'a>> {
    let admin = &state.plan.admin_trail;
    let mut inputs = Vec::new();
    for (origin, entry) in std::iter::once((admin, &state.admin)).chain(&state.trails) {
        match bundle.trail(origin) {
            Some(files) => inputs.push(TrailInput::new(origin.clone(), entry.clone(), files)),
            None if origin == admin => {
                checks.failed(
                    "admin-files",
                    Some(origin),
                    Outcome::Malformed,
                    "the admin trail is not in the evidence",
                );
            }
            None => checks.not_checked("files", Some(origin), "the trail is not in this evidence"),
        }
    }
    for origin in bundle.origins().filter(|origin| state.trail(origin).is_none()) {
        checks.failed("files", Some(origin), Outcome::Tampered, "no trail of this genesis");
    }
    inputs
}
