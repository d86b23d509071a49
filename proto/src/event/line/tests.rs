use super::*;

const LINE: &str = r#"{"event_id":"e-1","type":"llm.completion","category":"redaction","decision":"redact","result":"redacted",
"facts":{"occurred_at":"2026-01-31T08:00:00.000000Z","agent":{"id":"a"},"policy_results":[{"name":"pii","outcome":"redact"}],
"redactions":[{"label":"EMAIL","count":"2"}],"tokens":{"prompt":"18446744073709551615"},"cost":{"settled":"0.001","currency":"USD"},
"attributes":{"k":"v"}},"subject":{"actor":{"id":"u","type":"user"}},"review":{"reviewers":[{"id":"r"}]},
"request":{"media_type":"text/plain","text":"héllo","salt":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"},
"response":{"media_type":"application/octet-stream","base64":"AQI="},
"links":[{"rel":"retry","trail":"acme.example/d","seq":"7","leaf_hash":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}]}"#;

#[test]
fn a_line_is_the_event_that_it_spells() {
    let event = parse(LINE.as_bytes()).unwrap();
    assert_eq!(event.category(), v1::Category::Redaction);
    assert_eq!(event.decision(), v1::Decision::Redact);
    assert_eq!(event.result(), v1::Result::Redacted);
    let facts = event.facts.as_ref().unwrap();
    assert_eq!(facts.tokens, Some(v1::Tokens { prompt: u64::MAX, completion: 0 }));
    assert_eq!(facts.redactions[0].count, 2);
    let request = event.request.as_ref().unwrap();
    assert_eq!(request.body, Some(v1::content::Body::Data("héllo".into())));
    assert_eq!(request.salt.len(), 32);
    assert_eq!(event.response.as_ref().unwrap().body, Some(v1::content::Body::Data(vec![1, 2].into())));
    assert_eq!(event.links[0].seq, 7);
    assert!(super::super::decode(&event).is_ok());
}

#[test]
fn every_word_is_its_number() {
    for (at, word) in Category::ALL.iter().enumerate() {
        let line = format!(r#"{{"type":"t","category":"{word}","decision":"none","result":"pending"}}"#);
        let event = parse(line.as_bytes()).unwrap();
        assert_eq!(event.category, at as i32 + 1);
        assert_eq!(event.category().as_str_name(), format!("CATEGORY_{}", word.word().to_uppercase()));
        assert_eq!(event.decision(), v1::Decision::None);
        assert_eq!(event.result(), v1::Result::Pending);
    }
}

#[test]
fn errors_name_the_member() {
    let broken = |from: &str, to: &str| {
        let line = LINE.replace(from, to);
        assert_ne!(line, LINE, "{from} is not in the line");
        parse(line.as_bytes()).unwrap_err().to_string()
    };
    for (from, to, path) in [
        (r#""18446744073709551615""#, r#""007""#, "facts.tokens.prompt: "),
        (r#""18446744073709551615""#, "1", "facts.tokens.prompt: "),
        (r#""outcome""#, r#""outcom""#, "facts.policy_results[0].outcom: "),
        (r#""decision":"redact""#, r#""decision":"Redact""#, "decision: "),
        (r#"{"k":"v"}"#, r#"{"k":"v","k":"w"}"#, "facts.attributes: "),
        (r#""AQI=""#, r#""AQI""#, "response.base64 "),
        ("AAAAA\"", "AAAA=\"", "request.salt "),
        (r#","base64":"AQI=""#, "", "response wants exactly one"),
        (r#""base64":"AQI=""#, r#""base64":"AQI=","text":"x""#, "response wants exactly one"),
        (r#""base64":"AQI=""#, r#""base64":"AQI=","base64":"AQI=""#, "response"),
        (r#""event_id":"e-1""#, r#""event_id":"e-1","event_id":"e-1""#, ".: duplicate field `event_id`"),
        ("e3b0c4", "E3B0C4", "links[0].leaf_hash: "),
    ] {
        let message = broken(from, to);
        assert!(message.starts_with(path), "{message} does not begin with {path}");
    }
    assert!(parse(format!("{LINE} x").as_bytes()).unwrap_err().to_string().starts_with(".: "), "trailing bytes");
    assert!(matches!(parse(&vec![b' '; MAX_LINE_LEN + 1]), Err(LineError::TooLong(_))));
}

#[test]
fn a_list_is_no_object_wherever_it_stands() {
    for (from, to, path) in [
        (r#"{"id":"a"}"#, r#"["a"]"#, "facts.agent: "),
        (r#"{"name":"pii","outcome":"redact"}"#, r#"["pii","redact"]"#, "facts.policy_results[0]: "),
        (r#"{"id":"u","type":"user"}"#, r#"["u"]"#, "subject.actor: "),
        (r#"{"reviewers":[{"id":"r"}]}"#, r#"[[{"id":"r"}]]"#, "review: "),
        (r#"{"media_type":"application/octet-stream","base64":"AQI="}"#, r#"["","x",null,null,null]"#, "response: "),
    ] {
        let line = LINE.replace(from, to);
        assert_ne!(line, LINE, "{from} is not in the line");
        let message = parse(line.as_bytes()).unwrap_err().to_string();
        assert!(message.starts_with(&format!("{path}invalid type: sequence")), "{message}");
    }
    let list = r#"["e-1","llm.completion","normal","none","pending",null,null,null,null,null,[]]"#;
    assert!(parse(list.as_bytes()).unwrap_err().to_string().starts_with(".: invalid type: sequence"));
}
