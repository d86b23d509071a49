//! Record mode: each record's own signature. Batch mode: that there is none.

use countersign_proto::v1;
use countersign_trail::document::Mode;
use countersign_trail::dsse::pae;
use countersign_trail::keys::Signed;
use countersign_trail::signing::RECORD_PAYLOAD_TYPE;

use super::{Checker, Problem, Step, problem};
use crate::error::AlarmReason;
use crate::receipt::Proof;

impl Checker<'_> {
    /// Turns every checked record whose signature holds into a proven one, the others into failed
    /// ones. The signatures of one key are checked together, which costs less.
    pub(super) fn signatures(&self, steps: &mut [Step], answers: &[v1::Answer]) {
        for key in &self.trust.keys {
            let mut places = Vec::with_capacity(steps.len());
            let mut messages = Vec::with_capacity(steps.len());
            for (at, (step, answer)) in steps.iter().zip(answers).enumerate() {
                if let (Step::Checked(checked), Some(v1::answer::Outcome::Signed(signed))) = (step, &answer.outcome)
                    && checked.kid == key.kid()
                {
                    places.push((at, signed));
                    messages.push(pae(RECORD_PAYLOAD_TYPE, &signed.record));
                }
            }
            let signed: Vec<Signed<'_>> = messages
                .iter()
                .zip(&places)
                .map(|(message, (_, signed))| (&message[..], &signed.signature[..]))
                .collect();
            for ((at, signed), holds) in places.into_iter().zip(key.verifies_each(&signed)) {
                self.signature(&mut steps[at], signed, holds);
            }
        }
    }

    /// Makes a checked record a proven one, or a failed one.
    fn signature(&self, step: &mut Step, signed: &v1::Signed, holds: bool) {
        let Step::Checked(checked) = step else { return };
        if holds {
            let (receipt, prev) = self.receipt(signed, checked, Proof::Signature(signed.signature.clone()));
            *step = Step::Proven(receipt, prev);
        } else {
            let wanted = format!("a signature over the record by key {}", checked.kid);
            let found = format!("{} bytes of signature that does not verify", signed.signature.len());
            *step = Step::Failed(problem(AlarmReason::Signature, wanted, found));
        }
    }

    /// Batch mode: a record has no signature of its own.
    pub(super) fn unsigned(&self, signed: &v1::Signed) -> Result<(), Problem> {
        if self.trust.mode == Mode::Record || signed.signature.is_empty() {
            return Ok(());
        }
        let found = format!("{} bytes of signature", signed.signature.len());
        Err(problem(AlarmReason::Signature, "no signature of a record in batch mode", found))
    }
}
