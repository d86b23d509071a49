//! Records: the writer against the canonicaliser of others, the parser against every other spelling.

#![cfg(test)]

use std::collections::BTreeMap;

use countersign_trail::hash::Hash;
use countersign_trail::id::{EventId, MemberId, PartName, TypeName};
use countersign_trail::jcs;
use countersign_trail::keys::Kid;
use countersign_trail::origin::Origin;
use countersign_trail::record::*;
use countersign_trail::signing::{Position, Purpose, RECORD_PAYLOAD_TYPE, SigningError, claimed_seq, position_of};
use countersign_trail::time::Timestamp;
use countersign_trail::{dsse, part};
use proptest::prelude::*;

fn header(seq: u64, time: i64) -> Header {
    Header {
        trail: Origin::parse("acme.example/decisions").unwrap(),
        seq,
        time: Timestamp::from_micros(time).unwrap(),
        prev: Hash::of(b"prev"),
        kids: vec![Kid::from_bytes([9; 32])],
    }
}

fn event(event_id: &str, links: usize) -> Event {
    let link = |n: usize| Link {
        leaf_hash: Hash::of(&[n as u8]),
        rel: PartName::parse("retry").unwrap(),
        seq: n as u64,
        trail: Origin::parse("acme.example/decisions").unwrap(),
    };
    Event {
        type_name: TypeName::parse("llm.completion").unwrap(),
        category: Category::Redaction,
        decision: Decision::Redact,
        result: EventResult::Redacted,
        event_id: EventId::parse(event_id).unwrap(),
        client: MemberId::parse("gw-1").unwrap(),
        links: (0..links).map(link).collect(),
        parts: BTreeMap::from([
            (PartName::parse("facts").unwrap(), Hash::of(b"f")),
            (PartName::parse("request").unwrap(), Hash::of(b"r")),
        ]),
    }
}

fn sample() -> Record {
    Record { header: header(17, 1_700_000_000_123_456), content: Content::Event(event("a\"b\\c", 2)) }
}

proptest! {
    #[test]
    fn written_records_are_canonical_and_parse_back(
        event_id in "[!-~]{1,64}", seq in any::<u64>(), time in 0i64..253_402_300_799_999_999, links in 0usize..=16,
    ) {
        let record = Record { header: header(seq, time), content: Content::Event(event(&event_id, links)) };
        let bytes = record.to_bytes().unwrap();
        prop_assert!(jcs::check_canonical(&bytes, MAX_RECORD_LEN).is_ok());
        prop_assert_eq!(Record::parse(&bytes).unwrap(), record);
    }

    #[test]
    fn parser_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = Record::parse(&bytes);
    }

    #[test]
    fn a_changed_byte_is_another_record_or_none(at in 0usize..400, bit in 0u8..8) {
        let record = sample();
        let mut bytes = record.to_bytes().unwrap();
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        if let Ok(other) = Record::parse(&bytes) {
            prop_assert_ne!(other, record);
        }
    }
}

#[test]
fn one_spelling() {
    let text = String::from_utf8(sample().to_bytes().unwrap()).unwrap();
    let refused = |from: &str, to: &str| {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text, "{from:?} does not stand in {text}");
        Record::parse(changed.as_bytes()).expect_err(&changed)
    };
    assert_eq!(refused("{\"category\"", "{ \"category\""), RecordError::NotCanonical);
    assert!(matches!(refused("\"seq\":\"17\"", "\"seq\":\"017\""), RecordError::Shape(_)));
    assert!(matches!(refused("\"seq\":\"17\"", "\"seq\":17"), RecordError::Shape(_)));
    assert!(matches!(refused("\"v\":1}", "\"v\":1,\"w\":1}"), RecordError::Shape(_)));
    assert!(matches!(refused("\"v\":1}", "\"v\":1,\"v\":1}"), RecordError::Shape(_)));
    assert!(matches!(refused("\"v\":1}", "\"v\":2}"), RecordError::Version(2)));
    assert!(matches!(refused("\"v\":1}", "\"v\":1.0}"), RecordError::Shape(_)));
    assert!(matches!(refused("\"event\"", "\"control\""), RecordError::Kind { .. }));
    assert!(matches!(refused("llm.completion", "countersign.gap"), RecordError::Kind { .. }));
    assert!(matches!(refused("\"decision\":\"redact\",", ""), RecordError::Kind { .. }));
    let trailing = format!("{text}\n");
    assert!(Record::parse(trailing.as_bytes()).is_err());
}

#[test]
fn the_longest_record_has_room() {
    let mut event = event(&"e".repeat(64), 16);
    let origin = Origin::parse(&format!("a.b/{}", "c".repeat(196))).unwrap();
    for link in &mut event.links {
        link.trail = origin.clone();
        link.seq = u64::MAX;
        link.rel = PartName::parse(&"r".repeat(32)).unwrap();
    }
    let name = |n: u8| PartName::parse(&format!("{}{}", "p".repeat(31), char::from(b'a' + n))).unwrap();
    event.parts = (0..part::MAX_PARTS as u8).map(|n| (name(n), Hash::of(&[n]))).collect();
    let mut header = header(u64::MAX, 0);
    header.trail = origin;
    header.kids = (0..MAX_KIDS as u8).map(|n| Kid::from_bytes([n; 32])).collect();
    let bytes = Record { header, content: Content::Event(event) }.to_bytes().unwrap();
    assert!(bytes.len() < MAX_RECORD_LEN / 4, "{}", bytes.len());
}

#[test]
fn positions() {
    let record = sample();
    let payload = record.to_bytes().unwrap();
    let kid = record.header.kids[0];
    let trail = record.header.trail.clone();
    let message = dsse::pae(RECORD_PAYLOAD_TYPE, &payload);
    let position = position_of(Purpose::Record, Some(&trail), &kid, &message).unwrap();
    assert_eq!(position, Position::Record { trail: trail.clone(), seq: 17 });
    assert_eq!(position.to_string(), "record acme.example/decisions 17");

    let other = Origin::parse("acme.example/other").unwrap();
    let of = |purpose, trail: &Origin, kid: &Kid, message: &[u8]| position_of(purpose, Some(trail), kid, message);
    assert!(matches!(of(Purpose::Record, &other, &kid, &message), Err(SigningError::Trail { .. })));
    assert!(matches!(of(Purpose::Record, &trail, &Kid::from_bytes([1; 32]), &message), Err(SigningError::Kid(_))));
    assert!(matches!(of(Purpose::Checkpoint, &trail, &kid, &message), Err(SigningError::Purpose { .. })));
    assert!(matches!(of(Purpose::Evidence, &trail, &kid, &message), Err(SigningError::Purpose { .. })));

    let mut trailing = message.clone();
    trailing.push(b' ');
    assert!(of(Purpose::Record, &trail, &kid, &trailing).is_err());

    let text = format!("{trail}\n18\n{}\n", countersign_trail::base64::std_encode(Hash::of(b"root").as_bytes()));
    let position = of(Purpose::Checkpoint, &trail, &kid, text.as_bytes()).unwrap();
    assert_eq!(position, Position::Checkpoint { origin: trail.clone(), size: 18 });
    assert!(matches!(of(Purpose::Record, &trail, &kid, text.as_bytes()), Err(SigningError::Purpose { .. })));
    assert!(matches!(of(Purpose::Checkpoint, &other, &kid, text.as_bytes()), Err(SigningError::Trail { .. })));

    let statement = |kid: &Kid| {
        let body = format!("{{\"predicate\":{{\"kid\":\"{kid}\",\"number\":\"5\"}}}}");
        dsse::pae("application/vnd.in-toto+json", body.as_bytes())
    };
    let position = of(Purpose::Evidence, &trail, &kid, &statement(&kid)).unwrap();
    assert_eq!(position, Position::Statement { kid, number: 5 });
    assert!(of(Purpose::Evidence, &trail, &kid, &statement(&Kid::from_bytes([1; 32]))).is_err());
    assert!(of(Purpose::Record, &trail, &kid, &statement(&kid)).is_err());
}

#[test]
fn the_claimed_sequence_number_is_the_records_own() {
    let pae = |payload: &[u8]| dsse::pae(RECORD_PAYLOAD_TYPE, payload);
    for links in 0..=3 {
        let record = Record { header: header(41, 0), content: Content::Event(event(r#""seq":"9""#, links)) };
        assert_eq!(claimed_seq(&pae(&record.to_bytes().unwrap())), Some(41), "{links} links");
    }
    let body = serde_json::json!({ "seq": "7", "z": r#","seq":"8""# });
    let control = Control { type_name: TypeName::parse("countersign.later").unwrap(), body };
    let record = Record { header: header(u64::MAX, 0), content: Content::Control(control) };
    assert_eq!(claimed_seq(&pae(&record.to_bytes().unwrap())), Some(u64::MAX));
    for bad in ["", "{}", r#"{"seq":"01"}"#, r#"{"seq":"x"}"#, r#"{"seq":""#, r#"{"seq":"99999999999999999999"}"#] {
        assert_eq!(claimed_seq(&pae(bad.as_bytes())), None, "{bad}");
    }
    assert_eq!(claimed_seq(&record.to_bytes().unwrap()), None, "no DSSE encoding");
    assert_eq!(claimed_seq(&dsse::pae("application/vnd.in-toto+json", br#"{"seq":"1"}"#)), None, "no record");
}

#[test]
fn control_bodies_hold_integers_only() {
    let record = |body: &str| {
        let kid = Kid::from_bytes([9; 32]);
        let prev = Hash::of(b"prev");
        format!(
            "{{\"body\":{body},\"category\":\"config\",\"kids\":[\"{kid}\"],\"kind\":\"control\",\
             \"prev\":\"{prev}\",\"seq\":\"1\",\"time\":\"2026-01-02T03:04:05.000006Z\",\
             \"trail\":\"acme.example/decisions\",\"type\":\"countersign.later\",\"v\":1}}"
        )
    };
    assert!(Record::parse(record("{\"n\":9007199254740992}").as_bytes()).is_ok());
    for (body, error) in [
        ("{\"n\":1.5}", jcs::JcsError::Number),
        ("{\"n\":9007199254740994}", jcs::JcsError::Number),
        (&format!("{}{}", "[".repeat(40), "]".repeat(40)), jcs::JcsError::TooDeep),
    ] {
        assert_eq!(Record::parse(record(body).as_bytes()), Err(RecordError::Body(error)), "{body}");
    }
    assert_eq!(Record::parse(record("{\"n\":1,\"n\":1}").as_bytes()), Err(RecordError::NotCanonical));
}

#[test]
fn purposes_are_words() {
    for purpose in Purpose::ALL {
        assert_eq!(Purpose::from_word(purpose.word()), Some(purpose));
        let json = serde_json::to_string(&purpose).unwrap();
        assert_eq!(json, format!("\"{purpose}\""));
    }
    assert_eq!(Purpose::from_word("Record"), None);
}
