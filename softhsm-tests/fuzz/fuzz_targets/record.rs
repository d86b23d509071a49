//! Records and the bodies of control records.
#![no_main]

use countersign_fuzz::{genuine, other_spellings, seed, texts, vectors};
use countersign_trail::control::Body;
use countersign_trail::jcs;
use countersign_trail::record::{Content, MAX_RECORD_LEN, Record};
use libfuzzer_sys::fuzz_target;

fn seeds() {
    let (records, documents) = (vectors("record"), vectors("documents"));
    let admin = documents["admin_records"].as_array().unwrap().iter().map(|record| record.as_str().unwrap().to_owned());
    let accepted = texts(&records, "records", "record").into_iter().chain(admin);
    genuine(accepted.chain(texts(&documents, "first_records", "record")), |bytes| Record::parse(bytes).is_ok());
    seed(texts(&records, "refused", "record"));
}

fuzz_target!(init: seeds(), |bytes: &[u8]| {
    let Ok(record) = Record::parse(bytes) else { return };
    assert!(bytes.len() <= MAX_RECORD_LEN);
    assert_eq!(record.to_bytes().unwrap(), bytes);
    // A reader that knows nothing of records finds the same in it.
    let value = jcs::check_canonical(bytes, MAX_RECORD_LEN).unwrap();
    assert_eq!(value["seq"], record.header.seq.to_string());
    assert_eq!(value["prev"], record.header.prev.to_string());
    assert_eq!(value["time"], record.header.time.to_string());
    assert_eq!(value["trail"], record.header.trail.as_str());
    assert_eq!(value["type"], record.type_name().as_str());
    for other in other_spellings(bytes) {
        // A control record's body is JSON of any shape; its type is what refuses another one.
        assert!(Record::parse(&other).is_err() || Body::parse(control(&other).as_ref().unwrap()).is_err());
    }
    match &record.content {
        Content::Event(event) => assert!(!event.type_name.is_reserved()),
        Content::Control(control) => {
            assert!(control.type_name.is_reserved());
            if let Ok(body) = Body::parse(control) {
                assert_eq!(body.to_control().unwrap(), *control);
            }
        }
    }
});

fn control(bytes: &[u8]) -> Option<countersign_trail::record::Control> {
    match Record::parse(bytes).ok()?.content {
        Content::Control(control) => Some(control),
        Content::Event(_) => None,
    }
}
