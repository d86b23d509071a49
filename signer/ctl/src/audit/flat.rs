//! One record as one row.
//!
//! The columns, in order: see [`COLUMNS`]. A cell that a spreadsheet would take for a formula gets
//! an apostrophe in front ([`disarm`]), which a reader strips again: no cell begins with an
//! apostrophe otherwise disarmed than by one more.

use countersign_trail::record::{Content, Event};
use serde_json::Value;

use super::stored::{Checked, PartState};

/// The columns. From `occurred_at` to `attributes` they are the members of `facts`, then `subject`
/// and `review`; lists are joined by `; `, maps are JSON. `parts` names each part with `held` or
/// `withheld`; contents of request and response are never in the table. `body` is a control
/// record's.
pub(crate) const COLUMNS: [&str; 50] = [
    "seq",
    "time",
    "kind",
    "type",
    "category",
    "decision",
    "result",
    "client",
    "event_id",
    "leaf_hash",
    "prev",
    "kids",
    "links",
    "parts",
    "body",
    "occurred_at",
    "agent_id",
    "agent_name",
    "agent_version",
    "role",
    "team",
    "org",
    "session_id",
    "request_id",
    "trace_id",
    "model_provider",
    "model_name",
    "model_version",
    "tool_name",
    "tool_server",
    "tool_call_id",
    "policy_id",
    "policy_version",
    "policy_digest",
    "policy_results",
    "classification",
    "redactions",
    "reason_code",
    "tokens_prompt",
    "tokens_completion",
    "cost_estimated",
    "cost_settled",
    "cost_currency",
    "attributes",
    "actor_id",
    "actor_type",
    "actor_name",
    "on_behalf_of",
    "subject_attributes",
    "reviewers",
];

/// The members of `facts` behind the columns from `occurred_at` on, as paths.
const FACTS: [(&str, &str); 29] = [
    ("occurred_at", ""),
    ("agent", "id"),
    ("agent", "name"),
    ("agent", "version"),
    ("role", ""),
    ("team", ""),
    ("org", ""),
    ("session_id", ""),
    ("request_id", ""),
    ("trace_id", ""),
    ("model", "provider"),
    ("model", "name"),
    ("model", "version"),
    ("tool", "name"),
    ("tool", "server"),
    ("tool", "call_id"),
    ("policy", "id"),
    ("policy", "version"),
    ("policy", "digest"),
    ("policy_results", ""),
    ("classification", ""),
    ("redactions", ""),
    ("reason_code", ""),
    ("tokens", "prompt"),
    ("tokens", "completion"),
    ("cost", "estimated"),
    ("cost", "settled"),
    ("cost", "currency"),
    ("attributes", ""),
];

/// The members of `subject`, as paths.
const SUBJECT: [(&str, &str); 5] =
    [("actor", "id"), ("actor", "type"), ("actor", "name"), ("on_behalf_of", "id"), ("attributes", "")];

/// The cells of a record, one for each column.
pub(crate) fn row(checked: &Checked) -> Vec<String> {
    let header = &checked.record.header;
    let mut row = vec![header.seq.to_string(), header.time.to_string()];
    let type_name = checked.record.type_name().to_string();
    let mut tail = Vec::new();
    match &checked.record.content {
        Content::Event(event) => {
            row.extend(["event".to_owned(), type_name]);
            row.extend([event.category.word(), event.decision.word(), event.result.word()].map(str::to_owned));
            row.extend([event.client.to_string(), event.event_id.to_string()]);
            tail.extend([links(event), parts(checked), String::new()]);
        }
        Content::Control(control) => {
            row.extend(["control".to_owned(), type_name, "config".to_owned()]);
            row.extend(std::iter::repeat_n(String::new(), 4));
            tail.extend([String::new(), String::new(), control.body.to_string()]);
        }
    }
    let kids: Vec<String> = header.kids.iter().map(ToString::to_string).collect();
    row.extend([checked.leaf.to_string(), header.prev.to_string(), kids.join("; ")]);
    row.extend(tail);
    let facts = json(checked, "facts");
    row.extend(FACTS.iter().map(|path| cell(member(&facts, path))));
    let subject = json(checked, "subject");
    row.extend(SUBJECT.iter().map(|path| cell(member(&subject, path))));
    row.push(cell(&json(checked, "review")["reviewers"]));
    row
}

fn member<'a>(value: &'a Value, (first, second): &(&str, &str)) -> &'a Value {
    if second.is_empty() { &value[*first] } else { &value[*first][*second] }
}

/// A part's JSON; null where it is not held.
fn json(checked: &Checked, name: &str) -> Value {
    let part = checked.parts.iter().find(|part| part.name.as_str() == name);
    let content = part.and_then(|part| part.content.as_ref());
    content.and_then(|content| serde_json::from_slice(&content.data).ok()).unwrap_or(Value::Null)
}

fn links(event: &Event) -> String {
    let links: Vec<String> =
        event.links.iter().map(|link| format!("{} {} {}", link.rel, link.trail, link.seq)).collect();
    links.join("; ")
}

fn parts(checked: &Checked) -> String {
    let state = |state| match state {
        PartState::Held => "held",
        PartState::Withheld => "withheld",
    };
    let parts: Vec<String> =
        checked.parts.iter().map(|part| format!("{} {}", part.name, state(part.state()))).collect();
    parts.join("; ")
}

/// A JSON value as one cell.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join("; "),
        other => other.to_string(),
    }
}

/// Puts an apostrophe before a cell that a spreadsheet would take for a formula: one that begins
/// with `=`, `+`, `-`, `@`, a tab or a carriage return. One that begins with an apostrophe gets
/// another, so that stripping one gives every cell back.
pub(crate) fn disarm(cell: String) -> String {
    if cell.starts_with(['=', '+', '-', '@', '\t', '\r', '\'']) { format!("'{cell}") } else { cell }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::stored::{Part, PartContent};
    use countersign_trail::hash::Hash;
    use countersign_trail::id::PartName;
    use countersign_trail::record::Record;
    use countersign_trail::tree::leaf_hash;

    const EVENT: &str = concat!(
        r#"{"category":"block","client":"gw-1","decision":"block","event_id":"=e1","kids":["NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"],"#,
        r#""kind":"event","links":[],"parts":{"facts":"0000000000000000000000000000000000000000000000000000000000000000","#,
        r#""request":"1111111111111111111111111111111111111111111111111111111111111111"},"#,
        r#""prev":"2222222222222222222222222222222222222222222222222222222222222222","result":"blocked","seq":"7","#,
        r#""time":"2026-01-31T08:00:00.000000Z","trail":"acme.example/decisions","type":"llm.completion","v":1}"#
    );

    fn event() -> Checked {
        let part = |name: &str, data: Option<&str>| Part {
            name: PartName::parse(name).unwrap(),
            commitment: Hash::of(b""),
            content: data
                .map(|data| PartContent { media_type: "application/json".to_owned(), data: data.as_bytes().to_vec() }),
        };
        let facts = r#"{"agent":{"name":"+agent"},"classification":["a","b"],"cost":{"settled":"-0.5"},"model":{"name":"m"},"tokens":{"prompt":"12"}}"#;
        Checked {
            bytes: EVENT.as_bytes().to_vec(),
            record: Record::parse(EVENT.as_bytes()).unwrap(),
            leaf: leaf_hash(EVENT.as_bytes()),
            signature: None,
            parts: vec![part("facts", Some(facts)), part("request", None)],
        }
    }

    fn column(row: &[String], name: &str) -> String {
        row[COLUMNS.iter().position(|column| *column == name).unwrap()].clone()
    }

    #[test]
    fn every_column_has_its_cell() {
        let row = row(&event());
        assert_eq!(row.len(), COLUMNS.len());
        let want = [
            ("seq", "7"),
            ("kind", "event"),
            ("decision", "block"),
            ("result", "blocked"),
            ("client", "gw-1"),
            ("event_id", "=e1"),
            ("parts", "facts held; request withheld"),
            ("body", ""),
            ("agent_id", ""),
            ("agent_name", "+agent"),
            ("classification", "a; b"),
            ("model_name", "m"),
            ("tokens_prompt", "12"),
            ("cost_settled", "-0.5"),
            ("attributes", ""),
            ("reviewers", ""),
        ];
        for (name, value) in want {
            assert_eq!(column(&row, name), value, "{name}");
        }
    }

    #[test]
    fn formulas_are_disarmed_and_come_back() {
        for text in ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx", "'quoted"] {
            let disarmed = disarm(text.to_owned());
            assert_eq!(disarmed, format!("'{text}"));
            assert_eq!(disarmed.strip_prefix('\''), Some(text));
        }
        for text in ["", "a=1", "0", " =1"] {
            assert_eq!(disarm(text.to_owned()), text);
        }
    }
}
