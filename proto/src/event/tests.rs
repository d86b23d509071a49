use std::collections::HashMap;

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;

fn event() -> v1::Event {
    v1::Event {
        event_id: "0198c0de-0000-7000-8000-000000000001".to_owned(),
        r#type: "llm.completion".to_owned(),
        category: v1::Category::Normal.into(),
        decision: v1::Decision::Allow.into(),
        result: v1::Result::Delivered.into(),
        ..v1::Event::default()
    }
}

fn facts(decoded: &Decoded) -> &[u8] {
    match &decoded.parts[0].body {
        PartBody::Data { bytes, .. } => bytes,
        PartBody::Commitment(_) => panic!("facts are data"),
    }
}

fn with_facts(facts: v1::Facts) -> v1::Event {
    v1::Event { facts: Some(facts), ..event() }
}

fn content(media_type: &str, body: v1::content::Body, salt: &[u8]) -> v1::Content {
    v1::Content { media_type: media_type.to_owned(), salt: salt.to_vec().into(), body: Some(body) }
}

fn data(bytes: &[u8]) -> v1::content::Body {
    v1::content::Body::Data(bytes.to_vec().into())
}

#[test]
fn facts_have_known_bytes() {
    let facts_message = v1::Facts {
        occurred_at: "2026-01-31T08:00:00.000000Z".to_owned(),
        agent: Some(v1::Agent { id: "a\u{0}b".to_owned(), ..v1::Agent::default() }),
        model: Some(v1::Model::default()),
        request_id: "r-1".to_owned(),
        policy_results: vec![v1::PolicyResult::default()],
        tokens: Some(v1::Tokens { prompt: u64::MAX, completion: 0 }),
        cost: Some(v1::Cost { settled: "-0.10".to_owned(), currency: "USD".to_owned(), ..v1::Cost::default() }),
        redactions: vec![v1::Redaction { label: "EMAIL".to_owned(), ..v1::Redaction::default() }],
        attributes: HashMap::from([("\u{e000}".to_owned(), String::new()), ("\u{10000}".to_owned(), "y".to_owned())]),
        ..v1::Facts::default()
    };
    let decoded = decode(&with_facts(facts_message)).unwrap();
    let want = concat!(
        r#"{"agent":{"id":"a\u0000b"},"attributes":{"#,
        "\"\u{10000}\":\"y\",\"\u{e000}\":\"\"",
        r#"},"cost":{"currency":"USD","settled":"-0.10"},"occurred_at":"2026-01-31T08:00:00.000000Z","#,
        r#""policy_results":[{}],"redactions":[{"count":"0","label":"EMAIL"}],"request_id":"r-1","#,
        r#""tokens":{"completion":"0","prompt":"18446744073709551615"}}"#
    );
    assert_eq!(String::from_utf8_lossy(facts(&decoded)), want);
    assert_eq!(decoded.parts[0].media_type, "application/json");
    assert_eq!(decoded.request_id.as_deref(), Some("r-1"));
}

#[test]
fn parts_stand_sorted_and_only_where_given() {
    let mut all = event();
    all.subject = Some(v1::Subject::default());
    all.review = Some(v1::Review::default());
    all.response = Some(content("text/plain", data(b""), &[]));
    all.request = Some(content("text/plain", data(b"hi"), &[9; 32]));
    all.facts = Some(v1::Facts::default());
    let decoded = decode(&all).unwrap();
    let names: Vec<&str> = decoded.parts.iter().map(|part| part.name.as_str()).collect();
    assert_eq!(names, PARTS);
    assert_eq!(facts(&decoded), b"{}");
    assert_eq!(decoded.parts[1].body, PartBody::Data { bytes: Bytes::from_static(b"hi"), salt: Some([9; 32]) });
    assert!(decode(&event()).unwrap().parts.is_empty());
}

#[test]
fn a_commitment_stands_for_content() {
    let mut kept = event();
    kept.request = Some(content("", v1::content::Body::Commitment(vec![5; 32].into()), &[]));
    let decoded = decode(&kept).unwrap();
    assert_eq!(decoded.parts[0].body, PartBody::Commitment(Hash::from_bytes([5; 32])));
    assert_eq!(decoded.parts[0].commitment(&[1; 32]), Hash::from_bytes([5; 32]));
}

/// What is refused, with the reason and the path that the message begins with.
#[test]
fn each_broken_field_is_named() {
    use v1::content::Body::Commitment;
    type Break = Box<dyn Fn(&mut v1::Event)>;
    fn in_facts(change: impl Fn(&mut v1::Facts) + 'static) -> Break {
        Box::new(move |event| change(event.facts.get_or_insert_default()))
    }
    let long = "x".repeat(MAX_STRING_LEN + 1);
    let cases: Vec<(Break, &str, &str)> = vec![
        (Box::new(|e| e.event_id = String::new()), INVALID_EVENT, "event_id wants"),
        (Box::new(|e| e.event_id = "x".repeat(65)), INVALID_EVENT, "event_id wants"),
        (Box::new(|e| e.r#type = "LLM".to_owned()), INVALID_EVENT, "type wants"),
        (Box::new(|e| e.r#type = "countersign.gap".to_owned()), RESERVED_TYPE, "type begins"),
        (Box::new(|e| e.category = 0), INVALID_EVENT, "category has no value 0"),
        (Box::new(|e| e.decision = 6), INVALID_EVENT, "decision has no value 6"),
        (Box::new(|e| e.result = -1), INVALID_EVENT, "result has no value -1"),
        (in_facts(|f| f.occurred_at = "yesterday".to_owned()), INVALID_EVENT, "facts.occurred_at wants"),
        (in_facts(|f| f.request_id = "x".repeat(257)), INVALID_EVENT, "facts.request_id has 257"),
        (in_facts(|f| f.classification = vec![String::new(); 65]), INVALID_EVENT, "facts.classification has 65"),
        (
            {
                let long = long.clone();
                in_facts(move |f| f.classification = vec![String::new(), long.clone()])
            },
            INVALID_EVENT,
            "facts.classification[1] has 4097",
        ),
        (
            {
                let long = long.clone();
                in_facts(move |f| f.agent = Some(v1::Agent { name: long.clone(), ..v1::Agent::default() }))
            },
            INVALID_EVENT,
            "facts.agent.name has 4097",
        ),
        (
            in_facts(move |f| drop(f.attributes.insert("k".to_owned(), long.clone()))),
            INVALID_EVENT,
            "facts.attributes[0].value has 4097",
        ),
        (
            in_facts(|f| f.attributes = (0..65).map(|n| (n.to_string(), String::new())).collect()),
            INVALID_EVENT,
            "facts.attributes has 65",
        ),
        (
            in_facts(|f| f.cost = Some(v1::Cost { currency: "usd".to_owned(), ..v1::Cost::default() })),
            INVALID_EVENT,
            "facts.cost.currency wants",
        ),
        (
            Box::new(|e| e.review = Some(v1::Review { reviewers: vec![v1::Reviewer::default(); 17] })),
            INVALID_EVENT,
            "review.reviewers has 17",
        ),
        (Box::new(|e| e.request = Some(v1::Content::default())), INVALID_EVENT, "request.data is missing"),
        (Box::new(|e| e.request = Some(content("", data(b"x"), &[]))), INVALID_EVENT, "request.media_type wants"),
        (Box::new(|e| e.request = Some(content("a b", data(b"x"), &[]))), INVALID_EVENT, "request.media_type wants"),
        (Box::new(|e| e.response = Some(content("a/b", data(b"x"), &[0; 31]))), INVALID_EVENT, "response.salt has 31"),
        (
            Box::new(|e| e.response = Some(content("a/b", Commitment(vec![0; 33].into()), &[]))),
            INVALID_EVENT,
            "response.commitment has 33",
        ),
        (
            Box::new(|e| e.response = Some(content("a/b", Commitment(vec![0; 32].into()), &[0; 32]))),
            INVALID_EVENT,
            "response.salt stands",
        ),
        (
            Box::new(|e| e.request = Some(content("a/b", data(&vec![0; MAX_PARTS_BYTES + 1]), &[]))),
            EVENT_TOO_LARGE,
            "the parts of the event up to request",
        ),
        (Box::new(|e| e.links = vec![v1::Link::default(); 17]), INVALID_EVENT, "links has 17"),
        (Box::new(|e| e.links = vec![v1::Link::default()]), INVALID_LINK, "links[0].leaf_hash"),
    ];
    for (change, reason, message) in cases {
        let mut broken = event();
        change(&mut broken);
        let error = decode(&broken).expect_err(message);
        assert_eq!(error.reason(), reason, "{error}");
        assert!(error.to_string().starts_with(message), "{error} does not begin with {message}");
    }
}

#[test]
fn parts_are_bounded_together() {
    let mut two = event();
    two.request = Some(content("a/b", data(&vec![0; MAX_PARTS_BYTES / 2]), &[]));
    two.response = Some(content("a/b", data(&vec![0; MAX_PARTS_BYTES / 2]), &[]));
    assert!(decode(&two).is_ok());
    two.subject = Some(v1::Subject::default());
    assert_eq!(decode(&two), Err(EventError::TooLarge { part: "subject", len: MAX_PARTS_BYTES + 2 }));
}

#[test]
fn money_is_a_plain_decimal() {
    let of = |text: &str| {
        let cost = v1::Cost { estimated: text.to_owned(), ..v1::Cost::default() };
        decode(&with_facts(v1::Facts { cost: Some(cost), ..v1::Facts::default() }))
    };
    for good in ["", "0", "-1", "0.000125", "007", "-0.0", &"1".repeat(40)] {
        assert!(of(good).is_ok(), "{good}");
    }
    for bad in ["-", ".5", "5.", "1e3", "+1", "1,5", "1.2.3", "--1", " 1", "٣", &"1".repeat(41)] {
        assert!(of(bad).is_err(), "{bad}");
    }
}

fn word() -> BoxedStrategy<String> {
    // Empty strings, control characters, both sides of the surrogates, and plain ASCII.
    prop_oneof![
        Just(String::new()),
        "[a-z]{1,8}",
        "[\\x00-\\x7f]{0,6}",
        "[\u{d7ff}\u{e000}-\u{10ffff}]{1,3}",
        any::<String>()
    ]
    .boxed()
}

/// The members of an object of strings, the empty ones left out.
fn texts(members: &[(&str, &String)]) -> Value {
    let stand = members.iter().filter(|(_, text)| !text.is_empty());
    Value::Object(stand.map(|(name, text)| ((*name).to_owned(), json!(text))).collect())
}

/// Puts `value` into `object` unless it is empty.
fn put(object: &mut Map<String, Value>, name: &str, value: Value) {
    let empty = match &value {
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
        _ => false,
    };
    if !empty {
        object.insert(name.to_owned(), value);
    }
}

prop_compose! {
    fn some_facts()(
        words in prop::collection::vec(word(), 24),
        lists in (0..4usize, 0..4usize, 0..4usize),
        present in prop::collection::vec(any::<bool>(), 6),
        numbers in any::<(u64, u64, u64)>(),
        attributes in prop::collection::hash_map(word(), word(), 0..6),
        micros in prop::option::of(0..253_402_300_799_999_999_i64),
    ) -> v1::Facts {
        let mut words = words.into_iter();
        let mut next = || words.next().unwrap_or_default();
        let time = micros.map(|m| countersign_trail::time::Timestamp::from_micros(m).unwrap().to_string());
        v1::Facts {
            occurred_at: time.unwrap_or_default(),
            agent: present[0].then(|| v1::Agent { id: next(), name: next(), version: next() }),
            role: next(),
            team: next(),
            org: next(),
            session_id: next(),
            request_id: next().chars().take(60).collect(),
            trace_id: next(),
            model: present[1].then(|| v1::Model { provider: next(), name: next(), version: next() }),
            tool: present[2].then(|| v1::Tool { name: next(), server: next(), call_id: next() }),
            policy: present[3].then(|| v1::Policy { id: next(), version: next(), digest: next() }),
            policy_results: vec![v1::PolicyResult { name: next(), outcome: next(), detail: String::new() }; lists.0],
            classification: vec![next(); lists.1],
            redactions: vec![v1::Redaction { label: next(), field: String::new(), count: numbers.0 }; lists.2],
            reason_code: next(),
            tokens: present[4].then_some(v1::Tokens { prompt: numbers.1, completion: numbers.2 }),
            cost: present[5].then(|| v1::Cost { estimated: "1.5".to_owned(), settled: String::new(), currency: "EUR".to_owned() }),
            attributes,
        }
    }
}

/// The facts as a tree: the reference that the writer is compared with.
fn tree(f: &v1::Facts) -> Value {
    let mut object = Map::new();
    for (name, text) in [
        ("occurred_at", &f.occurred_at),
        ("role", &f.role),
        ("team", &f.team),
        ("org", &f.org),
        ("session_id", &f.session_id),
        ("request_id", &f.request_id),
        ("trace_id", &f.trace_id),
        ("reason_code", &f.reason_code),
    ] {
        put(&mut object, name, json!(text));
    }
    let agent = f.agent.as_ref().map(|a| texts(&[("id", &a.id), ("name", &a.name), ("version", &a.version)]));
    let model =
        f.model.as_ref().map(|m| texts(&[("provider", &m.provider), ("name", &m.name), ("version", &m.version)]));
    let tool = f.tool.as_ref().map(|t| texts(&[("name", &t.name), ("server", &t.server), ("call_id", &t.call_id)]));
    let policy = f.policy.as_ref().map(|p| texts(&[("id", &p.id), ("version", &p.version), ("digest", &p.digest)]));
    let cost = f
        .cost
        .as_ref()
        .map(|c| texts(&[("estimated", &c.estimated), ("settled", &c.settled), ("currency", &c.currency)]));
    let tokens = f.tokens.as_ref();
    let tokens = tokens.map(|t| json!({"prompt": t.prompt.to_string(), "completion": t.completion.to_string()}));
    let messages =
        [("agent", agent), ("model", model), ("tool", tool), ("policy", policy), ("cost", cost), ("tokens", tokens)];
    for (name, value) in messages {
        put(&mut object, name, value.unwrap_or_else(|| json!({})));
    }
    let results =
        f.policy_results.iter().map(|r| texts(&[("name", &r.name), ("outcome", &r.outcome), ("detail", &r.detail)]));
    put(&mut object, "policy_results", results.collect());
    let redactions = f.redactions.iter().map(|r| {
        let mut redaction = texts(&[("label", &r.label), ("field", &r.field)]);
        redaction["count"] = json!(r.count.to_string());
        redaction
    });
    put(&mut object, "redactions", redactions.collect());
    put(&mut object, "classification", json!(f.classification));
    put(&mut object, "attributes", json!(f.attributes));
    Value::Object(object)
}

proptest! {
    #[test]
    fn the_writer_agrees_with_the_library(message in some_facts()) {
        let want = serde_json_canonicalizer::to_vec(&tree(&message)).unwrap();
        let decoded = decode(&with_facts(message)).unwrap();
        prop_assert_eq!(String::from_utf8_lossy(facts(&decoded)), String::from_utf8_lossy(&want));
    }

    #[test]
    fn subject_and_review_agree_with_the_library(words in prop::collection::vec(word(), 10), attributes in prop::collection::hash_map(word(), word(), 0..4)) {
        let actor = |at: usize| v1::Actor { id: words[at].clone(), r#type: words[at + 1].clone(), name: words[at + 2].clone() };
        let member = |at: usize| texts(&[("id", &words[at]), ("type", &words[at + 1]), ("name", &words[at + 2])]);
        let mut subject = Map::new();
        put(&mut subject, "actor", member(0));
        put(&mut subject, "on_behalf_of", member(3));
        put(&mut subject, "attributes", json!(attributes));
        let reviewer = v1::Reviewer { id: words[6].clone(), name: words[7].clone(), decision: words[8].clone(), reason: words[9].clone(), decided_at: String::new() };
        let review = json!({"reviewers": [texts(&[("id", &words[6]), ("name", &words[7]), ("decision", &words[8]), ("reason", &words[9])])]});
        let mut message = event();
        message.subject = Some(v1::Subject { actor: Some(actor(0)), on_behalf_of: Some(actor(3)), attributes });
        message.review = Some(v1::Review { reviewers: vec![reviewer] });
        let decoded = decode(&message).unwrap();
        let bytes: Vec<&[u8]> = decoded.parts.iter().map(|part| match &part.body {
            PartBody::Data { bytes, .. } => &bytes[..],
            PartBody::Commitment(_) => b"",
        }).collect();
        let want = [&review, &Value::Object(subject)].map(|tree| serde_json_canonicalizer::to_vec(tree).unwrap());
        prop_assert_eq!(bytes, want.iter().map(Vec::as_slice).collect::<Vec<_>>());
    }
}
