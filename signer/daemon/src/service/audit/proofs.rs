//! GetProof and GetConsistency.

use countersign_proto::v1::{GetConsistencyRequest, GetConsistencyResponse, GetProofRequest, GetProofResponse};
use countersign_trail::checkpoint::SignedCheckpoint;
use countersign_trail::hash::Hash;
use countersign_trail::tlog_proof::TlogProof;
use countersign_trail::tree::{self, ReadError as PathError};

use super::Audit;
use crate::export::current_checkpoint;
use crate::peer::Peer;
use crate::reason::{Reason, Refusal};
use crate::store::ReadError;
use crate::store::tree::{StoredTree, TreeReadError};

impl Audit {
    /// A proof under the newest checkpoint; where that does not cover the record yet, one is taken.
    pub(super) async fn get_proof(
        &self,
        peer: Option<&Peer>,
        request: GetProofRequest,
    ) -> Result<GetProofResponse, Refusal> {
        let (trail, _) = self.readable(peer, &request.trail)?;
        let (no, seq, now) = (trail.facts().no, request.seq, trail.now());
        if seq >= now.signed {
            return Err(Refusal::new(
                Reason::NotFound,
                format!("there is no signed record {seq}; the trail has {}", now.signed),
            ));
        }
        if now.checkpoint <= seq {
            current_checkpoint(&self.appliance, &trail).await?;
        }
        let proof = self.read(move |snapshot| {
            let Some(note) = snapshot.newest_checkpoint(no)?.filter(|note| note.size > seq) else { return Ok(None) };
            let tree = StoredTree::new(snapshot, no);
            let path = tree::inclusion_path(&tree, seq, note.size).map_err(path_error)?;
            let checkpoint = SignedCheckpoint::parse(&note.note).map_err(damaged)?;
            let proof = TlogProof::new(None, seq, path, checkpoint).map_err(damaged)?;
            Ok(Some(proof.to_bytes()))
        });
        let uncovered = || {
            Refusal::new(Reason::NotFound, format!("no checkpoint covers record {seq}, and the trail takes no new one"))
        };
        Ok(GetProofResponse { tlog_proof: proof.await?.ok_or_else(uncovered)?.into() })
    }

    pub(super) async fn get_consistency(
        &self,
        peer: Option<&Peer>,
        request: GetConsistencyRequest,
    ) -> Result<GetConsistencyResponse, Refusal> {
        let (trail, _) = self.readable(peer, &request.trail)?;
        let (no, old, new) = (trail.facts().no, request.old_size, request.new_size);
        if old > new {
            return Err(Refusal::new(Reason::InvalidRequest, format!("old_size {old} is beyond new_size {new}")));
        }
        let signed = trail.now().signed;
        if new > signed {
            return Err(Refusal::new(
                Reason::NotFound,
                format!("new_size is {new}; the trail has {signed} signed records"),
            ));
        }
        let path = self
            .read(move |snapshot| tree::consistency_path(&StoredTree::new(snapshot, no), old, new).map_err(path_error));
        let bytes = |hash: Hash| hash.as_bytes().to_vec().into();
        Ok(GetConsistencyResponse { hashes: path.await?.into_iter().map(bytes).collect() })
    }
}

fn damaged(problem: impl std::fmt::Display) -> ReadError {
    ReadError::Damaged { what: "the tree".to_owned(), problem: problem.to_string() }
}

fn path_error(error: PathError<TreeReadError>) -> ReadError {
    match error {
        PathError::Node { source: TreeReadError::Read(error), .. } => error,
        other => damaged(other),
    }
}
