//! The daemon's life: check, recover, serve, drain.

pub mod bounds;
pub mod clockwatch;
pub mod mark;
mod serve;
pub mod start;

use std::path::Path;

use crate::config::{Config, ConfigError};
use crate::genesis::CeremonyError;
use crate::tls::TlsError;

/// Why the daemon does not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The configuration is refused.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The configuration names no genesis.
    #[error("the configuration has no `genesis`: set it to the fingerprint that `countersignd seal` printed")]
    NoGenesis,
    /// The store, the tokens or the admin trail are refused.
    #[error(transparent)]
    Start(#[from] CeremonyError),
    /// The TLS files are refused.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A listener cannot be opened, or the server failed.
    #[error("{what}: {error}")]
    Io {
        /// Which part.
        what: String,
        /// Why.
        error: std::io::Error,
    },
    /// A sequencer met a condition that only a new start can clear.
    #[error(transparent)]
    Fatal(#[from] crate::sequencer::Fatal),
}

/// Runs the daemon until SIGTERM or SIGINT.
pub async fn run(config_path: &Path) -> Result<(), RunError> {
    let (config, config_hash) = Config::load(config_path)?;
    let fingerprint = config.genesis.ok_or(RunError::NoGenesis)?;
    let started = start::start(&config, config_hash, fingerprint).await?;
    serve::serve(&config, started).await
}
