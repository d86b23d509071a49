//! The check of an answer against what was sent, what is trusted and what is held.
//!
//! Order: each record by itself ([`record`]), then signature or proof, then continuity with what is
//! held. Whatever fails is an [`Alarm`] with both sides in it.

mod proof;
mod record;
mod signature;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use countersign_proto::event::{self, DecodedPart, EventError};
use countersign_proto::v1;
use countersign_trail::document::Mode;
use countersign_trail::hash::Hash;
use countersign_trail::id::{MemberId, PartName};
use countersign_trail::keys::Kid;
use countersign_trail::part::SALT_LEN;
use countersign_trail::receipt::{Receipt as KeptReceipt, ReceiptError, ReceiptProof};
use countersign_trail::record::{Content, Event};
use countersign_trail::time::Timestamp;

use crate::error::{Alarm, AlarmReason, ClientError, RawAnswer, Refusal};
use crate::held::{Contradiction, Held};
use crate::receipt::{Proof, Receipt};
use crate::retry::refusal_of_event;
use crate::trust::TrailTrust;

/// Microseconds of Unix time now; 0 before 1970.
pub(crate) fn now_micros() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// An event_id (UUIDv7) that no event had before. A gateway that must find out after its own crash
/// what became of an event gives it one itself and keeps it before it signs.
pub fn new_event_id() -> String {
    uuid::Uuid::now_v7().to_string()
}

/// An event as it was sent, with what its record must say.
pub(crate) struct Sent {
    /// As it goes over the wire.
    pub(crate) event: v1::Event,
    /// What the record must hold; `parts` still without their commitments.
    expected: Event,
    /// The parts, to rebuild the commitments from.
    parts: Vec<DecodedPart>,
    /// The record is not older than this (Unix time, microseconds); none: it may be a repeat of an
    /// event of any age.
    not_before: Option<i64>,
    /// Whether the event_id was made for this call, so that the record cannot be an older one.
    new: bool,
    /// The first place that a new record may have; from when it was first sent.
    pub(crate) floor: u64,
}

impl Sent {
    /// Decodes an event as the daemon will; gives it an event_id (UUIDv7) where it has none.
    pub(crate) fn prepare(mut event: v1::Event, member: &MemberId, floor: u64) -> Result<Sent, EventError> {
        let new = event.event_id.is_empty();
        if new {
            event.event_id = new_event_id();
        }
        let decoded = event::decode(&event)?;
        let not_before = if new { Some(now_micros()) } else { made_at(&event.event_id) };
        let expected = Event {
            type_name: decoded.type_name,
            category: decoded.category,
            decision: decoded.decision,
            result: decoded.result,
            event_id: decoded.event_id,
            client: member.clone(),
            links: decoded.links,
            parts: std::collections::BTreeMap::new(),
        };
        Ok(Sent { event, expected, parts: decoded.parts, not_before, new, floor })
    }
}

/// When a UUIDv7 was made (RFC 9562, 5.7), in microseconds: a caller's own event_id says no less
/// than this about the age of its record.
fn made_at(event_id: &str) -> Option<i64> {
    let uuid = uuid::Uuid::parse_str(event_id).ok()?;
    let (seconds, nanos) = uuid.get_timestamp().filter(|_| uuid.get_version_num() == 7)?.to_unix();
    i64::try_from(seconds).ok()?.checked_mul(1_000_000)?.checked_add(i64::from(nanos / 1_000))
}

/// What came of one event.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Recorded, and everything holds.
    Signed(Receipt),
    /// Not recorded.
    Refused(Refusal),
    /// The answer is false.
    Alarm(Arc<Alarm>),
}

impl Outcome {
    /// The caller's view, of an event that went out so many times.
    pub(crate) fn into_result(self, sent: &Sent, attempts: u32) -> Result<Receipt, ClientError> {
        match self {
            Outcome::Signed(receipt) => Ok(receipt),
            Outcome::Refused(refusal) => {
                let event_ids = vec![sent.event.event_id.clone()];
                Err(ClientError::Rejected { refusal, attempts, event_ids })
            }
            Outcome::Alarm(alarm) => Err(ClientError::Alarm(alarm)),
        }
    }
}

/// What an answer is checked with.
pub(crate) struct Checker<'a> {
    pub(crate) trust: &'a TrailTrust,
    pub(crate) held: &'a Held,
    pub(crate) skew: Duration,
}

/// What is wrong: reason, expected, found.
pub(crate) type Problem = Contradiction;

pub(crate) fn problem(reason: AlarmReason, expected: impl ToString, found: impl ToString) -> Problem {
    (reason, expected.to_string(), found.to_string())
}

/// A record that is right by itself, and not yet proven.
struct Checked {
    event_id: String,
    leaf: Hash,
    prev: Hash,
    time: Timestamp,
    kid: Kid,
    salts: Vec<(PartName, [u8; SALT_LEN])>,
}

/// How far the check of one event's answer has come.
enum Step {
    Checked(Checked),
    /// With the record's `prev`.
    Proven(Receipt, Hash),
    Refused(Refusal),
    Failed(Problem),
}

impl Checker<'_> {
    /// Checks the answer to a message: one outcome for each event that was sent.
    ///
    /// # Errors
    /// An alarm for the whole message where answers and events do not go together.
    pub(crate) fn message(
        &self,
        sent: &mut [Sent],
        answers: Vec<v1::Answer>,
        proofs: Vec<v1::Proof>,
    ) -> Result<Vec<Outcome>, Arc<Alarm>> {
        let proofs: Arc<[v1::Proof]> = proofs.into();
        if answers.len() != sent.len() {
            let counts = problem(AlarmReason::Answers, format!("{} answers", sent.len()), answers.len());
            return Err(self.alarm(counts, sent, answers, &proofs));
        }
        let mut steps: Vec<Step> = Vec::with_capacity(sent.len());
        let mut writer = record::Writer::default();
        for (sent, answer) in sent.iter_mut().zip(&answers) {
            steps.push(self.one(&mut writer, sent, answer));
        }
        match self.trust.mode {
            Mode::Record => self.signatures(&mut steps, &answers),
            Mode::Batch => self.prove(&mut steps, &answers, &proofs),
        }
        self.admit(sent, &mut steps);
        let outcome = |((step, sent), answer): ((Step, &Sent), v1::Answer)| match step {
            Step::Proven(receipt, _) => Outcome::Signed(receipt),
            Step::Refused(refusal) => Outcome::Refused(refusal),
            Step::Failed(problem) => {
                Outcome::Alarm(self.alarm(problem, std::slice::from_ref(sent), vec![answer], &proofs))
            }
            Step::Checked(_) => {
                let missing = problem(AlarmReason::Proof, "a proof of the record", "none");
                Outcome::Alarm(self.alarm(missing, std::slice::from_ref(sent), vec![answer], &proofs))
            }
        };
        Ok(steps.into_iter().zip(sent.iter()).zip(answers).map(outcome).collect())
    }

    /// An alarm with both sides.
    pub(crate) fn alarm(
        &self,
        (reason, expected, found): Problem,
        sent: &[Sent],
        answers: Vec<v1::Answer>,
        proofs: &Arc<[v1::Proof]>,
    ) -> Arc<Alarm> {
        Arc::new(Alarm {
            reason,
            trail: self.trust.origin.as_ref().clone(),
            expected,
            found,
            sent: sent.iter().map(|sent| sent.event.clone()).collect(),
            answer: RawAnswer { answers, proofs: Arc::clone(proofs) },
        })
    }

    fn one(&self, writer: &mut record::Writer, sent: &mut Sent, answer: &v1::Answer) -> Step {
        let signed = match &answer.outcome {
            Some(v1::answer::Outcome::Signed(signed)) => signed,
            Some(v1::answer::Outcome::Refused(refused)) => return Step::Refused(refusal_of_event(refused)),
            None => return Step::Failed(problem(AlarmReason::Answers, "signed or refused", "neither")),
        };
        let checked = record::check(self.trust, writer, sent, signed);
        let checked = checked.and_then(|checked| self.time(sent, checked.time).map(|()| checked));
        match checked.and_then(|checked| self.unsigned(signed).map(|()| checked)) {
            Ok(checked) => Step::Checked(checked),
            Err(problem) => Step::Failed(problem),
        }
    }

    /// The receipt of a record that is proven; takes its event_id and salts.
    fn receipt(&self, signed: &v1::Signed, checked: &mut Checked, proof: Proof) -> (Receipt, Hash) {
        let receipt = Receipt {
            trail: Arc::clone(&self.trust.origin),
            event_id: std::mem::take(&mut checked.event_id),
            record: signed.record.clone(),
            seq: signed.seq,
            time: checked.time,
            leaf_hash: checked.leaf,
            salts: std::mem::take(&mut checked.salts),
            kid: checked.kid,
            proof,
        };
        (receipt, checked.prev)
    }

    /// Not ahead of our clock, and not older than the event, by more than the skew.
    fn time(&self, sent: &Sent, time: Timestamp) -> Result<(), Problem> {
        let skew = i64::try_from(self.skew.as_micros()).unwrap_or(i64::MAX);
        let latest = now_micros().saturating_add(skew);
        if time.as_micros() > latest {
            return Err(problem(AlarmReason::Time, format!("not after {}", text_of(latest)), time));
        }
        let earliest = sent.not_before.map_or(i64::MIN, |made| made.saturating_sub(skew));
        if time.as_micros() < earliest {
            return Err(problem(AlarmReason::Time, format!("not before {}", text_of(earliest)), time));
        }
        Ok(())
    }

    /// Continuity of every record that is proven.
    fn admit(&self, sent: &[Sent], steps: &mut [Step]) {
        let mut places = Vec::with_capacity(steps.len());
        let mut proven = Vec::with_capacity(steps.len());
        for (at, step) in steps.iter().enumerate() {
            if let Step::Proven(receipt, prev) = step {
                let floor = if sent[at].new { sent[at].floor } else { 0 };
                places.push(at);
                proven.push((receipt, *prev, floor));
            }
        }
        let results = self.held.admit(self.trust.origin.as_str(), &proven);
        for (at, result) in places.into_iter().zip(results) {
            if let Err(contradiction) = result {
                steps[at] = Step::Failed(contradiction);
            }
        }
    }
}

impl Checker<'_> {
    /// Takes in a receipt that was kept, after checking it like an answer.
    pub(crate) fn hold(&self, kept: KeptReceipt) -> Result<(), ClientError> {
        let key = self.trust.key(&kept.kid).ok_or(ReceiptError::OtherKey(kept.kid))?;
        key.vouches_for(&kept)?;
        let (leaf_hash, header) = (kept.leaf(), kept.record.header);
        let event_id = match kept.record.content {
            Content::Event(event) => event.event_id.to_string(),
            _ => String::new(),
        };
        let proof = match kept.proof {
            ReceiptProof::Signature(signature) => Proof::Signature(signature.into()),
            ReceiptProof::Inclusion(proof) => {
                Proof::Inclusion { path: proof.path().to_vec(), checkpoint: Arc::new(proof.checkpoint().clone()) }
            }
        };
        let receipt = Receipt {
            trail: Arc::clone(&self.trust.origin),
            event_id,
            record: kept.bytes.into(),
            seq: header.seq,
            time: header.time,
            leaf_hash,
            salts: Vec::new(),
            kid: kept.kid,
            proof,
        };
        let held = self.held.admit(self.trust.origin.as_str(), &[(&receipt, header.prev, 0)]).pop();
        match held {
            Some(Err(contradiction)) => {
                Err(ClientError::Alarm(self.alarm(contradiction, &[], Vec::new(), &Arc::default())))
            }
            Some(Ok(())) | None => Ok(()),
        }
    }
}

fn text_of(micros: i64) -> String {
    Timestamp::from_micros(micros).map_or_else(|_| format!("{micros} µs"), |time| time.to_string())
}

#[cfg(test)]
mod tests;
