//! `countersignd mark-confirm`: a mark of the HSM workers is lost, and the store is known to be the newest.

use std::fmt;

use countersign_hsm::{Mark, Marked, Reason};
use countersign_trail::admin::AdminState;
use countersign_trail::document::TokenRole;
use countersign_trail::dsse;
use countersign_trail::hash::Hash;
use countersign_trail::signing::STATEMENT_PAYLOAD_TYPE;
use serde::Serialize;

use super::RunError;
use super::start::{replay, token};
use crate::config::Config;
use crate::genesis::CeremonyError;
use crate::sequencer::mark;
use crate::sequencer::start::{StartError, inspect};
use crate::signer::TokenSigner;
use crate::store::files::FolderLock;
use crate::store::sqlite::SqliteStore;

/// What [`confirm`] found of one mark, and did.
#[derive(Debug, Serialize)]
pub struct Confirmed {
    /// What it is of: the admin trail, or the evidence key of the statements.
    pub of: Marked,
    /// The checkpoint's size or the statement's number; without `set`, at least.
    pub size: u64,
    /// Whether the mark was set; else it was in order.
    pub set: bool,
}

impl fmt::Display for Confirmed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Confirmed { of, size, set } = self;
        match set {
            true => write!(f, "set the mark of {of} at size {size}"),
            false => write!(f, "the mark of {of} at size {size} or beyond is in order: nothing to confirm"),
        }
    }
}

/// Sets the marks to the end of the store's admin trail and to its newest statement, where they are
/// missing, damaged or moved back; says what it did. A store that ends before its second head or the mark
/// is refused as at a start.
pub async fn confirm(config: &Config) -> Result<Vec<Confirmed>, RunError> {
    let fingerprint = config.genesis.ok_or(RunError::NoGenesis)?;
    let _lock = FolderLock::take(&config.data_dir).map_err(CeremonyError::from)?;
    let store = SqliteStore::open(&config.data_dir).map_err(CeremonyError::from)?;
    let (state, rows) = replay(&store, fingerprint)?;
    let row = rows.into_iter().next();
    let row = row.ok_or_else(|| CeremonyError::Mismatch("the store has no admin trail".to_owned()))?;
    let checked = inspect(&state, &store, &row, &config.head_dir).map_err(CeremonyError::from)?.checked;
    let (signer, _) = token(config, &state, TokenRole::Admin).await?;
    let (newest, of) = (checked.checkpoint.clone(), Marked::checkpoints(&checked.checkpoint.origin));
    let found = |set| Confirmed { of: of.clone(), size: newest.size, set };
    let said = match mark::check(&checked, &row, &signer).await {
        Ok(()) => Ok(found(false)),
        Err(StartError::Mark { .. } | StartError::MarkBehind { .. }) => {
            let input = Hash::of(newest.text().as_bytes());
            let done = signer.pool().confirm_mark(Mark { of: of.clone(), size: newest.size, input }).await;
            done.map(|()| found(true)).map_err(|error| CeremonyError::Hsm { token: "admin", error })
        }
        Err(error) => Err(error.into()),
    };
    signer.pool().shutdown().await;
    let said = said?;
    let (signer, _) = token(config, &state, TokenRole::Record).await?;
    let statements = confirm_statements(&state, &store, &signer).await;
    signer.pool().shutdown().await;
    Ok([said].into_iter().chain(statements?).collect())
}

/// The same for the evidence key's statements; nothing without such a key.
async fn confirm_statements(
    state: &AdminState,
    store: &SqliteStore,
    signer: &TokenSigner,
) -> Result<Option<Confirmed>, RunError> {
    let Some(kid) = state.evidence_key().map(|entry| entry.key.kid()) else { return Ok(None) };
    let failed = |error| CeremonyError::Hsm { token: TokenRole::Record.word(), error };
    let of = Marked::statements(&kid);
    match signer.pool().mark(&of).await {
        Ok(mark) => Ok(Some(Confirmed { of, size: mark.map_or(0, |mark| mark.size), set: false })),
        Err(error) if error.reason() == Reason::MarkState => {
            let newest =
                store.reader().read(|snapshot| snapshot.newest_statement(&kid)).map_err(CeremonyError::from)?;
            let (size, payload) = newest.unwrap_or_default();
            let input = Hash::of(&dsse::pae(STATEMENT_PAYLOAD_TYPE, &payload));
            let mark = Mark { of: of.clone(), size, input };
            signer.pool().confirm_mark(mark).await.map_err(failed)?;
            Ok(Some(Confirmed { of, size, set: true }))
        }
        Err(error) => Err(failed(error).into()),
    }
}
