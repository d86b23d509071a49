//! Time for records: it never goes back, and it can stop issuing.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use countersign_trail::time::Timestamp;

use crate::reason::Reason;

/// The daemon's time. One for all trails, so that their records can be compared.
#[derive(Debug, Default)]
pub struct Timekeeper {
    /// The largest time ever given, in microseconds.
    floor: AtomicI64,
    /// Why nothing may be issued; set and cleared by whoever watches the clock.
    stopped: Mutex<Option<Reason>>,
}

impl Timekeeper {
    /// A timekeeper that never gives a time before `floor`.
    pub fn starting_at(floor: Timestamp) -> Timekeeper {
        Timekeeper { floor: AtomicI64::new(floor.as_micros()), stopped: Mutex::default() }
    }

    /// The time now, never before a time given earlier.
    pub fn now(&self) -> Timestamp {
        let wall = wall_micros();
        let before = self.floor.fetch_max(wall, Ordering::Relaxed);
        Timestamp::from_micros(before.max(wall)).unwrap_or_else(|_| self.last())
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

/// The wall clock, in microseconds since 1970; 0 before.
pub fn wall_micros() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
