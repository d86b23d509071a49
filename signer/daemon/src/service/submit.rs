//! One request's way: decode, look for repeats, commit to parts, sequence, wait.
//!
//! Every event has an answer of its own; a bad one costs nothing but itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use bytes::Bytes;
use countersign_proto::event::{self, Decoded, PartBody};
use countersign_proto::v1;
use countersign_trail::hash::Hash;
use countersign_trail::id::MemberId;
use countersign_trail::part::{self, SALT_LEN};
use countersign_trail::record::{Content, Event, Record};
use tokio::sync::oneshot;

use super::timeout::late;
use crate::appliance::Appliance;
use crate::fail;
use crate::limits::Permit;
use crate::reason::{Reason, Refusal};
use crate::sequencer::{Group, GroupAnswer, Place, Prepared, SealedBatch, TrailHandle};
use crate::store::sqlite::reader::Snapshot;
use crate::store::{ReadError, SignedNote, StoredPart, StoredRecord};

/// What an event takes in a batch beside its parts: its record and the rows' overhead, in bytes.
const RECORD_WEIGHT: usize = 2048;

/// Where a signed event stands.
#[derive(Debug)]
pub enum Answered {
    /// In a batch that was just released, at this index.
    New(Arc<SealedBatch>, usize),
    /// In the store: the client reported it before.
    Stored(Box<StoredAnswer>),
}

/// A stored record with what its answer needs.
#[derive(Debug)]
pub struct StoredAnswer {
    /// The record.
    pub record: StoredRecord,
    /// Its parts.
    pub parts: Vec<StoredPart>,
    /// Batch mode: the checkpoint that closed its batch.
    pub checkpoint: Option<SignedNote>,
}

/// Who asks for what, until when.
pub struct Offer {
    /// The shared state.
    pub appliance: Arc<Appliance>,
    /// The trail.
    pub trail: TrailHandle,
    /// The roster id that records are stamped with.
    pub client: MemberId,
    /// When the caller stops waiting.
    pub deadline: Option<Instant>,
}

/// What became of an event before it is sequenced.
enum Sorted {
    Refused(Refusal),
    Repeat(u64),
    New(Box<Prepared>),
}

/// Where a group's answer arrives.
type GroupReceiver = oneshot::Receiver<Result<GroupAnswer, Refusal>>;

/// Events that were handed to the sequencer in their order; [`Pending::finish`] waits for them.
pub struct Pending {
    offer: Offer,
    decoded: Vec<Option<Decoded>>,
    answers: Vec<Option<Result<Answered, Refusal>>>,
    /// Events whose answer is a stored record: their place here and its sequence number.
    repeats: Vec<(usize, u64)>,
    waiting: Vec<(Vec<usize>, Result<GroupReceiver, Refusal>)>,
    permit: Arc<Permit>,
}

/// Decodes `events` and hands them to the sequencer. The next call's events come after these.
pub async fn begin(offer: Offer, events: Vec<v1::Event>, permit: Permit) -> Result<Pending, Refusal> {
    let permit = Arc::new(permit);
    let offered = Instant::now();
    let checked_at = offer.trail.now().signed;
    let (decoded, sorted) = sort(&offer, events).await?;
    let mut answers = Vec::with_capacity(sorted.len());
    let mut fresh = Vec::new();
    let mut repeats = Vec::new();
    for (at, one) in sorted.into_iter().enumerate() {
        let mut answer = None;
        match one {
            Sorted::Refused(refusal) => answer = Some(Err(refusal)),
            Sorted::Repeat(seq) => repeats.push((at, seq)),
            Sorted::New(prepared) => fresh.push((at, *prepared)),
        }
        answers.push(answer);
    }
    let mut waiting = Vec::new();
    while !fresh.is_empty() {
        let rest = fresh.split_off(fresh.len().min(offer.trail.max_group()));
        let (places, events): (Vec<usize>, Vec<Prepared>) = std::mem::replace(&mut fresh, rest).into_iter().unzip();
        let (reply, answer) = oneshot::channel();
        let group = Group { events, checked_at, deadline: offer.deadline, offered, reply, permit: permit.clone() };
        waiting.push((places, offer.trail.offer(group).map(|()| answer)));
    }
    Ok(Pending { offer, decoded, answers, repeats, waiting, permit })
}

impl Pending {
    /// The trail that was written to.
    pub fn trail(&self) -> &TrailHandle {
        &self.offer.trail
    }

    /// What the events hold, until their answers have left.
    pub fn permit(&self) -> Arc<Permit> {
        self.permit.clone()
    }

    /// Waits until every event is durable and signed, or refused; the answers are in their order.
    pub async fn finish(self) -> Vec<Result<Answered, Refusal>> {
        let Pending { offer, decoded, mut answers, mut repeats, waiting, permit: _permit } = self;
        for (places, answer) in waiting {
            let answer = match answer {
                Ok(answer) => in_time(offer.deadline, answer).await,
                Err(refusal) => Err(refusal),
            };
            spread(&mut answers, &mut repeats, places, answer);
        }
        for (at, seq) in repeats {
            let found = match decoded.get(at).and_then(Option::as_ref) {
                Some(decoded) => repeat(&offer, decoded, seq).await,
                None => Err(Refusal::from(Reason::Internal)),
            };
            answers[at] = Some(found);
        }
        answers.into_iter().map(|answer| answer.unwrap_or_else(|| Err(Refusal::from(Reason::Internal)))).collect()
    }
}

/// Waits for a group's answer, but no longer than its caller does. The records stand all the same.
async fn in_time(
    deadline: Option<Instant>,
    answer: oneshot::Receiver<Result<GroupAnswer, Refusal>>,
) -> Result<GroupAnswer, Refusal> {
    let gone =
        || Refusal::new(Reason::Draining, "the daemon is closing; repeat with the same event ids after its restart");
    match deadline {
        None => answer.await.map_err(|_| gone())?,
        Some(at) => match tokio::time::timeout_at(at.into(), answer).await {
            Ok(answered) => answered.map_err(|_| gone())?,
            Err(_) => Err(late()),
        },
    }
}

/// Gives a group's answer to the events at `places`.
fn spread(
    answers: &mut [Option<Result<Answered, Refusal>>],
    repeats: &mut Vec<(usize, u64)>,
    places: Vec<usize>,
    answer: Result<GroupAnswer, Refusal>,
) {
    match answer {
        Err(refusal) => places.into_iter().for_each(|at| answers[at] = Some(Err(refusal.clone()))),
        Ok(GroupAnswer { places: found, batch }) => {
            for (at, place) in places.into_iter().zip(found) {
                match (place, &batch) {
                    (Place::New(index), Some(batch)) => answers[at] = Some(Ok(Answered::New(batch.clone(), index))),
                    (Place::Repeat(seq), _) => repeats.push((at, seq)),
                    (Place::New(_), None) => answers[at] = Some(Err(Refusal::from(Reason::Internal))),
                }
            }
        }
    }
}

/// Decodes every event, looks for its id in the store, checks its links, and commits to its parts.
async fn sort(offer: &Offer, events: Vec<v1::Event>) -> Result<(Vec<Option<Decoded>>, Vec<Sorted>), Refusal> {
    let (appliance, trail, client) = (offer.appliance.clone(), offer.trail.clone(), offer.client.clone());
    let reader = appliance.store.reader().clone();
    let work = move |snapshot: &Snapshot<'_>| {
        let mut all = Vec::with_capacity(events.len());
        let mut sorted = Vec::with_capacity(events.len());
        for event in &events {
            match event::decode(event) {
                Err(error) => {
                    all.push(None);
                    sorted.push(Sorted::Refused(decode_refusal(&error)));
                }
                Ok(decoded) => {
                    sorted.push(sort_one(&appliance, &trail, &client, snapshot, &decoded)?);
                    all.push(Some(decoded));
                }
            }
        }
        Ok((all, sorted))
    };
    reader.run(work).await.map_err(|error| read_refusal(&error))
}

fn sort_one(
    appliance: &Appliance,
    trail: &TrailHandle,
    client: &MemberId,
    snapshot: &Snapshot<'_>,
    decoded: &Decoded,
) -> Result<Sorted, ReadError> {
    if let Some(seq) = snapshot.event(trail.facts().no, client, &decoded.event_id)? {
        return Ok(Sorted::Repeat(seq));
    }
    for link in &decoded.links {
        let writable = appliance.trails.get(&link.trail).filter(|_| appliance.access.is_granted(client, &link.trail));
        let leaf = match writable {
            Some(linked) if link.seq < linked.now().signed => {
                snapshot.leaves(linked.facts().no, link.seq, link.seq + 1)?.pop()
            }
            _ => None,
        };
        if leaf != Some(link.leaf_hash) {
            let message = format!(
                "the link to record {} of {} names no stored record of a trail that you may write",
                link.seq, link.trail
            );
            return Ok(Sorted::Refused(Refusal::new(Reason::InvalidLink, message)));
        }
    }
    Ok(match prepare(client, decoded) {
        Ok(prepared) => Sorted::New(Box::new(prepared)),
        Err(refusal) => Sorted::Refused(refusal),
    })
}

/// Draws salts and commits to the parts.
fn prepare(client: &MemberId, decoded: &Decoded) -> Result<Prepared, Refusal> {
    let mut commitments = BTreeMap::new();
    let mut parts = Vec::with_capacity(decoded.parts.len());
    let mut weight = RECORD_WEIGHT;
    for decoded_part in &decoded.parts {
        let (name, media_type) = (&decoded_part.name, &decoded_part.media_type);
        let (commitment, content) = match &decoded_part.body {
            PartBody::Commitment(commitment) => (*commitment, None),
            PartBody::Data { bytes, salt } => {
                let salt = salt.map_or_else(draw_salt, Ok)?;
                let bytes = fail::contents(bytes);
                weight += bytes.len();
                (part::commitment(name, media_type, &salt, &bytes), Some((salt, bytes)))
            }
        };
        commitments.insert(name.clone(), commitment);
        parts.push(StoredPart { name: name.clone(), media_type: media_type.clone(), content });
    }
    let event = event::record_event(decoded, client.clone(), commitments);
    Ok(Prepared { event, parts, request_id: decoded.request_id.clone(), weight })
}

fn draw_salt() -> Result<[u8; SALT_LEN], Refusal> {
    let mut salt = [0; SALT_LEN];
    match SystemRandom::new().fill(&mut salt) {
        Ok(()) => Ok(salt),
        Err(_) => Err(Refusal::new(Reason::Internal, "no randomness could be drawn")),
    }
}

/// The answer to an event whose id stands at `seq`: the same record if it has the same content.
async fn repeat(offer: &Offer, decoded: &Decoded, seq: u64) -> Result<Answered, Refusal> {
    match offer.deadline {
        None => offer.trail.wait_signed(seq).await?,
        Some(at) => tokio::time::timeout_at(at.into(), offer.trail.wait_signed(seq)).await.map_err(|_| late())??,
    }
    let no = offer.trail.facts().no;
    let batch_mode = offer.trail.facts().record_key.is_none();
    let read = move |snapshot: &Snapshot<'_>| {
        let Some(record) = snapshot.record(no, seq)? else { return Ok(None) };
        let parts = snapshot.parts(no, seq)?;
        let checkpoint = if batch_mode { snapshot.checkpoint_covering(no, seq + 1)? } else { None };
        Ok(Some(StoredAnswer { record, parts, checkpoint }))
    };
    let stored = offer.appliance.store.reader().run(read).await.map_err(|error| read_refusal(&error))?;
    // The batch that the repeat pointed at was refused after all: nothing stands there yet, or another.
    let again = || Refusal::new(Reason::Overloaded, "the first attempt at this event was refused; try again");
    let stored = stored.ok_or_else(again)?;
    let Ok(Record { content: Content::Event(event), .. }) = Record::parse(&stored.record.bytes) else {
        return Err(again());
    };
    if event.event_id != decoded.event_id || event.client != offer.client {
        return Err(again());
    }
    if same_content(&event, &stored.parts, decoded) {
        Ok(Answered::Stored(Box::new(stored)))
    } else {
        let message = format!("event {} is record {seq} with other content; use a new event id", decoded.event_id);
        Err(Refusal::new(Reason::AlreadyExists, message))
    }
}

/// Whether a stored event has every field that the caller supplies now.
fn same_content(event: &Event, stored: &[StoredPart], decoded: &Decoded) -> bool {
    let fields = event.type_name == decoded.type_name
        && event.category == decoded.category
        && event.decision == decoded.decision
        && event.result == decoded.result
        && event.links == decoded.links
        && stored.len() == decoded.parts.len();
    fields
        && stored.iter().zip(&decoded.parts).all(|(stored, part)| {
            stored.name == part.name
                && stored.media_type == part.media_type
                && match (&part.body, &stored.content) {
                    (PartBody::Commitment(commitment), None) => event.parts.get(&part.name) == Some(commitment),
                    (PartBody::Data { bytes, salt }, Some((stored_salt, content))) => {
                        bytes == content && salt.is_none_or(|salt| salt == *stored_salt)
                    }
                    _ => false,
                }
        })
}

fn decode_refusal(error: &event::EventError) -> Refusal {
    let reason = match error.reason() {
        event::RESERVED_TYPE => Reason::ReservedType,
        event::EVENT_TOO_LARGE => Reason::EventTooLarge,
        event::INVALID_LINK => Reason::InvalidLink,
        _ => Reason::InvalidEvent,
    };
    Refusal::new(reason, error)
}

/// What a caller hears when the store cannot be read.
pub fn read_refusal(error: &ReadError) -> Refusal {
    tracing::error!(%error, "a read failed");
    Refusal::new(Reason::StoreUnavailable, "the store could not be read")
}

/// The leaf hash and sequence number of an answer.
impl Answered {
    /// Sequence number.
    pub fn seq(&self) -> u64 {
        match self {
            Answered::New(batch, index) => batch.first_seq + *index as u64,
            Answered::Stored(stored) => stored.record.seq,
        }
    }

    /// Leaf hash.
    pub fn leaf(&self) -> Hash {
        match self {
            Answered::New(batch, index) => batch.records[*index].leaf,
            Answered::Stored(stored) => stored.record.leaf,
        }
    }

    /// The record's exact bytes.
    pub fn record(&self) -> Bytes {
        match self {
            Answered::New(batch, index) => batch.records[*index].bytes.clone(),
            Answered::Stored(stored) => stored.record.bytes.clone(),
        }
    }

    /// Its parts.
    pub fn parts(&self) -> &[StoredPart] {
        match self {
            Answered::New(batch, index) => &batch.records[*index].parts,
            Answered::Stored(stored) => &stored.parts,
        }
    }

    /// Record mode: its signature.
    pub fn signature(&self) -> Option<Bytes> {
        match self {
            Answered::New(batch, index) => batch.records[*index].signature.clone(),
            Answered::Stored(stored) => stored.record.signature.clone(),
        }
    }
}
