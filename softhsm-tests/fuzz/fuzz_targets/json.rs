//! JSON with one spelling.
#![no_main]

use countersign_fuzz::{texts, vectors};
use countersign_trail::jcs::{MAX_DEPTH, check_canonical, to_canonical, write_string};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

const MAX: usize = 1 << 16;

fn seeds() {
    countersign_fuzz::seed(texts(&vectors("record"), "refused", "record"));
    countersign_fuzz::genuine(
        [r#"{"":[-9007199254740992,0,9007199254740992],"a":{"b":[true,false,null]},"é":"\u0001\b\\\"😀"}"#, "[]", "1"],
        |bytes| check_canonical(bytes, MAX).is_ok(),
    );
}

fuzz_target!(init: seeds(), |bytes: &[u8]| {
    if let Ok(value) = check_canonical(bytes, MAX) {
        assert_eq!(to_canonical(&value).unwrap(), bytes);
        check(&value, 0);
        let other = serde_json::to_vec_pretty(&value).unwrap();
        assert!(other == bytes || check_canonical(&other, 4 * MAX).is_err());
        assert!(check_canonical(bytes, bytes.len() - 1).is_err());
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let mut ours = Vec::new();
        write_string(&mut ours, text);
        assert_eq!(ours, to_canonical(&text).unwrap());
        assert_eq!(check_canonical(&ours, 8 * MAX).unwrap(), Value::String(text.to_owned()));
    }
});

fn check(value: &Value, depth: usize) {
    assert!(depth <= MAX_DEPTH);
    match value {
        Value::Number(number) => assert!(number.as_i64().unwrap().unsigned_abs() <= 1 << 53),
        Value::Array(items) => items.iter().for_each(|item| check(item, depth + 1)),
        Value::Object(members) => members.values().for_each(|member| check(member, depth + 1)),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}
