//! Time for records: it never goes back, does not follow a step of the wall clock, and can stop issuing.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use countersign_trail::time::Timestamp;

use crate::clock::{ClockState, Reading, StepDetector};
use crate::reason::Reason;

/// The daemon's time. One for all trails, so that their records can be compared.
#[derive(Debug, Default)]
pub struct Timekeeper {
    /// The largest time ever given, in microseconds.
    floor: AtomicI64,
    /// Holds the wall clock against CLOCK_BOOTTIME; none where time is taken as it comes.
    detector: Option<Mutex<StepDetector>>,
    /// Why nothing may be issued.
    stopped: Mutex<Option<Reason>>,
}

impl Timekeeper {
    /// A timekeeper that never gives a time before `floor`.
    pub fn starting_at(floor: Timestamp) -> Timekeeper {
        Timekeeper { floor: AtomicI64::new(floor.as_micros()), ..Timekeeper::default() }
    }

    /// The same, which stops issuing when the wall clock steps by more than `max_step`. From then on time
    /// goes on by CLOCK_BOOTTIME from where it was, so that no record carries a time of the step and the
    /// floor stays below it.
    pub fn guarded(floor: Timestamp, max_step: Duration) -> Timekeeper {
        let detector = Some(Mutex::new(StepDetector::new(Reading::take(), max_step)));
        Timekeeper { detector, ..Timekeeper::starting_at(floor) }
    }

    /// The time now, never before a time given earlier.
    pub fn now(&self) -> Timestamp {
        self.at(Reading::take())
    }

    fn at(&self, reading: Reading) -> Timestamp {
        let micros = match self.step_at(reading) {
            Some((_, _, expected)) => expected,
            None => reading.wall.max(0),
        };
        let before = self.floor.fetch_max(micros, Ordering::Relaxed);
        Timestamp::from_micros(before.max(micros)).unwrap_or_else(|_| self.last())
    }

    /// The step of the wall clock that stopped issuing: where the clock should have been, and where it was.
    pub fn step(&self) -> Option<(Timestamp, Timestamp)> {
        self.step_at(Reading::take()).map(|(expected, found, _)| (expected, found))
    }

    /// The step as it was found, and the time that CLOCK_BOOTTIME gives at `reading`.
    fn step_at(&self, reading: Reading) -> Option<(Timestamp, Timestamp, i64)> {
        let mut detector = self.detector.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner);
        let ClockState::Stepped { expected, found } = detector.check(reading) else { return None };
        self.set_stopped(Some(Reason::ClockStep));
        Some((expected, found, detector.expected(reading)))
    }

    /// Takes `from` for the time now, whatever the wall clock says: it stepped before the daemon started.
    pub fn hold(&self, from: Timestamp) {
        if let Some(detector) = &self.detector {
            let anchor = Reading { wall: from.as_micros(), ..Reading::take() };
            detector.lock().unwrap_or_else(PoisonError::into_inner).confirm(anchor);
        }
    }

    fn last(&self) -> Timestamp {
        Timestamp::from_micros(self.floor.load(Ordering::Relaxed).max(0)).unwrap_or(Timestamp::EPOCH)
    }

    /// Why nothing may be issued at present.
    pub fn stopped(&self) -> Option<Reason> {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops issuing, or lets it go on.
    pub fn set_stopped(&self, reason: Option<Reason>) {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wall_micros() -> i64 {
        Reading::take().wall
    }

    /// An hour, in microseconds.
    const HOUR: i64 = 3_600_000_000;

    #[test]
    fn no_time_is_given_before_the_floor_or_before_one_given_earlier() {
        let at = |micros| Timestamp::from_micros(micros).unwrap();
        // The wall clock lies behind what was recorded.
        let floor = at(wall_micros() + HOUR);
        let clock = Timekeeper::starting_at(floor);
        assert_eq!((clock.now(), clock.now()), (floor, floor));

        // Where it lies ahead, it is the wall clock's.
        let clock = Timekeeper::starting_at(at(wall_micros() - HOUR));
        let before = at(wall_micros());
        let given = clock.now();
        assert!(before <= given && given <= at(wall_micros()), "{before} {given}");
    }

    #[test]
    fn a_step_stops_issuing_before_any_time_of_it_is_given() {
        let at = |micros| Timestamp::from_micros(micros).unwrap();
        for step in [8760 * HOUR, -HOUR] {
            let clock = Timekeeper::guarded(Timestamp::EPOCH, Duration::from_secs(300));
            let first = Reading::take();
            assert_eq!((clock.at(first), clock.stopped()), (at(first.wall), None));
            let later = |seconds: i64, step: i64| Reading {
                wall: first.wall + seconds * 1_000_000 + step,
                boot: first.boot + seconds * 1_000_000,
            };
            // The next time that is asked for is what CLOCK_BOOTTIME says.
            let given = clock.at(later(1, step)).as_micros();
            assert!((given - first.wall - 1_000_000).abs() < 1_000_000, "{step}: {}", given - first.wall);
            assert_eq!(clock.stopped(), Some(Reason::ClockStep));
            let (expected, found) = clock.step().unwrap();
            assert_eq!(found, at(later(1, step).wall));
            assert!((expected.as_micros() - first.wall - 1_000_000).abs() < 1_000_000);
            // Put right, the clock does not open by itself, and time goes on.
            assert_eq!(clock.at(later(5, 0)).as_micros() - given, 4_000_000);
            assert_eq!(clock.stopped(), Some(Reason::ClockStep));
        }
    }

    #[test]
    fn a_clock_that_stepped_before_the_start_is_not_believed() {
        let clock = Timekeeper::guarded(Timestamp::EPOCH, Duration::from_secs(300));
        let last = Timestamp::from_micros(wall_micros() - 8760 * HOUR).unwrap();
        clock.hold(last);
        let given = clock.now().as_micros() - last.as_micros();
        assert!((0..60_000_000).contains(&given), "{given}");
        assert_eq!(clock.stopped(), Some(Reason::ClockStep));
    }
}
