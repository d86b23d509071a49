//! What is known from elsewhere: heads that admin records carry, heads and receipts that the auditor
//! holds, a time that the evidence must reach, links between trails.
//!
//! Each is held against the records of the evidence. One that speaks of more than the evidence has
//! is incomplete evidence, never a fork: only a signed statement about a place that the evidence
//! has, and that differs, is one.

use std::collections::BTreeMap;

use countersign_trail::admin::AdminState;
use countersign_trail::checkpoint::{Checkpoint, CheckpointError, SignedCheckpoint};
use countersign_trail::origin::Origin;
use countersign_trail::receipt::{Receipt, ReceiptError, ReceiptProof};
use countersign_trail::time::Timestamp;

use crate::exit::Outcome;
use crate::parallel;
use crate::report::{Checks, count};
use crate::trail::TrailFacts;

/// How many checks of one kind are listed one by one when they do not pass.
const LISTED: usize = 20;

/// A signed checkpoint that the auditor holds.
#[derive(Clone, Debug)]
pub struct KnownHead {
    /// Where it comes from, such as a file name.
    pub source: String,
    /// The checkpoint; its signature is verified under the pinned genesis.
    pub checkpoint: SignedCheckpoint,
}

impl KnownHead {
    /// Parses a file of one signed checkpoint or several, one after the other.
    ///
    /// # Errors
    /// [`CheckpointError`] of the first that is refused.
    pub fn parse_file(source: &str, bytes: &[u8]) -> Result<Vec<KnownHead>, CheckpointError> {
        let mut heads = Vec::new();
        for note in split_notes(bytes) {
            let checkpoint = SignedCheckpoint::parse(note)?;
            heads.push(KnownHead { source: source.to_owned(), checkpoint });
        }
        Ok(heads)
    }
}

/// Splits notes whose text has no blank line: after the blank line come signature lines, which begin
/// with an em dash; the first other line begins the next note.
fn split_notes(bytes: &[u8]) -> Vec<&[u8]> {
    let mut notes = Vec::new();
    let (mut start, mut at, mut in_signatures) = (0, 0, false);
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let is_signature = line.starts_with("\u{2014} ".as_bytes());
        if in_signatures && !is_signature {
            notes.push(&bytes[start..at]);
            (start, in_signatures) = (at, false);
        }
        in_signatures |= is_signature;
        at += line.len();
    }
    notes.push(&bytes[start..]);
    notes
}

/// A receipt that the auditor got from a gateway.
#[derive(Clone, Debug)]
pub struct KnownReceipt {
    /// Where it comes from, such as a file name and line.
    pub source: String,
    /// The receipt; its proof is verified under the pinned genesis.
    pub receipt: Receipt,
}

impl KnownReceipt {
    /// Parses a file of receipts, one a line.
    ///
    /// # Errors
    /// The number of the line that is refused, from 1, and why.
    pub fn parse_file(source: &str, bytes: &[u8]) -> Result<Vec<KnownReceipt>, (usize, ReceiptError)> {
        let receipts = Receipt::parse_lines(bytes)?;
        let known = |(at, receipt)| KnownReceipt { source: format!("{source}, line {}", at + 1), receipt };
        Ok(receipts.into_iter().enumerate().map(known).collect())
    }
}

/// What the checks compare with, and what they learn.
pub(crate) struct Anchors<'a> {
    pub(crate) state: &'a AdminState,
    pub(crate) trails: &'a BTreeMap<Origin, TrailFacts>,
    /// The largest size that something signed proves for a trail, where the evidence ends before.
    pub(crate) known_beyond: BTreeMap<Origin, (u64, Option<Timestamp>)>,
}

/// How a statement about a trail compares with the evidence.
enum Compared {
    Same,
    Beyond(String),
    Differs(String),
    Unreadable,
}

impl Anchors<'_> {
    fn compare_head(&self, head: &Checkpoint) -> Compared {
        let Some(facts) = self.trails.get(&head.origin) else {
            return Compared::Beyond("the trail is not in the evidence".to_owned());
        };
        if head.size > facts.records {
            return Compared::Beyond(format!("the evidence ends at size {}", facts.records));
        }
        match facts.tree.as_ref().and_then(|tree| tree.root_at(head.size)) {
            None => Compared::Unreadable,
            Some(root) if root == head.root => Compared::Same,
            Some(root) => Compared::Differs(format!(
                "the root at size {} is {root} in the evidence, and {} there",
                head.size, head.root
            )),
        }
    }

    fn note_beyond(&mut self, origin: &Origin, size: u64, time: Option<Timestamp>) {
        let known = self.known_beyond.entry(origin.clone()).or_insert((0, None));
        *known = (known.0.max(size), known.1.max(time));
    }

    /// `admin-heads`: each head that an admin record carries is a prefix of the trail.
    pub(crate) fn check_noted(&self, checks: &mut Checks) {
        let mut by_trail: BTreeMap<&Origin, Vec<(u64, Compared)>> = BTreeMap::new();
        for noted in &self.state.heads {
            let head = Checkpoint { origin: noted.head.trail.clone(), size: noted.head.size, root: noted.head.root };
            by_trail.entry(&noted.head.trail).or_default().push((noted.admin_seq, self.compare_head(&head)));
        }
        for (origin, compared) in by_trail {
            let name = "admin-heads";
            let place = |at: u64| format!("the head in admin record {at}");
            let worst = compared.iter().find(|(_, c)| matches!(c, Compared::Differs(_)));
            let worst = worst.or_else(|| compared.iter().find(|(_, c)| matches!(c, Compared::Unreadable)));
            match worst.or_else(|| compared.iter().find(|(_, c)| matches!(c, Compared::Beyond(_)))) {
                None => {
                    let one = "head in an admin record is a prefix of the trail";
                    let detail = count(compared.len(), one, "heads in admin records are prefixes of the trail");
                    checks.passed(name, Some(origin), detail);
                }
                Some((at, Compared::Differs(why))) => {
                    checks.failed(name, Some(origin), Outcome::Fork, format!("{}: {why}", place(*at)));
                }
                Some((at, Compared::Beyond(why))) => {
                    checks.beyond(name, Some(origin), format!("{} and later: {why}", place(*at)));
                }
                Some((at, _)) => {
                    checks.not_checked(name, Some(origin), format!("{}: a record cannot be read", place(*at)))
                }
            }
        }
    }

    /// `head`: each signed checkpoint that the auditor holds is a prefix of the trail.
    pub(crate) fn check_heads(&mut self, heads: &[KnownHead], checks: &mut Checks) {
        for known in heads {
            let head = known.checkpoint.checkpoint();
            let origin = Some(&head.origin);
            let said = format!("{}: size {}", known.source, head.size);
            let Some(entry) = self.state.trail(&head.origin) else {
                checks.failed("head", origin, Outcome::Tampered, format!("{said}: no trail of this genesis"));
                continue;
            };
            let key = self.state.keys.get(&entry.checkpoint_key);
            match key.map(|key| known.checkpoint.verify(&key.key)) {
                Some(Ok(_)) => self.check_head("head", head, &said, None, checks),
                Some(Err(error)) => {
                    let problem = format!("{said}: not signed by the trail's key, so it says nothing: {error}");
                    checks.failed("head", origin, Outcome::Tampered, problem);
                }
                None => checks.not_checked("head", origin, format!("{said}: the checkpoint key is not known")),
            }
        }
    }

    fn check_head(
        &mut self,
        name: &'static str,
        head: &Checkpoint,
        said: &str,
        time: Option<Timestamp>,
        checks: &mut Checks,
    ) {
        let origin = Some(&head.origin);
        match self.compare_head(head) {
            Compared::Same => checks.passed(name, origin, format!("{said} is a prefix of the trail")),
            Compared::Unreadable => checks.not_checked(name, origin, format!("{said}: a record cannot be read")),
            Compared::Differs(why) => {
                checks.failed(
                    name,
                    origin,
                    Outcome::Fork,
                    format!("{said} is signed and contradicts the evidence: {why}"),
                );
            }
            Compared::Beyond(why) => {
                self.note_beyond(&head.origin, head.size, time);
                checks.beyond(name, origin, format!("{said} is signed: {why}"));
            }
        }
    }

    /// `receipt`: each record that a gateway was told stands where it was told.
    pub(crate) fn check_receipts(&mut self, receipts: &[KnownReceipt], threads: usize, checks: &mut Checks) {
        let proofs = parallel::map(threads, receipts.len(), |at| self.prove(&receipts[at].receipt));
        let number = |n| count(n, "receipt", "receipts");
        let mut passed: BTreeMap<&Origin, usize> = BTreeMap::new();
        let mut left_out: BTreeMap<&Origin, usize> = BTreeMap::new();
        let mut listed = Checks::default();
        let mut unlisted: BTreeMap<(&Origin, Outcome), usize> = BTreeMap::new();
        for (known, proof) in receipts.iter().zip(proofs) {
            let header = &known.receipt.record.header;
            let before = listed.len();
            match proof {
                Ok(()) if !self.trails.contains_key(&header.trail) => *left_out.entry(&header.trail).or_default() += 1,
                Ok(()) if self.check_receipt(known, &mut listed) => *passed.entry(&header.trail).or_default() += 1,
                Ok(()) => {}
                Err(problem) => {
                    let problem = format!("{}: record {}: {problem}", known.source, header.seq);
                    listed.failed("receipt", Some(&header.trail), Outcome::Tampered, problem);
                }
            }
            if listed.len() > LISTED && listed.len() > before {
                let outcome = listed.pop().map_or(Outcome::Valid, |check| check.outcome);
                *unlisted.entry((&header.trail, outcome)).or_default() += 1;
            }
        }
        for (origin, passed) in passed {
            let detail = format!("{}: each record stands where it was promised", number(passed));
            checks.passed("receipt", Some(origin), detail);
        }
        for (origin, left_out) in left_out {
            checks.beyond("receipt", Some(origin), format!("{}: the trail is not in this evidence", number(left_out)));
        }
        checks.append(listed);
        for ((origin, outcome), unlisted) in unlisted {
            let (origin, more) = (Some(origin), count(unlisted, "more receipt", "more receipts"));
            match outcome {
                Outcome::Valid => checks.not_checked("receipt", origin, format!("{more}: a record cannot be read")),
                Outcome::Incomplete => checks.beyond("receipt", origin, format!("{more} lie beyond the evidence")),
                outcome => checks.failed("receipt", origin, outcome, format!("{more} do not fit")),
            }
        }
    }

    /// The receipt's proof holds under the key in force.
    fn prove(&self, receipt: &Receipt) -> Result<(), String> {
        let trail = &receipt.record.header.trail;
        let entry = self.state.trail(trail).ok_or_else(|| format!("{trail} is no trail of this genesis"))?;
        let kid = match receipt.proof {
            ReceiptProof::Signature(_) => entry.record_key,
            ReceiptProof::Inclusion(_) => Some(entry.checkpoint_key),
        };
        let key = kid.and_then(|kid| self.state.keys.get(&kid));
        let key = key.ok_or_else(|| "the trail has no key for such a proof".to_owned())?;
        receipt.verify(&key.key).map_err(|error| format!("proves nothing: {error}"))
    }

    /// Whether the record of a proven receipt is in the evidence; adds a check where not.
    fn check_receipt(&mut self, known: &KnownReceipt, checks: &mut Checks) -> bool {
        let header = &known.receipt.record.header;
        let origin = Some(&header.trail);
        let said = format!("{}: record {} of {}", known.source, header.seq, header.time);
        let facts = self.trails.get(&header.trail);
        let records = facts.map_or(0, |facts| facts.records);
        let leaf = facts.and_then(|facts| facts.tree.as_ref()).map(|tree| tree.leaf(header.seq));
        match leaf {
            None => {
                checks.not_checked("receipt", origin, format!("{said}: a record cannot be read"));
                return false;
            }
            Some(None) => {
                self.note_beyond(&header.trail, header.seq.saturating_add(1), Some(header.time));
                checks.beyond("receipt", origin, format!("{said} is proven: the evidence ends at size {records}"));
                return false;
            }
            Some(Some(leaf)) if leaf != known.receipt.leaf() => {
                let problem = format!(
                    "{said} is proven with leaf hash {}, and contradicts the evidence, which has {leaf}",
                    known.receipt.leaf()
                );
                checks.failed("receipt", origin, Outcome::Fork, problem);
                return false;
            }
            Some(Some(_)) => {}
        }
        // The checkpoint of the proof is a signed head too; where it agrees, the receipt says it all.
        let ReceiptProof::Inclusion(proof) = &known.receipt.proof else {
            return true;
        };
        let head = proof.checkpoint().checkpoint();
        if matches!(self.compare_head(head), Compared::Same) {
            return true;
        }
        let said = format!("{}: its checkpoint of size {}", known.source, head.size);
        self.check_head("receipt", head, &said, None, checks);
        false
    }

    /// `as-of`: each exported trail but the admin trail reaches the time asked for.
    pub(crate) fn check_as_of(&self, as_of: Timestamp, checks: &mut Checks) {
        for (origin, facts) in self.trails.iter().filter(|(origin, _)| **origin != self.state.plan.admin_trail) {
            match facts.last_time {
                Some(last) if last >= as_of => {
                    checks.passed("as-of", Some(origin), format!("reaches {as_of}: the last record is of {last}"));
                }
                Some(last) => {
                    checks.failed(
                        "as-of",
                        Some(origin),
                        Outcome::Incomplete,
                        format!("ends at {last}, before {as_of}"),
                    );
                }
                None => checks.failed("as-of", Some(origin), Outcome::Incomplete, "no record, so no time"),
            }
        }
    }

    /// `links`: each linked record in the evidence has the leaf hash that the link names.
    pub(crate) fn check_links(&self, checks: &mut Checks) {
        for (origin, facts) in self.trails.iter().filter(|(_, facts)| !facts.links.is_empty()) {
            let (mut same, mut outside) = (0usize, 0usize);
            let mut wrong = None;
            for (seq, link) in &facts.links {
                let target = self.trails.get(&link.trail).and_then(|facts| facts.tree.as_ref());
                match target.and_then(|tree| tree.leaf(link.seq)) {
                    _ if link.trail == *origin && link.seq >= *seq => {
                        wrong = wrong.or(Some(format!("record {seq} links to record {}, which comes later", link.seq)));
                    }
                    None => outside += 1,
                    Some(leaf) if leaf == link.leaf_hash => same += 1,
                    Some(leaf) => {
                        let what = format!("record {seq} links to record {} of {}", link.seq, link.trail);
                        wrong = wrong.or(Some(format!("{what} as {}, there stands {leaf}", link.leaf_hash)));
                    }
                }
            }
            match (wrong, outside) {
                (Some(wrong), _) => checks.failed("links", Some(origin), Outcome::Tampered, wrong),
                (None, 0) => {
                    let (one, many) =
                        ("link leads to the record that it names", "links lead to the records that they name");
                    checks.passed("links", Some(origin), count(same, one, many));
                }
                (None, _) => {
                    let why = format!(
                        "{outside} of {} outside the evidence",
                        count(facts.links.len(), "link leads", "links lead")
                    );
                    checks.not_checked("links", Some(origin), why);
                }
            }
        }
    }
}
