//! Verifier keys: the one-line text form of a note's public key.

use std::fmt;
use std::str::FromStr;

use crate::base64::{std_decode, std_encode};
use crate::keys::{Algorithm, PublicKey};

use super::{KEY_ID_LEN, KeyId, NoteError, TYPE_ECDSA, TYPE_ED25519, check_name};

/// The longest verifier key line, in bytes: room for the longest origin (200), the id and a P-256
/// key, and for the names of others.
const MAX_VKEY_LEN: usize = 1024;

/// A public key with the name that it signs notes under. Text form (Display, FromStr):
/// `name+id+base64(type || key)`, the "vkey" of golang.org/x/mod/sumdb/note and, for ECDSA, of
/// transparency-dev/formats.
#[derive(Debug, Clone)]
pub struct VerifierKey {
    name: String,
    key: PublicKey,
    id: KeyId,
}

impl VerifierKey {
    /// The verifier key of `key` under `name`.
    ///
    /// # Errors
    /// [`NoteError::Name`].
    pub fn new(name: &str, key: PublicKey) -> Result<VerifierKey, NoteError> {
        check_name(name)?;
        let id = KeyId::of(name, &key);
        Ok(VerifierKey { name: name.to_owned(), key, id })
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The public key.
    pub fn key(&self) -> &PublicKey {
        &self.key
    }

    /// The key id.
    pub fn id(&self) -> KeyId {
        self.id
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let typed = match self.key.algorithm() {
            Algorithm::Ed25519 => [&[TYPE_ED25519], self.key.raw()].concat(),
            Algorithm::EcdsaP256 => [&[TYPE_ECDSA], self.key.spki_der().as_slice()].concat(),
        };
        write!(f, "{}+{}+{}", self.name, self.id, std_encode(&typed))
    }
}

impl FromStr for VerifierKey {
    type Err = NoteError;

    /// Parses the text form and checks the id against name and key.
    fn from_str(text: &str) -> Result<VerifierKey, NoteError> {
        if text.len() > MAX_VKEY_LEN {
            return Err(NoteError::VerifierKey);
        }
        let mut fields = text.splitn(3, '+');
        let (Some(name), Some(id), Some(base64)) = (fields.next(), fields.next(), fields.next()) else {
            return Err(NoteError::VerifierKey);
        };
        let stated = parse_id(id).ok_or(NoteError::VerifierKey)?;
        let typed = std_decode(base64).map_err(NoteError::VerifierKeyBase64)?;
        let key = match typed.split_first() {
            Some((&TYPE_ED25519, raw)) => PublicKey::from_raw(Algorithm::Ed25519, raw),
            // Only a P-256 key is accepted here; the specification allows larger curves.
            Some((&TYPE_ECDSA, der)) => match PublicKey::from_spki_der(der) {
                Ok(key) if key.algorithm() != Algorithm::EcdsaP256 => {
                    return Err(NoteError::VerifierKey);
                }
                other => other,
            },
            Some((&other, _)) => return Err(NoteError::SignatureType(other)),
            None => return Err(NoteError::VerifierKey),
        };
        let key = VerifierKey::new(name, key.map_err(NoteError::PublicKey)?)?;
        if key.id != stated {
            return Err(NoteError::KeyIdMismatch { stated, actual: key.id });
        }
        Ok(key)
    }
}

/// Parses 8 lower-case hexadecimal digits.
fn parse_id(text: &str) -> Option<KeyId> {
    let mut id = [0; KEY_ID_LEN];
    hex::decode_to_slice(text, &mut id).ok()?;
    // One spelling: upper case decodes too, and is refused here.
    let id = KeyId::from_bytes(id);
    (id.to_string() == text).then_some(id)
}
