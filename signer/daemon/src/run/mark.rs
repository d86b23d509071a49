//! `countersignd mark-confirm`: a mark of the HSM workers is lost, and the store is known to be the newest.

use countersign_hsm::{Mark, Marked, Reason};
use countersign_trail::admin::AdminState;
use countersign_trail::document::TokenRole;
use countersign_trail::dsse;
use countersign_trail::hash::Hash;
use countersign_trail::signing::STATEMENT_PAYLOAD_TYPE;

use super::RunError;
use super::start::{replay, token};
use crate::config::Config;
use crate::genesis::CeremonyError;
use crate::sequencer::mark;
use crate::sequencer::start::{StartError, inspect};
use crate::signer::TokenSigner;
use crate::store::files::FolderLock;
use crate::store::sqlite::SqliteStore;

/// Sets the marks to the end of the store's admin trail and to its newest statement, where they are
/// missing, damaged or moved back; says what it did. A store that ends before its second head or the mark
/// is refused as at a start.
pub async fn confirm(config: &Config) -> Result<Vec<String>, RunError> {
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
            let confirmed = Mark { of: Marked::checkpoints(&newest.origin), size: newest.size, input };
            let done = signer.pool().confirm_mark(confirmed).await;
            done.map(|()| format!("set {text}")).map_err(|error| CeremonyError::Hsm { token: "admin", error })
        }
        Err(error) => Err(error.into()),
    };
    signer.pool().shutdown().await;
    let (signer, _) = token(config, &state, TokenRole::Record).await?;
    let statements = confirm_statements(&state, &store, &signer).await;
    signer.pool().shutdown().await;
    Ok([said?].into_iter().chain(statements?).collect())
}

/// The same for the evidence key's statements; nothing to say without such a key.
async fn confirm_statements(
    state: &AdminState,
    store: &SqliteStore,
    signer: &TokenSigner,
) -> Result<Option<String>, RunError> {
    let Some(kid) = state.evidence_key().map(|entry| entry.key.kid()) else { return Ok(None) };
    let failed = |error| CeremonyError::Hsm { token: TokenRole::Record.word(), error };
    let of = Marked::statements(&kid);
    match signer.pool().mark(&of).await {
        Ok(mark) => {
            let size = mark.map_or(0, |mark| mark.size);
            Ok(Some(format!("the mark of statements of key {kid} at number {size} is in order: nothing to confirm")))
        }
        Err(error) if error.reason() == Reason::MarkState => {
            let newest =
                store.reader().read(|snapshot| snapshot.newest_statement(&kid)).map_err(CeremonyError::from)?;
            let (size, payload) = newest.unwrap_or_default();
            let input = Hash::of(&dsse::pae(STATEMENT_PAYLOAD_TYPE, &payload));
            signer.pool().confirm_mark(Mark { of, size, input }).await.map_err(failed)?;
            Ok(Some(format!("set the mark of statements of key {kid} at number {size}")))
        }
        Err(error) => Err(failed(error).into()),
    }
}
