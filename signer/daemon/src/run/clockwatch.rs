//! A clock that steps stops issuing, until the operator confirms it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use countersign_trail::control::ClockBody;
use countersign_trail::time::Timestamp;

use crate::admin_log::AdminLog;
use crate::clock::{ClockState, Reading, StepDetector, check_at_start};
use crate::config;
use crate::reason::{Reason, Refusal};
use crate::store::files;
use crate::timekeeper::Timekeeper;

/// How often the clocks are compared.
const EVERY: Duration = Duration::from_secs(1);
/// Left in the data folder by `countersignd clock-confirm`, taken away by the next start.
const CONFIRMED: &str = "clock-confirmed";
/// Left in the data folder when a step was found, so that a restart alone does not clear it.
const STEPPED: &str = "clock-stepped";
/// Seconds of a day.
const DAY: u64 = 86_400;

/// At start: a clock far beyond the last record, or before it, stops issuing unless the operator
/// confirmed it. Either is recorded.
pub(super) async fn at_start(
    config: &config::Clock,
    data_dir: &Path,
    last: Timestamp,
    clock: &Timekeeper,
    log: &AdminLog,
) -> Result<(), Refusal> {
    let gap = Duration::from_secs(config.max_gap_days * DAY);
    let step = Duration::from_secs(config.max_step_seconds);
    let state = check_at_start(last, Reading::take().wall, gap, step);
    let confirmed = data_dir.join(CONFIRMED).exists();
    let (expected, found) = match state {
        ClockState::Stepped { expected, found } => (expected, found),
        ClockState::Steady if data_dir.join(STEPPED).exists() => (last, clock.now()),
        // A confirmation that nothing asked for must not confirm a later step.
        ClockState::Steady => return remove(data_dir, CONFIRMED),
    };
    if confirmed {
        log.clock(ClockBody { expected, found, heads: Vec::new(), state: "confirmed".to_owned() }).await?;
        remove(data_dir, STEPPED)?;
        return remove(data_dir, CONFIRMED);
    }
    stop(log, clock, data_dir, expected, found).await
}

fn remove(data_dir: &Path, marker: &str) -> Result<(), Refusal> {
    match std::fs::remove_file(data_dir.join(marker)) {
        Ok(()) => files::sync_dir(data_dir).map_err(|error| Refusal::new(Reason::Internal, error)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Refusal::new(Reason::Internal, error)),
    }
}

/// Compares the wall clock with CLOCK_BOOTTIME for as long as the daemon runs.
pub(super) async fn watch(config: config::Clock, data_dir: PathBuf, clock: Arc<Timekeeper>, log: Arc<AdminLog>) {
    let mut detector = StepDetector::new(Reading::take(), Duration::from_secs(config.max_step_seconds));
    loop {
        tokio::time::sleep(EVERY).await;
        if clock.stopped().is_some() {
            continue;
        }
        if let ClockState::Stepped { expected, found } = detector.check(Reading::take())
            && let Err(error) = stop(&log, &clock, &data_dir, expected, found).await
        {
            tracing::error!(%error, "the step of the clock is not recorded; nothing is issued all the same");
        }
    }
}

async fn stop(
    log: &AdminLog,
    clock: &Timekeeper,
    data_dir: &Path,
    expected: Timestamp,
    found: Timestamp,
) -> Result<(), Refusal> {
    tracing::error!(%expected, %found, "the clock stepped: nothing is issued until it is confirmed with `countersignd clock-confirm` and a restart");
    let marked = files::replace(&data_dir.join(STEPPED), b"");
    let recorded = log.clock(ClockBody { expected, found, heads: Vec::new(), state: "stepped".to_owned() }).await;
    clock.set_stopped(Some(Reason::ClockStep));
    marked.map_err(|error| Refusal::new(Reason::Internal, error))?;
    recorded.map(|_| ())
}

/// `countersignd clock-confirm`: the wall clock is right as it is now, at the time given back. The next
/// start records it.
pub fn confirm(data_dir: &Path) -> std::io::Result<Timestamp> {
    let now = Timekeeper::default().now();
    files::replace(&data_dir.join(CONFIRMED), b"")?;
    Ok(now)
}
