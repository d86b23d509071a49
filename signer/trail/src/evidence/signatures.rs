//! The record signatures of a tile: one DSSE envelope a line.

use crate::dsse::{DsseError, Envelope, Signature};
use crate::keys::Kid;
use crate::signing::RECORD_PAYLOAD_TYPE;

/// A record and its signature.
#[derive(Clone, Copy, Debug)]
pub struct RecordSignature<'a> {
    /// The record's exact bytes.
    pub record: &'a [u8],
    /// The record key.
    pub kid: Kid,
    /// The signature in wire form.
    pub signature: &'a [u8],
}

/// Why bytes are not the signatures of a tile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignaturesError {
    /// A line is no envelope.
    #[error("line {line}: {source}")]
    Line {
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        source: DsseError,
    },
    /// Not one line for each record.
    #[error("{found} lines for {expected} records")]
    Count {
        /// Records of the tile.
        expected: usize,
        /// Lines of the file.
        found: usize,
    },
    /// The last line has no line feed.
    #[error("the file does not end in a line feed")]
    Unfinished,
}

/// The bytes of a file of signatures, in the records' order.
///
/// # Errors
/// [`SignaturesError::Line`] for a signature or record beyond the bounds of an envelope.
pub fn write_signatures(signatures: &[RecordSignature<'_>]) -> Result<Vec<u8>, SignaturesError> {
    let mut out = Vec::new();
    for (at, signed) in signatures.iter().enumerate() {
        let signature = Signature { keyid: signed.kid, sig: signed.signature.to_vec() };
        let envelope = Envelope::new(RECORD_PAYLOAD_TYPE, signed.record.to_vec(), vec![signature]);
        let envelope = envelope.map_err(|source| SignaturesError::Line { line: at + 1, source })?;
        out.extend_from_slice(&envelope.to_json());
        out.push(b'\n');
    }
    Ok(out)
}

/// Splits a file of signatures into its `count` lines; each is parsed by itself, so that one broken
/// line hides no other.
///
/// # Errors
/// [`SignaturesError::Count`], [`SignaturesError::Unfinished`].
pub fn parse_signatures(bytes: &[u8], count: usize) -> Result<Vec<Result<Envelope, SignaturesError>>, SignaturesError> {
    let body = bytes.strip_suffix(b"\n").ok_or(SignaturesError::Unfinished)?;
    let found = body.iter().filter(|byte| **byte == b'\n').count() + 1;
    if found != count {
        return Err(SignaturesError::Count { expected: count, found });
    }
    let parse = |(at, line)| Envelope::parse(line).map_err(|source| SignaturesError::Line { line: at + 1, source });
    Ok(body.split(|byte| *byte == b'\n').enumerate().map(parse).collect())
}
