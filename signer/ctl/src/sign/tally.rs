//! What came of the events, counted.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::latency::Latencies;
use crate::exit::{Exit, Failure};
use crate::output::{fields, plain};

/// The most refusals that are listed one by one; all are counted.
const MAX_LISTED: usize = 1_000;

/// Counts of a run.
pub(super) struct Tally {
    trail: String,
    began: Instant,
    signed: u64,
    refused: u64,
    failed: u64,
    first_seq: Option<u64>,
    last_seq: Option<u64>,
    listed: Vec<Refused>,
    latencies: Latencies,
    worst: Option<Failure>,
}

/// One refused event.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Refused {
    line: u64,
    reason: String,
    message: String,
}

/// What is shown at the end.
#[derive(Serialize)]
pub(super) struct Summary {
    trail: String,
    signed: u64,
    refused: u64,
    failed: u64,
    first_seq: Option<u64>,
    last_seq: Option<u64>,
    seconds: f64,
    rate_per_second: f64,
    /// Of each message, from its sending to its checked answer.
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
    refusals: Vec<Refused>,
}

impl Tally {
    /// Nothing yet; the clock starts.
    pub(super) fn new(trail: String) -> Tally {
        Tally {
            trail,
            began: Instant::now(),
            signed: 0,
            refused: 0,
            failed: 0,
            first_seq: None,
            last_seq: None,
            listed: Vec::new(),
            latencies: Latencies::new(),
            worst: None,
        }
    }

    /// An event is signed.
    pub(super) fn signed(&mut self, seq: u64) {
        self.signed += 1;
        self.first_seq = Some(self.first_seq.map_or(seq, |first| first.min(seq)));
        self.last_seq = Some(self.last_seq.map_or(seq, |last| last.max(seq)));
    }

    /// An event is refused, and said to be on standard error.
    pub(super) fn refused(&mut self, line: u64, reason: &str, message: &str) {
        self.refused += 1;
        let refused = Refused { line, reason: plain(reason), message: plain(message) };
        if self.listed.len() < MAX_LISTED {
            eprintln!("line {line}: refused: {}: {}", refused.reason, refused.message);
            self.listed.push(refused);
        }
    }

    /// An event failed otherwise. An alarm outweighs everything else.
    pub(super) fn failed(&mut self, line: u64, failure: Failure) {
        self.failed += 1;
        let alarm = |failure: &Failure| matches!(failure.exit, Exit::Fork | Exit::Tampered);
        if self.failed <= MAX_LISTED as u64 {
            eprintln!("line {line}: {}", crate::output::plain_lines(&failure.to_string()));
        }
        if self.worst.as_ref().is_none_or(|worst| alarm(&failure) && !alarm(worst)) {
            self.worst = Some(Failure::new(failure.exit, format!("line {line}: {failure}")));
        }
    }

    /// A message is answered and checked.
    pub(super) fn answered(&mut self, latency: Duration) {
        self.latencies.record(latency);
    }

    /// Events that something came of.
    pub(super) fn done(&self) -> u64 {
        self.signed + self.refused + self.failed
    }

    /// Everything, for printing.
    pub(super) fn summary(&self) -> Summary {
        let seconds = self.began.elapsed().as_secs_f64();
        let latencies = &self.latencies;
        Summary {
            trail: self.trail.clone(),
            signed: self.signed,
            refused: self.refused,
            failed: self.failed,
            first_seq: self.first_seq,
            last_seq: self.last_seq,
            seconds,
            rate_per_second: if seconds > 0.0 { self.signed as f64 / seconds } else { 0.0 },
            p50_ms: latencies.percentile(50),
            p99_ms: latencies.percentile(99),
            max_ms: latencies.longest_ms(),
            refusals: self.listed.clone(),
        }
    }

    /// Why the run did not succeed, though its input came to its end.
    pub(super) fn take_failure(&mut self) -> Option<Failure> {
        let refused = self.refused;
        self.worst.take().or_else(|| {
            (refused > 0).then(|| {
                Failure::new(Exit::Refused, format!("{refused} of {} events were refused", self.done())).todo(
                    "The reasons stand above, by line. Correct those lines and send them again; the others are signed.",
                )
            })
        })
    }
}

/// The summary for people.
pub(super) fn text(summary: &Summary) -> String {
    let range = match (summary.first_seq, summary.last_seq) {
        (Some(first), Some(last)) => format!(", records {first} to {last}"),
        _ => String::new(),
    };
    let checked = if summary.signed > 0 { ", every answer checked" } else { "" };
    let mut rows = vec![("Trail", summary.trail.clone()), ("Signed", format!("{}{range}{checked}", summary.signed))];
    if summary.refused + summary.failed > 0 {
        rows.push(("Not signed", format!("{} refused, {} failed", summary.refused, summary.failed)));
    }
    if summary.signed > 0 {
        let Summary { p50_ms, p99_ms, max_ms, .. } = summary;
        let times = format!("p50 {p50_ms:.2} ms, p99 {p99_ms:.2} ms, longest {max_ms:.2} ms");
        rows.push(("Rate", format!("{:.0} events a second, {:.2} s", summary.rate_per_second, summary.seconds)));
        rows.push(("Latency", format!("{times} (a message, from sending to checked answer)")));
    }
    fields(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_outweighs_refusals_and_failures() {
        let mut tally = Tally::new("acme.example/t".to_owned());
        assert!(tally.take_failure().is_none());
        tally.refused(1, "INVALID_EVENT", "x");
        assert_eq!(tally.take_failure().unwrap().exit, Exit::Refused);
        tally.failed(2, Failure::new(Exit::Unavailable, "gone"));
        tally.failed(3, Failure::new(Exit::Tampered, "forged"));
        tally.failed(4, Failure::new(Exit::Unavailable, "gone"));
        assert_eq!(tally.done(), 4);
        assert_eq!(tally.take_failure().unwrap().exit, Exit::Tampered);
    }

    #[test]
    fn what_is_listed_has_a_bound() {
        let mut tally = Tally::new("acme.example/t".to_owned());
        for line in 0..MAX_LISTED as u64 + 5 {
            tally.refused(line, "INVALID_EVENT", "x");
        }
        assert_eq!((tally.summary().refused, tally.summary().refusals.len()), (MAX_LISTED as u64 + 5, MAX_LISTED));
    }
}
