//! The genesis document: every rule, with a document that breaks it.
#![cfg(test)]

mod common;

use common::ceremony::{DECISIONS, METRICS, broken_rule, probe};
use common::{Ceremony, SoftKey, origin};
use countersign_trail::base64;
use countersign_trail::document::{DocumentError, Genesis, GenesisKey, TokenRole};
use countersign_trail::dsse;
use countersign_trail::hash::Hash;
use countersign_trail::id::InstanceId;
use countersign_trail::jcs::JcsError;
use countersign_trail::keys::Algorithm;
use countersign_trail::signing::Purpose;

/// A change that breaks one rule of a genesis.
type BreakGenesis = fn(&mut Genesis);

/// A change that breaks one rule of a key.
type BreakKey = fn(&mut GenesisKey);

#[test]
fn a_good_genesis() {
    let ceremony = Ceremony::new();
    let bytes = ceremony.genesis_bytes();
    let genesis = Genesis::parse(&bytes).unwrap();
    assert_eq!(genesis, ceremony.genesis);
    let keys = genesis.check(&ceremony.plan, &genesis.plan).unwrap();
    let kids: Vec<_> = keys.iter().map(|key| key.kid()).collect();
    let named: Vec<_> = genesis.keys.iter().map(|key| key.kid).collect();
    assert_eq!(kids, named);
    assert!(genesis.first_leaf(&origin(DECISIONS)).is_some());
    assert_eq!(genesis.first_leaf(&origin("acme.example/none")), None);
}

/// Position of the key of a purpose.
fn key_of(genesis: &Genesis, purpose: Purpose) -> usize {
    genesis.keys.iter().position(|key| key.purpose == purpose).unwrap()
}

#[test]
fn each_rule_of_a_genesis() {
    let cases: &[(&str, BreakGenesis)] = &[
        ("of version 1", |g| g.v = 0),
        ("of version 1", |g| g.document = "countersign.plan".to_owned()),
        ("names another plan", |g| g.plan = Hash::of(b"another")),
        ("names another instance", |g| g.instance = InstanceId::parse("acme-2").unwrap()),
        ("not sorted by kid", |g| g.keys.reverse()),
        ("not sorted by kid", |g| g.keys.insert(0, g.keys[0].clone())),
        ("the ones that the plan asks for", |g| {
            g.keys.pop();
        }),
        ("the ones that the plan asks for", |g| {
            let at = key_of(g, Purpose::Record);
            g.keys[at].purpose = Purpose::Checkpoint;
        }),
        ("the ones that the plan asks for", |g| {
            let at = key_of(g, Purpose::Record);
            g.keys[at].trail = Some(origin(METRICS));
        }),
        ("the ones that the plan asks for", |g| {
            let at = key_of(g, Purpose::Record);
            g.keys[at].token = TokenRole::Admin;
        }),
        ("the ones that the plan asks for", |g| {
            let at = key_of(g, Purpose::Record);
            g.keys[at].algorithm = Algorithm::EcdsaP256;
        }),
        ("the ones that the plan asks for", |g| {
            let at = key_of(g, Purpose::Evidence);
            g.keys[at].trail = Some(origin(METRICS));
        }),
        ("records do not name each trail", |g| g.records.reverse()),
        ("records do not name each trail", |g| {
            g.records.pop();
        }),
        ("records do not name each trail", |g| g.records.push(g.records[2].clone())),
        ("records do not name each trail", |g| g.records[0].trail = origin("acme.example/a")),
        ("tokens are not the plan's", |g| g.tokens.reverse()),
        ("tokens are not the plan's", |g| {
            g.tokens.pop();
        }),
        ("tokens are not the plan's", |g| g.tokens[1].serial.push('0')),
        ("tokens are not the plan's", |g| g.tokens[0].label.push('0')),
        ("tokens are not the plan's", |g| g.tokens[0].role = TokenRole::Record),
    ];
    let ceremony = Ceremony::new();
    for (problem, change) in cases {
        let mut genesis = ceremony.genesis.clone();
        change(&mut genesis);
        let result = genesis.check(&ceremony.plan, &ceremony.genesis.plan);
        broken_rule(result, "countersign.genesis", problem);
    }
}

#[test]
fn one_key_too_many_is_refused() {
    let ceremony = Ceremony::new();
    let mut genesis = ceremony.genesis.clone();
    let mut extra = genesis.keys[0].clone();
    extra.kid = SoftKey::new(Algorithm::Ed25519, 99).kid();
    genesis.keys.push(extra);
    genesis.keys.sort_by_key(|key| key.kid);
    let result = genesis.check(&ceremony.plan, &genesis.plan);
    broken_rule(result, "countersign.genesis", "the ones that the plan asks for");
}

/// A key of the genesis, with what made it.
fn key_under_test() -> (SoftKey, GenesisKey, InstanceId) {
    let mut ceremony = Ceremony::new();
    let at = key_of(&ceremony.genesis, Purpose::Record);
    let made = ceremony.genesis.keys.remove(at);
    let key = ceremony.keys.remove(&made.kid).unwrap();
    (key, made, ceremony.genesis.instance)
}

#[test]
fn each_rule_of_a_key() {
    let cases: &[(&str, BreakKey)] = &[
        ("spki is not a public key", |k| k.spki.push('=')),
        ("spki is not a public key", |k| k.spki = base64::std_encode(&[0x30; 44])),
        ("kid is not the thumbprint", |k| {
            let other = SoftKey::new(Algorithm::Ed25519, 99).public();
            k.spki = base64::std_encode(&other.spki_der());
        }),
        ("algorithm is not that of spki", |k| k.algorithm = Algorithm::EcdsaP256),
        ("origin is not \"generated\"", |k| k.origin = "imported".to_owned()),
        ("cka_id is not", |k| k.cka_id.clear()),
        ("cka_id is not", |k| k.cka_id = "0g".to_owned()),
        ("cka_id is not", |k| k.cka_id = "0A".to_owned()),
        ("cka_id is not", |k| k.cka_id = "00".repeat(65)),
        ("attribute extractable is not false", |k| {
            k.attributes.insert("extractable".to_owned(), true);
        }),
        ("probe or probe_signature is not base64", |k| k.probe.push('=')),
        ("probe or probe_signature is not base64", |k| k.probe_signature.push('=')),
        ("signature does not verify", |k| k.probe_signature = base64::std_encode(&[0; 64])),
        ("signature does not verify", |k| k.probe_signature.clear()),
    ];
    let (_, good, instance) = key_under_test();
    good.check(&instance).unwrap();
    for (problem, change) in cases {
        let mut key = good.clone();
        change(&mut key);
        broken_rule(key.check(&instance), "countersign.genesis", problem);
    }
    for name in ["always_sensitive", "extractable", "local", "never_extractable", "sensitive", "sign"] {
        let mut key = good.clone();
        key.attributes.remove(name);
        broken_rule(key.check(&instance), "countersign.genesis", &format!("attribute {name} is not"));
    }
    let mut key = good;
    key.attributes.insert("wrap".to_owned(), false);
    key.check(&instance).unwrap();
}

#[test]
fn a_probe_is_of_this_key_and_this_instance() {
    let (soft, good, instance) = key_under_test();
    let with = |payload: &[u8]| {
        let mut key = good.clone();
        key.probe = base64::std_encode(payload);
        key.probe_signature = base64::std_encode(&soft.sign(&dsse::pae(dsse::PROBE, payload)));
        key.check(&instance)
    };
    with(&probe(&soft, "acme-1", 200)).unwrap();
    broken_rule(with(&probe(&soft, "acme-2", 200)), "countersign.genesis", "another instance");
    let other = SoftKey::new(Algorithm::Ed25519, 99);
    broken_rule(with(&probe(&other, "acme-1", 200)), "countersign.genesis", "not one of this key");
    let mut spaced = probe(&soft, "acme-1", 200);
    spaced.push(b' ');
    assert!(matches!(with(&spaced), Err(DocumentError::Json { source: JcsError::NotCanonical { .. }, .. })));
    let long = format!("{{\"instance\":\"{}\"}}", "a".repeat(1024));
    assert!(matches!(with(long.as_bytes()), Err(DocumentError::Json { source: JcsError::TooLong { .. }, .. })));
    // A good signature over the payload under another payload type.
    let payload = probe(&soft, "acme-1", 200);
    let mut key = good.clone();
    key.probe = base64::std_encode(&payload);
    key.probe_signature = base64::std_encode(&soft.sign(&dsse::pae(dsse::RECORD, &payload)));
    broken_rule(key.check(&instance), "countersign.genesis", "signature does not verify");
}
