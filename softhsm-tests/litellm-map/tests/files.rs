//! Whole files: the committed capture gives the committed events, and faults are named by line.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests, which may stop at the first surprise")]

use std::collections::HashSet;
use std::path::PathBuf;

use countersign_litellm_map::lines::{LinesError, MAX_EVENT_LINE, MAX_INPUT_LINE, map_lines};
use countersign_litellm_map::{MAX_STRING_BYTES, MapError};
use serde_json::Value;

fn testdata(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../testdata").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn map(input: &[u8]) -> Result<Vec<u8>, LinesError> {
    let mut output = Vec::new();
    map_lines(input, &mut output).map(|_| output)
}

/// A payload with nothing but what must be there, and more on request.
fn payload(call: &str, more: &str) -> String {
    format!(r#"{{"id":"{call}","call_type":"acompletion","status":"success","startTime":1795178905.5{more}}}"#)
}

#[test]
fn the_capture_gives_the_events_byte_for_byte() {
    let events = map(&testdata("litellm-raw.jsonl")).unwrap();
    assert!(events == testdata("gateway-events.jsonl"), "map the capture again, see softhsm-tests/capture/README.md");
}

#[test]
fn the_events_keep_their_bounds_and_cover_every_kind() {
    let events = testdata("gateway-events.jsonl");
    let lines: Vec<&[u8]> = events.strip_suffix(b"\n").unwrap().split(|byte| *byte == b'\n').collect();
    assert!(lines.len() >= 2000, "{} events", lines.len());
    let (mut ids, mut kinds) = (HashSet::new(), HashSet::new());
    for line in lines {
        assert!(line.len() <= MAX_EVENT_LINE);
        let event: Value = serde_json::from_slice(line).unwrap();
        check_scalars(&event["facts"]);
        check_scalars(&event["subject"]);
        assert!(ids.insert(event["event_id"].as_str().unwrap().to_owned()));
        let word = |name: &str| event[name].as_str().unwrap().to_owned();
        kinds.extend(["type", "category", "decision", "result"].map(|name| format!("{name} {}", word(name))));
    }
    let expected = "type llm.completion,type llm.tool_call,type tool.call,type llm.embedding,category normal,\
        category block,category redaction,category escalation,category cost,category auth,decision allow,\
        decision block,decision redact,decision escalate,decision none,result delivered,result blocked,\
        result redacted,result escalated,result failed";
    let expected: HashSet<String> = expected.split(',').map(str::to_owned).collect();
    assert_eq!(kinds, expected);
}

/// Every scalar of facts and subject is a string within its bound; nothing is null.
fn check_scalars(value: &Value) {
    match value {
        Value::Object(members) => members.values().for_each(check_scalars),
        Value::Array(items) => items.iter().for_each(check_scalars),
        Value::String(text) => assert!(text.len() <= MAX_STRING_BYTES),
        // An event of an unknown caller has no subject: indexing gives null.
        Value::Null => {}
        other => panic!("{other}"),
    }
}

#[test]
fn faults_are_named_by_line() {
    let good = payload("a", "");
    for (bad, expected) in [
        ("not json", "line 2: not a LiteLLM logging payload: expected ident at line 1 column 2"),
        ("", "line 2: not a LiteLLM logging payload: EOF while parsing a value"),
        ("[]", "line 2: not a LiteLLM logging payload: invalid length 0"),
        ("{}", "line 2: not a LiteLLM logging payload: missing field `id`"),
        (&good.replace("success", "maybe"), "line 2: status is \"maybe\", expected success or failure"),
        (&good.replace("1795178905.5", "-1"), "line 2: startTime is -1, which is no time between"),
        (&good.replace("1795178905.5", "null"), "line 2: startTime is null, which is no time between"),
        (&payload("b", r#","response_cost":-0.5"#), "line 2: response_cost is -0.5, which is no amount"),
        (&payload("b", r#","prompt_tokens":1.5"#), "line 2: not a LiteLLM logging payload: invalid type: floating"),
        (&payload("b", r#","id":"c""#), "line 2: not a LiteLLM logging payload: duplicate field `id`"),
        (&payload("b", "} {"), "line 2: not a LiteLLM logging payload: trailing characters"),
        (&good, "line 2: the event id 01a1f900-"),
    ] {
        let error = map(format!("{good}\n{bad}\n").as_bytes()).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{bad}: {error}");
    }
    let invalid_utf8 =
        [good.as_bytes(), b"\n", &good.replace("acompletion", "\u{e9}").into_bytes()[..40], b"\xff\xfe\n"];
    assert!(matches!(map(&invalid_utf8.concat()), Err(LinesError::Payload { line: 2, source: MapError::Json(_) })));
}

#[test]
fn invalid_utf8_is_refused_in_fields_that_are_ignored_too() {
    let mut line = payload("a", r#","unheard":"x?""#).into_bytes();
    assert!(map(&line).is_ok());
    let at = line.iter().position(|byte| *byte == b'?').unwrap();
    line[at] = 0xff;
    assert!(matches!(map(&line), Err(LinesError::Payload { line: 1, source: MapError::Json(_) })));
}

#[test]
fn bounds_hold() {
    let long = "x".repeat(MAX_STRING_BYTES + 1);
    let error = map(payload("a", &format!(r#","end_user":"{long}""#)).as_bytes()).unwrap_err();
    let LinesError::Payload { line: 1, source: MapError::TooLong { field, bytes } } = error else { panic!("{error}") };
    assert_eq!((field, bytes), ("on_behalf_of.id", MAX_STRING_BYTES + 1));

    let content = "é".repeat(MAX_EVENT_LINE / 2);
    let error = map(payload("a", &format!(r#","messages":"{content}""#)).as_bytes()).unwrap_err();
    assert!(matches!(error, LinesError::EventTooLong { line: 1, .. }), "{error}");

    let input = " ".repeat(MAX_INPUT_LINE + 1);
    assert!(matches!(map(input.as_bytes()), Err(LinesError::LineTooLong { line: 1 })));
    assert_eq!(map(b"").unwrap(), b"");
}

#[test]
fn free_text_is_cut_at_a_character() {
    let more = format!(r#","error_information":{{"error_message":"{}"}}"#, "é".repeat(3000));
    let line = payload("a", &more).replace("success", "failure");
    let event: Value = serde_json::from_slice(&map(line.as_bytes()).unwrap()).unwrap();
    let message = event["facts"]["attributes"]["error_message"].as_str().unwrap();
    assert!(message.len() <= 1024 && message.ends_with("é…"), "{} bytes", message.len());
}

#[test]
fn nulls_and_empty_strings_are_absent() {
    let more =
        r#","end_user":null,"trace_id":"","metadata":null,"guardrail_information":null,"response":{},"messages":null"#;
    let mapped = map(payload("a", more).as_bytes()).unwrap();
    assert_eq!(mapped, map(payload("a", "").as_bytes()).unwrap());
    let event: Value = serde_json::from_slice(&mapped).unwrap();
    let names: Vec<&String> = event.as_object().unwrap().keys().collect();
    assert_eq!(names, ["category", "decision", "event_id", "facts", "result", "type"]);
}
