//! From checks to verdicts: one line for each trail, one for the whole.

use countersign_trail::admin::AdminState;
use countersign_trail::hash::Hash;
use countersign_trail::time::Timestamp;

use crate::exit::Outcome;
use crate::report::{BrokenRecord, Checks, Proven, Report, TrailReport, count, printable};
use crate::trail::TrailFacts;

/// What one trail comes to.
pub(crate) fn trail(
    facts: &TrailFacts,
    state: &AdminState,
    pinned: bool,
    known_beyond: Option<&(u64, Option<Timestamp>)>,
    checks: &Checks,
) -> TrailReport {
    let origin = &facts.origin;
    // A trail is proven by its own checks, and by those of what leads to its keys.
    let leads = [None, Some(&state.plan.admin_trail)];
    let broken = leads.into_iter().chain([Some(origin)]).any(|trail| checks.any_failed_beyond_incomplete(trail));
    let signed = facts.signed.as_ref().filter(|signed| signed.size == facts.records);
    let proven = signed.filter(|_| !broken).map(|signed| Proven {
        size: signed.size,
        root: signed.root,
        last_time: facts.last_time,
    });
    TrailReport {
        origin: origin.clone(),
        admin: *origin == state.plan.admin_trail,
        mode: facts.entry.mode.word(),
        records: facts.records,
        verdict: verdict(proven.as_ref(), pinned, known_beyond),
        proven,
        parts_given: facts.part_counts.given,
        parts_withheld: facts.part_counts.withheld,
    }
}

fn verdict(proven: Option<&Proven>, pinned: bool, known_beyond: Option<&(u64, Option<Timestamp>)>) -> String {
    let Some(proven) = proven else {
        return "nothing is proven".to_owned();
    };
    let last = proven.last_time.map_or("none".to_owned(), |time| time.to_string());
    let after = match known_beyond {
        None => "nothing known after".to_owned(),
        Some((size, Some(time))) => format!("known to go on to size {size}, time {time} at least"),
        Some((size, None)) => format!("known to go on to size {size} at least"),
    };
    let how = if pinned { "proven" } else { "consistent, not anchored," };
    format!("{how} to size {}, last time {last}, {after}", proven.size)
}

/// The report over everything.
pub(crate) fn report(
    pinned: Option<Hash>,
    state: Option<&AdminState>,
    trails: Vec<TrailReport>,
    first_broken: Option<BrokenRecord>,
    checks: Checks,
) -> Report {
    let outcome = checks.outcome();
    let first_broken = first_broken.map(|broken| BrokenRecord { reason: printable(&broken.reason), ..broken });
    Report {
        v: 1,
        outcome,
        exit_code: outcome.exit_code(),
        summary: summary(outcome, &trails, first_broken.as_ref(), &checks),
        pinned,
        genesis: state.map(|state| state.fingerprint),
        instance: state.map(|state| state.plan.instance.clone()),
        first_broken,
        trails,
        checks: checks.into_list(),
    }
}

fn summary(outcome: Outcome, trails: &[TrailReport], broken: Option<&BrokenRecord>, checks: &Checks) -> String {
    let records: u64 = trails.iter().filter(|trail| !trail.admin).map(|trail| trail.records).sum();
    let exported = trails.iter().filter(|trail| !trail.admin).count();
    let records = usize::try_from(records).unwrap_or(usize::MAX);
    let extent = format!("{} in {}", count(records, "record", "records"), count(exported, "trail", "trails"));
    let why = checks.first(outcome).map_or(String::new(), |check| {
        let trail = check.trail.as_ref().map(|trail| format!(" of {trail}")).unwrap_or_default();
        format!("{}{trail}: {}", check.name, check.detail)
    });
    match (outcome, broken) {
        (Outcome::Valid, _) => format!("VALID: {extent}, proven from the pinned genesis on"),
        (Outcome::NotAnchored, _) => {
            let reserved = checks.first(Outcome::Reservations).map_or("", |_| ", with reservations");
            format!(
                "CONSISTENT, NOT ANCHORED: {extent} hold together{reserved}; pin a genesis fingerprint to know whose they are"
            )
        }
        (Outcome::Reservations, _) => format!("VALID WITH RESERVATIONS: {extent}; {why}"),
        (Outcome::Incomplete, _) => format!("INCOMPLETE: {extent}; {why}"),
        (Outcome::Fork, _) => format!("FORK: two signed histories exist; {why}"),
        (Outcome::Tampered, Some(broken)) => {
            format!("TAMPERED: first broken is record {} of {}: {}", broken.seq, broken.trail, broken.reason)
        }
        (Outcome::Tampered, None) => format!("TAMPERED: {why}"),
        (Outcome::Malformed, _) => format!("MALFORMED: {why}"),
    }
}
