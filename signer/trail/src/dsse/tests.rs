use super::*;
use crate::keys::Algorithm;
use ed25519_dalek::{Signer as _, SigningKey};
use proptest::prelude::*;

fn pair(seed: u8) -> (SigningKey, PublicKey) {
    let private = SigningKey::from_bytes(&[seed; 32]);
    let public = private.verifying_key();
    (private, PublicKey::from_raw(Algorithm::Ed25519, public.as_bytes()).unwrap())
}

fn sign(seed: u8, payload_type: &str, payload: &[u8]) -> Signature {
    let (private, public) = pair(seed);
    let sig = private.sign(&pae(payload_type, payload)).to_bytes().to_vec();
    Signature { keyid: public.kid(), sig }
}

fn example() -> Envelope {
    let payload = b"{\"v\":1}".to_vec();
    let signatures = (1..=3).map(|seed| sign(seed, STATEMENT, &payload)).collect();
    Envelope::new(STATEMENT, payload, signatures).unwrap()
}

#[test]
fn pae_of_the_specification() {
    assert_eq!(
        pae("http://example.com/HelloWorld", b"hello world"),
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    );
    assert_eq!(pae("", b""), b"DSSEv1 0  0 ");
}

#[test]
fn round_trip_and_verify() {
    let envelope = example();
    let json = envelope.to_json();
    let parsed = Envelope::parse(&json).unwrap();
    assert_eq!(parsed, envelope);
    for seed in 1..=3 {
        assert_eq!(parsed.verify(STATEMENT, &pair(seed).1), Ok(envelope.payload()));
    }
    let stranger = pair(4).1;
    assert_eq!(parsed.verify(STATEMENT, &stranger), Err(DsseError::NotSignedBy(stranger.kid())));
    assert_eq!(parsed.verify(RECORD, &pair(1).1), Err(DsseError::OtherPayloadType(RECORD)));
}

#[test]
fn json_is_canonical_and_read_by_others() {
    let json = example().to_json();
    assert_eq!(serde_json_canonicalizer::to_vec(&parse_any(&json)).unwrap(), json);
    let value = parse_any(&json);
    assert_eq!(value["payloadType"], STATEMENT);
    assert_eq!(value["payload"], "eyJ2IjoxfQ==");
    assert_eq!(value["signatures"].as_array().unwrap().len(), 3);
}

fn parse_any(json: &[u8]) -> serde_json::Value {
    serde_json::from_slice(json).unwrap()
}

#[test]
fn a_signature_under_another_type_or_payload_does_not_hold() {
    let payload = b"{}".to_vec();
    let (_, key) = pair(1);
    let refused = Err(DsseError::Signature { kid: key.kid(), error: KeyError::Signature(Algorithm::Ed25519) });
    let moved = Envelope::new(RECORD, payload.clone(), vec![sign(1, STATEMENT, &payload)]);
    assert_eq!(moved.unwrap().verify(RECORD, &key), refused);
    let moved = Envelope::new(RECORD, payload, vec![sign(1, RECORD, b"[]")]);
    assert_eq!(moved.unwrap().verify(RECORD, &key), refused);
}

#[test]
fn other_spellings_are_refused() {
    let envelope = example();
    let text = String::from_utf8(envelope.to_json()).unwrap();
    let spellings = [
        format!("{text}\n"),
        format!(" {text}"),
        text.replacen("\":\"", "\": \"", 1),
        text.replacen("\"payload\"", "\"p\\u0061yload\"", 1),
        text.replacen("in-toto", "in-t\\u006fto", 1),
        text.replacen("in-toto+json", "in-toto\\/json", 1),
        text.replacen("eyJ2IjoxfQ==", "eyJ2IjoxfQ", 1),
        text.replacen("eyJ2IjoxfQ==", "eyJ2IjoxfR==", 1),
        text.replacen("{\"payload\"", "{\"extra\":1,\"payload\"", 1),
        text.replacen("{\"payload\"", "{\"payload\":\"\",\"payload\"", 1),
        text.replacen("{\"keyid\"", "{\"cert\":\"\",\"keyid\"", 1),
        text.replacen("\"signatures\":[", "\"signatures\":[{},", 1),
        text.replacen("\"keyid\"", "\"keyId\"", 1),
        format!("{text}{text}"),
    ];
    for spelling in spellings {
        assert_ne!(spelling, text);
        assert!(Envelope::parse(spelling.as_bytes()).is_err(), "{spelling}");
    }
    for len in 0..text.len() {
        assert!(Envelope::parse(&text.as_bytes()[..len]).is_err());
    }
}

#[test]
fn signatures_have_one_order() {
    let envelope = example();
    let mut value = parse_any(&envelope.to_json());
    value["signatures"].as_array_mut().unwrap().reverse();
    let reversed = serde_json_canonicalizer::to_vec(&value).unwrap();
    assert!(matches!(Envelope::parse(&reversed), Err(DsseError::NotCanonical { .. })));
    let mut signatures = envelope.signatures().to_vec();
    signatures.reverse();
    assert_eq!(Envelope::new(STATEMENT, envelope.payload().to_vec(), signatures), Ok(envelope));
}

#[test]
fn bounds() {
    let one = sign(1, RECORD, b"");
    let new = |payload, signatures| Envelope::new(RECORD, payload, signatures);
    assert_eq!(new(vec![], vec![]), Err(DsseError::SignatureCount(0)));
    assert_eq!(new(vec![], vec![one.clone(), one.clone()]), Err(DsseError::DuplicateKeyid(one.keyid)));
    let many: Vec<_> = (1..=17).map(|seed| sign(seed, RECORD, b"")).collect();
    assert!(new(vec![], many[..16].to_vec()).is_ok());
    assert_eq!(new(vec![], many), Err(DsseError::SignatureCount(17)));
    let long = Signature { keyid: one.keyid, sig: vec![0; SIGNATURE_MAX + 1] };
    assert!(matches!(new(vec![], vec![long]), Err(DsseError::TooLong { .. })));
    assert!(matches!(new(vec![0; PAYLOAD_MAX + 1], vec![one.clone()]), Err(DsseError::TooLong { .. })));
    for bad in ["", "a b", "a\"", "a\\", "ä", "a\n", &"a".repeat(256)] {
        let envelope = Envelope::new(bad, vec![], vec![one.clone()]);
        assert_eq!(envelope, Err(DsseError::PayloadType), "{bad}");
    }
}

#[test]
fn the_largest_envelope_fits_its_bound() {
    let signatures =
        (0..16).map(|i| Signature { keyid: Kid::from_bytes([i; 32]), sig: vec![0; SIGNATURE_MAX] }).collect();
    let envelope = Envelope::new(&"a".repeat(PAYLOAD_TYPE_MAX), vec![7; PAYLOAD_MAX], signatures).unwrap();
    let json = envelope.to_json();
    assert!(json.len() <= ENVELOPE_MAX);
    assert_eq!(Envelope::parse(&json).unwrap(), envelope);
    let err = Envelope::parse(&vec![b' '; ENVELOPE_MAX + 1]);
    assert!(matches!(err, Err(DsseError::TooLong { .. })));
}

proptest! {
    #[test]
    fn one_changed_byte_is_refused_or_is_another_envelope(at in 0_usize..2_000, flip in 1_u8..=255) {
        let envelope = example();
        let mut json = envelope.to_json();
        let at = at % json.len();
        json[at] ^= flip;
        if let Ok(other) = Envelope::parse(&json) {
            prop_assert_ne!(&other, &envelope);
            prop_assert_eq!(other.to_json(), json);
        }
    }
}
