//! The part of LiteLLM's `StandardLoggingPayload` that is read. Everything but the start is
//! optional, since a call can fail at any point; null and absent mean the same, as do empty and
//! absent strings. Unknown fields are ignored: LiteLLM adds some with every release.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

/// One logged call.
#[derive(Debug, Deserialize)]
pub struct Payload<'a> {
    /// Id of the answer, or of the call.
    pub id: String,
    /// Id of the call.
    pub litellm_call_id: Option<String>,
    /// Trace, across retries and fallbacks.
    pub trace_id: Option<String>,
    /// Conversation.
    pub session_id: Option<String>,
    /// `acompletion`, `aembedding`, `call_mcp_tool`, …
    pub call_type: String,
    /// Set on answered streams only; see `model_parameters` otherwise.
    pub stream: Option<bool>,
    /// `success` or `failure`.
    pub status: String,
    /// Provider, when one was chosen.
    pub custom_llm_provider: Option<String>,
    /// Model, with or without `provider/`.
    pub model: Option<String>,
    /// Name by which the caller asked for it.
    pub model_group: Option<String>,
    /// Seconds since 1970, a float.
    #[serde(borrow, rename = "startTime")]
    pub start_time: &'a RawValue,
    /// Seconds, a float.
    #[serde(borrow)]
    pub response_time: Option<&'a RawValue>,
    /// USD, a float.
    #[serde(borrow)]
    pub response_cost: Option<&'a RawValue>,
    /// Tokens.
    pub prompt_tokens: Option<u64>,
    /// Tokens.
    pub completion_tokens: Option<u64>,
    /// The `user` that the application named.
    pub end_user: Option<String>,
    /// Key, user, team and the like.
    #[serde(default, borrow)]
    pub metadata: Option<Metadata<'a>>,
    /// What was asked, after masking.
    #[serde(borrow)]
    pub messages: Option<&'a RawValue>,
    /// What was answered, after masking.
    #[serde(borrow)]
    pub response: Option<&'a RawValue>,
    /// Options of the call, tools among them.
    #[serde(borrow)]
    pub model_parameters: Option<&'a RawValue>,
    /// Of a failed call.
    pub error_information: Option<ErrorInformation>,
    /// One entry for each run of a guardrail.
    pub guardrail_information: Option<Vec<Guardrail>>,
}

/// Who called, and the tool call if it was one.
#[derive(Debug, Default, Deserialize)]
pub struct Metadata<'a> {
    /// Name of the key.
    pub user_api_key_alias: Option<String>,
    /// User of the key.
    pub user_api_key_user_id: Option<String>,
    /// Their address.
    pub user_api_key_user_email: Option<String>,
    /// Team.
    pub user_api_key_team_id: Option<String>,
    /// Team's name.
    pub user_api_key_team_alias: Option<String>,
    /// Organisation.
    pub user_api_key_org_id: Option<String>,
    /// Path of the call.
    pub user_api_key_request_route: Option<String>,
    /// Metadata of the key.
    pub user_api_key_auth_metadata: Option<KeyMetadata>,
    /// User-Agent header.
    pub user_agent: Option<String>,
    /// Set for MCP calls.
    #[serde(borrow)]
    pub mcp_tool_call_metadata: Option<McpToolCall<'a>>,
}

/// Metadata of a key: `role` is ours by convention, the rest is ignored.
#[derive(Debug, Default, Deserialize)]
pub struct KeyMetadata {
    /// Role of the holder.
    pub role: Option<String>,
}

/// A call of an MCP tool.
#[derive(Debug, Deserialize)]
pub struct McpToolCall<'a> {
    /// Name, a JSON string.
    #[serde(borrow)]
    pub name: Option<&'a RawValue>,
    /// Arguments, a JSON object.
    #[serde(borrow)]
    pub arguments: Option<&'a RawValue>,
    /// Server.
    pub mcp_server_name: Option<String>,
}

/// Why a call failed.
#[derive(Debug, Default, Deserialize)]
pub struct ErrorInformation {
    /// HTTP status as text.
    pub error_code: Option<String>,
    /// Class of the exception.
    pub error_class: Option<String>,
    /// Set when a provider answered with the error.
    pub llm_provider: Option<String>,
    /// Text.
    pub error_message: Option<String>,
    /// LiteLLM's stable code, such as `429_RATE_LIMIT_EXCEEDED`.
    pub normalized_error: Option<String>,
    /// `litellm_rate_limit`, `vendor_rate_limit`, …
    pub error_rate_limit_category: Option<String>,
    /// `budget`, …
    pub error_rate_limit_type: Option<String>,
}

/// A guardrail's run.
#[derive(Debug, Deserialize)]
pub struct Guardrail {
    /// Name in the gateway's configuration.
    pub guardrail_name: Option<String>,
    /// `pre_call`, `post_call`, or a list or object of such.
    pub guardrail_mode: Option<serde_json::Value>,
    /// `success`, `guardrail_flagged`, `guardrail_intervened`, `guardrail_failed_to_respond`, `not_run`.
    pub guardrail_status: Option<String>,
    /// What the guardrail's provider answered, in its own form.
    pub guardrail_response: Option<serde_json::Value>,
    /// The provider's action, in its own words.
    pub guardrail_action: Option<String>,
    /// What intervened.
    pub violation_categories: Option<Vec<String>>,
    /// What was masked, by label.
    pub masked_entity_count: Option<BTreeMap<String, u64>>,
}

impl Guardrail {
    /// Whether LiteLLM gave the run this status.
    #[must_use]
    pub fn is(&self, status: &str) -> bool {
        self.guardrail_status.as_deref() == Some(status)
    }

    /// Whether it masked anything.
    #[must_use]
    pub fn masked(&self) -> bool {
        self.masked_entity_count.iter().flatten().any(|(_, count)| *count > 0)
    }
}

impl<'a> Payload<'a> {
    /// The guardrails' runs, in order.
    #[must_use]
    pub fn guardrails(&self) -> &[Guardrail] {
        self.guardrail_information.as_deref().unwrap_or_default()
    }

    /// The MCP tool call, if it is one.
    #[must_use]
    pub fn tool_call(&self) -> Option<&McpToolCall<'a>> {
        self.metadata.as_ref()?.mcp_tool_call_metadata.as_ref()
    }

    /// The answer, unless it is empty, as LiteLLM logs it for calls that got none.
    #[must_use]
    pub fn answer(&self) -> Option<&'a RawValue> {
        self.response.filter(|raw| !matches!(raw.get(), "{}" | "[]" | "\"\""))
    }
}

/// An optional string, where empty means absent.
#[must_use]
pub fn text(value: Option<&String>) -> Option<&str> {
    value.map(String::as_str).filter(|text| !text.is_empty())
}
