//! Events as they come over the wire: Protobuf, then our decoding.
#![no_main]

use std::collections::BTreeMap;

use countersign_fuzz::root;
use countersign_proto::event::{Decoded, JSON_MEDIA_TYPE, PartBody, decode, line, record_event};
use countersign_proto::v1;
use countersign_trail::hash::Hash;
use countersign_trail::jcs;
use countersign_trail::keys::Kid;
use countersign_trail::part::{MAX_PARTS_BYTES, SALT_LEN};
use countersign_trail::record::{Content, Header, MAX_RECORD_LEN, Record};
use libfuzzer_sys::fuzz_target;
use prost::Message as _;

/// One event in so many of the sample is a seed.
const EVERY: usize = 97;

fn seeds() {
    let lines = std::fs::read_to_string(root().join("softhsm-tests/testdata/gateway-events.jsonl")).unwrap();
    let events = lines.lines().step_by(EVERY).map(|text| line::parse(text.as_bytes()).unwrap());
    let mut events: Vec<v1::Event> = events.collect();
    let link = v1::Link { rel: "retry".to_owned(), trail: "a.b/c".to_owned(), seq: 7, leaf_hash: vec![7; 32].into() };
    let reviewer = v1::Reviewer { decided_at: "2026-01-31T08:00:00.000000Z".to_owned(), ..v1::Reviewer::default() };
    events[0].links = vec![link];
    events[0].review = Some(v1::Review { reviewers: vec![reviewer] });
    let body = v1::content::Body::Commitment(vec![7; 32].into());
    events[1].response = Some(v1::Content { media_type: String::new(), salt: Vec::new().into(), body: Some(body) });
    let accepts = |bytes: &[u8]| decode(&v1::Event::decode(bytes).unwrap()).is_ok();
    countersign_fuzz::genuine(events.iter().map(v1::Event::encode_to_vec), accepts);
}

fuzz_target!(init: seeds(), |bytes: &[u8]| {
    let Ok(event) = v1::Event::decode(bytes) else { return };
    let Ok(decoded) = decode(&event) else { return };
    // Protobuf has many spellings of one event, which come to one.
    let again = v1::Event::decode(event.encode_to_vec().as_slice()).unwrap();
    assert_eq!(decode(&again).as_ref(), Ok(&decoded));
    check_parts(&decoded);
    let commitments: BTreeMap<_, _> =
        decoded.parts.iter().map(|part| (part.name.clone(), part.commitment(&[7; SALT_LEN]))).collect();
    let content = Content::Event(record_event(&decoded, "gw-1".parse().unwrap(), commitments));
    let header = Header {
        trail: "acme.example/decisions".parse().unwrap(),
        seq: u64::MAX,
        time: "9999-12-31T23:59:59.999999Z".parse().unwrap(),
        prev: Hash::OF_EMPTY,
        kids: vec![Kid::from_bytes([0xff; 32])],
    };
    let record = Record { header, content };
    let bytes = record.to_bytes().unwrap();
    assert!(bytes.len() <= MAX_RECORD_LEN);
    assert_eq!(Record::parse(&bytes), Ok(record));
});

fn check_parts(decoded: &Decoded) {
    assert!(decoded.parts.windows(2).all(|pair| pair[0].name < pair[1].name));
    let mut len = 0;
    for part in &decoded.parts {
        let PartBody::Data { bytes, .. } = &part.body else { continue };
        len += bytes.len();
        if !["request", "response"].contains(&part.name.as_str()) {
            assert_eq!(part.media_type, JSON_MEDIA_TYPE);
            jcs::check_canonical(bytes, MAX_PARTS_BYTES).expect("written in canonical form");
        }
    }
    assert!(len <= MAX_PARTS_BYTES);
}
