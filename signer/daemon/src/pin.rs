//! `countersignd pin-clear`: a refused PIN may be tried again, once the right one is in place.

use countersign_hsm::pin_clear;

use crate::config::Config;
use crate::store::files::FolderLock;

/// Clears the latch of one token. The next start records that it was cleared.
pub fn clear(config: &Config, token: &str) -> anyhow::Result<()> {
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
    let cleared = pin_clear(&settings.state_dir, serial)?;
    println!("{token} token {serial}: {cleared:?}");
    Ok(())
}
