//! C2SP signed notes: a text, a blank line, and signature lines (c2sp.org/signed-note v1.0.0).
//!
//! A key is known to a note by its name and a 32-bit id, which depend on the signature type:
//!
//! | type | key id, the first 4 bytes of | key in a vkey line |
//! |---|---|---|
//! | 0x01, Ed25519 | SHA-256(name \|\| 0x0A \|\| 0x01 \|\| 32-byte key) | 0x01 \|\| 32-byte key |
//! | 0x02, ECDSA | SHA-256(SubjectPublicKeyInfo DER) | 0x02 \|\| SubjectPublicKeyInfo DER |
//!
//! The second rule is the specification's own exception ("the truncated SHA-256 hash of the DER
//! encoded public key in SPKI format"), and what Rekor, transparency-dev/formats
//! (`NewECDSAVerifier`) and @sigstore/verify (`checkpoint.ts`) compute. ECDSA signatures are DER.
//!
//! Stricter than the specification: at most 16 signatures and 64 KiB (it asks for 16 at least), no
//! two signatures with the same name and key id, and one spelling: what parses is rebuilt byte for
//! byte by [`SignedNote::to_bytes`].

mod vkey;

use std::fmt;

use crate::base64::{Base64Error, std_decode, std_encode};
use crate::hash::Hash;
use crate::keys::{Algorithm, KeyError, PublicKey};

pub use vkey::VerifierKey;

/// The largest note, in bytes, signatures included: 64 KiB.
pub const MAX_NOTE_LEN: usize = 64 * 1024;

/// The most signature lines of a note, which is the number that every verifier must accept.
pub const MAX_SIGNATURES: usize = 16;

/// The length of a key id in bytes.
const KEY_ID_LEN: usize = 4;

/// What begins a signature line: em dash (U+2014), space.
const SIGNATURE_PREFIX: &str = "\u{2014} ";

/// The signature type byte of Ed25519.
const TYPE_ED25519: u8 = 0x01;

/// The signature type byte of ECDSA.
const TYPE_ECDSA: u8 = 0x02;

/// Why a note, a verifier key or a signature is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// Larger than [`MAX_NOTE_LEN`].
    #[error("the note has {0} bytes, more than {MAX_NOTE_LEN}")]
    TooLong(usize),
    /// Not UTF-8, from this byte on.
    #[error("the note is not UTF-8 at byte {0}")]
    NotUtf8(usize),
    /// An ASCII control character other than line feed, at this byte.
    #[error("the note has a control character at byte {0}")]
    ControlCharacter(usize),
    /// No blank line between text and signatures, or no text before it.
    #[error("the note has no text followed by a blank line")]
    NoSeparator,
    /// The text does not end in a line feed.
    #[error("the note's text does not end in a line feed")]
    UnfinishedText,
    /// Nothing after the blank line.
    #[error("the note has no signature line")]
    NoSignatures,
    /// The last line has no line feed.
    #[error("the note's last line does not end in a line feed")]
    UnfinishedLine,
    /// More lines than [`MAX_SIGNATURES`].
    #[error("the note has more than {MAX_SIGNATURES} signature lines")]
    TooManySignatures,
    /// A line that is not "— name base64" (counted from 0).
    #[error("signature line {0} is not an em dash, a name and base64, each after one space")]
    SignatureLine(usize),
    /// The base64 of a line (counted from 0) is not canonical.
    #[error("signature line {line} is not canonical: {cause}")]
    SignatureBase64 {
        /// The line, from 0.
        line: usize,
        /// What is wrong with it.
        cause: Base64Error,
    },
    /// Nothing behind the key id in a line (counted from 0).
    #[error("signature line {0} holds no signature behind its key id")]
    EmptySignature(usize),
    /// Two lines with one name and key id; the second is this one (counted from 0).
    #[error("signature line {0} repeats a name and key id")]
    DuplicateSignature(usize),
    /// A name that is empty, or has white space, control characters or a plus sign.
    #[error("a key name must not be empty nor have spaces, control characters or '+'")]
    Name,
    /// No line has this key's name and id.
    #[error("the note has no signature by {name:?} with key id {id}")]
    NotSigned {
        /// The key's name.
        name: String,
        /// The key's id.
        id: KeyId,
    },
    /// The line with this key's name and id does not verify.
    #[error("the signature by {name:?} with key id {id} does not hold: {cause}")]
    BadSignature {
        /// The key's name.
        name: String,
        /// The key's id.
        id: KeyId,
        /// What is wrong with it.
        cause: KeyError,
    },
    /// A verifier key that is not "name+id+base64".
    #[error("a verifier key is a name, 8 lower-case hexadecimal digits and base64, joined by '+'")]
    VerifierKey,
    /// The base64 of a verifier key is not canonical.
    #[error("the verifier key is not canonical: {0}")]
    VerifierKeyBase64(Base64Error),
    /// A signature type other than 0x01 and 0x02.
    #[error("the verifier key has the signature type {0:#04x}; 0x01 and 0x02 are supported")]
    SignatureType(u8),
    /// The key of a verifier key is none of its type.
    #[error("the verifier key holds no key of its type: {0}")]
    PublicKey(KeyError),
    /// The id of a verifier key is not that of its key.
    #[error("the verifier key names the key id {stated}, but its key has {actual}")]
    KeyIdMismatch {
        /// The id in the text.
        stated: KeyId,
        /// The id that follows from name, type and key.
        actual: KeyId,
    },
}

/// A key id: 4 bytes, shown as 8 lower-case hexadecimal digits. It tells keys of one name apart; it
/// is no commitment to the key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId([u8; KEY_ID_LEN]);

impl KeyId {
    /// The id with these bytes.
    pub const fn from_bytes(bytes: [u8; KEY_ID_LEN]) -> KeyId {
        KeyId(bytes)
    }

    /// The 4 bytes.
    pub const fn as_bytes(&self) -> &[u8; KEY_ID_LEN] {
        &self.0
    }

    /// The id of `key` under `name`, by the rule of its signature type (see the module).
    pub fn of(name: &str, key: &PublicKey) -> KeyId {
        let hash = match key.algorithm() {
            Algorithm::Ed25519 => Hash::of_parts(&[name.as_bytes(), b"\n", &[TYPE_ED25519], key.raw()]),
            Algorithm::EcdsaP256 => Hash::of(&key.spki_der()),
        };
        let [a, b, c, d, ..] = hash.to_bytes();
        KeyId([a, b, c, d])
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", u32::from_be_bytes(self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Checks a key name: not empty, no Unicode white space, no control character, no plus sign.
pub(crate) fn check_name(name: &str) -> Result<(), NoteError> {
    let refused = |c: char| c.is_whitespace() || c < '\u{20}' || c == '+';
    if name.is_empty() || name.contains(refused) {
        return Err(NoteError::Name);
    }
    Ok(())
}

/// One signature line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoteSignature {
    name: String,
    key_id: KeyId,
    signature: Vec<u8>,
}

impl NoteSignature {
    /// The line for a signature that `key` made under `name`. The signature, in wire form (Ed25519
    /// 64 bytes, ECDSA DER), is not verified here.
    ///
    /// # Errors
    /// [`NoteError::Name`]; [`NoteError::EmptySignature`] with line 0.
    pub fn new(name: &str, key: &PublicKey, signature: &[u8]) -> Result<NoteSignature, NoteError> {
        check_name(name)?;
        if signature.is_empty() {
            return Err(NoteError::EmptySignature(0));
        }
        Ok(NoteSignature { name: name.to_owned(), key_id: KeyId::of(name, key), signature: signature.to_vec() })
    }

    /// Parses line number `line` (for errors) without its line feed.
    fn parse(text: &str, line: usize) -> Result<NoteSignature, NoteError> {
        let (name, base64) = text
            .strip_prefix(SIGNATURE_PREFIX)
            .and_then(|rest| rest.split_once(' '))
            .ok_or(NoteError::SignatureLine(line))?;
        check_name(name)?;
        let bytes = std_decode(base64).map_err(|cause| NoteError::SignatureBase64 { line, cause })?;
        match bytes.split_first_chunk::<KEY_ID_LEN>() {
            Some((id, signature)) if !signature.is_empty() => {
                Ok(NoteSignature { name: name.to_owned(), key_id: KeyId(*id), signature: signature.to_vec() })
            }
            _ => Err(NoteError::EmptySignature(line)),
        }
    }

    /// The name of the key.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The id of the key.
    pub fn key_id(&self) -> KeyId {
        self.key_id
    }

    /// The signature in wire form.
    pub fn signature(&self) -> &[u8] {
        &self.signature
    }

    /// The line with its line feed.
    fn write(&self, note: &mut String) {
        let bytes = [self.key_id.as_bytes(), self.signature.as_slice()].concat();
        note.push_str(SIGNATURE_PREFIX);
        note.push_str(&self.name);
        note.push(' ');
        note.push_str(&std_encode(&bytes));
        note.push('\n');
    }
}

/// A text with 1 to 16 signature lines. None of them is verified by parsing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedNote {
    text: String,
    signatures: Vec<NoteSignature>,
}

impl SignedNote {
    /// Parses a whole note, at most [`MAX_NOTE_LEN`] bytes.
    ///
    /// # Errors
    /// [`NoteError`], one variant for each cause.
    pub fn parse(bytes: &[u8]) -> Result<SignedNote, NoteError> {
        if bytes.len() > MAX_NOTE_LEN {
            return Err(NoteError::TooLong(bytes.len()));
        }
        let note = std::str::from_utf8(bytes).map_err(|error| NoteError::NotUtf8(error.valid_up_to()))?;
        check_characters(note)?;
        // The last blank line separates; the text keeps its final line feed.
        let at = note.rfind("\n\n").ok_or(NoteError::NoSeparator)?;
        let (text, lines) = (&note[..=at], &note[at + 2..]);
        if lines.is_empty() {
            return Err(NoteError::NoSignatures);
        }
        let lines = lines.strip_suffix('\n').ok_or(NoteError::UnfinishedLine)?;
        let mut signatures = Vec::with_capacity(1);
        for (line, text) in lines.split('\n').enumerate() {
            if line == MAX_SIGNATURES {
                return Err(NoteError::TooManySignatures);
            }
            signatures.push(NoteSignature::parse(text, line)?);
        }
        SignedNote::assemble(text.to_owned(), signatures)
    }

    /// Puts a note together: `text` (its final line feed included) and 1 to 16 signatures.
    ///
    /// # Errors
    /// [`NoteError`] for a note that [`SignedNote::parse`] would refuse.
    pub fn assemble(text: String, signatures: Vec<NoteSignature>) -> Result<SignedNote, NoteError> {
        if !text.ends_with('\n') {
            return Err(NoteError::UnfinishedText);
        }
        check_characters(&text)?;
        if signatures.is_empty() {
            return Err(NoteError::NoSignatures);
        }
        if signatures.len() > MAX_SIGNATURES {
            return Err(NoteError::TooManySignatures);
        }
        for (line, signature) in signatures.iter().enumerate() {
            let same = |other: &NoteSignature| (&other.name, other.key_id) == (&signature.name, signature.key_id);
            if signatures[..line].iter().any(same) {
                return Err(NoteError::DuplicateSignature(line));
            }
        }
        let note = SignedNote { text, signatures };
        let length = note.to_bytes().len();
        if length > MAX_NOTE_LEN {
            return Err(NoteError::TooLong(length));
        }
        Ok(note)
    }

    /// The text, which is what is signed, with its final line feed.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The signature lines in their order.
    pub fn signatures(&self) -> &[NoteSignature] {
        &self.signatures
    }

    /// The exact bytes of the note.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut note = self.text.clone();
        note.push('\n');
        for signature in &self.signatures {
            signature.write(&mut note);
        }
        note.into_bytes()
    }

    /// Verifies the signature of `key` under `name`. Signatures of other keys are ignored, as the
    /// specification demands.
    ///
    /// # Errors
    /// [`NoteError::NotSigned`] if no line has this name and key id; [`NoteError::BadSignature`] if
    /// one has and does not verify.
    pub fn verify(&self, name: &str, key: &PublicKey) -> Result<(), NoteError> {
        let id = KeyId::of(name, key);
        let ours = |line: &&NoteSignature| line.key_id == id && line.name == name;
        let Some(line) = self.signatures.iter().find(ours) else {
            let name = name.to_owned();
            return Err(NoteError::NotSigned { name, id });
        };
        key.verify(self.text.as_bytes(), &line.signature).map_err(|cause| NoteError::BadSignature {
            name: name.to_owned(),
            id,
            cause,
        })
    }
}

/// Refuses ASCII control characters other than line feed.
fn check_characters(text: &str) -> Result<(), NoteError> {
    match text.bytes().position(|byte| byte < 0x20 && byte != b'\n') {
        Some(at) => Err(NoteError::ControlCharacter(at)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
