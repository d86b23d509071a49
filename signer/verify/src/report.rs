//! The result of a verification: named checks, trails, and the first broken record.
//!
//! Serialised, this is what `--json` prints; see the crate's documentation for the shape.

use countersign_trail::hash::Hash;
use countersign_trail::id::InstanceId;
use countersign_trail::origin::Origin;
use countersign_trail::time::Timestamp;
use serde::{Serialize, Serializer};

use crate::exit::Outcome;

/// The longest detail, in characters: parsers quote what they found, bounded themselves.
const MAX_DETAIL: usize = 600;

/// The verdict of one check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It holds.
    Passed,
    /// It holds, and there is something to know.
    Noted,
    /// It does not hold.
    Failed,
    /// It was not made, or not for all that it speaks of; the detail says why.
    NotChecked,
}

impl Verdict {
    /// The word in tables.
    pub fn word(self) -> &'static str {
        match self {
            Verdict::Passed => "passed",
            Verdict::Noted => "noted",
            Verdict::Failed => "FAILED",
            Verdict::NotChecked => "not checked",
        }
    }
}

/// A named link of the chain of proof, with its verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Its stable name.
    pub name: &'static str,
    /// The trail that it speaks of; none for the whole bundle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trail: Option<Origin>,
    /// What came out.
    pub verdict: Verdict,
    /// What this check alone would make of the evidence.
    pub outcome: Outcome,
    /// What was checked, what is wrong, or why it was not checked.
    pub detail: String,
}

/// A record that is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BrokenRecord {
    /// The trail.
    pub trail: Origin,
    /// The place.
    #[serde(serialize_with = "decimal")]
    pub seq: u64,
    /// The check that found it.
    pub check: &'static str,
    /// The hash that should be there, where one is known.
    pub expected: Option<Hash>,
    /// The hash that is there, where there is one.
    pub actual: Option<Hash>,
    /// What is wrong.
    pub reason: String,
}

/// What the evidence proves of a trail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TrailReport {
    /// The trail.
    pub origin: Origin,
    /// Whether this is the admin trail.
    pub admin: bool,
    /// `record` or `batch`.
    pub mode: &'static str,
    /// Records in the evidence.
    #[serde(serialize_with = "decimal")]
    pub records: u64,
    /// What is proven; none where a check of the trail failed.
    pub proven: Option<Proven>,
    /// Parts that are there and fit their commitments.
    #[serde(serialize_with = "decimal")]
    pub parts_given: u64,
    /// Parts that are withheld: committed to, not shown.
    #[serde(serialize_with = "decimal")]
    pub parts_withheld: u64,
    /// One line: "proven to size N, last time T, nothing known after".
    pub verdict: String,
}

/// A proven head.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Proven {
    /// Number of records.
    #[serde(serialize_with = "decimal")]
    pub size: u64,
    /// RFC 6962 root at `size`.
    pub root: Hash,
    /// Time of the last record.
    pub last_time: Option<Timestamp>,
}

/// The whole result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// 1.
    pub v: u64,
    /// The heaviest finding.
    pub outcome: Outcome,
    /// Its exit code.
    pub exit_code: u8,
    /// One line for people.
    pub summary: String,
    /// The fingerprint that was pinned.
    pub pinned: Option<Hash>,
    /// The fingerprint of the genesis that the evidence was held against.
    pub genesis: Option<Hash>,
    /// The appliance, from that genesis.
    pub instance: Option<InstanceId>,
    /// The first broken record: of the admin trail, else of the first trail that has one.
    pub first_broken: Option<BrokenRecord>,
    /// The admin trail, then the others.
    pub trails: Vec<TrailReport>,
    /// Every check, in the order of the chain of proof.
    pub checks: Vec<Check>,
}

fn decimal<S: Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// Collects checks.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    list: Vec<Check>,
}

impl Checks {
    fn add(
        &mut self,
        name: &'static str,
        trail: Option<&Origin>,
        verdict: Verdict,
        outcome: Outcome,
        detail: impl ToString,
    ) {
        let detail = printable(&detail.to_string());
        self.list.push(Check { name, trail: trail.cloned(), verdict, outcome, detail });
    }

    /// It holds.
    pub(crate) fn passed(&mut self, name: &'static str, trail: Option<&Origin>, detail: impl ToString) {
        self.add(name, trail, Verdict::Passed, Outcome::Valid, detail);
    }

    /// It holds, with something to know.
    pub(crate) fn noted(
        &mut self,
        name: &'static str,
        trail: Option<&Origin>,
        outcome: Outcome,
        detail: impl ToString,
    ) {
        self.add(name, trail, Verdict::Noted, outcome, detail);
    }

    /// It does not hold.
    pub(crate) fn failed(
        &mut self,
        name: &'static str,
        trail: Option<&Origin>,
        outcome: Outcome,
        detail: impl ToString,
    ) {
        self.add(name, trail, Verdict::Failed, outcome, detail);
    }

    /// It was not made, and alone that weighs nothing: what hindered it does.
    pub(crate) fn not_checked(&mut self, name: &'static str, trail: Option<&Origin>, why: impl ToString) {
        self.add(name, trail, Verdict::NotChecked, Outcome::Valid, why);
    }

    /// It could not be made because the evidence does not reach that far.
    pub(crate) fn beyond(&mut self, name: &'static str, trail: Option<&Origin>, why: impl ToString) {
        self.add(name, trail, Verdict::NotChecked, Outcome::Incomplete, why);
    }

    /// Passed or failed, as a result says.
    pub(crate) fn result<E: ToString>(
        &mut self,
        name: &'static str,
        trail: Option<&Origin>,
        result: Result<impl ToString, (Outcome, E)>,
    ) {
        match result {
            Ok(detail) => self.passed(name, trail, detail),
            Err((outcome, problem)) => self.failed(name, trail, outcome, problem.to_string()),
        }
    }

    /// Whether a check of the trail (of the whole bundle, for none) failed for more than being
    /// incomplete. A forged head or receipt from elsewhere says nothing against the evidence.
    pub(crate) fn any_failed_beyond_incomplete(&self, trail: Option<&Origin>) -> bool {
        let forged_elsewhere =
            |check: &Check| matches!(check.name, "head" | "receipt") && check.outcome == Outcome::Tampered;
        let broken = |check: &Check| {
            check.verdict == Verdict::Failed && check.outcome > Outcome::Incomplete && !forged_elsewhere(check)
        };
        self.list.iter().any(|check| check.trail.as_ref() == trail && broken(check))
    }

    /// The heaviest outcome.
    pub(crate) fn outcome(&self) -> Outcome {
        self.list.iter().map(|check| check.outcome).max().unwrap_or(Outcome::Valid)
    }

    /// The first check with this outcome.
    pub(crate) fn first(&self, outcome: Outcome) -> Option<&Check> {
        self.list.iter().find(|check| check.outcome == outcome)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    /// Takes the last one away.
    pub(crate) fn pop(&mut self) -> Option<Check> {
        self.list.pop()
    }

    /// Adds all of another list.
    pub(crate) fn append(&mut self, other: Checks) {
        self.list.extend(other.list);
    }

    pub(crate) fn into_list(self) -> Vec<Check> {
        self.list
    }
}

/// A number and what is counted.
pub(crate) fn count(n: usize, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

/// Text that is safe on a terminal: what evidence says may hold escape sequences.
pub(crate) fn printable(text: &str) -> String {
    let mut safe: String = text.chars().take(MAX_DETAIL).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if text.chars().nth(MAX_DETAIL).is_some() {
        safe.push('…');
    }
    safe
}
