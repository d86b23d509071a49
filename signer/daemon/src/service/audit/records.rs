//! ListRecords: by sequence number, event_id, request_id or time, in pages.

use countersign_proto::event::MAX_REQUEST_ID_LEN;
use countersign_proto::v1::list_records_request::Select;
use countersign_proto::v1::{self, ListRecordsRequest, ListRecordsResponse, TimeWindow};
use countersign_trail::document::Role;
use countersign_trail::id::{EventId, MemberId};
use countersign_trail::record::{Content, Record};
use countersign_trail::time::Timestamp;

use super::Audit;
use super::page::Query;
use crate::access::{Parts, Reader};
use crate::peer::Peer;
use crate::reason::{Reason, Refusal};
use crate::store::sqlite::reader::Snapshot;
use crate::store::{ReadError, StoredPart, StoredRecord, TrailNo};

/// Records of a page that does not say.
const DEFAULT_PAGE: u32 = 100;
/// Most records of a page.
const MAX_PAGE: u32 = 1000;
/// A page ends with the record that passes this, in bytes: with one more record (64 KiB) and its
/// parts (1 MiB) it stays below the 4 MiB that gRPC clients take in one message by default.
const PAGE_BYTES: usize = 2 << 20;
/// What a record or part takes in a page beside its bytes.
const OVERHEAD: usize = 256;
/// Records that are read at once: at most 64 of 64 KiB beyond the page.
const STEP: u64 = 64;

/// Which records are asked for, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Wanted {
    From(u64),
    Event(MemberId, EventId),
    Request(String),
    Between(Option<Timestamp>, Option<Timestamp>),
}

/// One page of a query.
struct Page {
    no: TrailNo,
    signed: u64,
    wanted: Wanted,
    /// Where the page begins; none for the first.
    next: Option<u64>,
    size: usize,
    parts: Option<Parts>,
    query: Query,
}

impl Audit {
    pub(super) async fn list_records(
        &self,
        peer: Option<&Peer>,
        request: ListRecordsRequest,
    ) -> Result<ListRecordsResponse, Refusal> {
        let (trail, reader) = self.readable(peer, &request.trail)?;
        let size = match request.page_size {
            0 => DEFAULT_PAGE,
            size @ 1..=MAX_PAGE => size,
            size => return Err(invalid(format_args!("page_size is {size}; at most {MAX_PAGE}"))),
        };
        let wanted = Wanted::of(&request, &reader)?;
        let query = wanted.query(trail.facts().origin.as_str(), request.with_parts);
        let page = Page {
            no: trail.facts().no,
            signed: trail.now().signed,
            next: query.parse(&request.page_token)?,
            wanted,
            size: size as usize,
            parts: request.with_parts.then_some(reader.parts),
            query,
        };
        self.read(move |snapshot| page.fill(snapshot)).await
    }
}

fn invalid(message: impl std::fmt::Display) -> Refusal {
    Refusal::new(Reason::InvalidRequest, message)
}

impl Wanted {
    fn of(request: &ListRecordsRequest, reader: &Reader) -> Result<Wanted, Refusal> {
        if !request.client.is_empty() && !matches!(request.select, Some(Select::EventId(_))) {
            return Err(invalid("client goes with event_id alone"));
        }
        match &request.select {
            None => Ok(Wanted::From(0)),
            Some(Select::FromSeq(seq)) => Ok(Wanted::From(*seq)),
            Some(Select::EventId(id)) => {
                let id = EventId::parse(id).map_err(|error| invalid(format_args!("event_id: {error}")))?;
                let client = match request.client.as_str() {
                    "" if reader.caller.role == Role::Gateway => reader.caller.id.clone(),
                    "" => return Err(invalid("client: name the roster id whose event it was")),
                    client => MemberId::parse(client).map_err(|error| invalid(format_args!("client: {error}")))?,
                };
                Ok(Wanted::Event(client, id))
            }
            Some(Select::RequestId(id)) if (1..=MAX_REQUEST_ID_LEN).contains(&id.len()) => {
                Ok(Wanted::Request(id.clone()))
            }
            Some(Select::RequestId(id)) => {
                Err(invalid(format_args!("request_id has {} bytes; 1 to {MAX_REQUEST_ID_LEN} are allowed", id.len())))
            }
            Some(Select::Window(TimeWindow { from, to })) => {
                let (from, to) = (time("window.from", from)?, time("window.to", to)?);
                if from.zip(to).is_some_and(|(from, to)| from > to) {
                    return Err(invalid("window.from lies after window.to"));
                }
                Ok(Wanted::Between(from, to))
            }
        }
    }

    /// What page tokens of this query belong to.
    fn query(&self, trail: &str, with_parts: bool) -> Query {
        let micros = |time: &Option<Timestamp>| time.map_or(-1, Timestamp::as_micros).to_be_bytes();
        let trail: &[u8] = trail.as_bytes();
        let parts: &[u8] = &[u8::from(with_parts)];
        match self {
            Wanted::From(seq) => Query::of(&[trail, parts, b"seq", &seq.to_be_bytes()]),
            Wanted::Event(client, id) => {
                Query::of(&[trail, parts, b"event", client.as_str().as_bytes(), id.as_str().as_bytes()])
            }
            Wanted::Request(id) => Query::of(&[trail, parts, b"request", id.as_bytes()]),
            Wanted::Between(from, to) => Query::of(&[trail, parts, b"window", &micros(from), &micros(to)]),
        }
    }
}

fn time(field: &str, text: &str) -> Result<Option<Timestamp>, Refusal> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|error| invalid(format_args!("{field}: {error}")))
}

impl Page {
    fn fill(&self, snapshot: &Snapshot<'_>) -> Result<ListRecordsResponse, ReadError> {
        match &self.wanted {
            Wanted::From(seq) => self.run(snapshot, self.next.unwrap_or(*seq), self.signed),
            Wanted::Between(from, to) => {
                let first = match (self.next, from) {
                    (Some(next), _) => next,
                    (None, Some(from)) => snapshot.first_at(self.no, self.signed, *from)?,
                    (None, None) => 0,
                };
                let end = match to {
                    Some(to) => snapshot.first_at(self.no, self.signed, *to)?,
                    None => self.signed,
                };
                self.run(snapshot, first, end)
            }
            Wanted::Event(client, id) => {
                let seq = snapshot.event(self.no, client, id)?;
                self.these(snapshot, &seq.into_iter().collect::<Vec<_>>())
            }
            Wanted::Request(id) => {
                let from = self.next.unwrap_or(0);
                // One more than the page holds tells whether there is a next one.
                self.these(snapshot, &snapshot.request(self.no, id, from, self.size + 1)?)
            }
        }
    }

    /// Records from `first` on, before `end`.
    fn run(&self, snapshot: &Snapshot<'_>, first: u64, end: u64) -> Result<ListRecordsResponse, ReadError> {
        let mut filled = Filled::default();
        let mut at = first;
        while at < end && !filled.is_full(self.size) {
            let step = end.min(at.saturating_add(STEP.min((self.size - filled.records.len()) as u64)));
            let records = snapshot.records(self.no, at, step)?;
            if records.len() as u64 != step - at {
                return Err(missing(at, step));
            }
            for record in records {
                if filled.is_full(self.size) {
                    break;
                }
                at = record.seq + 1;
                filled.add(self.parts_of(snapshot, &record)?, record);
            }
        }
        let next = if at < end { self.query.token(at) } else { String::new() };
        Ok(ListRecordsResponse { records: filled.records, next_page_token: next })
    }

    /// The records with these sequence numbers, as far as they are signed.
    fn these(&self, snapshot: &Snapshot<'_>, seqs: &[u64]) -> Result<ListRecordsResponse, ReadError> {
        let mut filled = Filled::default();
        let mut next_page_token = String::new();
        for &seq in seqs.iter().filter(|seq| **seq < self.signed) {
            if filled.is_full(self.size) {
                next_page_token = self.query.token(seq);
                break;
            }
            let record = snapshot.record(self.no, seq)?.ok_or_else(|| missing(seq, seq + 1))?;
            filled.add(self.parts_of(snapshot, &record)?, record);
        }
        Ok(ListRecordsResponse { records: filled.records, next_page_token })
    }

    /// The parts of a record that the caller asked for and may read.
    fn parts_of(&self, snapshot: &Snapshot<'_>, record: &StoredRecord) -> Result<Vec<StoredPart>, ReadError> {
        let allowed = match &self.parts {
            None | Some(Parts::None) => false,
            Some(Parts::All) => true,
            Some(own @ Parts::Of(_)) => match Record::parse(&record.bytes) {
                Ok(Record { content: Content::Event(event), .. }) => own.include(Some(&event.client)),
                _ => false,
            },
        };
        if allowed { snapshot.parts(self.no, record.seq) } else { Ok(Vec::new()) }
    }
}

fn missing(from: u64, to: u64) -> ReadError {
    ReadError::Damaged { what: format!("records {from} to {}", to - 1), problem: "some are missing".to_owned() }
}

/// A page on its way.
#[derive(Default)]
struct Filled {
    records: Vec<v1::StoredRecord>,
    bytes: usize,
}

impl Filled {
    fn is_full(&self, size: usize) -> bool {
        self.records.len() >= size || self.bytes >= PAGE_BYTES
    }

    fn add(&mut self, parts: Vec<StoredPart>, record: StoredRecord) {
        let content = |part: &StoredPart| part.content.as_ref().map_or(0, |(_, data)| data.len());
        self.bytes += OVERHEAD + record.bytes.len();
        self.bytes += parts.iter().map(|part| OVERHEAD + content(part)).sum::<usize>();
        self.records.push(v1::StoredRecord {
            record: record.bytes,
            seq: record.seq,
            leaf_hash: record.leaf.as_bytes().to_vec().into(),
            signature: record.signature.unwrap_or_default(),
            parts: parts.into_iter().map(part).collect(),
        });
    }
}

fn part(stored: StoredPart) -> v1::Part {
    let withheld = stored.content.is_none();
    let (salt, data) = stored.content.map(|(salt, data)| (salt.to_vec(), data)).unwrap_or_default();
    v1::Part { name: stored.name.to_string(), media_type: stored.media_type, salt: salt.into(), data, withheld }
}

#[cfg(test)]
mod tests;
