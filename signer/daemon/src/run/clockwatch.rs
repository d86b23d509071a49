//! A clock that steps stops issuing, until the operator confirms it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use countersign_trail::control::ClockBody;
use countersign_trail::time::Timestamp;

use crate::admin_log::AdminLog;
use crate::clock::{ClockState, Reading, check_at_start};
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

/// What a look at the clock before the start found.
pub(super) enum Found {
    /// Nothing, or a step that was confirmed and is over.
    Steady,
    /// A step, and whether the operator confirmed that the clock is right.
    Step { expected: Timestamp, found: Timestamp, confirmed: bool },
}

/// Before anything is recorded: a clock far beyond the last record, or before it, is not believed unless
/// the operator confirmed it.
pub(super) fn look(config: &config::Clock, data_dir: &Path, last: Timestamp, clock: &Timekeeper) -> Found {
    let gap = Duration::from_secs(config.max_gap_days * DAY);
    let step = Duration::from_secs(config.max_step_seconds);
    let confirmed = data_dir.join(CONFIRMED).exists();
    match check_at_start(last, Reading::take().wall, gap, step) {
        ClockState::Stepped { expected, found } => {
            if !confirmed {
                clock.hold(last);
            }
            Found::Step { expected, found, confirmed }
        }
        ClockState::Steady if data_dir.join(STEPPED).exists() => {
            Found::Step { expected: last, found: clock.now(), confirmed }
        }
        ClockState::Steady => Found::Steady,
    }
}

/// At start, once its own record stands: a step is recorded, as confirmed or as what stops issuing.
pub(super) async fn at_start(found: Found, data_dir: &Path, clock: &Timekeeper, log: &AdminLog) -> Result<(), Refusal> {
    match found {
        // A confirmation that nothing asked for must not confirm a later step.
        Found::Steady => remove(data_dir, CONFIRMED),
        Found::Step { expected, found, confirmed: true } => {
            log.clock(ClockBody { expected, found, heads: Vec::new(), state: "confirmed".to_owned() }).await?;
            remove(data_dir, STEPPED)?;
            remove(data_dir, CONFIRMED)
        }
        Found::Step { expected, found, confirmed: false } => stop(log, clock, data_dir, expected, found).await,
    }
}

fn remove(data_dir: &Path, marker: &str) -> Result<(), Refusal> {
    match std::fs::remove_file(data_dir.join(marker)) {
        Ok(()) => files::sync_dir(data_dir).map_err(|error| Refusal::new(Reason::Internal, error)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Refusal::new(Reason::Internal, error)),
    }
}

/// Looks for a step as long as the daemon runs, and records one. What is issued meanwhile looks itself.
pub(super) async fn watch(data_dir: PathBuf, clock: Arc<Timekeeper>, log: Arc<AdminLog>) {
    let mut recorded = clock.stopped().is_some();
    loop {
        tokio::time::sleep(EVERY).await;
        if let Some((expected, found)) = clock.step().filter(|_| !recorded) {
            match stop(&log, &clock, &data_dir, expected, found).await {
                Ok(()) => recorded = true,
                Err(error) => {
                    tracing::error!(%error, "the step of the clock is not recorded yet; nothing is issued all the same");
                }
            }
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
    clock.set_stopped(Some(Reason::ClockStep));
    let marked = files::replace(&data_dir.join(STEPPED), b"");
    let recorded = log.clock(ClockBody { expected, found, heads: Vec::new(), state: "stepped".to_owned() }).await;
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
