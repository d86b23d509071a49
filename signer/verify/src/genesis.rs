//! From the pinned fingerprint to the keys: documents, genesis, plan, probes, the people's
//! signatures, and the admin trail record by record.

use countersign_trail::admin::{AdminError, AdminState};
use countersign_trail::document::{Genesis, Plan};
use countersign_trail::hash::Hash;

use crate::bundle::Bundle;
use crate::exit::Outcome;
use crate::report::{BrokenRecord, Checks, count};

/// Why nothing is checked that needs a key.
pub(crate) const NO_KEY: &str = "the genesis does not hold: no key is known";

/// Begins from the pinned fingerprint, or, where nothing is pinned, from the one genesis document
/// in the bundle. None where no key can be known.
pub(crate) fn begin(bundle: &Bundle<'_>, pinned: Option<Hash>, checks: &mut Checks) -> Option<AdminState> {
    check_document_hashes(bundle, checks);
    let state = fingerprint(bundle, pinned).and_then(|fingerprint| steps(bundle, fingerprint, pinned, checks));
    match state {
        Ok(state) => Some(state),
        Err((name, outcome, problem)) => {
            checks.failed(name, None, outcome, problem);
            let order = ["genesis", "plan", "genesis-keys"];
            let later = order.iter().skip_while(|step| **step != name).skip(1);
            let rest = ["genesis-signatures", "genesis-sealed", "keys-file", "jwks", "pem", "vkeys"];
            for step in later.chain(&rest) {
                checks.not_checked(step, None, NO_KEY);
            }
            None
        }
    }
}

type Problem = (&'static str, Outcome, String);

fn steps(
    bundle: &Bundle<'_>,
    fingerprint: Hash,
    pinned: Option<Hash>,
    checks: &mut Checks,
) -> Result<AdminState, Problem> {
    let failed = |name, problem: &dyn ToString| (name, Outcome::Tampered, problem.to_string());
    let document = |hash: &Hash| bundle.documents().get(hash).copied().filter(|bytes| Hash::of(bytes) == *hash);
    let bytes = document(&fingerprint).ok_or_else(|| failed("genesis", &absent(bundle, fingerprint)))?;
    let genesis = Genesis::parse(bytes).map_err(|error| failed("genesis", &error))?;
    match pinned {
        Some(_) => checks.passed("genesis", None, format!("has the pinned fingerprint {fingerprint}")),
        None => checks.noted(
            "genesis",
            None,
            Outcome::NotAnchored,
            format!("nothing is pinned: compare the fingerprint {fingerprint} with one from the ceremony"),
        ),
    }
    let missing = || failed("plan", &format!("the plan {} is missing, or its bytes are others", genesis.plan));
    let plan = document(&genesis.plan).ok_or_else(missing)?;
    let plan = Plan::parse(plan).map_err(|error| failed("plan", &error))?;
    let (people, trails) = (plan.administrators().count(), plan.trails.len());
    checks.passed(
        "plan",
        None,
        format!("{people} administrators, {}, as the genesis names it", count(trails, "trail", "trails")),
    );
    // Genesis and plan parse, so what is refused here is what the genesis says of its keys.
    let state = AdminState::begin(fingerprint, bundle);
    let state = state.map_err(|error| failed("genesis-keys", &error))?;
    let detail =
        format!("{} keys as planned, not extractable, each with a probe that its key signed", state.keys.len());
    checks.passed("genesis-keys", None, detail);
    Ok(state)
}

fn fingerprint(bundle: &Bundle<'_>, pinned: Option<Hash>) -> Result<Hash, Problem> {
    if let Some(pinned) = pinned {
        return Ok(pinned);
    }
    let found = genesis_documents(bundle);
    match found.as_slice() {
        [only] => Ok(*only),
        several => {
            let problem = format!("{} genesis documents in the evidence, wants one", several.len());
            Err(("genesis", Outcome::Malformed, problem))
        }
    }
}

fn genesis_documents(bundle: &Bundle<'_>) -> Vec<Hash> {
    let is_genesis = |(hash, bytes): (&Hash, &&[u8])| Genesis::parse(bytes).ok().map(|_| *hash);
    bundle.documents().iter().filter_map(is_genesis).collect()
}

fn absent(bundle: &Bundle<'_>, fingerprint: Hash) -> String {
    if bundle.documents().contains_key(&fingerprint) {
        return format!("the document {fingerprint} does not have the hash that names it");
    }
    match genesis_documents(bundle).first() {
        Some(other) => {
            format!("the evidence is of genesis {other}, not of the pinned {fingerprint}")
        }
        None => format!("the evidence holds no genesis document {fingerprint}"),
    }
}

fn check_document_hashes(bundle: &Bundle<'_>, checks: &mut Checks) {
    let wrong = bundle.documents().iter().find(|(hash, bytes)| Hash::of(bytes) != **hash);
    let result = match wrong {
        Some((hash, bytes)) => {
            Err((Outcome::Tampered, format!("the document named {hash} has SHA-256 {}", Hash::of(bytes))))
        }
        None => Ok(format!(
            "{}, each with the hash that names it",
            count(bundle.documents().len(), "document", "documents")
        )),
    };
    checks.result("documents", None, result);
}

/// Applies the admin trail's records to `state`, and gives the record that is refused, if one is.
pub(crate) fn replay(
    state: &mut AdminState,
    records: &[Option<&[u8]>],
    bundle: &Bundle<'_>,
    checks: &mut Checks,
) -> Option<BrokenRecord> {
    let admin = state.plan.admin_trail.clone();
    let mut applied = 0u64;
    let mut refused = None;
    for record in records.iter().map_while(|record| *record) {
        match state.apply(record, bundle) {
            Ok(_) => applied += 1,
            Err(error) => {
                refused = Some(error);
                break;
            }
        }
    }
    let sealed = state.require_sealed();
    let signature_refused = matches!(&refused, Some(error) if error.check() == "genesis-signatures");
    match &refused {
        None => {
            let records = count(usize::try_from(applied).unwrap_or(usize::MAX), "record", "records");
            checks.passed("admin-records", Some(&admin), format!("{records}, each allowed where it stands"))
        }
        Some(error) if signature_refused => {
            checks.failed("genesis-signatures", None, Outcome::Tampered, error);
            checks.not_checked("admin-records", Some(&admin), format!("from record {applied} on: {error}"));
        }
        // The chain's own check says what is wrong with it.
        Some(error @ AdminError::Chain(_)) => {
            checks.not_checked("admin-records", Some(&admin), format!("from record {applied} on: {error}"));
        }
        Some(error) => checks.failed("admin-records", Some(&admin), Outcome::Tampered, error),
    }
    match &sealed {
        Ok(()) => {
            let people = state.plan.administrators().count();
            let detail = format!("all {people} administrators of the plan signed the genesis document");
            checks.passed("genesis-signatures", None, detail);
            checks.passed("genesis-sealed", None, "admin record 1 seals the genesis");
        }
        Err(error) => {
            if !signature_refused {
                checks.not_checked("genesis-signatures", None, "the record that holds them is not there or is refused");
            }
            let problem = match refused {
                Some(_) => format!("record {applied} is refused, so the genesis is not sealed"),
                None => error.to_string(),
            };
            checks.failed("genesis-sealed", None, Outcome::Tampered, problem);
        }
    }
    check_named_documents(state, bundle, refused.is_none() && sealed.is_ok(), checks);
    refused.map(|error| BrokenRecord {
        trail: admin,
        seq: applied,
        check: "admin-records",
        expected: None,
        actual: None,
        reason: error.to_string(),
    })
}

/// Exactly the documents that the admin trail names are in the bundle.
fn check_named_documents(state: &AdminState, bundle: &Bundle<'_>, complete: bool, checks: &mut Checks) {
    if !complete {
        checks.not_checked("documents-named", None, "the admin trail was not replayed to its end");
        return;
    }
    let extra = bundle.documents().keys().find(|hash| !state.documents.contains(hash));
    let result = match extra {
        Some(hash) => Err((Outcome::Tampered, format!("the document {hash} is named by no admin record"))),
        None => Ok(format!("the {} documents that the admin trail names, and no other", state.documents.len())),
    };
    checks.result("documents-named", None, result);
}
