//! The one decoding of an [`v1::Event`]: daemon and client make the same bytes of the same event.
//!
//! [`decode`] checks every bound of `event.proto` and writes facts, subject and review as canonical
//! JSON (RFC 8785). What a record commits to is exactly that, so the client library can rebuild
//! every commitment from what it sent.
//!
//! - [`mod@line`]: an event as a line of JSON.

mod json;
pub mod line;

use std::collections::BTreeMap;

use bytes::Bytes;
use countersign_trail::hash::{HASH_LEN, Hash};
use countersign_trail::id::{EventId, MemberId, PartName, TypeName};
use countersign_trail::origin::Origin;
use countersign_trail::part::{self, MAX_PARTS_BYTES, SALT_LEN};
use countersign_trail::record::{self, Category, Decision, EventResult, Link, MAX_LINKS};

use crate::v1;

/// The longest string of an event where nothing else is said, in bytes.
pub const MAX_STRING_LEN: usize = 4_096;
/// The longest `facts.request_id`, in bytes: it is indexed.
pub const MAX_REQUEST_ID_LEN: usize = 256;
/// The most elements of a list of the facts.
pub const MAX_LIST: usize = 64;
/// The most entries of an `attributes` map.
pub const MAX_ATTRIBUTES: usize = 64;
/// The most reviewers of a review.
pub const MAX_REVIEWERS: usize = 16;
/// The longest amount of money, in bytes.
pub const MAX_MONEY_LEN: usize = 40;
/// The longest encoding of an event that a transport takes, in bytes: four times what its parts
/// may have, so that a caller who passes that bound is told so by [`decode`].
pub const MAX_EVENT_LEN: usize = 4 * MAX_PARTS_BYTES;
/// The names of the parts, in their order.
pub const PARTS: [&str; 5] = ["facts", "request", "response", "review", "subject"];
/// The media type of facts, subject and review.
pub const JSON_MEDIA_TYPE: &str = "application/json";

/// Reason code: a field is missing, malformed or beyond its bound.
pub const INVALID_EVENT: &str = "INVALID_EVENT";
/// Reason code: the type is in the daemon's name space.
pub const RESERVED_TYPE: &str = "RESERVED_TYPE";
/// Reason code: the parts are beyond their bound together.
pub const EVENT_TOO_LARGE: &str = "EVENT_TOO_LARGE";
/// Reason code: a link is malformed (or, for the daemon, names no stored record).
pub const INVALID_LINK: &str = "INVALID_LINK";

/// Why an event is refused. Names fields, never their content.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// A field that must be there is not.
    #[error("{field} is missing")]
    Missing {
        /// Path of the field, such as `facts.cost.settled`.
        field: String,
    },
    /// A field does not follow its grammar.
    #[error("{field} wants {want}")]
    Grammar {
        /// Path of the field.
        field: String,
        /// The grammar, in words.
        want: &'static str,
    },
    /// An enumeration is unspecified or has a number without a name.
    #[error("{field} has no value {value} that may be used")]
    Enumeration {
        /// Path of the field.
        field: String,
        /// The number found.
        value: i32,
    },
    /// A string is longer than its bound.
    #[error("{field} has {len} bytes, the bound is {max}")]
    TooLong {
        /// Path of the field.
        field: String,
        /// Its length, in bytes.
        len: usize,
        /// The bound, in bytes.
        max: usize,
    },
    /// A list or a map is longer than its bound.
    #[error("{field} has {count} entries, the bound is {max}")]
    TooMany {
        /// Path of the field.
        field: String,
        /// Its entries.
        count: usize,
        /// The bound.
        max: usize,
    },
    /// A value of fixed length has another one.
    #[error("{field} has {len} bytes, not {want}")]
    Length {
        /// Path of the field.
        field: String,
        /// Its length, in bytes.
        len: usize,
        /// The only length, in bytes.
        want: usize,
    },
    /// A commitment came with a salt, which the client was to keep.
    #[error("{field} stands beside a commitment: keep the salt with the content")]
    SaltWithCommitment {
        /// Path of the salt.
        field: String,
    },
    /// The type begins with `countersign.`.
    #[error("type begins with \"countersign.\", which is the daemon's name space")]
    ReservedType,
    /// The parts have more than [`MAX_PARTS_BYTES`] together.
    #[error("the parts of the event up to {part} have {len} bytes, the bound is {MAX_PARTS_BYTES}")]
    TooLarge {
        /// The part that passed the bound.
        part: &'static str,
        /// Bytes of the parts so far.
        len: usize,
    },
    /// A link is malformed.
    #[error("links[{index}].{field} wants {want}")]
    Link {
        /// Its place, from 0.
        index: usize,
        /// The field.
        field: &'static str,
        /// The grammar, in words.
        want: &'static str,
    },
}

impl EventError {
    /// The stable reason code.
    pub fn reason(&self) -> &'static str {
        match self {
            EventError::ReservedType => RESERVED_TYPE,
            EventError::TooLarge { .. } => EVENT_TOO_LARGE,
            EventError::Link { .. } => INVALID_LINK,
            _ => INVALID_EVENT,
        }
    }

    /// The same error of a field that lies inside `outer`.
    fn within(mut self, outer: impl std::fmt::Display) -> EventError {
        match &mut self {
            EventError::Missing { field }
            | EventError::Grammar { field, .. }
            | EventError::Enumeration { field, .. }
            | EventError::TooLong { field, .. }
            | EventError::TooMany { field, .. }
            | EventError::Length { field, .. }
            | EventError::SaltWithCommitment { field } => {
                // An element of a list has no name of its own.
                *field = if field.is_empty() { outer.to_string() } else { format!("{outer}.{field}") };
            }
            EventError::ReservedType | EventError::TooLarge { .. } | EventError::Link { .. } => {}
        }
        self
    }
}

/// An event that keeps every bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
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
    /// Other records, in the caller's order, at most 16.
    pub links: Vec<Link>,
    /// Its parts, sorted by name, each once; at most 1 MiB together.
    pub parts: Vec<DecodedPart>,
    /// `facts.request_id`, which is indexed; at most 256 bytes.
    pub request_id: Option<String>,
}

/// One part of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodedPart {
    /// Its name.
    pub name: PartName,
    /// Its media type; may be empty for a commitment.
    pub media_type: String,
    /// Its content, or what stands for it.
    pub body: PartBody,
}

/// A part's content, or what stands for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PartBody {
    /// The content, which the daemon stores.
    Data {
        /// The exact bytes.
        bytes: Bytes,
        /// The client's own salt; none: the daemon draws one.
        salt: Option<[u8; SALT_LEN]>,
    },
    /// The commitment alone, to content that the client keeps.
    Commitment(Hash),
}

impl DecodedPart {
    /// The part's commitment: with `salt` for content, the given one for content that the client
    /// keeps.
    pub fn commitment(&self, salt: &[u8; SALT_LEN]) -> Hash {
        match &self.body {
            PartBody::Data { bytes, .. } => part::commitment(&self.name, &self.media_type, salt, bytes),
            PartBody::Commitment(commitment) => *commitment,
        }
    }
}

/// The record of a decoded event, by the member `client`, with the commitments of its parts.
pub fn record_event(decoded: &Decoded, client: MemberId, commitments: BTreeMap<PartName, Hash>) -> record::Event {
    record::Event {
        type_name: decoded.type_name.clone(),
        category: decoded.category,
        decision: decoded.decision,
        result: decoded.result,
        event_id: decoded.event_id.clone(),
        client,
        links: decoded.links.clone(),
        parts: commitments,
    }
}

/// Checks an event's bounds and writes its parts.
///
/// # Errors
/// [`EventError`], one variant for each cause; nothing of the event's content is in it.
pub fn decode(event: &v1::Event) -> Result<Decoded, EventError> {
    let type_name = TypeName::parse(&event.r#type)
        .map_err(|_| grammar("type", "a letter a-z, then a-z 0-9 . _ -, at most 64 bytes"))?;
    if type_name.is_reserved() {
        return Err(EventError::ReservedType);
    }
    let event_id = EventId::parse(&event.event_id)
        .map_err(|_| grammar("event_id", "1 to 64 visible ASCII bytes, 0x21 to 0x7e"))?;
    let request_id = event.facts.as_ref().map(|facts| facts.request_id.as_str()).filter(|id| !id.is_empty());
    Ok(Decoded {
        type_name,
        category: category(event.category)?,
        decision: decision(event.decision)?,
        result: result(event.result)?,
        event_id,
        links: links(&event.links)?,
        parts: parts(event)?,
        request_id: request_id.map(ToOwned::to_owned),
    })
}

fn grammar(field: &str, want: &'static str) -> EventError {
    EventError::Grammar { field: field.to_owned(), want }
}

fn category(value: i32) -> Result<Category, EventError> {
    match v1::Category::try_from(value) {
        Ok(v1::Category::Block) => Ok(Category::Block),
        Ok(v1::Category::Redaction) => Ok(Category::Redaction),
        Ok(v1::Category::Escalation) => Ok(Category::Escalation),
        Ok(v1::Category::Normal) => Ok(Category::Normal),
        Ok(v1::Category::Cost) => Ok(Category::Cost),
        Ok(v1::Category::Auth) => Ok(Category::Auth),
        Ok(v1::Category::Config) => Ok(Category::Config),
        Ok(v1::Category::Unspecified) | Err(_) => Err(no_value("category", value)),
    }
}

fn decision(value: i32) -> Result<Decision, EventError> {
    match v1::Decision::try_from(value) {
        Ok(v1::Decision::Allow) => Ok(Decision::Allow),
        Ok(v1::Decision::Block) => Ok(Decision::Block),
        Ok(v1::Decision::Redact) => Ok(Decision::Redact),
        Ok(v1::Decision::Escalate) => Ok(Decision::Escalate),
        Ok(v1::Decision::None) => Ok(Decision::None),
        Ok(v1::Decision::Unspecified) | Err(_) => Err(no_value("decision", value)),
    }
}

fn result(value: i32) -> Result<EventResult, EventError> {
    match v1::Result::try_from(value) {
        Ok(v1::Result::Delivered) => Ok(EventResult::Delivered),
        Ok(v1::Result::Blocked) => Ok(EventResult::Blocked),
        Ok(v1::Result::Redacted) => Ok(EventResult::Redacted),
        Ok(v1::Result::Escalated) => Ok(EventResult::Escalated),
        Ok(v1::Result::Failed) => Ok(EventResult::Failed),
        Ok(v1::Result::Pending) => Ok(EventResult::Pending),
        Ok(v1::Result::Unspecified) | Err(_) => Err(no_value("result", value)),
    }
}

fn no_value(field: &str, value: i32) -> EventError {
    EventError::Enumeration { field: field.to_owned(), value }
}

fn links(links: &[v1::Link]) -> Result<Vec<Link>, EventError> {
    if links.len() > MAX_LINKS {
        return Err(EventError::TooMany { field: "links".to_owned(), count: links.len(), max: MAX_LINKS });
    }
    let link = |(index, link): (usize, &v1::Link)| {
        let wrong = |field, want| EventError::Link { index, field, want };
        Ok(Link {
            leaf_hash: Hash::try_from(&link.leaf_hash[..]).map_err(|_| wrong("leaf_hash", "32 bytes"))?,
            rel: PartName::parse(&link.rel).map_err(|_| wrong("rel", "1 to 32 letters a-z"))?,
            seq: link.seq,
            trail: Origin::parse(&link.trail).map_err(|_| wrong("trail", "the origin of a trail"))?,
        })
    };
    links.iter().enumerate().map(link).collect()
}

/// The parts in the order of their names, which is also the order of this function.
fn parts(event: &v1::Event) -> Result<Vec<DecodedPart>, EventError> {
    let mut parts = Parts { list: Vec::with_capacity(4), len: 0 };
    if let Some(facts) = &event.facts {
        parts.json("facts", |out| json::facts(out, facts))?;
    }
    if let Some(request) = &event.request {
        parts.content("request", request)?;
    }
    if let Some(response) = &event.response {
        parts.content("response", response)?;
    }
    if let Some(review) = &event.review {
        parts.json("review", |out| json::review(out, review))?;
    }
    if let Some(subject) = &event.subject {
        parts.json("subject", |out| json::subject(out, subject))?;
    }
    Ok(parts.list)
}

struct Parts {
    list: Vec<DecodedPart>,
    len: usize,
}

impl Parts {
    fn json(
        &mut self,
        name: &'static str,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), EventError>,
    ) -> Result<(), EventError> {
        // Facts as a gateway writes them have 300 to 900 bytes.
        let mut out = Vec::with_capacity(1024);
        write(&mut out).map_err(|error| error.within(name))?;
        let body = PartBody::Data { bytes: out.into(), salt: None };
        self.push(name, JSON_MEDIA_TYPE, body)
    }

    fn content(&mut self, name: &'static str, content: &v1::Content) -> Result<(), EventError> {
        let body = content_body(content).map_err(|error| error.within(name))?;
        self.push(name, &content.media_type, body)
    }

    fn push(&mut self, name: &'static str, media_type: &str, body: PartBody) -> Result<(), EventError> {
        if let PartBody::Data { bytes, .. } = &body {
            self.len += bytes.len();
        }
        if self.len > MAX_PARTS_BYTES {
            return Err(EventError::TooLarge { part: name, len: self.len });
        }
        let name = PartName::parse(name).map_err(|_| grammar(name, "1 to 32 letters a-z"))?;
        self.list.push(DecodedPart { name, media_type: media_type.to_owned(), body });
        Ok(())
    }
}

fn content_body(content: &v1::Content) -> Result<PartBody, EventError> {
    let media_type = content.media_type.as_str();
    let typed = part::is_media_type(media_type);
    let malformed = || grammar("media_type", "1 to 128 visible ASCII bytes");
    match &content.body {
        None => Err(EventError::Missing { field: "data".to_owned() }),
        Some(v1::content::Body::Data(_)) if !typed => Err(malformed()),
        Some(v1::content::Body::Data(data)) => {
            let salt = match content.salt.len() {
                0 => None,
                len => Some(content.salt[..].try_into().map_err(|_| length("salt", len, SALT_LEN))?),
            };
            Ok(PartBody::Data { bytes: data.clone(), salt })
        }
        Some(v1::content::Body::Commitment(_)) if !typed && !media_type.is_empty() => Err(malformed()),
        Some(v1::content::Body::Commitment(_)) if !content.salt.is_empty() => {
            Err(EventError::SaltWithCommitment { field: "salt".to_owned() })
        }
        Some(v1::content::Body::Commitment(commitment)) => {
            let hash = Hash::try_from(&commitment[..]);
            Ok(PartBody::Commitment(hash.map_err(|_| length("commitment", commitment.len(), HASH_LEN))?))
        }
    }
}

fn length(field: &str, len: usize, want: usize) -> EventError {
    EventError::Length { field: field.to_owned(), len, want }
}

#[cfg(test)]
mod tests;
