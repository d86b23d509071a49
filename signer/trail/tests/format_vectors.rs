//! Asserts the vectors in `vectors/` that `make.py` there writes (described in its README):
//! records, parts, DSSE, what keys sign, and a first ceremony.
#![cfg(test)]

mod common;

use std::collections::BTreeMap;

use common::{SoftKey, Store, origin};
use countersign_trail::admin::AdminState;
use countersign_trail::chain::Chain;
use countersign_trail::document::{Genesis, Plan};
use countersign_trail::dsse::{self, Envelope, Signature};
use countersign_trail::hash::Hash;
use countersign_trail::id::PartName;
use countersign_trail::keys::{Algorithm, Kid, PublicKey};
use countersign_trail::origin::Origin;
use countersign_trail::part;
use countersign_trail::record::Record;
use countersign_trail::signing::{Probe, Purpose, position_of};
use countersign_trail::sshsig::SshPublicKey;
use countersign_trail::tree::leaf_hash;
use serde::Deserialize;
use serde::de::DeserializeOwned;

fn read<T: DeserializeOwned>(json: &str) -> T {
    serde_json::from_str(json).unwrap()
}

fn bytes(text: &str) -> Vec<u8> {
    hex::decode(text).unwrap()
}

#[derive(Deserialize)]
struct Key {
    algorithm: Algorithm,
    private_key: String,
    spki: String,
    kid: Kid,
}

impl Key {
    /// The key, made from its private half, with what the vector says of its public half checked.
    fn soft(&self) -> SoftKey {
        let key = SoftKey::new(self.algorithm, bytes(&self.private_key)[0]);
        let public = PublicKey::from_spki_der(&bytes(&self.spki)).unwrap();
        assert_eq!(key.public(), public);
        assert_eq!(public.kid(), self.kid);
        key
    }
}

#[derive(Deserialize)]
struct Records {
    key: Key,
    trail: Origin,
    first_prev: Hash,
    records: Vec<GoodRecord>,
    refused: Vec<RefusedRecord>,
}

#[derive(Deserialize)]
struct GoodRecord {
    record: String,
    leaf_hash: Hash,
    root: Hash,
    signature: String,
}

#[derive(Deserialize)]
struct RefusedRecord {
    why: String,
    record: String,
}

fn records() -> Records {
    read(include_str!("vectors/record.json"))
}

#[test]
fn records_and_their_chain() {
    let vectors = records();
    let key = vectors.key.soft();
    let mut chain = Chain::new(vectors.trail, vectors.first_prev);
    for case in vectors.records {
        let (record, leaf) = chain.append(case.record.as_bytes()).unwrap();
        assert_eq!(record.to_bytes().unwrap(), case.record.as_bytes());
        assert_eq!((leaf, chain.root()), (case.leaf_hash, case.root));
        let message = dsse::pae(dsse::RECORD, case.record.as_bytes());
        assert_eq!(hex::encode(key.sign(&message)), case.signature);
        key.public().verify(&message, &bytes(&case.signature)).unwrap();
    }
    for RefusedRecord { why, record } in vectors.refused {
        assert!(Record::parse(record.as_bytes()).is_err(), "{why}");
    }
}

#[derive(Deserialize)]
struct Parts {
    parts: Vec<Part>,
}

#[derive(Deserialize)]
struct Part {
    name: PartName,
    media_type: String,
    salt: String,
    data: String,
    commitment: Hash,
}

#[test]
fn commitments_of_parts() {
    let vectors: Parts = read(include_str!("vectors/parts.json"));
    for case in vectors.parts {
        assert!(part::is_media_type(&case.media_type));
        let salt = bytes(&case.salt).try_into().unwrap();
        let found = part::commitment(&case.name, &case.media_type, &salt, &bytes(&case.data));
        assert_eq!(found, case.commitment);
    }
}

#[derive(Deserialize)]
struct Dsse {
    keys: Vec<Key>,
    encodings: Vec<Encoding>,
    envelopes: Vec<GoodEnvelope>,
    refused: Vec<RefusedEnvelope>,
    not_verified: Vec<FalseEnvelope>,
}

#[derive(Deserialize)]
struct Encoding {
    payload_type: String,
    payload: String,
    pae: String,
}

#[derive(Deserialize)]
struct GoodEnvelope {
    payload_type: String,
    payload: String,
    signed_by: Vec<Kid>,
    envelope: String,
}

#[derive(Deserialize)]
struct RefusedEnvelope {
    why: String,
    envelope: String,
}

#[derive(Deserialize)]
struct FalseEnvelope {
    why: String,
    kid: Kid,
    envelope: String,
}

#[test]
fn dsse_encodings_and_envelopes() {
    let vectors: Dsse = read(include_str!("vectors/dsse.json"));
    let keys: BTreeMap<Kid, SoftKey> = vectors.keys.iter().map(|k| (k.kid, k.soft())).collect();
    for case in vectors.encodings {
        let found = dsse::pae(&case.payload_type, &bytes(&case.payload));
        assert_eq!(hex::encode(found), case.pae);
    }
    for case in vectors.envelopes {
        let envelope = Envelope::parse(case.envelope.as_bytes()).unwrap();
        assert_eq!(envelope.payload_type(), case.payload_type);
        assert_eq!(envelope.payload(), bytes(&case.payload));
        let message = dsse::pae(&case.payload_type, envelope.payload());
        let sign = |kid: &Kid| Signature { keyid: *kid, sig: keys[kid].sign(&message) };
        let signatures: Vec<Signature> = case.signed_by.iter().map(sign).collect();
        assert_eq!(envelope.signatures(), signatures);
        let made = Envelope::new(&case.payload_type, bytes(&case.payload), signatures).unwrap();
        assert_eq!(made.to_json(), case.envelope.as_bytes());
        for signature in envelope.signatures() {
            let public = keys[&signature.keyid].public();
            public.verify(&message, &signature.sig).unwrap();
        }
    }
    for RefusedEnvelope { why, envelope } in vectors.refused {
        assert!(Envelope::parse(envelope.as_bytes()).is_err(), "{why}");
    }
    for case in vectors.not_verified {
        let envelope = Envelope::parse(case.envelope.as_bytes()).expect(&case.why);
        let result = envelope.verify(dsse::RECORD, &keys[&case.kid].public());
        assert!(result.is_err(), "{}", case.why);
    }
}

#[derive(Deserialize)]
struct Signing {
    probes: Vec<ProbeCase>,
    positions: Vec<GoodMessage>,
    refused: Vec<RefusedMessage>,
}

#[derive(Deserialize)]
struct ProbeCase {
    #[serde(flatten)]
    key: Key,
    payload: String,
    message: String,
    signature: String,
}

#[derive(Deserialize)]
struct GoodMessage {
    #[serde(flatten)]
    asked: Asked,
    position: String,
}

#[derive(Deserialize)]
struct RefusedMessage {
    #[serde(flatten)]
    asked: Asked,
    why: String,
}

/// A message, and the key that is asked to sign it.
#[derive(Deserialize)]
struct Asked {
    purpose: Purpose,
    trail: Option<Origin>,
    kid: Kid,
    message: String,
}

impl Asked {
    fn position(&self) -> Option<String> {
        let message = bytes(&self.message);
        let found = position_of(self.purpose, self.trail.as_ref(), &self.kid, &message);
        found.ok().map(|position| position.to_string())
    }
}

#[test]
fn probes() {
    let vectors: Signing = read(include_str!("vectors/signing.json"));
    for case in vectors.probes {
        let key = case.key.soft();
        let probe: Probe = read(&case.payload);
        assert_eq!(probe.kid, key.kid());
        assert_eq!(countersign_trail::jcs::to_canonical(&probe).unwrap(), case.payload.as_bytes());
        let message = dsse::pae(dsse::PROBE, case.payload.as_bytes());
        assert_eq!(hex::encode(&message), case.message);
        assert_eq!(hex::encode(key.sign(&message)), case.signature);
        key.public().verify(&message, &bytes(&case.signature)).unwrap();
    }
}

#[test]
fn what_each_key_signs() {
    let vectors: Signing = read(include_str!("vectors/signing.json"));
    for GoodMessage { asked, position } in vectors.positions {
        assert_eq!(asked.position(), Some(position));
    }
    for RefusedMessage { asked, why } in vectors.refused {
        assert_eq!(asked.position(), None, "{why}");
    }
}

#[derive(Deserialize)]
struct Documents {
    plan: String,
    plan_sha256: Hash,
    genesis: String,
    fingerprint: Hash,
    signatures: Vec<PersonsSignature>,
    first_records: Vec<FirstRecord>,
    admin_records: Vec<String>,
    admin_root: Hash,
}

#[derive(Deserialize)]
struct PersonsSignature {
    member: String,
    ssh_key: SshPublicKey,
    armor: String,
    sha256: Hash,
}

#[derive(Deserialize)]
struct FirstRecord {
    trail: Origin,
    record: String,
    leaf_hash: Hash,
}

fn documents() -> Documents {
    read(include_str!("vectors/documents.json"))
}

#[test]
fn plan_and_genesis() {
    let vectors = documents();
    let plan = Plan::parse(vectors.plan.as_bytes()).unwrap();
    assert_eq!(plan.to_bytes().unwrap(), vectors.plan.as_bytes());
    assert_eq!(Hash::of(vectors.plan.as_bytes()), vectors.plan_sha256);
    let genesis = Genesis::parse(vectors.genesis.as_bytes()).unwrap();
    assert_eq!(genesis.to_bytes().unwrap(), vectors.genesis.as_bytes());
    assert_eq!(Hash::of(vectors.genesis.as_bytes()), vectors.fingerprint);
    genesis.check(&plan, &vectors.plan_sha256).unwrap();
}

#[test]
fn a_first_ceremony() {
    let vectors = documents();
    let mut store = Store::default();
    store.put(vectors.plan.into_bytes());
    store.put(vectors.genesis.into_bytes());
    for signature in vectors.signatures {
        assert_eq!(Hash::of(signature.armor.as_bytes()), signature.sha256);
        store.put(signature.armor.into_bytes());
    }
    let mut state = AdminState::begin(vectors.fingerprint, &store).unwrap();
    for record in &vectors.admin_records {
        state.apply(record.as_bytes(), &store).unwrap();
    }
    state.require_sealed().unwrap();
    assert_eq!(state.chain().root(), vectors.admin_root);
    assert_eq!(state.documents.len(), store.0.len());
    for first in vectors.first_records {
        let entry = state.trail(&first.trail).unwrap();
        assert_eq!(entry.first_leaf, first.leaf_hash);
        assert_eq!(leaf_hash(first.record.as_bytes()), first.leaf_hash);
        let mut chain = Chain::new(first.trail, entry.first_prev);
        let (record, _) = chain.append(first.record.as_bytes()).unwrap();
        assert_eq!(record.header.kids, entry.record_kids());
    }
    assert!(state.trail(&origin("acme.example/decisions")).is_some());
}

/// Anyone can check people's signatures with stock OpenSSH, without anything of ours.
#[test]
fn stock_openssh_verifies_the_signatures() {
    let vectors = documents();
    let dir = tempfile::tempdir().unwrap();
    let allowed: String = vectors.signatures.iter().map(|s| format!("{} {}\n", s.member, s.ssh_key)).collect();
    std::fs::write(dir.path().join("allowed_signers"), allowed).unwrap();
    for signature in vectors.signatures {
        std::fs::write(dir.path().join("armor"), &signature.armor).unwrap();
        let verify = |document: &str| common::people::ssh_keygen_verify(dir.path(), &signature.member, document);
        assert!(verify(&vectors.genesis), "{}", signature.member);
        assert!(!verify(&vectors.plan), "{}", signature.member);
    }
}
