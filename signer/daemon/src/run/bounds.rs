//! How batches are formed, from the configuration.

use std::time::Duration;

use crate::config::Config;
use crate::sequencer::Bounds;

/// For the trails of gateways.
pub fn trails(config: &Config) -> Bounds {
    Bounds {
        max_records: config.batch.max_records,
        max_bytes: config.batch.max_bytes,
        signing: Duration::from_millis(config.batch.signing_ms),
        checkpoint_every: Duration::from_millis(config.checkpoint.interval_ms),
        heartbeat_every: Duration::from_secs(config.heartbeat.interval_seconds),
    }
}

/// For the admin trail: one checkpoint per record.
pub fn admin(config: &Config) -> Bounds {
    Bounds { max_records: 1, ..trails(config) }
}
