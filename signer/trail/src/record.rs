//! The record: one entry of a trail; its bytes are the Merkle leaf.
//!
//! A record is canonical JSON (RFC 8785) of at most [`MAX_RECORD_LEN`] bytes. The writer knows the
//! order of the members; the parser writes what it understood again and wants the same bytes, so
//! that a record has one spelling.

mod words;
mod write;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::hash::Hash;
use crate::id::{EventId, MemberId, PartName, TypeName};
use crate::jcs::{self, JcsError};
use crate::keys::Kid;
use crate::origin::Origin;
use crate::part::MAX_PARTS;
use crate::time::Timestamp;

pub use words::{Category, Decision, EventResult};
pub use write::{write_control, write_event};

/// The longest record, in bytes: what the 16-bit length of a C2SP entry bundle can say.
pub const MAX_RECORD_LEN: usize = 65_535;
/// The most links of one record.
pub const MAX_LINKS: usize = 16;
/// The most keys that one record may name.
pub const MAX_KIDS: usize = 4;
/// The version of the record format.
pub const VERSION: u64 = 1;

/// What every record begins from: its place in its trail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The trail.
    pub trail: Origin,
    /// Position in the trail, equal to the leaf index.
    pub seq: u64,
    /// When the daemon ordered it; never before the time of the record before.
    pub time: Timestamp,
    /// RFC 6962 leaf hash of the record before.
    pub prev: Hash,
    /// The keys that vouch for it: the record key in record mode, the checkpoint key in batch mode.
    pub kids: Vec<Kid>,
}

/// A reference to another record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// RFC 6962 leaf hash of the other record.
    pub leaf_hash: Hash,
    /// What the other record is to this one.
    pub rel: PartName,
    /// Its position, in decimal.
    #[serde(with = "decimal")]
    pub seq: u64,
    /// Its trail.
    pub trail: Origin,
}

/// What a gateway reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The record's type, never `countersign.…`.
    pub type_name: TypeName,
    /// What retention goes by.
    pub category: Category,
    /// What policy said.
    pub decision: Decision,
    /// What happened.
    pub result: EventResult,
    /// The caller's name of it.
    pub event_id: EventId,
    /// The roster id of the caller, stamped by the daemon.
    pub client: MemberId,
    /// Other records, in the caller's order.
    pub links: Vec<Link>,
    /// The commitments of its parts.
    pub parts: BTreeMap<PartName, Hash>,
}

/// What the daemon itself has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    /// `countersign.…`.
    pub type_name: TypeName,
    /// A closed schema per type: see [`crate::control`].
    pub body: Value,
}

/// What a record holds beside its header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// `kind` is `event`.
    Event(Event),
    /// `kind` is `control`.
    Control(Control),
}

/// A parsed record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its place.
    pub header: Header,
    /// What it says.
    pub content: Content,
}

/// Why a byte string is not a record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Longer than [`MAX_RECORD_LEN`].
    #[error("a record of {0} bytes, the bound is {MAX_RECORD_LEN}")]
    TooLong(usize),
    /// Not JSON of the record's shape.
    #[error("not a record: {0}")]
    Shape(String),
    /// An unknown format version.
    #[error("record format version {0}, this reader knows {VERSION}")]
    Version(u64),
    /// More links, kids or parts than the bounds.
    #[error("{count} {what}, the bound is {max}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        count: usize,
        /// The bound.
        max: usize,
    },
    /// Members that do not go with the record's kind, or a type that is not its kind's.
    #[error("a record of kind {kind} {problem}")]
    Kind {
        /// `event` or `control`.
        kind: String,
        /// What does not fit.
        problem: &'static str,
    },
    /// Understood, but not in canonical form.
    #[error("a record that is not in canonical form (RFC 8785)")]
    NotCanonical,
    /// A control record's body is not canonical JSON.
    #[error("control body: {0}")]
    Body(#[from] JcsError),
}

/// Serde of 64-bit numbers as decimal strings without leading zeros.
pub mod decimal {
    use serde::{Deserialize, Deserializer, Serializer, de};

    /// Writes the number as a string.
    pub fn serialize<S: Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    /// Reads the one spelling of a number.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        parse(&text).ok_or_else(|| de::Error::custom("not a decimal number without leading zeros"))
    }

    /// The number of a decimal string; `None` where it is not its one spelling.
    pub fn parse(text: &str) -> Option<u64> {
        let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
        if plain { text.parse().ok() } else { None }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    body: Option<Value>,
    category: Category,
    client: Option<MemberId>,
    decision: Option<Decision>,
    event_id: Option<EventId>,
    kids: Vec<Kid>,
    kind: String,
    links: Option<Vec<Link>>,
    parts: Option<BTreeMap<PartName, Hash>>,
    prev: Hash,
    result: Option<EventResult>,
    #[serde(with = "decimal")]
    seq: u64,
    time: Timestamp,
    trail: Origin,
    #[serde(rename = "type")]
    type_name: TypeName,
    v: u64,
}

impl Record {
    /// Parses a record's exact bytes.
    pub fn parse(bytes: &[u8]) -> Result<Record, RecordError> {
        if bytes.len() > MAX_RECORD_LEN {
            return Err(RecordError::TooLong(bytes.len()));
        }
        let raw: Raw = serde_json::from_slice(bytes).map_err(|error| RecordError::Shape(error.to_string()))?;
        let record = raw.into_record()?;
        if record.to_bytes()? == bytes { Ok(record) } else { Err(RecordError::NotCanonical) }
    }

    /// The record's bytes.
    pub fn to_bytes(&self) -> Result<Vec<u8>, RecordError> {
        let mut out = Vec::with_capacity(1024);
        match &self.content {
            Content::Event(event) => write_event(&mut out, &self.header, event),
            Content::Control(control) => write_control(&mut out, &self.header, control)?,
        }
        Ok(out)
    }

    /// The record's type.
    pub fn type_name(&self) -> &TypeName {
        match &self.content {
            Content::Event(event) => &event.type_name,
            Content::Control(control) => &control.type_name,
        }
    }
}

impl Raw {
    fn into_record(self) -> Result<Record, RecordError> {
        if self.v != VERSION {
            return Err(RecordError::Version(self.v));
        }
        bound("kids", self.kids.len(), MAX_KIDS)?;
        let header = Header { trail: self.trail, seq: self.seq, time: self.time, prev: self.prev, kids: self.kids };
        let wrong = |problem| RecordError::Kind { kind: self.kind.chars().take(16).collect(), problem };
        let reserved = self.type_name.is_reserved();
        let content = match self.kind.as_str() {
            "event" => {
                if reserved {
                    return Err(wrong("has a type in the daemon's name space"));
                }
                let (Some(client), Some(decision), Some(event_id), Some(links), Some(parts), Some(result), None) =
                    (self.client, self.decision, self.event_id, self.links, self.parts, self.result, self.body)
                else {
                    return Err(wrong("lacks a member of an event, or has a body"));
                };
                bound("links", links.len(), MAX_LINKS)?;
                bound("parts", parts.len(), MAX_PARTS)?;
                let (type_name, category) = (self.type_name, self.category);
                Content::Event(Event { type_name, category, decision, result, event_id, client, links, parts })
            }
            "control" => {
                if !reserved {
                    return Err(wrong("has a type outside the daemon's name space"));
                }
                let (None, None, None, None, None, None, Some(body)) =
                    (self.client, self.decision, self.event_id, self.links, self.parts, self.result, self.body)
                else {
                    return Err(wrong("has a member of an event, or lacks a body"));
                };
                jcs::check_numbers(&body, 1)?;
                Content::Control(Control { type_name: self.type_name, body })
            }
            _ => return Err(wrong("is unknown")),
        };
        Ok(Record { header, content })
    }
}

fn bound(what: &'static str, count: usize, max: usize) -> Result<(), RecordError> {
    if count > max { Err(RecordError::TooMany { what, count, max }) } else { Ok(()) }
}
