//! The key file, and what is generated from the same keys: JWK Set, PEM, verifier key lines.

use serde::Serialize;

use crate::admin::{AdminState, KeyEntry};
use crate::base64;
use crate::document::TokenRole;
use crate::jcs::{self, JcsError};
use crate::keys::{Algorithm, Kid};
use crate::note::{NoteError, VerifierKey};
use crate::origin::Origin;
use crate::record::decimal;
use crate::signing::Purpose;
use crate::time::Timestamp;

const KEY_DOCUMENT: &str = "countersign.keys";

/// The files that say which keys there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFiles {
    /// `keys.json`.
    pub key_file: Vec<u8>,
    /// `jwks.json`.
    pub jwks: Vec<u8>,
    /// `keys/<kid>.pem`, by ascending kid.
    pub pems: Vec<(Kid, Vec<u8>)>,
    /// `vkeys.txt`.
    pub vkeys: Vec<u8>,
}

#[derive(Serialize)]
struct KeyFile<'a> {
    document: &'static str,
    keys: Vec<KeyLine<'a>>,
    v: u64,
}

#[derive(Serialize)]
struct KeyLine<'a> {
    algorithm: Algorithm,
    #[serde(with = "decimal")]
    from_seq: u64,
    from_time: Timestamp,
    kid: Kid,
    purpose: Purpose,
    spki: String,
    state: &'static str,
    token: TokenRole,
    #[serde(skip_serializing_if = "Option::is_none")]
    trail: Option<&'a Origin>,
}

#[derive(Serialize)]
struct Jwks {
    keys: Vec<serde_json::Value>,
}

/// Why the files cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyFileError {
    /// A value has no canonical JSON.
    #[error("key file: {0}")]
    Json(#[from] JcsError),
    /// A checkpoint key has no verifier key line.
    #[error("verifier key: {0}")]
    Note(#[from] NoteError),
}

/// The key files that follow from the admin trail.
///
/// # Errors
/// [`KeyFileError`]; neither happens for a state that was replayed.
pub fn derive_key_files(state: &AdminState) -> Result<KeyFiles, KeyFileError> {
    let entries: Vec<&KeyEntry> = state.keys.values().collect();
    let keys = entries.iter().copied().map(line).collect();
    let mut vkeys = Vec::new();
    for entry in &entries {
        let checkpoint_key = matches!(entry.purpose, Purpose::Checkpoint | Purpose::AdminCheckpoint);
        if let Some(trail) = entry.trail.as_ref().filter(|_| checkpoint_key) {
            vkeys.push(format!("{}\n", VerifierKey::new(trail.as_str(), entry.key.clone())?));
        }
    }
    vkeys.sort();
    Ok(KeyFiles {
        key_file: jcs::to_canonical(&KeyFile { document: KEY_DOCUMENT, keys, v: 1 })?,
        jwks: jcs::to_canonical(&Jwks { keys: entries.iter().map(|entry| entry.key.jwk()).collect() })?,
        pems: entries.iter().map(|entry| (entry.key.kid(), entry.key.pem().into_bytes())).collect(),
        vkeys: vkeys.concat().into_bytes(),
    })
}

fn line(entry: &KeyEntry) -> KeyLine<'_> {
    KeyLine {
        algorithm: entry.key.algorithm(),
        from_seq: entry.from_seq,
        from_time: entry.from_time,
        kid: entry.key.kid(),
        purpose: entry.purpose,
        spki: base64::std_encode(&entry.key.spki_der()),
        // No key changes its state yet: the admin trail has no record that says so.
        state: "active",
        token: entry.token,
        trail: entry.trail.as_ref(),
    }
}
