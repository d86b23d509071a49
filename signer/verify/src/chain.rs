//! What only the records' order can show: the hash chain, times, silences, event ids.

use countersign_trail::admin::TrailEntry;
use countersign_trail::control::Body;
use countersign_trail::hash::Hash;
use countersign_trail::origin::Origin;
use countersign_trail::time::Timestamp;

use crate::exit::Outcome;
use crate::records::TileFacts;
use crate::report::{Checks, count};
use crate::tally::{Failure, Tally};

/// How many gaps are named in a check's detail.
const NAMED_GAPS: usize = 3;
/// The longest silence without a gap record, in microseconds: a heartbeat each hour at most, twice that
/// before a gap is due, and five minutes for a batch on its way.
const MAX_SILENCE_MICROS: i64 = (2 * 3600 + 300) * 1_000_000;

/// A trail walked from record 0.
pub(crate) struct Walk {
    /// Form, place, `prev` and time of every record.
    pub(crate) chain: Tally,
    /// Heartbeats and gaps say the time of the record before.
    pub(crate) silence: Tally,
    /// Time of the last record that could be read.
    pub(crate) last_time: Option<Timestamp>,
    /// Stretches without service, as gap records say, and longer ones that none speaks of.
    gaps: Vec<String>,
}

/// Walks the records up to the first that breaks the chain.
pub(crate) fn walk(entry: &TrailEntry, facts: &TileFacts) -> Walk {
    let mut walk = Walk { chain: facts.form.clone(), silence: Tally::default(), last_time: None, gaps: Vec::new() };
    let mut before = Some(entry.first_prev);
    for (seq, record) in (0u64..).zip(&facts.records) {
        let Some((prev, time)) = record.header else {
            // Counted by its form; the next record's prev still says which leaf stood here.
            before = record.leaf;
            continue;
        };
        if let Some(expected) = before.filter(|expected| *expected != prev) {
            let what = if seq == 0 { "what approved the trail has" } else { "the record before has" };
            let reason = format!("prev is {prev}, {what} {expected}");
            walk.chain.fail(Outcome::Tampered, Failure::hashes(seq, expected, prev, reason));
        }
        if let Some(last) = walk.last_time.filter(|last| time < *last) {
            let reason = format!("time {time} is before {last}, the time of the record before");
            walk.chain.fail(Outcome::Tampered, Failure::new(seq, reason));
        }
        if let Some(last) = walk.last_time
            && unsaid(facts, seq, last, time)
        {
            walk.gaps.push(format!("record {seq}: {last} to {time}, of which no gap record speaks"));
        }
        before = record.leaf;
        walk.last_time = Some(time);
    }
    walk.check_silences(facts);
    walk
}

/// Whether a trail was silent before record `seq` for longer than the daemon leaves unsaid. Between
/// record 0 and the next lies the ceremony.
fn unsaid(facts: &TileFacts, seq: u64, last: Timestamp, time: Timestamp) -> bool {
    let is_gap = || facts.silences.iter().any(|(at, body)| *at == seq && matches!(body, Body::Gap(_)));
    seq > 1 && time.as_micros().saturating_sub(last.as_micros()) > MAX_SILENCE_MICROS && !is_gap()
}

impl Walk {
    fn check_silences(&mut self, facts: &TileFacts) {
        let time_of = |seq: u64| {
            let record = facts.records.get(usize::try_from(seq).ok()?)?;
            record.header.map(|(_, time)| time)
        };
        for (seq, body) in &facts.silences {
            let (stated, end) = match body {
                Body::Heartbeat(body) => (body.since, None),
                Body::Gap(body) => (body.from, Some((body.to, &body.reason))),
                _ => continue,
            };
            if let Some((to, reason)) = end {
                self.gaps.push(format!("record {seq}: {stated} to {to} ({reason})"));
            }
            let before = seq.checked_sub(1).and_then(time_of);
            match before {
                Some(before) if before != stated => {
                    let reason = format!("speaks of a silence since {stated}, the record before is of {before}");
                    self.silence.fail(Outcome::Tampered, Failure::new(*seq, reason));
                }
                _ if end.is_some_and(|(to, _)| to < stated) => {
                    self.silence.fail(Outcome::Tampered, Failure::new(*seq, "a gap that ends before it begins"));
                }
                _ => self.silence.pass(),
            }
        }
    }

    /// Adds the check of silences: a gap is a reservation.
    pub(crate) fn report_gaps(&self, name: &'static str, origin: &Origin, checks: &mut Checks) {
        if self.silence.first().is_some() || self.gaps.is_empty() {
            let detail = match self.silence.passed() {
                0 => "no gap".to_owned(),
                beats => format!("no gap; {}", count(beats, "heartbeat", "heartbeats")),
            };
            self.silence.report(name, origin, detail, checks);
            return;
        }
        let named: Vec<&str> = self.gaps.iter().take(NAMED_GAPS).map(String::as_str).collect();
        let more = self.gaps.len().saturating_sub(NAMED_GAPS);
        let more = if more == 0 { String::new() } else { format!(", and {more} more") };
        let detail = format!("{} without service: {}{more}", self.gaps.len(), named.join(", "));
        checks.noted(name, Some(origin), Outcome::Reservations, detail);
    }
}

/// No (client, event_id) stands twice. Sorts the list.
pub(crate) fn event_ids(ids: &mut [(Hash, u64)]) -> Tally {
    let mut tally = Tally::default();
    ids.sort_unstable();
    for pair in ids.windows(2) {
        if pair[0].0 == pair[1].0 {
            let reason = format!("its client used the same event_id for record {}", pair[0].1);
            tally.fail(Outcome::Tampered, Failure::new(pair[1].1, reason));
        }
    }
    tally
}
