//! What a gateway holds of a record: its exact bytes, and what proves their place.

use std::sync::Arc;

use bytes::Bytes;
use countersign_trail::checkpoint::SignedCheckpoint;
use countersign_trail::hash::Hash;
use countersign_trail::id::PartName;
use countersign_trail::keys::Kid;
use countersign_trail::origin::Origin;
use countersign_trail::part::SALT_LEN;
use countersign_trail::receipt::{self, ReceiptError};
use countersign_trail::time::Timestamp;
use countersign_trail::tlog_proof::{TlogProof, TlogProofError};

/// A record that is durable, signed, and checked against what was sent. Cheap to clone but for the
/// inclusion path (at most 63 hashes).
#[derive(Clone, Debug)]
pub struct Receipt {
    /// The trail.
    pub trail: Arc<Origin>,
    /// The event's, as given or as made for it; empty for a control record that was held.
    pub event_id: String,
    /// The record's exact bytes.
    pub record: Bytes,
    /// Its place in the trail.
    pub seq: u64,
    /// When the daemon ordered it.
    pub time: Timestamp,
    /// RFC 6962 leaf hash of `record`.
    pub leaf_hash: Hash,
    /// The salt of each part that the daemon holds.
    pub salts: Vec<(PartName, [u8; SALT_LEN])>,
    /// The key that vouches for it.
    pub kid: Kid,
    /// How it does.
    pub proof: Proof,
}

/// How a key vouches for a record.
#[derive(Clone, Debug)]
pub enum Proof {
    /// Record mode: its signature (wire form) over the record's DSSE encoding.
    Signature(Bytes),
    /// Batch mode: inclusion under a checkpoint that it signed.
    Inclusion {
        /// The signed checkpoint, shared by the records of an answer.
        checkpoint: Arc<SignedCheckpoint>,
        /// RFC 9162 inclusion path, from the leaf's sibling up.
        path: Vec<Hash>,
    },
}

impl Receipt {
    /// The C2SP tlog-proof; none in record mode.
    ///
    /// # Errors
    /// [`TlogProofError`], not for a receipt that this library made.
    pub fn tlog_proof(&self) -> Result<Option<TlogProof>, TlogProofError> {
        match &self.proof {
            Proof::Signature(_) => Ok(None),
            Proof::Inclusion { checkpoint, path } => {
                TlogProof::new(None, self.seq, path.clone(), SignedCheckpoint::clone(checkpoint)).map(Some)
            }
        }
    }

    /// The receipt document (canonical JSON, one line without line feed): to be kept, and given to
    /// the verifier. Salts are not in it: keep them with the content.
    ///
    /// # Errors
    /// [`ReceiptError`], not for a receipt that this library made.
    pub fn to_json(&self) -> Result<Vec<u8>, ReceiptError> {
        let proof = match (&self.proof, self.tlog_proof()?) {
            (_, Some(proof)) => receipt::ReceiptProof::Inclusion(Box::new(proof)),
            (Proof::Signature(signature), None) => receipt::ReceiptProof::Signature(signature.to_vec()),
            (Proof::Inclusion { .. }, None) => return Err(ReceiptError::Rule("has no proof")),
        };
        receipt::Receipt::new(self.record.to_vec(), self.kid, proof)?.to_bytes()
    }

    /// The salt of a part; none for a part that the client keeps, or that the event did not have.
    pub fn salt(&self, part: &str) -> Option<&[u8; SALT_LEN]> {
        self.salts.iter().find(|(name, _)| name.as_str() == part).map(|(_, salt)| salt)
    }
}
