//! C2SP checkpoints: the signed head of a trail (c2sp.org/tlog-checkpoint).
//!
//! The signed text is three lines: the origin, the size in decimal, the root in base64. The key's
//! name is the origin. Stricter than the specification: no extension lines, the origin follows
//! [`Origin`]'s grammar, sizes end at 2^63 - 1, and the empty tree has one root.

use crate::base64::{std_decode, std_encode};
use crate::hash::Hash;
use crate::keys::PublicKey;
use crate::note::{NoteError, NoteSignature, SignedNote};
use crate::origin::{MAX_ORIGIN_LEN, Origin, OriginError};
use crate::tree::MAX_SIZE;

/// The longest text, in bytes: origin (200), size (19 digits), root (44 characters), three line
/// feeds.
pub const MAX_TEXT_LEN: usize = MAX_ORIGIN_LEN + 19 + 44 + 3;

/// Why a checkpoint is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// A text longer than [`MAX_TEXT_LEN`].
    #[error("the checkpoint's text has {0} bytes, more than {MAX_TEXT_LEN}")]
    TooLong(usize),
    /// Not three lines of UTF-8, each ended by a line feed.
    #[error("a checkpoint has three lines (origin, size, root) and nothing after them")]
    Lines,
    /// The first line.
    #[error("the checkpoint's origin: {0}")]
    Origin(OriginError),
    /// The second line.
    #[error("the checkpoint's size is not a decimal number up to {MAX_SIZE} without leading zeros")]
    Size,
    /// The third line.
    #[error("the checkpoint's root is not 32 bytes in canonical base64")]
    Root,
    /// Size 0 with another root than SHA-256 of nothing.
    #[error("a checkpoint of size 0 has the root {0}, which is not the empty tree's")]
    EmptyRoot(Hash),
    /// A size above [`MAX_SIZE`] was given.
    #[error("a checkpoint of {0} leaves is beyond the largest size, {MAX_SIZE}")]
    TooLarge(u64),
    /// The note around the text, or its signature.
    #[error(transparent)]
    Note(#[from] NoteError),
}

/// The head of a trail: what a checkpoint's signature states.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The trail.
    pub origin: Origin,
    /// Its size in records (leaves), at most [`MAX_SIZE`].
    pub size: u64,
    /// The RFC 6962 root at that size.
    pub root: Hash,
}

impl Checkpoint {
    /// The exact bytes that are signed: `origin\nsize\nbase64(root)\n`.
    pub fn text(&self) -> String {
        let root = std_encode(self.root.as_bytes());
        format!("{}\n{}\n{root}\n", self.origin, self.size)
    }

    /// Parses what [`Checkpoint::text`] writes, and nothing else.
    ///
    /// # Errors
    /// [`CheckpointError`], every variant but `TooLarge` and `Note`.
    pub fn parse_text(text: &[u8]) -> Result<Checkpoint, CheckpointError> {
        if text.len() > MAX_TEXT_LEN {
            return Err(CheckpointError::TooLong(text.len()));
        }
        let text = std::str::from_utf8(text).map_err(|_| CheckpointError::Lines)?;
        let body = text.strip_suffix('\n').ok_or(CheckpointError::Lines)?;
        let mut lines = body.split('\n');
        let (Some(origin), Some(size), Some(root), None) = (lines.next(), lines.next(), lines.next(), lines.next())
        else {
            return Err(CheckpointError::Lines);
        };
        let checkpoint = Checkpoint {
            origin: Origin::parse(origin).map_err(CheckpointError::Origin)?,
            size: parse_decimal(size).ok_or(CheckpointError::Size)?,
            root: parse_hash(root).ok_or(CheckpointError::Root)?,
        };
        checkpoint.check()?;
        Ok(checkpoint)
    }

    /// Checks what the types leave open: the size's bound, and the empty tree's root.
    fn check(&self) -> Result<(), CheckpointError> {
        if self.size > MAX_SIZE {
            return Err(CheckpointError::TooLarge(self.size));
        }
        if self.size == 0 && self.root != Hash::OF_EMPTY {
            return Err(CheckpointError::EmptyRoot(self.root));
        }
        Ok(())
    }
}

/// Parses a decimal number from 0 to [`MAX_SIZE`] without sign or leading zeros.
pub(crate) fn parse_decimal(text: &str) -> Option<u64> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits || (text.len() > 1 && text.starts_with('0')) {
        return None;
    }
    text.parse().ok().filter(|number| *number <= MAX_SIZE)
}

/// Parses a hash in canonical base64.
pub(crate) fn parse_hash(text: &str) -> Option<Hash> {
    let bytes = std_decode(text).ok()?;
    Hash::try_from(bytes.as_slice()).ok()
}

/// A checkpoint as a signed note. Parsing verifies no signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedCheckpoint {
    checkpoint: Checkpoint,
    note: SignedNote,
}

impl SignedCheckpoint {
    /// Puts checkpoint and signature (wire form, over [`Checkpoint::text`]) together. The signature
    /// is not verified here.
    ///
    /// # Errors
    /// [`CheckpointError::TooLarge`], [`CheckpointError::EmptyRoot`]; [`CheckpointError::Note`] for
    /// an empty or over-long signature.
    pub fn assemble(
        checkpoint: &Checkpoint,
        key: &PublicKey,
        signature: &[u8],
    ) -> Result<SignedCheckpoint, CheckpointError> {
        checkpoint.check()?;
        let line = NoteSignature::new(checkpoint.origin.as_str(), key, signature)?;
        let note = SignedNote::assemble(checkpoint.text(), vec![line])?;
        Ok(SignedCheckpoint { checkpoint: checkpoint.clone(), note })
    }

    /// Parses a whole signed checkpoint, at most 64 KiB. Signatures by other names (witnesses) may
    /// stand beside the trail's own.
    ///
    /// # Errors
    /// [`CheckpointError`], one variant for each cause.
    pub fn parse(bytes: &[u8]) -> Result<SignedCheckpoint, CheckpointError> {
        let note = SignedNote::parse(bytes)?;
        let checkpoint = Checkpoint::parse_text(note.text().as_bytes())?;
        Ok(SignedCheckpoint { checkpoint, note })
    }

    /// Verifies the signature of `key` under the checkpoint's origin. Whether that origin is the
    /// trail in question, and that key its checkpoint key, is the caller's to decide.
    ///
    /// # Errors
    /// [`CheckpointError::Note`] with [`NoteError::NotSigned`] or [`NoteError::BadSignature`].
    pub fn verify(&self, key: &PublicKey) -> Result<&Checkpoint, CheckpointError> {
        self.note.verify(self.checkpoint.origin.as_str(), key)?;
        Ok(&self.checkpoint)
    }

    /// What it states; nothing is proven before [`SignedCheckpoint::verify`].
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The note with all its signature lines.
    pub fn note(&self) -> &SignedNote {
        &self.note
    }

    /// The exact bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.note.to_bytes()
    }
}

#[cfg(test)]
pub(crate) mod tests;
