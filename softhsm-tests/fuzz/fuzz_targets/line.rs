//! Events as lines of JSON.
#![no_main]

use countersign_fuzz::{genuine, lists, root, seed};
use countersign_proto::event::{decode, line};
use countersign_trail::record::{Category, Decision, EventResult};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

/// One event in so many of the sample is a seed.
const EVERY: usize = 97;

fn seeds() {
    let lines = std::fs::read_to_string(root().join("softhsm-tests/testdata/gateway-events.jsonl")).unwrap();
    let accepts = |bytes: &[u8]| line::parse(bytes).is_ok_and(|event| decode(&event).is_ok());
    genuine(lines.lines().step_by(EVERY), accepts);
    let head = r#""type":"a","category":"cost","decision":"none","result":"failed""#;
    let hash = "0".repeat(64);
    seed([
        format!(r#"{{{head},"request":{{"base64":"Zg==","salt":"AA"}},"response":{{"commitment":"{hash}"}}}}"#),
        format!(r#"{{{head},"links":[{{"rel":"a","trail":"a.b/c","seq":"1","leaf_hash":"{hash}"}}]}}"#),
        format!(r#"{{{head},"review":{{"reviewers":[{{"id":"a","decided_at":""}}]}},"facts":{{"attributes":{{}}}}}}"#),
    ]);
}

fuzz_target!(init: seeds(), |bytes: &[u8]| {
    let Ok(event) = line::parse(bytes) else { return };
    // Order, white space and escapes do not matter: nothing stood there twice or was skipped.
    let value: Value = serde_json::from_slice(bytes).unwrap();
    assert_eq!(line::parse(value.to_string().as_bytes()), Ok(event.clone()));
    assert_eq!(value["type"], event.r#type.as_str());
    // A map of attributes is an object too.
    for other in lists(bytes) {
        assert!(line::parse(&other).is_err(), "{}", String::from_utf8_lossy(&other));
    }
    // The words are those of records.
    let Ok(decoded) = decode(&event) else { return };
    let word = |name: &str| value[name].as_str().unwrap();
    assert_eq!(Category::from_word(word("category")), Some(decoded.category));
    assert_eq!(Decision::from_word(word("decision")), Some(decoded.decision));
    assert_eq!(EventResult::from_word(word("result")), Some(decoded.result));
});
