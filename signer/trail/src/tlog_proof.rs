//! C2SP tlog-proof v1: one record's proof as a text that is checked alone, offline
//! (c2sp.org/tlog-proof).
//!
//! Lines: `c2sp.org/tlog-proof@v1`; optionally `extra ` and base64; `index ` and a decimal number;
//! the inclusion path in base64, one hash a line from the leaf's sibling up; an empty line; the
//! signed checkpoint as it is. The file's usual extension is `.tlog-proof`.
//!
//! Stricter than the specification: extra data is never empty and at most 64 KiB, the path has the
//! very length that index and size demand, and one value has one spelling.

use crate::base64::{Base64Error, std_decode, std_encode};
use crate::checkpoint::{Checkpoint, CheckpointError, SignedCheckpoint, parse_decimal, parse_hash};
use crate::hash::Hash;
use crate::keys::PublicKey;
use crate::note::MAX_NOTE_LEN;
use crate::tree::{MAX_INCLUSION_PATH, MAX_SIZE, TreeError, inclusion_path_len, verify_inclusion};

/// The first line, without its line feed.
const HEADER: &str = "c2sp.org/tlog-proof@v1";

/// The most extra data, in bytes: room for one record (65,535).
pub const MAX_EXTRA_LEN: usize = 64 * 1024;

/// The longest proof, in bytes: header, extra data in base64, index (19 digits), 63 path lines of
/// 44 characters, the empty line and a note.
pub const MAX_PROOF_LEN: usize = (HEADER.len() + 1)
    + ("extra ".len() + MAX_EXTRA_LEN.div_ceil(3) * 4 + 1)
    + ("index ".len() + 19 + 1)
    + MAX_INCLUSION_PATH * (44 + 1)
    + 1
    + MAX_NOTE_LEN;

/// Why a proof is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlogProofError {
    /// Longer than [`MAX_PROOF_LEN`].
    #[error("the proof has {0} bytes, more than {MAX_PROOF_LEN}")]
    TooLong(usize),
    /// Another first line, or no UTF-8 before the empty line.
    #[error("the proof does not begin with the line {HEADER:?}")]
    Header,
    /// No empty line ends the path.
    #[error("the proof has no empty line before its checkpoint")]
    NoSeparator,
    /// The base64 of the extra data is not canonical.
    #[error("the proof's extra data is not canonical: {0}")]
    Extra(Base64Error),
    /// Extra data of no bytes, or of more than [`MAX_EXTRA_LEN`].
    #[error("the proof's extra data has {0} bytes; 1 to {MAX_EXTRA_LEN} are allowed")]
    ExtraLength(usize),
    /// No index line, or one with a number in another spelling.
    #[error("the proof's index line is not 'index ' and a number up to {MAX_SIZE}")]
    Index,
    /// A path line (counted from 0) that is not one hash.
    #[error("path line {0} of the proof is not 32 bytes in canonical base64")]
    PathLine(usize),
    /// A path of another length than index and size demand.
    #[error("the proof's path has {actual} hashes; its leaf and size demand {expected}")]
    PathLength {
        /// The length that index and size demand.
        expected: usize,
        /// The number of path lines.
        actual: usize,
    },
    /// The index is not in the tree, or the path leads to another root.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The checkpoint or its signature.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}

/// The proof that one record stands at one place of a trail. Nothing in it is verified before
/// [`TlogProof::verify`]; the extra data never is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlogProof {
    extra: Option<Vec<u8>>,
    index: u64,
    path: Vec<Hash>,
    checkpoint: SignedCheckpoint,
}

impl TlogProof {
    /// Puts a proof together. `extra` is 1 to [`MAX_EXTRA_LEN`] bytes, if any.
    ///
    /// # Errors
    /// [`TlogProofError::ExtraLength`], [`TlogProofError::Tree`], [`TlogProofError::PathLength`].
    pub fn new(
        extra: Option<Vec<u8>>,
        index: u64,
        path: Vec<Hash>,
        checkpoint: SignedCheckpoint,
    ) -> Result<TlogProof, TlogProofError> {
        if let Some(extra) = &extra
            && !(1..=MAX_EXTRA_LEN).contains(&extra.len())
        {
            return Err(TlogProofError::ExtraLength(extra.len()));
        }
        let expected = inclusion_path_len(index, checkpoint.checkpoint().size)?;
        if path.len() != expected {
            return Err(TlogProofError::PathLength { expected, actual: path.len() });
        }
        Ok(TlogProof { extra, index, path, checkpoint })
    }

    /// Parses a whole proof, at most [`MAX_PROOF_LEN`] bytes.
    ///
    /// # Errors
    /// [`TlogProofError`], one variant for each cause.
    pub fn parse(bytes: &[u8]) -> Result<TlogProof, TlogProofError> {
        if bytes.len() > MAX_PROOF_LEN {
            return Err(TlogProofError::TooLong(bytes.len()));
        }
        let at = bytes.windows(2).position(|pair| pair == b"\n\n");
        let (head, note) = bytes.split_at(at.ok_or(TlogProofError::NoSeparator)?);
        let head = std::str::from_utf8(head).map_err(|_| TlogProofError::Header)?;
        let mut lines = head.split('\n');
        if lines.next() != Some(HEADER) {
            return Err(TlogProofError::Header);
        }
        let mut line = lines.next().ok_or(TlogProofError::Index)?;
        let mut extra = None;
        if let Some(base64) = line.strip_prefix("extra ") {
            extra = Some(std_decode(base64).map_err(TlogProofError::Extra)?);
            line = lines.next().ok_or(TlogProofError::Index)?;
        }
        let index = line.strip_prefix("index ").and_then(parse_decimal).ok_or(TlogProofError::Index)?;
        let mut path = Vec::new();
        for (number, line) in lines.enumerate() {
            // One beyond the longest is enough to be refused by its length below.
            if number > MAX_INCLUSION_PATH {
                break;
            }
            path.push(parse_hash(line).ok_or(TlogProofError::PathLine(number))?);
        }
        // Past the line feed of the last line and the empty line's own.
        let checkpoint = SignedCheckpoint::parse(note.get(2..).unwrap_or_default())?;
        TlogProof::new(extra, index, path, checkpoint)
    }

    /// The exact bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut text = format!("{HEADER}\n");
        if let Some(extra) = &self.extra {
            text.push_str("extra ");
            text.push_str(&std_encode(extra));
            text.push('\n');
        }
        text.push_str(&format!("index {}\n", self.index));
        for hash in &self.path {
            text.push_str(&std_encode(hash.as_bytes()));
            text.push('\n');
        }
        text.push('\n');
        let mut bytes = text.into_bytes();
        bytes.extend_from_slice(&self.checkpoint.to_bytes());
        bytes
    }

    /// Verifies that `key` signed the checkpoint and that the leaf with hash `leaf` stands at the
    /// proof's index in it. Whether the checkpoint's origin is the trail in question, and `key` its
    /// checkpoint key, is the caller's to decide.
    ///
    /// # Errors
    /// [`TlogProofError::Checkpoint`] for the signature, [`TlogProofError::Tree`] for the path.
    pub fn verify(&self, leaf: Hash, key: &PublicKey) -> Result<&Checkpoint, TlogProofError> {
        let signed = self.checkpoint.verify(key)?;
        verify_inclusion(leaf, self.index, signed.size, &self.path, signed.root)?;
        Ok(signed)
    }

    /// The extra data, which nothing authenticates.
    pub fn extra(&self) -> Option<&[u8]> {
        self.extra.as_deref()
    }

    /// The record's index, which is its sequence number.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// The inclusion path, from the leaf's sibling up.
    pub fn path(&self) -> &[Hash] {
        &self.path
    }

    /// The signed checkpoint.
    pub fn checkpoint(&self) -> &SignedCheckpoint {
        &self.checkpoint
    }
}

#[cfg(test)]
mod tests;
