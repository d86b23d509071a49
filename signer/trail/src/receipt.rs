//! The receipt that a gateway keeps of a record: the record's bytes with what proves its place.
//!
//! A receipt is canonical JSON (RFC 8785):
//!
//! ```json
//! {"document":"countersign.receipt","kid":"…","record":"<base64>","signature":"<base64>",
//!  "trail":"acme.example/gateway/decisions","v":1}
//! ```
//!
//! with `signature` (record mode: wire form, over the record's DSSE encoding, by the record key) or
//! in its place `tlog_proof` (batch mode: the C2SP tlog-proof as text, its checkpoint signed by the
//! checkpoint key); `kid` is that key. A file of receipts has one a line, each ended by a line feed.
//!
//! A receipt kept elsewhere is an anchor: evidence in which another record stands at that place, or
//! that ends before it, is not what the gateway was told.

use serde::{Deserialize, Serialize};

use crate::base64;
use crate::dsse;
use crate::hash::Hash;
use crate::jcs::{self, JcsError};
use crate::keys::{KeyError, Kid, PublicKey};
use crate::origin::Origin;
use crate::record::{MAX_RECORD_LEN, Record, RecordError};
use crate::signing::RECORD_PAYLOAD_TYPE;
use crate::tlog_proof::{MAX_PROOF_LEN, TlogProof, TlogProofError};
use crate::tree;

const DOCUMENT: &str = "countersign.receipt";

/// The longest receipt, in bytes: record in base64, a proof whose every character may be escaped in
/// two, and 1,024 for the rest.
pub const MAX_RECEIPT_LEN: usize = MAX_RECORD_LEN.div_ceil(3) * 4 + 2 * MAX_PROOF_LEN + 1024;

/// The most receipts of one file.
pub const MAX_RECEIPTS: usize = 1_000_000;

/// Why bytes are not a receipt, or a receipt proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// Not canonical JSON of the receipt's shape.
    #[error("receipt: {0}")]
    Json(#[from] JcsError),
    /// A rule between its members is broken.
    #[error("receipt: {0}")]
    Rule(&'static str),
    /// What it holds is no record.
    #[error("receipt: {0}")]
    Record(#[from] RecordError),
    /// Its proof is none, or does not hold.
    #[error("receipt: {0}")]
    Proof(#[from] TlogProofError),
    /// Its signature does not hold.
    #[error("receipt: {0}")]
    Signature(#[from] KeyError),
    /// It names another key than the one given.
    #[error("the receipt is by key {0}")]
    OtherKey(Kid),
    /// More than [`MAX_RECEIPTS`] lines.
    #[error("more than {MAX_RECEIPTS} receipts in one file")]
    TooMany,
}

/// What proves a record's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReceiptProof {
    /// The record key's signature in wire form.
    Signature(Vec<u8>),
    /// Inclusion under a signed checkpoint.
    Inclusion(Box<TlogProof>),
}

/// A record with its proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The record's exact bytes.
    pub bytes: Vec<u8>,
    /// The record as it parses.
    pub record: Record,
    /// The key that proves it.
    pub kid: Kid,
    /// How.
    pub proof: ReceiptProof,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Json {
    document: String,
    kid: Kid,
    record: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    signature: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tlog_proof: Option<String>,
    trail: Origin,
    v: u64,
}

impl Receipt {
    /// Puts a receipt together. Nothing is verified.
    ///
    /// # Errors
    /// [`ReceiptError::Record`]; [`ReceiptError::Rule`] for a proof of another index.
    pub fn new(bytes: Vec<u8>, kid: Kid, proof: ReceiptProof) -> Result<Receipt, ReceiptError> {
        let record = Record::parse(&bytes)?;
        if let ReceiptProof::Inclusion(proof) = &proof
            && proof.index() != record.header.seq
        {
            return Err(ReceiptError::Rule("the proof is of another index than the record's seq"));
        }
        if let ReceiptProof::Inclusion(proof) = &proof
            && proof.checkpoint().checkpoint().origin != record.header.trail
        {
            return Err(ReceiptError::Rule("the proof is of another trail than the record"));
        }
        Ok(Receipt { bytes, record, kid, proof })
    }

    /// Parses one receipt.
    ///
    /// # Errors
    /// [`ReceiptError`], all but `Signature`, `OtherKey` and `TooMany`.
    pub fn parse(bytes: &[u8]) -> Result<Receipt, ReceiptError> {
        let json: Json = jcs::parse_canonical(bytes, MAX_RECEIPT_LEN)?;
        if json.document != DOCUMENT || json.v != 1 {
            return Err(ReceiptError::Rule("not a countersign.receipt of version 1"));
        }
        let decode = |text: &str| base64::std_decode(text).map_err(|_| ReceiptError::Rule("a member is not base64"));
        let proof = match (json.signature, json.tlog_proof) {
            (Some(signature), None) => ReceiptProof::Signature(decode(&signature)?),
            (None, Some(text)) => ReceiptProof::Inclusion(Box::new(TlogProof::parse(text.as_bytes())?)),
            _ => return Err(ReceiptError::Rule("wants either signature or tlog_proof")),
        };
        let receipt = Receipt::new(decode(&json.record)?, json.kid, proof)?;
        if receipt.record.header.trail != json.trail {
            return Err(ReceiptError::Rule("trail is not the record's"));
        }
        Ok(receipt)
    }

    /// Parses a file of receipts, one a line; the last line feed may be missing.
    ///
    /// # Errors
    /// As [`Receipt::parse`], with the line's number from 1; [`ReceiptError::TooMany`] at line 0.
    pub fn parse_lines(bytes: &[u8]) -> Result<Vec<Receipt>, (usize, ReceiptError)> {
        let body = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        let mut receipts = Vec::new();
        for (at, line) in body.split(|byte| *byte == b'\n').enumerate() {
            if at >= MAX_RECEIPTS {
                return Err((0, ReceiptError::TooMany));
            }
            receipts.push(Receipt::parse(line).map_err(|error| (at + 1, error))?);
        }
        Ok(receipts)
    }

    /// The receipt's bytes, without line feed.
    ///
    /// # Errors
    /// [`ReceiptError::Json`], not for a receipt of valid parts.
    pub fn to_bytes(&self) -> Result<Vec<u8>, ReceiptError> {
        let (signature, tlog_proof) = match &self.proof {
            ReceiptProof::Signature(signature) => (Some(base64::std_encode(signature)), None),
            ReceiptProof::Inclusion(proof) => (None, Some(String::from_utf8_lossy(&proof.to_bytes()).into_owned())),
        };
        Ok(jcs::to_canonical(&Json {
            document: DOCUMENT.to_owned(),
            kid: self.kid,
            record: base64::std_encode(&self.bytes),
            signature,
            tlog_proof,
            trail: self.record.header.trail.clone(),
            v: 1,
        })?)
    }

    /// The record's leaf hash.
    pub fn leaf(&self) -> Hash {
        tree::leaf_hash(&self.bytes)
    }

    /// Verifies the proof under `key`. Whether that is the key in force for the record's trail and
    /// place is the caller's to decide.
    ///
    /// # Errors
    /// [`ReceiptError::OtherKey`], [`ReceiptError::Signature`], [`ReceiptError::Proof`].
    pub fn verify(&self, key: &PublicKey) -> Result<(), ReceiptError> {
        if self.kid != key.kid() {
            return Err(ReceiptError::OtherKey(self.kid));
        }
        match &self.proof {
            ReceiptProof::Signature(signature) => {
                key.verify(&dsse::pae(RECORD_PAYLOAD_TYPE, &self.bytes), signature)?;
            }
            ReceiptProof::Inclusion(proof) => {
                proof.verify(self.leaf(), key)?;
            }
        }
        Ok(())
    }
}
