//! Finds steps of the wall clock.
//!
//! The time in records comes from the wall clock, which anyone with the right can set. Between two
//! looks the wall clock must advance as CLOCK_BOOTTIME does, which nobody can set and which goes on
//! during suspend. A larger difference is a step, and stays one until somebody confirms it: the
//! daemon stops issuing (CLOCK_STEP). At start, the last record takes the place of the earlier look.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use countersign_trail::time::Timestamp;
use rustix::time::{ClockId, clock_gettime};

/// What a look at the clock shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockState {
    /// As expected.
    Steady,
    /// It stepped.
    Stepped {
        /// Where the clock should be.
        expected: Timestamp,
        /// Where it was found.
        found: Timestamp,
    },
}

/// Both clocks at one moment, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// Wall clock since 1970.
    pub wall: i64,
    /// CLOCK_BOOTTIME, since the host's start.
    pub boot: i64,
}

impl Reading {
    /// Reads both clocks.
    pub fn take() -> Reading {
        let boot = clock_gettime(ClockId::Boottime);
        let boot = boot.tv_sec.saturating_mul(1_000_000).saturating_add(boot.tv_nsec / 1_000);
        let wall = match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => micros(since),
            Err(before) => -micros(before.duration()),
        };
        Reading { wall, boot }
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// A time for messages: the nearest one that a [`Timestamp`] can name.
fn nearest(micros: i64) -> Timestamp {
    const LAST: i64 = 253_402_300_799_999_999; // end of year 9999
    Timestamp::from_micros(micros.clamp(0, LAST)).unwrap_or(Timestamp::EPOCH)
}

/// Compares each reading with the first one, so that many small steps add up to a large one.
#[derive(Debug)]
pub struct StepDetector {
    anchor: Reading,
    max_step: Duration,
    found: Option<ClockState>,
}

impl StepDetector {
    /// Begins at `anchor`. A difference of more than `max_step` is a step.
    pub fn new(anchor: Reading, max_step: Duration) -> StepDetector {
        StepDetector { anchor, max_step, found: None }
    }

    /// Looks at a reading. A step, once found, is given until it is confirmed.
    pub fn check(&mut self, reading: Reading) -> ClockState {
        if let Some(found) = self.found {
            return found;
        }
        let state = compare(self.expected(reading), reading.wall, self.max_step, self.max_step);
        if state != ClockState::Steady {
            self.found = Some(state);
        }
        state
    }

    /// The wall clock that CLOCK_BOOTTIME gives at a reading, in microseconds since 1970.
    pub fn expected(&self, reading: Reading) -> i64 {
        self.anchor.wall.saturating_add(reading.boot.saturating_sub(self.anchor.boot))
    }

    /// Begins anew at a reading whose wall clock is right.
    pub fn confirm(&mut self, reading: Reading) {
        self.anchor = reading;
        self.found = None;
    }
}

/// At start: the clock may lie beyond the last record by `max_gap` (the daemon was off), and before
/// it by `max_step`.
pub fn check_at_start(last_record: Timestamp, wall: i64, max_gap: Duration, max_step: Duration) -> ClockState {
    compare(last_record.as_micros(), wall, max_gap, max_step)
}

fn compare(expected: i64, found: i64, max_ahead: Duration, max_behind: Duration) -> ClockState {
    let ahead = found.saturating_sub(expected);
    if ahead > micros(max_ahead) || ahead < -micros(max_behind) {
        ClockState::Stepped { expected: nearest(expected), found: nearest(found) }
    } else {
        ClockState::Steady
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;
    const STEP: Duration = Duration::from_secs(300);

    fn at(wall: i64, boot: i64) -> Reading {
        Reading { wall: wall * SECOND, boot: boot * SECOND }
    }

    fn stepped(expected: i64, found: i64) -> ClockState {
        ClockState::Stepped { expected: nearest(expected * SECOND), found: nearest(found * SECOND) }
    }

    #[test]
    fn steady_over_a_long_time_and_a_suspend() {
        let mut detector = StepDetector::new(at(1_000_000, 50), STEP);
        assert_eq!(detector.check(at(1_000_010, 60)), ClockState::Steady);
        assert_eq!(detector.check(at(1_500_000, 500_050)), ClockState::Steady);
        assert_eq!(detector.check(at(1_500_300, 500_050)), ClockState::Steady);
        assert_eq!(detector.check(at(1_499_700, 500_050)), ClockState::Steady);
    }

    #[test]
    fn steps_either_way_stay_until_confirmed() {
        for found in [1_000_411, 999_809] {
            let mut detector = StepDetector::new(at(1_000_000, 0), STEP);
            let reading = at(found, 110);
            assert_eq!(detector.check(reading), stepped(1_000_110, found));
            // Set back to where it was: still a finding.
            assert_eq!(detector.check(at(1_000_120, 120)), stepped(1_000_110, found));
            detector.confirm(at(found + 20, 130));
            assert_eq!(detector.check(at(found + 30, 140)), ClockState::Steady);
        }
    }

    #[test]
    fn small_steps_add_up() {
        let mut detector = StepDetector::new(at(1_000, 0), STEP);
        for second in 1..=30 {
            // Ten seconds more each second.
            let state = detector.check(at(1_000 + 11 * second, second));
            assert_eq!(state == ClockState::Steady, second <= 30, "{second}");
        }
        assert_eq!(detector.check(at(1_000 + 11 * 31, 31)), stepped(1_031, 1_341));
    }

    #[test]
    fn at_start_the_last_record_counts() {
        let last = nearest(1_000_000 * SECOND);
        let gap = Duration::from_secs(7 * 86_400);
        let check = |wall: i64| check_at_start(last, wall * SECOND, gap, STEP);
        assert_eq!(check(1_000_000 + 7 * 86_400), ClockState::Steady);
        assert_eq!(check(1_000_001 + 7 * 86_400), stepped(1_000_000, 1_604_801));
        assert_eq!(check(999_700), ClockState::Steady);
        assert_eq!(check(999_699), stepped(1_000_000, 999_699));
    }

    #[test]
    fn no_reading_overflows() {
        let mut detector = StepDetector::new(Reading { wall: i64::MIN, boot: i64::MAX }, STEP);
        assert_ne!(detector.check(Reading { wall: i64::MAX, boot: i64::MIN }), ClockState::Steady);
    }

    #[test]
    fn the_real_clocks_are_steady() {
        let mut detector = StepDetector::new(Reading::take(), STEP);
        let reading = Reading::take();
        assert!(reading.boot > 0 && reading.wall > 0);
        assert_eq!(detector.check(reading), ClockState::Steady);
    }
}
