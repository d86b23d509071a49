//! `countersignd mark-confirm`: the HSM worker's mark is lost, and the store is known to be the newest.

use countersign_hsm::Mark;
use countersign_trail::document::TokenRole;
use countersign_trail::hash::Hash;

use super::RunError;
use super::start::{replay, token};
use crate::config::Config;
use crate::genesis::CeremonyError;
use crate::sequencer::mark;
use crate::sequencer::start::{StartError, inspect};
use crate::store::files::FolderLock;
use crate::store::sqlite::SqliteStore;

/// Sets the mark to the end of the store's admin trail, where it is missing, damaged or moved back;
/// says what it did. A store that ends before its second head or the mark is refused as at a start.
pub async fn confirm(config: &Config) -> Result<String, RunError> {
    let fingerprint = config.genesis.ok_or(RunError::NoGenesis)?;
    let _lock = FolderLock::take(&config.data_dir).map_err(CeremonyError::from)?;
    let store = SqliteStore::open(&config.data_dir).map_err(CeremonyError::from)?;
    let (state, rows) = replay(&store, fingerprint)?;
    let row = rows.into_iter().next();
    let row = row.ok_or_else(|| CeremonyError::Mismatch("the store has no admin trail".to_owned()))?;
    let checked = inspect(&state, &store, &row, &config.head_dir).map_err(CeremonyError::from)?.checked;
    let (signer, _) = token(config, &state, TokenRole::Admin).await?;
    let newest = checked.checkpoint.clone();
    let text = format!("the mark of {} at size {}", newest.origin, newest.size);
    let said = match mark::check(&checked, &row, &signer).await {
        Ok(()) => Ok(format!("{text} or beyond is in order: nothing to confirm")),
        Err(StartError::Mark { .. } | StartError::MarkBehind { .. }) => {
            let input = Hash::of(newest.text().as_bytes());
            let confirmed = Mark { origin: newest.origin, size: newest.size, input };
            let done = signer.pool().confirm_mark(confirmed).await;
            done.map(|()| format!("set {text}")).map_err(|error| CeremonyError::Hsm { token: "admin", error })
        }
        Err(error) => Err(error.into()),
    };
    signer.pool().shutdown().await;
    Ok(said?)
}
