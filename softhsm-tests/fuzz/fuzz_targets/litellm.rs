//! LiteLLM's logging payloads, and the events that they become.
#![no_main]

use countersign_fuzz::{genuine, root};
use countersign_litellm_map::map_payload;
use countersign_proto::event::{EventError, decode, line};
use countersign_proto::v1::content::Body;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fn seeds() {
    let folder = root().join("softhsm-tests/litellm-map/tests/excerpts");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| std::fs::read(entry.unwrap().path()).unwrap());
    genuine(files, |bytes| map_payload(bytes).is_ok());
    let least = r#"{"id":"a","call_type":"b","status":"failure","startTime":1e9,"response_cost":1.5e-7}"#;
    genuine([least], |bytes| map_payload(bytes).is_ok());
}

fuzz_target!(init: seeds(), |bytes: &[u8]| {
    let Ok(mapped) = map_payload(bytes) else { return };
    let text = serde_json::to_vec(&mapped).unwrap();
    assert_eq!(serde_json::to_vec(&map_payload(bytes).unwrap()).unwrap(), text);
    // What is mapped is an event for the client, but for bounds on numbers of things.
    let event = line::parse(&text).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&text)));
    match decode(&event) {
        Ok(_) | Err(EventError::TooMany { .. } | EventError::TooLong { .. } | EventError::TooLarge { .. }) => {}
        Err(error) => panic!("{error}: {}", String::from_utf8_lossy(&text)),
    }
    // Content is passed on as it was printed.
    let Some(Body::Data(answer)) = event.response.and_then(|content| content.body) else { return };
    let answer = std::str::from_utf8(&answer).unwrap();
    assert!(std::str::from_utf8(bytes).unwrap().contains(answer));
    // Python prints halves of characters, which a payload may hold and our reader of JSON may not.
    if let Ok(payload) = serde_json::from_slice::<Value>(bytes) {
        assert_eq!(serde_json::from_str::<Value>(answer).unwrap(), payload["response"]);
    }
});
