//! A clock that steps stops issuing, until the operator confirms it.

use std::path::Path;
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
const MARKER: &str = "clock-confirmed";
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
    let ClockState::Stepped { expected, found } = check_at_start(last, Reading::take().wall, gap, step) else {
        return Ok(());
    };
    let marker = data_dir.join(MARKER);
    if marker.exists() {
        log.clock(ClockBody { expected, found, heads: Vec::new(), state: "confirmed".to_owned() }).await?;
        let removed = std::fs::remove_file(&marker).and_then(|()| files::sync_dir(data_dir));
        return removed.map_err(|error| Refusal::new(Reason::Internal, error));
    }
    stop(log, clock, expected, found).await
}

/// Compares the wall clock with CLOCK_BOOTTIME for as long as the daemon runs.
pub(super) async fn watch(config: config::Clock, clock: Arc<Timekeeper>, log: Arc<AdminLog>) {
    let mut detector = StepDetector::new(Reading::take(), Duration::from_secs(config.max_step_seconds));
    loop {
        tokio::time::sleep(EVERY).await;
        if clock.stopped().is_some() {
            continue;
        }
        if let ClockState::Stepped { expected, found } = detector.check(Reading::take())
            && let Err(error) = stop(&log, &clock, expected, found).await
        {
            tracing::error!(%error, "the step of the clock is not recorded; nothing is issued all the same");
            clock.set_stopped(Some(Reason::ClockStep));
        }
    }
}

async fn stop(log: &AdminLog, clock: &Timekeeper, expected: Timestamp, found: Timestamp) -> Result<(), Refusal> {
    tracing::error!(%expected, %found, "the clock stepped: nothing is issued until it is confirmed with `countersignd clock-confirm` and a restart");
    log.clock(ClockBody { expected, found, heads: Vec::new(), state: "stepped".to_owned() }).await?;
    clock.set_stopped(Some(Reason::ClockStep));
    Ok(())
}

/// `countersignd clock-confirm`: the wall clock is right as it is now. The next start records it.
pub fn confirm(data_dir: &Path) -> std::io::Result<()> {
    files::replace(&data_dir.join(MARKER), b"")
}
