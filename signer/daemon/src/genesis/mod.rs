//! The first ceremony, on the host: [`init`] makes the keys, [`seal`] opens the appliance once every
//! administrator has signed.
//!
//! Between the two nothing is served, and only probes, the records 0 and their checkpoints have been
//! signed. A seal that is interrupted may be run again; an `init` too, or be abandoned.

pub mod abandon;
pub mod handout;
pub mod init;
mod progress;
pub mod records;
pub mod seal;

use std::path::PathBuf;

use countersign_hsm::HsmError;
use countersign_trail::admin::AdminError;
use countersign_trail::document::DocumentError;

use crate::reason::Refusal;
use crate::sequencer::start::StartError;
use crate::store::files::LockError;
use crate::store::sqlite::schema::SchemaError;
use crate::store::{AppendError, ReadError};

/// Why a ceremony step did not happen.
#[derive(Debug, thiserror::Error)]
pub enum CeremonyError {
    /// A file cannot be read or written.
    #[error("{path}: {error}")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The genesis document is made, and was not handed out.
    #[error(
        "{path}: {error}: the genesis document is kept in the store; `countersignd init --resume --out FILE` with the same plan writes it again"
    )]
    Handout {
        /// Where it should go.
        path: PathBuf,
        /// Why it did not.
        error: std::io::Error,
    },
    /// The plan or the genesis document is refused.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// The admin trail or a signature is refused.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// The configuration is not the plan's.
    #[error("{0}")]
    Mismatch(String),
    /// The folder or the token was used before.
    #[error("{0}")]
    Used(String),
    /// The HSM did not do its part.
    #[error("{token} token: {error}")]
    Hsm {
        /// Which token.
        token: &'static str,
        /// What it said.
        error: HsmError,
    },
    /// A record was not signed.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The folder is in use.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The store is not usable.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// The store did not take it.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The store cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The admin trail cannot be opened.
    #[error(transparent)]
    Start(#[from] StartError),
}

/// An I/O error with its file.
pub(crate) fn file_error(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> CeremonyError {
    let path = path.to_owned();
    move |error| CeremonyError::File { path, error }
}
