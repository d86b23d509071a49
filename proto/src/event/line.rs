//! An event as one line of JSON, for command lines and sample files.
//!
//! Members have the names of the fields of `event.proto`, and are left out where they are absent.
//! Enumerations are their words in records (`"allow"`), 64-bit numbers and money decimal strings,
//! hashes lower-case hexadecimal, salts base64url without padding. `request` and `response` are
//! `{"media_type": …, "text": …}`, or with `"base64"` (standard, padded) for bytes that are no
//! text, or with `"commitment"` for content that the client keeps; `"salt"` may stand beside the
//! first two. Unknown and repeated members are refused.
//!
//! ```json
//! {"type":"llm.completion","category":"normal","decision":"allow","result":"delivered","facts":{"model":{"name":"gpt-4o"},"tokens":{"prompt":"12","completion":"40"}},"request":{"media_type":"text/plain","text":"Hello"}}
//! ```

use std::collections::HashMap;
use std::fmt;

use countersign_trail::base64;
use countersign_trail::hash::Hash;
use countersign_trail::record::{Category, Decision, EventResult, decimal};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};

use crate::v1;

/// The longest line, in bytes: twice 4 MiB, what an event may have with every quotation mark
/// escaped.
pub const MAX_LINE_LEN: usize = 2 * super::MAX_EVENT_LEN;

/// Why a line is no event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// Longer than [`MAX_LINE_LEN`].
    #[error("the line has {0} bytes, the bound is {MAX_LINE_LEN}")]
    TooLong(usize),
    /// Not JSON, or not of an event's shape.
    #[error("{path}: {problem}")]
    Shape {
        /// Path of the member, such as `facts.tokens.prompt`; `.` for the line itself.
        path: String,
        /// What is wrong there, with its column.
        problem: String,
    },
    /// A content with none or several of `text`, `base64` and `commitment`.
    #[error("{0} wants exactly one of text, base64 and commitment")]
    Body(&'static str),
    /// A member that is not canonical base64.
    #[error("{path} is not canonical base64: {cause}")]
    Base64 {
        /// Path of the member.
        path: String,
        /// What is wrong with it.
        cause: base64::Base64Error,
    },
}

/// Reads one line (without its line feed) as an event. Bounds of the event itself are checked by
/// [`super::decode`]; `event_id` may be absent, for a client to fill in.
///
/// # Errors
/// [`LineError`], one variant for each cause.
pub fn parse(line: &[u8]) -> Result<v1::Event, LineError> {
    if line.len() > MAX_LINE_LEN {
        return Err(LineError::TooLong(line.len()));
    }
    let mut json = serde_json::Deserializer::from_slice(line);
    let event: Line = serde_path_to_error::deserialize(&mut json)
        .map_err(|error| LineError::Shape { path: error.path().to_string(), problem: error.inner().to_string() })?;
    json.end().map_err(|error| LineError::Shape { path: ".".to_owned(), problem: error.to_string() })?;
    event.into_event()
}

/// Reads an object as nothing but an object. The derived readers also take a list of an object's
/// values, and would guess which member each one is.
struct ObjectOnly<D>(D);

impl<'de, D: Deserializer<'de>> Deserializer<'de> for ObjectOnly<D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_map(visitor)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

/// For structs with a derived reader of their own (`remote = "Self"`).
macro_rules! object_only {
    ($($name:ident),+) => {
        $(impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<$name, D::Error> {
                $name::deserialize(ObjectOnly(deserializer))
            }
        })+
    };
}

object_only!(Line, Link, Content);

#[derive(Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
struct Line {
    #[serde(default)]
    event_id: String,
    r#type: String,
    category: Category,
    decision: Decision,
    result: EventResult,
    facts: Option<Facts>,
    subject: Option<Subject>,
    review: Option<Review>,
    request: Option<Content>,
    response: Option<Content>,
    #[serde(default)]
    links: Vec<Link>,
}

impl Line {
    fn into_event(self) -> Result<v1::Event, LineError> {
        Ok(v1::Event {
            event_id: self.event_id,
            r#type: self.r#type,
            category: number_of(Category::ALL, self.category),
            decision: number_of(Decision::ALL, self.decision),
            result: number_of(EventResult::ALL, self.result),
            facts: self.facts.map(Facts::into_message),
            subject: self.subject.map(Subject::into_message),
            review: self.review.map(Review::into_message),
            request: self.request.map(|content| content.into_message("request")).transpose()?,
            response: self.response.map(|content| content.into_message("response")).transpose()?,
            links: self.links.into_iter().map(Link::into_message).collect(),
        })
    }
}

/// The protobuf number of an enumeration's value: `ALL` is in the order of the interface
/// definition, whose 0 is "unspecified".
fn number_of<T: PartialEq>(all: &[T], value: T) -> i32 {
    all.iter().position(|one| *one == value).map_or(0, |at| at as i32 + 1)
}

/// A message of `event.proto` with the same members in JSON.
macro_rules! message {
    ($name:ident { $($field:ident: $kind:ty $(= $with:literal)?),+ $(,)? }) => {
        #[derive(Deserialize, Default)]
        #[serde(deny_unknown_fields, default, remote = "Self")]
        struct $name { $($(#[serde(deserialize_with = $with)])? $field: $kind),+ }

        object_only!($name);

        impl $name {
            fn into_message(self) -> v1::$name {
                v1::$name { $($field: self.$field.into_field()),+ }
            }
        }

        impl IntoField<v1::$name> for $name {
            fn into_field(self) -> v1::$name {
                self.into_message()
            }
        }
    };
}

/// A JSON member as the field of its message.
trait IntoField<T> {
    fn into_field(self) -> T;
}

impl IntoField<String> for String {
    fn into_field(self) -> String {
        self
    }
}

impl IntoField<u64> for u64 {
    fn into_field(self) -> u64 {
        self
    }
}

impl IntoField<HashMap<String, String>> for HashMap<String, String> {
    fn into_field(self) -> HashMap<String, String> {
        self
    }
}

impl<M, T: IntoField<M>> IntoField<Option<M>> for Option<T> {
    fn into_field(self) -> Option<M> {
        self.map(T::into_field)
    }
}

impl<M, T: IntoField<M>> IntoField<Vec<M>> for Vec<T> {
    fn into_field(self) -> Vec<M> {
        self.into_iter().map(T::into_field).collect()
    }
}

message!(Facts {
    occurred_at: String,
    agent: Option<Agent>,
    role: String,
    team: String,
    org: String,
    session_id: String,
    request_id: String,
    trace_id: String,
    model: Option<Model>,
    tool: Option<Tool>,
    policy: Option<Policy>,
    policy_results: Vec<PolicyResult>,
    classification: Vec<String>,
    redactions: Vec<Redaction>,
    reason_code: String,
    tokens: Option<Tokens>,
    cost: Option<Cost>,
    attributes: HashMap<String, String> = "string_map",
});
message!(Agent { id: String, name: String, version: String });
message!(Model { provider: String, name: String, version: String });
message!(Tool { name: String, server: String, call_id: String });
message!(Policy { id: String, version: String, digest: String });
message!(PolicyResult { name: String, outcome: String, detail: String });
message!(Redaction { label: String, field: String, count: u64 = "decimal::deserialize" });
message!(Tokens { prompt: u64 = "decimal::deserialize", completion: u64 = "decimal::deserialize" });
message!(Cost { estimated: String, settled: String, currency: String });
message!(Subject {
    actor: Option<Actor>,
    on_behalf_of: Option<Actor>,
    attributes: HashMap<String, String> = "string_map",
});
message!(Actor { id: String, r#type: String, name: String });
message!(Review { reviewers: Vec<Reviewer> });
message!(Reviewer { id: String, name: String, decision: String, reason: String, decided_at: String });

#[derive(Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
struct Link {
    rel: String,
    trail: String,
    #[serde(deserialize_with = "decimal::deserialize")]
    seq: u64,
    leaf_hash: Hash,
}

impl Link {
    fn into_message(self) -> v1::Link {
        let leaf_hash = self.leaf_hash.as_bytes().to_vec().into();
        v1::Link { rel: self.rel, trail: self.trail, seq: self.seq, leaf_hash }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
struct Content {
    #[serde(default)]
    media_type: String,
    text: Option<String>,
    base64: Option<String>,
    commitment: Option<Hash>,
    salt: Option<String>,
}

impl Content {
    fn into_message(self, part: &'static str) -> Result<v1::Content, LineError> {
        use v1::content::Body;
        let malformed =
            |member: &'static str| move |cause| LineError::Base64 { path: format!("{part}.{member}"), cause };
        let body = match (self.text, self.base64, self.commitment) {
            (Some(text), None, None) => Body::Data(text.into_bytes().into()),
            (None, Some(text), None) => Body::Data(base64::std_decode(&text).map_err(malformed("base64"))?.into()),
            (None, None, Some(hash)) => Body::Commitment(hash.as_bytes().to_vec().into()),
            _ => return Err(LineError::Body(part)),
        };
        let salt = self.salt.map(|salt| base64::url_decode(&salt)).transpose().map_err(malformed("salt"))?;
        Ok(v1::Content { media_type: self.media_type, salt: salt.unwrap_or_default().into(), body: Some(body) })
    }
}

/// A map from string to string, each key once.
fn string_map<'de, D: Deserializer<'de>>(deserializer: D) -> Result<HashMap<String, String>, D::Error> {
    struct Entries;

    impl<'de> Visitor<'de> for Entries {
        type Value = HashMap<String, String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object of strings")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
            let mut map = HashMap::new();
            while let Some((key, value)) = entries.next_entry::<String, String>()? {
                if map.insert(key, value).is_some() {
                    return Err(A::Error::custom("a key stands twice"));
                }
            }
            Ok(map)
        }
    }

    deserializer.deserialize_map(Entries)
}

#[cfg(test)]
mod tests;
