//! Latencies, counted in bounded memory.

use std::time::Duration;

/// Buckets within one power of two: no figure is off by more than 1/32.
const STEPS: u64 = 32;
/// Powers of two above the first bucket: up to 2^37 microseconds, some 38 hours.
const POWERS: usize = 32;

/// Counts of latencies in microseconds, in 33 * 32 buckets.
pub(super) struct Latencies {
    counts: Vec<u64>,
    count: u64,
    longest: Duration,
}

impl Latencies {
    /// None yet.
    pub(super) fn new() -> Latencies {
        Latencies { counts: vec![0; (POWERS + 1) * STEPS as usize], count: 0, longest: Duration::ZERO }
    }

    /// Counts one.
    pub(super) fn record(&mut self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        let at = bucket(micros).min(self.counts.len() - 1);
        self.counts[at] += 1;
        self.count += 1;
        self.longest = self.longest.max(latency);
    }

    /// The latency that `percent` of all do not exceed, in milliseconds; 0 without any.
    pub(super) fn percentile(&self, percent: u64) -> f64 {
        let rank = (self.count * percent).div_ceil(100).max(1);
        let mut seen = 0;
        for (at, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return (upper(at) as f64 / 1e3).min(self.longest_ms());
            }
        }
        0.0
    }

    /// The longest, in milliseconds.
    pub(super) fn longest_ms(&self) -> f64 {
        self.longest.as_secs_f64() * 1e3
    }
}

/// Below 32 each value has its bucket; above, each power of two has 32.
fn bucket(micros: u64) -> usize {
    let power = (64 - (micros / STEPS).leading_zeros()).saturating_sub(1);
    let step = micros >> power;
    if micros < STEPS { micros as usize } else { (u64::from(power) * STEPS + step) as usize }
}

/// The largest value of a bucket.
fn upper(at: usize) -> u64 {
    let at = at as u64;
    if at < 2 * STEPS {
        return at;
    }
    let power = at / STEPS - 1;
    let step = at - power * STEPS;
    ((step + 1) << power) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_its_bucket() {
        let mut last = 0;
        for micros in (0..10_000).chain([1 << 20, (1 << 20) + 77, 1 << 36]) {
            let at = bucket(micros);
            assert!(at >= last && upper(at) >= micros, "{micros} in {at}");
            assert!(upper(at) - micros <= micros / STEPS, "{micros} in {at}: up to {}", upper(at));
            last = at;
        }
    }

    #[test]
    fn percentiles_of_a_hundred() {
        let mut latencies = Latencies::new();
        assert_eq!(latencies.percentile(50), 0.0);
        for ms in 1..=100 {
            latencies.record(Duration::from_millis(ms));
        }
        let close = |found: f64, want: f64| assert!((found - want).abs() <= want / 32.0, "{found}, not {want}");
        close(latencies.percentile(50), 50.0);
        close(latencies.percentile(99), 99.0);
        assert_eq!(latencies.percentile(100), 100.0);
        latencies.record(Duration::from_secs(1 << 40));
        assert_eq!(latencies.longest_ms(), (1u64 << 40) as f64 * 1e3);
    }
}
