//! The event as `countersign sign` reads it. Absent fields are left out; 64-bit numbers and money
//! are decimal strings; the order of the fields is fixed by the order of the declarations here.

use std::collections::BTreeMap;

use serde::Serialize;

/// What retention and filters go by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Category {
    /// Policy stopped the call.
    Block,
    /// Policy removed something from it.
    Redaction,
    /// Policy wants a person to look at it.
    Escalation,
    /// Nothing of note.
    Normal,
    /// A budget stopped it.
    Cost,
    /// The caller was not admitted.
    Auth,
}

/// What policy said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// Every guardrail let it pass.
    Allow,
    /// Refused.
    Block,
    /// Passed without what was removed.
    Redact,
    /// A person is to look at it.
    Escalate,
    /// No policy was asked, or none answered.
    None,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The answer reached the caller.
    Delivered,
    /// Nothing did.
    Blocked,
    /// The caller or the model saw less than was written.
    Redacted,
    /// Held until a person releases it.
    Escalated,
    /// A fault, not a decision.
    Failed,
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Event {
    /// UUIDv7 text, 36 bytes, see [`crate::id::event_id`].
    pub event_id: String,
    /// `[a-z][a-z0-9._-]{0,63}`, see [`crate::facts::event_type`].
    #[serde(rename = "type")]
    pub kind: String,
    /// See [`crate::outcome::decide`].
    pub category: Category,
    /// See [`crate::outcome::decide`].
    pub decision: Decision,
    /// See [`crate::outcome::decide`].
    pub result: Outcome,
    /// The circumstances.
    pub facts: Facts,
    /// Who asked, when the gateway knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<Subject>,
    /// What was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<Content>,
    /// What was answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response: Option<Content>,
}

/// Content with its media type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Content {
    /// IANA media type.
    pub media_type: &'static str,
    /// The content, UTF-8.
    pub text: String,
}

impl Content {
    /// Content that is JSON text.
    #[must_use]
    pub fn json(text: &str) -> Self {
        Self { media_type: "application/json", text: text.to_owned() }
    }
}

/// The circumstances of a call.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Facts {
    /// RFC 3339, UTC, microseconds: when LiteLLM began the call.
    pub occurred_at: String,
    /// The application that called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<Agent>,
    /// Role of the key, from its metadata.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Team's name, else its id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub team: Option<String>,
    /// Organisation's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub org: Option<String>,
    /// Conversation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    /// LiteLLM's call id, the `x-litellm-call-id` of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Trace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// The model asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<Model>,
    /// The tool called, or that the model wants called first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool: Option<Tool>,
    /// The guardrail that decided, when it did more than allow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<Policy>,
    /// Each guardrail's verdict, in the order in which they ran.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub policy_results: Vec<PolicyResult>,
    /// What guardrails found, sorted, each once.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub classification: Vec<String>,
    /// What they removed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub redactions: Vec<Redaction>,
    /// Why the call was not simply answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason_code: Option<String>,
    /// Token counts of an answered model call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<Tokens>,
    /// What LiteLLM charged for an answered model call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<Cost>,
    /// What has no field of its own.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<&'static str, String>,
}

/// The application that called.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Agent {
    /// Alias of the gateway key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Product of the User-Agent (RFC 9110 section 10.1.5).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// The model asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Model {
    /// LiteLLM's name of the provider.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// The provider's name of the model.
    pub name: String,
}

/// A tool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// The MCP server it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// Id of the call that the model made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub call_id: Option<String>,
}

/// The policy that decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Policy {
    /// Name of the guardrail.
    pub id: String,
}

/// A guardrail's verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PolicyResult {
    /// Name of the guardrail.
    pub name: String,
    /// LiteLLM's `guardrail_status`.
    pub outcome: String,
    /// What it found or said; cut at [`crate::facts::MAX_DETAIL_BYTES`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// Something that a guardrail removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Redaction {
    /// What kind of thing.
    pub label: String,
    /// `request` or `response`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// How many, a decimal string.
    pub count: String,
}

/// Token counts, decimal strings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Tokens {
    /// Of the prompt.
    pub prompt: String,
    /// Of the answer.
    pub completion: String,
}

/// Money, a decimal string without exponent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cost {
    /// What LiteLLM charged to the key.
    pub settled: String,
    /// Always `USD`: the currency of LiteLLM's price table.
    pub currency: &'static str,
}

/// Who asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Subject {
    /// The holder of the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actor: Option<Actor>,
    /// The end user whom the application named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_behalf_of: Option<Actor>,
    /// What has no field of its own.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<&'static str, String>,
}

/// A person or service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Actor {
    /// Its id.
    pub id: String,
    /// `user` or `end_user`.
    #[serde(rename = "type")]
    pub kind: &'static str,
}
