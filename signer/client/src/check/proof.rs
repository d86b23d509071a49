//! Batch mode: the proofs of an answer, and each record's own inclusion path.

use std::sync::Arc;

use countersign_proto::v1;
use countersign_trail::checkpoint::SignedCheckpoint;
use countersign_trail::hash::Hash;
use countersign_trail::multiproof;
use countersign_trail::tree::leaf_hash;

use super::{Checker, Problem, Step, problem};
use crate::error::AlarmReason;
use crate::held::VerifiedCheckpoint;
use crate::receipt::Proof;

/// A signed answer's place in the tree, its leaf hash, and its place in the message.
struct Leaf {
    seq: u64,
    hash: Hash,
    at: usize,
}

impl Checker<'_> {
    /// Turns every checked record that a proof proves into a proven one, and those of a false proof
    /// into failed ones.
    pub(super) fn prove(&self, steps: &mut [Step], answers: &[v1::Answer], proofs: &[v1::Proof]) {
        let mut leaves: Vec<Leaf> = Vec::with_capacity(steps.len());
        for (at, (step, answer)) in steps.iter().zip(answers).enumerate() {
            let Some(v1::answer::Outcome::Signed(signed)) = &answer.outcome else { continue };
            let hash = match step {
                Step::Checked(checked) => checked.leaf,
                // Alarmed already, and still a leaf among others.
                _ => leaf_hash(&signed.record),
            };
            leaves.push(Leaf { seq: signed.seq, hash, at });
        }
        leaves.sort_by_key(|leaf| leaf.seq);
        for proof in proofs {
            if let Err(problem) = self.one_proof(steps, answers, &leaves, proof) {
                let named = |leaf: &&Leaf| proof.seqs.binary_search(&leaf.seq).is_ok();
                for leaf in leaves.iter().filter(named) {
                    if matches!(steps[leaf.at], Step::Checked(_)) {
                        steps[leaf.at] = Step::Failed(problem.clone());
                    }
                }
            }
        }
    }

    fn one_proof(
        &self,
        steps: &mut [Step],
        answers: &[v1::Answer],
        leaves: &[Leaf],
        proof: &v1::Proof,
    ) -> Result<(), Problem> {
        // Packed numbers: a small message may have millions of them.
        if proof.seqs.len() > leaves.len() {
            let found = format!("one of {}", proof.seqs.len());
            return Err(problem(AlarmReason::Proof, format!("a proof of at most {} records", leaves.len()), found));
        }
        let checkpoint = self.checkpoint(proof)?;
        let mut wanted: Vec<(u64, Hash)> = Vec::with_capacity(proof.seqs.len());
        let mut from = 0;
        for seq in &proof.seqs {
            from += leaves[from..].partition_point(|leaf| leaf.seq < *seq);
            let Some(leaf) = leaves.get(from).filter(|leaf| leaf.seq == *seq) else {
                return Err(problem(
                    AlarmReason::Proof,
                    "a proof of the answer's records",
                    format!("one of record {seq}"),
                ));
            };
            wanted.push((*seq, leaf.hash));
        }
        let false_proof =
            |found: String| problem(AlarmReason::Proof, "hashes that lead to the checkpoint's root", found);
        let hashes: Result<Vec<Hash>, _> = proof.hashes.iter().map(|hash| Hash::try_from(&hash[..])).collect();
        let hashes = hashes.map_err(|error| false_proof(error.to_string()))?;
        let (size, root) = (checkpoint.signed.checkpoint().size, checkpoint.signed.checkpoint().root);
        let proven = multiproof::verify(&wanted, size, &hashes).map_err(|error| false_proof(error.to_string()))?;
        if proven.0 != root {
            return Err(problem(AlarmReason::Proof, format!("root {root}"), format!("root {}", proven.0)));
        }
        let held = self.held.admit_checkpoint(self.trust.origin.as_str(), &checkpoint);
        held?;
        let mut from = 0;
        for ((seq, hash), path) in wanted.into_iter().zip(proven.1) {
            from += leaves[from..].partition_point(|leaf| leaf.seq < seq);
            // A repeat inside one message has the same answer as the first.
            let same = leaves[from..].iter().take_while(|leaf| leaf.seq == seq);
            for leaf in same {
                self.include(&mut steps[leaf.at], &answers[leaf.at], (leaf.hash, hash), &checkpoint, &path);
            }
        }
        Ok(())
    }

    /// Makes a checked record a proven one.
    fn include(
        &self,
        step: &mut Step,
        answer: &v1::Answer,
        (ours, proven): (Hash, Hash),
        checkpoint: &VerifiedCheckpoint,
        path: &[Hash],
    ) {
        let Some(v1::answer::Outcome::Signed(signed)) = &answer.outcome else { return };
        let Step::Checked(checked) = step else { return };
        if ours != proven {
            let text = |hash: Hash| format!("leaf hash {hash} of record {}", signed.seq);
            *step = Step::Failed(problem(AlarmReason::Fork, text(proven), text(ours)));
        } else if checked.kid != checkpoint.kid {
            *step =
                Step::Failed(problem(AlarmReason::Key, format!("a checkpoint by key {}", checked.kid), checkpoint.kid));
        } else {
            let inclusion = Proof::Inclusion { checkpoint: Arc::clone(&checkpoint.signed), path: path.to_vec() };
            let (receipt, prev) = self.receipt(signed, checked, inclusion);
            *step = Step::Proven(receipt, prev);
        }
    }

    /// The checkpoint of a proof, verified; the newest one that is held is not verified again.
    fn checkpoint(&self, proof: &v1::Proof) -> Result<VerifiedCheckpoint, Problem> {
        let origin = self.trust.origin.as_ref();
        if let Some(held) = self.held.checkpoint(origin.as_str()).filter(|held| held.bytes == proof.checkpoint) {
            return Ok(held);
        }
        let wrong = |expected: &str, found: String| problem(AlarmReason::Checkpoint, expected, found);
        let signed = SignedCheckpoint::parse(&proof.checkpoint)
            .map_err(|error| wrong("a signed checkpoint", error.to_string()))?;
        if signed.checkpoint().origin != *origin {
            return Err(wrong(&format!("a checkpoint of {origin}"), format!("one of {}", signed.checkpoint().origin)));
        }
        let Some(key) = self.trust.keys.iter().find(|key| key.signed(&signed)) else {
            let lines: Vec<String> = signed.note().signatures().iter().map(|line| line.key_id().to_string()).collect();
            let found = format!("signatures with key ids {}, none of which verifies", lines.join(", "));
            return Err(wrong("a checkpoint by a trusted key", found));
        };
        Ok(VerifiedCheckpoint { bytes: proof.checkpoint.clone(), kid: key.kid(), signed: Arc::new(signed) })
    }
}
