//! Counts of one check over many records, and its first failure.

use countersign_trail::hash::Hash;
use countersign_trail::origin::Origin;

use crate::exit::Outcome;
use crate::report::{BrokenRecord, Checks};

/// A record that fails a check.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) seq: u64,
    pub(crate) expected: Option<Hash>,
    pub(crate) actual: Option<Hash>,
    pub(crate) reason: String,
}

impl Failure {
    pub(crate) fn new(seq: u64, reason: impl ToString) -> Failure {
        Failure { seq, expected: None, actual: None, reason: reason.to_string() }
    }

    pub(crate) fn hashes(seq: u64, expected: Hash, actual: Hash, reason: impl ToString) -> Failure {
        Failure { seq, expected: Some(expected), actual: Some(actual), reason: reason.to_string() }
    }
}

/// A check over many records.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    passed: usize,
    failed: usize,
    outcome: Outcome,
    first: Option<Failure>,
    /// The first problem with a file of a whole tile: first record of the tile, and what is wrong.
    file: Option<(u64, String)>,
}

impl Default for Tally {
    fn default() -> Tally {
        Tally { passed: 0, failed: 0, outcome: Outcome::Valid, first: None, file: None }
    }
}

impl Tally {
    pub(crate) fn pass(&mut self) {
        self.passed += 1;
    }

    pub(crate) fn fail(&mut self, outcome: Outcome, failure: Failure) {
        self.failed += 1;
        self.outcome = self.outcome.max(outcome);
        if self.first.as_ref().is_none_or(|first| failure.seq < first.seq) {
            self.first = Some(failure);
        }
    }

    /// A file beside the tile that begins with record `first` is missing or cannot be read; no
    /// record of it is to blame.
    pub(crate) fn fail_file(&mut self, outcome: Outcome, first: u64, reason: impl ToString) {
        self.outcome = self.outcome.max(outcome);
        self.file.get_or_insert_with(|| (first, reason.to_string()));
    }

    pub(crate) fn merge(&mut self, other: Tally) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.outcome = self.outcome.max(other.outcome);
        self.file = self.file.take().or(other.file);
        let earlier = |other: &Failure| self.first.as_ref().is_none_or(|first| other.seq < first.seq);
        if let Some(failure) = other.first.filter(earlier) {
            self.first = Some(failure);
        }
    }

    pub(crate) fn passed(&self) -> usize {
        self.passed
    }

    pub(crate) fn first(&self) -> Option<&Failure> {
        self.first.as_ref()
    }

    /// Adds the check; `passed` is its detail where nothing failed.
    pub(crate) fn report(&self, name: &'static str, origin: &Origin, passed: impl ToString, checks: &mut Checks) {
        if let Some((first, reason)) = &self.file {
            let detail = format!("records from {first} on: {reason}");
            checks.failed(name, Some(origin), self.outcome, detail);
            return;
        }
        match &self.first {
            None => checks.passed(name, Some(origin), passed),
            Some(first) => {
                let others = match self.failed {
                    1 => String::new(),
                    failed => format!(" (and {} more)", failed - 1),
                };
                let detail = format!("record {}: {}{others}", first.seq, first.reason);
                checks.failed(name, Some(origin), self.outcome, detail);
            }
        }
    }

    /// The first failure, as the report names it.
    pub(crate) fn broken(&self, name: &'static str, origin: &Origin) -> Option<BrokenRecord> {
        self.first.as_ref().map(|first| BrokenRecord {
            trail: origin.clone(),
            seq: first.seq,
            check: name,
            expected: first.expected,
            actual: first.actual,
            reason: first.reason.clone(),
        })
    }
}
