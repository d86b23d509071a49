//! Turns what LiteLLM logs about a call (its `StandardLoggingPayload`, `litellm/types/utils.py`,
//! seen with 1.106) into an event as `countersign sign` reads it: one JSON object a line in, one out.
//!
//! - [`payload`]: the fields of a payload that are read; the others are ignored.
//! - [`event`]: the event, with absent fields left out, never null.
//! - [`outcome`]: category, decision and result of a call.
//! - [`facts`]: everything that describes the call.
//! - [`id`]: the event id and times. [`money`]: costs as decimal strings.
//! - [`lines`]: whole files, with bounds and line numbers.
//!
//! Invariants: the same payload gives the same bytes; content (messages, parameters, answers) is
//! passed on exactly as LiteLLM printed it; no float is printed, every figure is a decimal string;
//! bad input is an error with its cause, never a panic and never a guess.

pub mod event;
pub mod facts;
pub mod id;
pub mod lines;
pub mod money;
pub mod outcome;
pub mod payload;

use event::{Content, Event};
use payload::Payload;
use serde::de::Error as _;

/// Longest string of an event outside content, in bytes.
pub const MAX_STRING_BYTES: usize = 4096;

/// What is wrong with one payload.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MapError {
    /// Not JSON, not UTF-8, or a field of another kind than LiteLLM documents.
    #[error("not a LiteLLM logging payload: {0}")]
    Json(#[from] serde_json::Error),
    /// A field without which there is no event.
    #[error("the payload has no {0}")]
    Missing(&'static str),
    /// A number that is not finite, is negative, or lies beyond what the event can hold.
    #[error("{field} is {value}, which is no {wanted}")]
    Number {
        /// The payload's field.
        field: &'static str,
        /// What stands there, cut to 64 characters.
        value: String,
        /// What was expected.
        wanted: &'static str,
    },
    /// A status that LiteLLM does not document.
    #[error("status is {0:?}, expected success or failure")]
    Status(String),
    /// A string over [`MAX_STRING_BYTES`].
    #[error("{field} has {bytes} bytes, the bound is {MAX_STRING_BYTES}")]
    TooLong {
        /// The event's field.
        field: &'static str,
        /// Its length.
        bytes: usize,
    },
}

/// Maps one payload (one line of the capture, with or without its line feed).
///
/// # Errors
/// [`MapError`] names the field at fault.
pub fn map_payload(line: &[u8]) -> Result<Event, MapError> {
    // Serde does not look into strings that are ignored.
    let text = std::str::from_utf8(line).map_err(serde_json::Error::custom)?;
    let payload: Payload<'_> = serde_json::from_str(text)?;
    let started = id::microseconds("startTime", payload.start_time.get())?;
    let (category, decision, result) = outcome::decide(&payload)?;
    Ok(Event {
        event_id: id::event_id(started, &payload),
        kind: facts::event_type(&payload),
        category,
        decision,
        result,
        facts: facts::facts(&payload, started)?,
        subject: facts::subject(&payload)?,
        request: request(&payload),
        response: payload.answer().map(|raw| Content::json(raw.get())),
    })
}

/// The request as one JSON object around LiteLLM's own values: `messages` and `parameters` of a
/// model call, `name` and `arguments` of a tool call.
fn request(payload: &Payload<'_>) -> Option<Content> {
    let (names, values) = match payload.tool_call() {
        Some(tool) => (["name", "arguments"], [tool.name, tool.arguments]),
        None => (["messages", "parameters"], [payload.messages, payload.model_parameters]),
    };
    let members: Vec<String> = names
        .iter()
        .zip(values)
        .filter_map(|(name, value)| value.map(|raw| format!("\"{name}\":{}", raw.get())))
        .collect();
    (!members.is_empty()).then(|| Content::json(&format!("{{{}}}", members.join(","))))
}
