//! What `init` has done so far: enough to go on, or to undo it.

use std::path::{Path, PathBuf};

use countersign_trail::document::{GenesisKey, MAX_DOCUMENT_LEN, TokenFacts};
use countersign_trail::hash::Hash;
use countersign_trail::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::{CeremonyError, file_error};
use crate::store::files;

/// The file's name in the data folder. It is gone when `init` is complete.
const FILE_NAME: &str = "init.json";

/// Durable after every step.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Progress {
    /// The plan that is followed.
    pub plan: Hash,
    /// The time of the ceremony: it stands in signed bytes, so it is fixed once.
    pub created: Timestamp,
    /// The tokens, as their modules described them.
    pub tokens: Vec<TokenFacts>,
    /// Keys that are made and final.
    pub keys: Vec<GenesisKey>,
}

pub(super) fn path(data_dir: &Path) -> PathBuf {
    data_dir.join(FILE_NAME)
}

impl Progress {
    /// What an earlier `init` left; none when there was none, or it is complete.
    pub(super) fn load(data_dir: &Path) -> Result<Option<Progress>, CeremonyError> {
        let path = path(data_dir);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) if bytes.len() <= MAX_DOCUMENT_LEN => bytes,
            Ok(_) => return Err(CeremonyError::Used(format!("{} is too large to be ours", path.display()))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(file_error(&path)(error)),
        };
        serde_json::from_slice(&bytes).map(Some).map_err(|error| file_error(&path)(error.into()))
    }

    /// Makes the progress durable.
    pub(super) fn save(&self, data_dir: &Path) -> Result<(), CeremonyError> {
        let path = path(data_dir);
        let bytes = serde_json::to_vec_pretty(self).map_err(|error| file_error(&path)(error.into()))?;
        files::replace(&path, &bytes).map_err(file_error(&path))
    }

    /// Removes the file; whether it was there.
    pub(super) fn remove(data_dir: &Path) -> Result<bool, CeremonyError> {
        let path = path(data_dir);
        match std::fs::remove_file(&path) {
            Ok(()) => files::sync_dir(data_dir).map(|()| true).map_err(file_error(data_dir)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(file_error(&path)(error)),
        }
    }
}
