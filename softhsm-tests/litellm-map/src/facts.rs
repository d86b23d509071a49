//! What describes a call: facts, subject and the event's type.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;

use crate::event::{Actor, Agent, Cost, Facts, Model, Policy, PolicyResult, Redaction, Subject, Tokens, Tool};
use crate::payload::{Guardrail, Metadata, Payload, text};
use crate::{MAX_STRING_BYTES, MapError, id, money, outcome};

/// Longest detail of a guardrail or text of an error, in bytes; longer ones are cut and marked.
pub const MAX_DETAIL_BYTES: usize = 1024;
/// Most entries of each list of the facts (`event.proto`).
pub const MAX_ENTRIES: usize = 64;

/// The event's type: `tool.call` for an MCP call, `llm.tool_call` when the model wants a tool,
/// `llm.completion`, `llm.embedding`, else `llm.` and LiteLLM's call type in the type's alphabet.
#[must_use]
pub fn event_type(payload: &Payload<'_>) -> String {
    match payload.call_type.as_str() {
        "call_mcp_tool" => "tool.call".to_owned(),
        "completion" | "acompletion" | "text_completion" | "atext_completion" | "responses" | "aresponses" => {
            let wants_tool = !wanted_tools(payload).is_empty();
            if wants_tool { "llm.tool_call" } else { "llm.completion" }.to_owned()
        }
        "embedding" | "aembedding" => "llm.embedding".to_owned(),
        other => {
            let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-' | '.');
            let name = other.chars().map(|c| c.to_ascii_lowercase()).map(|c| if allowed(c) { c } else { '_' });
            // 64 bytes of type, 4 of them the prefix.
            format!("llm.{}", name.take(60).collect::<String>())
        }
    }
}

/// The facts of a call that began at `started` (microseconds since 1970).
///
/// # Errors
/// [`MapError`] for a figure that cannot be a decimal string and for an over-long string.
pub fn facts(payload: &Payload<'_>, started: u64) -> Result<Facts, MapError> {
    let none = Metadata::default();
    let metadata = payload.metadata.as_ref().unwrap_or(&none);
    let guardrails = payload.guardrails();
    let role = metadata.user_api_key_auth_metadata.as_ref().and_then(|key| key.role.as_ref());
    let team = text(metadata.user_api_key_team_alias.as_ref()).or(text(metadata.user_api_key_team_id.as_ref()));
    let deciding = outcome::deciding(guardrails).and_then(|guardrail| text(guardrail.guardrail_name.as_ref()));
    let answered_by_model = payload.status == "success" && payload.tool_call().is_none();
    Ok(Facts {
        occurred_at: id::rfc3339(started),
        agent: agent(metadata)?,
        role: bounded("role", text(role))?,
        team: bounded("team", team)?,
        org: bounded("org", text(metadata.user_api_key_org_id.as_ref()))?,
        session_id: bounded("session_id", text(payload.session_id.as_ref()))?,
        request_id: bounded("request_id", text(payload.litellm_call_id.as_ref()))?,
        trace_id: bounded("trace_id", text(payload.trace_id.as_ref()))?,
        model: model(payload)?,
        tool: tool(payload)?,
        policy: bounded("policy.id", deciding)?.map(|id| Policy { id }),
        policy_results: guardrails.iter().take(MAX_ENTRIES).map(policy_result).collect::<Result<_, _>>()?,
        classification: classification(guardrails)?,
        redactions: redactions(guardrails)?,
        reason_code: bounded("reason_code", reason(payload))?,
        tokens: tokens(payload).filter(|_| answered_by_model),
        cost: if answered_by_model { cost(payload)? } else { None },
        attributes: attributes(payload, metadata)?,
    })
}

/// Who asked: the user of the key, and the end user whom the application named.
///
/// # Errors
/// [`MapError::TooLong`].
pub fn subject(payload: &Payload<'_>) -> Result<Option<Subject>, MapError> {
    let none = Metadata::default();
    let metadata = payload.metadata.as_ref().unwrap_or(&none);
    let actor =
        |field, id: Option<&String>, kind| bounded(field, text(id)).map(|found| found.map(|id| Actor { id, kind }));
    let mut attributes = BTreeMap::new();
    for (name, value) in [("email", &metadata.user_api_key_user_email), ("team_id", &metadata.user_api_key_team_id)] {
        if let Some(value) = bounded(name, text(value.as_ref()))? {
            attributes.insert(name, value);
        }
    }
    let subject = Subject {
        actor: actor("actor.id", metadata.user_api_key_user_id.as_ref(), "user")?,
        on_behalf_of: actor("on_behalf_of.id", payload.end_user.as_ref(), "end_user")?,
        attributes,
    };
    Ok((subject != Subject::default()).then_some(subject))
}

/// An owned copy, or the error that it is too long.
fn bounded(field: &'static str, value: Option<&str>) -> Result<Option<String>, MapError> {
    match value {
        Some(value) if value.len() > MAX_STRING_BYTES => Err(MapError::TooLong { field, bytes: value.len() }),
        other => Ok(other.map(str::to_owned)),
    }
}

/// Free text cut to [`MAX_DETAIL_BYTES`] at a character, the cut marked by an ellipsis.
fn cut(value: &str) -> String {
    if value.len() <= MAX_DETAIL_BYTES {
        return value.to_owned();
    }
    let end = value.floor_char_boundary(MAX_DETAIL_BYTES - '…'.len_utf8());
    format!("{}…", &value[..end])
}

/// The key's alias as id; name and version from the first product of the User-Agent.
fn agent(metadata: &Metadata<'_>) -> Result<Option<Agent>, MapError> {
    let product = text(metadata.user_agent.as_ref()).and_then(|agent| agent.split_whitespace().next());
    let (name, version) = match product.map(|product| product.split_once('/')) {
        Some(Some((name, version))) => (Some(name), Some(version)),
        Some(None) => (product, None),
        None => (None, None),
    };
    let agent = Agent {
        id: bounded("agent.id", text(metadata.user_api_key_alias.as_ref()))?,
        name: bounded("agent.name", name)?,
        version: bounded("agent.version", version)?,
    };
    Ok((agent != Agent::default()).then_some(agent))
}

/// Provider and model, whether or not LiteLLM wrote them as `provider/model`.
fn model(payload: &Payload<'_>) -> Result<Option<Model>, MapError> {
    let Some(full) = text(payload.model.as_ref()).filter(|_| payload.tool_call().is_none()) else {
        return Ok(None);
    };
    let (provider, name) = match (text(payload.custom_llm_provider.as_ref()), full.split_once('/')) {
        (Some(provider), Some((prefix, name))) if prefix == provider => (Some(provider), name),
        (None, Some((prefix, name))) => (Some(prefix), name),
        (provider, _) => (provider, full),
    };
    let name = bounded("model.name", Some(name))?.unwrap_or_default();
    Ok(Some(Model { provider: bounded("model.provider", provider)?, name }))
}

/// The tool calls of an answer in the form of the chat API; other answers have none.
#[derive(Default, Deserialize)]
struct Answer {
    #[serde(default)]
    choices: Vec<Choice>,
}

#[derive(Deserialize)]
struct Choice {
    message: Option<Message>,
}

#[derive(Deserialize)]
struct Message {
    tool_calls: Option<Vec<WantedTool>>,
}

#[derive(Deserialize)]
struct WantedTool {
    id: Option<String>,
    function: Option<WantedFunction>,
}

#[derive(Deserialize)]
struct WantedFunction {
    name: Option<String>,
}

fn wanted_tools(payload: &Payload<'_>) -> Vec<WantedTool> {
    // An answer of another form is content, not an error: it has no tool calls that we know.
    let answer: Answer = payload.answer().and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default();
    let messages = answer.choices.into_iter().filter_map(|choice| choice.message);
    messages.filter_map(|message| message.tool_calls).flatten().collect()
}

fn tool(payload: &Payload<'_>) -> Result<Option<Tool>, MapError> {
    if let Some(call) = payload.tool_call() {
        let name: Option<String> = call.name.map(|raw| serde_json::from_str(raw.get())).transpose()?;
        let name = bounded("tool.name", text(name.as_ref()))?.ok_or(MapError::Missing("tool name"))?;
        let server = bounded("tool.server", text(call.mcp_server_name.as_ref()))?;
        return Ok(Some(Tool { name, server, call_id: None }));
    }
    let Some(first) = wanted_tools(payload).into_iter().next() else {
        return Ok(None);
    };
    let name = first.function.and_then(|function| function.name);
    let Some(name) = bounded("tool.name", text(name.as_ref()))? else {
        return Ok(None);
    };
    Ok(Some(Tool { name, server: None, call_id: bounded("tool.call_id", text(first.id.as_ref()))? }))
}

fn policy_result(guardrail: &Guardrail) -> Result<PolicyResult, MapError> {
    let found: Vec<String> = findings(guardrail).into_iter().collect();
    let detail = match &guardrail.guardrail_response {
        Some(Value::String(said)) if !said.is_empty() => Some(said.clone()),
        _ => (!found.is_empty()).then(|| found.join(", ")),
    };
    Ok(PolicyResult {
        name: bounded("policy_results.name", text(guardrail.guardrail_name.as_ref()))?.unwrap_or_default(),
        outcome: bounded("policy_results.outcome", text(guardrail.guardrail_status.as_ref()))?.unwrap_or_default(),
        detail: detail.as_deref().map(cut),
    })
}

/// What a guardrail found: its violation categories, the names of its patterns, the descriptions
/// of its blocked words (never the words themselves).
fn findings(guardrail: &Guardrail) -> BTreeSet<String> {
    let detections = match &guardrail.guardrail_response {
        Some(Value::Array(detections)) => detections.as_slice(),
        _ => &[],
    };
    let named = detections.iter().filter_map(|detection| {
        let names = ["pattern_name", "category", "description"].iter();
        names.filter_map(|name| detection.get(name)?.as_str()).find(|name| !name.is_empty())
    });
    let categories = guardrail.violation_categories.iter().flatten().map(String::as_str);
    named.chain(categories).map(str::to_owned).collect()
}

fn classification(guardrails: &[Guardrail]) -> Result<Vec<String>, MapError> {
    let all: BTreeSet<String> = guardrails.iter().flat_map(findings).collect();
    let kept = all.iter().take(MAX_ENTRIES);
    kept.filter_map(|found| bounded("classification", Some(found)).transpose()).collect()
}

fn redactions(guardrails: &[Guardrail]) -> Result<Vec<Redaction>, MapError> {
    let mut redactions = Vec::new();
    for guardrail in guardrails {
        let field = match &guardrail.guardrail_mode {
            Some(Value::String(mode)) if mode == "pre_call" || mode == "during_call" => Some("request".to_owned()),
            Some(Value::String(mode)) if mode == "post_call" => Some("response".to_owned()),
            _ => None,
        };
        for (label, count) in guardrail.masked_entity_count.iter().flatten().filter(|(_, count)| **count > 0) {
            let label = bounded("redactions.label", Some(label))?.unwrap_or_default();
            redactions.push(Redaction { label, field: field.clone(), count: count.to_string() });
        }
    }
    redactions.truncate(MAX_ENTRIES);
    Ok(redactions)
}

/// Of a failure LiteLLM's stable code, else the exception's class; of a flagged call the category.
fn reason<'a>(payload: &'a Payload<'_>) -> Option<&'a str> {
    let error = payload.error_information.as_ref().filter(|_| payload.status == "failure");
    match error {
        Some(error) => text(error.normalized_error.as_ref())
            .filter(|code| *code != "UNCLASSIFIED")
            .or(text(error.error_class.as_ref())),
        None => {
            let flagged = payload.guardrails().iter().find(|guardrail| guardrail.is("guardrail_flagged"))?;
            flagged.violation_categories.as_ref()?.first().map(String::as_str)
        }
    }
}

fn tokens(payload: &Payload<'_>) -> Option<Tokens> {
    let (prompt, completion) = (payload.prompt_tokens?, payload.completion_tokens?);
    Some(Tokens { prompt: prompt.to_string(), completion: completion.to_string() })
}

fn cost(payload: &Payload<'_>) -> Result<Option<Cost>, MapError> {
    let cost = payload.response_cost.map(|raw| money::decimal("response_cost", raw.get())).transpose()?;
    Ok(cost.map(|settled| Cost { settled, currency: "USD" }))
}

/// Whether the call was a stream: LiteLLM says so of answered ones, the options of the others.
fn streamed(payload: &Payload<'_>) -> bool {
    #[derive(Deserialize)]
    struct Options {
        stream: Option<bool>,
    }
    let options: Option<Options> = payload.model_parameters.and_then(|raw| serde_json::from_str(raw.get()).ok());
    payload.stream.or(options.and_then(|options| options.stream)).unwrap_or(false)
}

fn attributes(payload: &Payload<'_>, metadata: &Metadata<'_>) -> Result<BTreeMap<&'static str, String>, MapError> {
    let mut attributes = BTreeMap::from([("call_type", cut(&payload.call_type))]);
    let group = text(payload.model_group.as_ref()).filter(|_| payload.tool_call().is_none());
    for (name, value) in [("model_group", group), ("route", text(metadata.user_api_key_request_route.as_ref()))] {
        if let Some(value) = value {
            attributes.insert(name, cut(value));
        }
    }
    if streamed(payload) {
        attributes.insert("stream", "true".to_owned());
    }
    if let Some(raw) = payload.response_time {
        attributes.insert("response_seconds", money::decimal("response_time", raw.get())?);
    }
    let wanted = wanted_tools(payload).len();
    if wanted > 0 {
        attributes.insert("tool_calls", wanted.to_string());
    }
    if let Some(error) = payload.error_information.as_ref().filter(|_| payload.status == "failure") {
        let texts = [
            ("error_class", &error.error_class),
            ("error_code", &error.error_code),
            ("error_message", &error.error_message),
        ];
        for (name, value) in texts {
            if let Some(value) = text(value.as_ref()) {
                attributes.insert(name, cut(value));
            }
        }
    }
    Ok(attributes)
}
