//! `countersignd pin-clear`: a refused PIN may be tried again, once the right one is in place.

use std::fmt;

use countersign_hsm::{PinClear, pin_clear};
use serde::Serialize;

use crate::config::Config;
use crate::store::files::FolderLock;

/// What [`clear`] found and did.
#[derive(Debug, Serialize)]
pub struct Cleared {
    /// `record` or `admin`.
    pub token: String,
    /// The token's serial number.
    pub serial: String,
    /// Whether there was a latch, which is undone.
    pub cleared: bool,
}

impl fmt::Display for Cleared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Cleared { token, serial, cleared } = self;
        match cleared {
            true => write!(f, "{token} token {serial}: cleared; the next start presents the PIN once and records it"),
            false => write!(f, "{token} token {serial}: its PIN is not refused, nothing to clear"),
        }
    }
}

/// Clears the latch of one token. The next start records that it was cleared.
pub fn clear(config: &Config, token: &str) -> anyhow::Result<Cleared> {
    let settings = match token {
        "record" => &config.record_token,
        "admin" => &config.admin_token,
        _ => anyhow::bail!("--token is `record` or `admin`, not {token:?}"),
    };
    let serial = settings.serial.as_deref();
    let serial = serial.ok_or_else(|| {
        anyhow::anyhow!("[{token}_token] has no serial: set it, so that the right PIN state is found")
    })?;
    let _lock = FolderLock::take(&config.data_dir)?;
    let cleared = pin_clear(&settings.state_dir, serial)? == PinClear::Cleared;
    Ok(Cleared { token: token.to_owned(), serial: serial.to_owned(), cleared })
}
