//! One captured payload of each kind of call, and what its event must say. The excerpts are lines
//! of `testdata/litellm-raw.jsonl` as LiteLLM logged them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests, which may stop at the first surprise")]

use countersign_litellm_map::map_payload;
use serde_json::{Value, json};

/// The event of an excerpt, as the JSON that would be written.
fn event(excerpt: &str) -> Value {
    let path = format!("{}/tests/excerpts/{excerpt}.json", env!("CARGO_MANIFEST_DIR"));
    let line = std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    serde_json::to_value(map_payload(&line).unwrap()).unwrap()
}

/// Category, decision and result.
fn outcome(event: &Value) -> [&str; 3] {
    ["category", "decision", "result"].map(|name| event[name].as_str().unwrap())
}

/// The content of a part, parsed.
fn content(event: &Value, part: &str) -> Value {
    assert_eq!(event[part]["media_type"], "application/json");
    serde_json::from_str(event[part]["text"].as_str().unwrap()).unwrap()
}

#[test]
fn answered() {
    let event = event("plain");
    assert_eq!(event["type"], "llm.completion");
    assert_eq!(outcome(&event), ["normal", "allow", "delivered"]);
    assert_eq!(event["event_id"], "01a1f900-6290-7ed9-98b8-1f49f7ddb328");
    let facts = &event["facts"];
    assert_eq!(facts["occurred_at"], "2026-11-20T12:48:34.448928Z");
    assert_eq!(facts["agent"], json!({"id": "claims-assistant", "name": "claims-assistant", "version": "3.2.1"}));
    assert_eq!(facts["role"], "adjuster");
    assert_eq!(facts["team"], "Claims Handling");
    assert_eq!(facts["org"], "org-northwind");
    assert_eq!(facts["session_id"], "db32e8a7-d7eb-4507-bf50-565372432c97");
    assert_eq!(facts["request_id"], "095cb984-4fa0-4f93-b166-d0b9edb828aa");
    assert_eq!(facts["trace_id"], "68c1a991578fc3e73a416584e0ac61dc");
    assert_eq!(facts["model"], json!({"provider": "openai", "name": "gpt-4o"}));
    assert_eq!(facts["policy_results"].as_array().unwrap().len(), 5);
    assert_eq!(facts["policy_results"][1], json!({"name": "secrets-block", "outcome": "success"}));
    for absent in ["policy", "tool", "reason_code", "classification", "redactions"] {
        assert!(facts.get(absent).is_none(), "{absent}");
    }
    assert_eq!(event["subject"]["actor"], json!({"id": "helen.osei", "type": "user"}));
    assert!(event["subject"].get("on_behalf_of").is_none());
    let request = content(&event, "request");
    assert_eq!(request["messages"][0]["content"], "Row\tC-55597\tvalue\t8211\nRow\t𝄞\t½\t№ 7");
    assert_eq!(request["parameters"], json!({"stream": false}));
    assert_eq!(
        content(&event, "response")["choices"][0]["message"]["content"],
        "Parsed 2 rows:\r\n\t- C-67343\r\n\t- 𝄞 ½"
    );
}

#[test]
fn cost_and_tokens() {
    let facts = &event("reported_usage")["facts"];
    assert_eq!(facts["tokens"], json!({"prompt": "3979", "completion": "432"}));
    // 3979 × 0.00000007 + 432 × 0.00000031, logged as 0.00041245.
    assert_eq!(facts["cost"], json!({"settled": "0.00041245", "currency": "USD"}));
    // Logged as 2e-07.
    assert_eq!(event("embedding")["facts"]["cost"]["settled"], "0.0000002");
    // A model free of charge was still charged: nothing.
    assert_eq!(event("tool_call")["facts"]["cost"]["settled"], "0");
    // A call that was not answered has no cost and no tokens, though LiteLLM logs zeros.
    for refused in ["blocked", "rate_limit", "budget", "mcp_tool"] {
        let facts = &event(refused)["facts"];
        assert!(facts.get("cost").is_none() && facts.get("tokens").is_none(), "{refused}");
    }
}

#[test]
fn streamed() {
    let event = event("stream");
    assert_eq!(outcome(&event), ["normal", "allow", "delivered"]);
    assert_eq!(event["facts"]["attributes"]["stream"], "true");
    // The whole answer, put together again from the chunks.
    assert_eq!(
        content(&event, "response")["choices"][0]["message"]["content"],
        "Yes 👍🏿 — the family plan covers 2461. ❤️\u{200d}🔥"
    );
    assert!(self::event("plain")["facts"]["attributes"].get("stream").is_none());
}

#[test]
fn redacted_request() {
    let event = event("masked_input");
    assert_eq!(outcome(&event), ["redaction", "redact", "redacted"]);
    assert_eq!(event["facts"]["redactions"], json!([{"label": "iban", "field": "request", "count": "1"}]));
    assert_eq!(event["facts"]["policy"], json!({"id": "pii-mask-input"}));
    assert_eq!(event["facts"]["classification"], json!(["iban"]));
    let asked = content(&event, "request")["messages"][0]["content"].as_str().unwrap().to_owned();
    assert!(asked.contains("[IBAN_REDACTED]"), "{asked}");
}

#[test]
fn redacted_answers() {
    for (excerpt, stream) in [("masked_output", Value::Null), ("masked_stream_output", json!("true"))] {
        let event = event(excerpt);
        assert_eq!(outcome(&event), ["redaction", "redact", "redacted"]);
        assert_eq!(event["facts"]["redactions"], json!([{"label": "email", "field": "response", "count": "1"}]));
        assert_eq!(event["facts"]["attributes"]["stream"], stream);
        assert!(event["response"]["text"].as_str().unwrap().contains("[EMAIL_REDACTED]"));
    }
}

#[test]
fn blocked_by_a_pattern() {
    let event = event("blocked");
    assert_eq!(outcome(&event), ["block", "block", "blocked"]);
    let facts = &event["facts"];
    assert_eq!(facts["policy"], json!({"id": "secrets-block"}));
    assert_eq!(
        facts["policy_results"][1],
        json!({"name": "secrets-block", "outcome": "guardrail_intervened", "detail": "aws_access_key"})
    );
    assert_eq!(facts["reason_code"], "400_INVALID_REQUEST");
    assert_eq!(facts["attributes"]["error_class"], "HTTPException");
    assert!(event.get("response").is_none(), "nothing was answered");
}

#[test]
fn blocked_by_tool_permission() {
    let event = event("denied_tool");
    assert_eq!(outcome(&event), ["block", "block", "blocked"]);
    assert_eq!(event["facts"]["policy"], json!({"id": "tool-permission"}));
    let detail = event["facts"]["policy_results"][4]["detail"].as_str().unwrap().to_owned();
    assert!(detail.ends_with("Tool 'payments_transfer' denied by rule 'no-payments'"), "{detail}");
}

#[test]
fn escalated() {
    let held = event("held");
    assert_eq!(outcome(&held), ["escalation", "escalate", "escalated"]);
    assert_eq!(held["facts"]["classification"], json!(["large_payout"]));
    let flagged = event("flagged");
    assert_eq!(outcome(&flagged), ["escalation", "escalate", "delivered"]);
    assert_eq!(flagged["facts"]["reason_code"], "legal_dispute");
    assert!(flagged.get("response").is_some());
}

#[test]
fn failed() {
    let event = event("rate_limit");
    assert_eq!(outcome(&event), ["normal", "allow", "failed"]);
    assert_eq!(event["facts"]["reason_code"], "429_RATE_LIMIT_EXCEEDED");
    assert_eq!(event["facts"]["attributes"]["error_code"], "429");
    // A stream that broke, and with it the guardrail that read it: policy did not finish.
    let event = self::event("broken_stream");
    assert_eq!(outcome(&event), ["normal", "none", "failed"]);
    assert_eq!(event["facts"]["attributes"]["stream"], "true");
    assert_eq!(event["facts"]["reason_code"], "MockException");
}

#[test]
fn refused_by_the_gateway_itself() {
    let event = event("unknown_key");
    assert_eq!(outcome(&event), ["auth", "block", "blocked"]);
    assert!(event.get("subject").is_none(), "nobody is known");
    assert_eq!(event["facts"]["agent"], json!({"name": "support-desk", "version": "4.0.0-rc.2"}));
    let event = self::event("budget");
    assert_eq!(outcome(&event), ["cost", "block", "blocked"]);
    assert_eq!(event["facts"]["reason_code"], "429_BUDGET_EXCEEDED");
}

#[test]
fn tool_calls() {
    let wanted = event("tool_call");
    assert_eq!(wanted["type"], "llm.tool_call");
    assert_eq!(wanted["facts"]["tool"], json!({"name": "lookup_policy", "call_id": "call_589c46544415c47b"}));
    assert_eq!(wanted["facts"]["attributes"]["tool_calls"], "1");
    let made = event("mcp_tool");
    assert_eq!(made["type"], "tool.call");
    assert_eq!(outcome(&made), ["normal", "none", "delivered"]);
    assert_eq!(made["facts"]["tool"], json!({"name": "exchange_rate", "server": "claims_db"}));
    assert!(made["facts"].get("model").is_none());
    assert_eq!(
        content(&made, "request"),
        json!({"name": "exchange_rate", "arguments": {"base": "USD", "quote": "PLN"}})
    );
    let failed = event("mcp_failure");
    assert_eq!(outcome(&failed), ["normal", "none", "failed"]);
    assert_eq!(failed["facts"]["reason_code"], "MCPToolResultError");
}
