//! The admin trail: what is replayed, and every reason for which it is not believed.
#![cfg(test)]

mod common;

use common::ceremony::{ADMIN_TRAIL, DECISIONS, METRICS, control_bytes, head};
use common::{Ceremony, Person, Store, origin, time};
use countersign_trail::admin::{AdminError, AdminState, check_genesis_signature};
use countersign_trail::chain::ChainError;
use countersign_trail::control::{
    Body, ControlError, GapBody, GenesisBody, Head, HsmBody, PersonSignature, PlanBody, StartBody, TokenSerial,
};
use countersign_trail::document::{Mode, Role, TokenRole};
use countersign_trail::hash::Hash;
use countersign_trail::id::{EventId, MemberId, TypeName};
use countersign_trail::record::{Category, Content, Control, Decision, Event, EventResult, Header, Record};
use countersign_trail::signing::Purpose;
use countersign_trail::sshsig::Act;
use countersign_trail::tree::leaf_hash;

fn start(heads: Vec<Head>) -> Body {
    Body::Start(StartBody {
        binary: Hash::of(b"binary"),
        config: Hash::of(b"config"),
        heads,
        tokens: vec![TokenSerial {
            module: Hash::of(b"module"),
            role: TokenRole::Admin,
            serial: "0a0a0a0a0a0a0a0a".to_owned(),
        }],
        version: "0.1.0".to_owned(),
    })
}

/// Applies `record` and expects a broken rule at its place, whose text holds `problem`.
fn refused_by_rule(state: &AdminState, store: &Store, record: &[u8], problem: &str) {
    let want = state.chain().size();
    match state.clone().apply(record, store) {
        Err(AdminError::Rule { at, problem: found }) => {
            assert_eq!(at, want);
            assert!(found.contains(problem), "{found:?} lacks {problem:?}");
        }
        other => panic!("{problem:?}: {other:?}"),
    }
}

#[test]
fn a_sealed_genesis_is_replayed() {
    let mut ceremony = Ceremony::new();
    let mut state = ceremony.sealed();
    state.require_sealed().unwrap();

    assert_eq!(state.fingerprint, ceremony.fingerprint);
    assert_eq!(state.plan, ceremony.plan);
    assert_eq!(state.genesis, ceremony.genesis);
    assert_eq!(state.keys.len(), 5);
    for (kid, entry) in &state.keys {
        assert_eq!(entry.key, ceremony.keys[kid].public());
        assert_eq!((entry.from_seq, entry.from_time), (0, time(60)));
        assert_eq!(entry.cka_id.len(), 16);
    }
    let evidence = state.evidence_key().unwrap();
    assert_eq!(evidence.key.kid(), ceremony.kid(Purpose::Evidence, None));
    assert_eq!(evidence.token, TokenRole::Record);

    let admin_leaf = leaf_hash(&ceremony.first_records[&origin(ADMIN_TRAIL)]);
    let decisions = state.trail(&origin(DECISIONS)).unwrap();
    assert_eq!(decisions.mode, Mode::Record);
    assert_eq!(decisions.record_kids(), [ceremony.kid(Purpose::Record, Some(DECISIONS))]);
    assert_eq!(decisions.first_prev, admin_leaf);
    let metrics = state.trail(&origin(METRICS)).unwrap();
    assert_eq!(metrics.record_kids(), [ceremony.kid(Purpose::Checkpoint, Some(METRICS))]);
    assert_eq!(metrics.first_leaf, leaf_hash(&ceremony.first_records[&origin(METRICS)]));
    let admin = state.trail(&origin(ADMIN_TRAIL)).unwrap();
    assert_eq!(admin.record_kids(), [ceremony.admin_kid()]);
    assert_eq!(admin.first_leaf, admin_leaf);
    assert_eq!(state.trail(&origin("acme.example/none")), None);

    // Plan, genesis and one signature for each administrator.
    assert_eq!(state.documents.len(), 6);
    assert_eq!(state.heads.len(), 2);
    let body = start(vec![head(DECISIONS, 7, Hash::of(b"root"))]);
    let record = ceremony.next(&state, &body);
    assert_eq!(state.apply(&record, &ceremony.store).unwrap(), leaf_hash(&record));
    assert_eq!(state.heads.len(), 3);
    assert_eq!((state.heads[2].admin_seq, state.heads[2].head.size), (2, 7));
}

#[test]
fn nothing_is_believed_before_the_seal() {
    let ceremony = Ceremony::new();
    let state = AdminState::begin(ceremony.fingerprint, &ceremony.store).unwrap();
    assert_eq!(state.require_sealed(), Err(AdminError::NotSealed(0)));
    assert_eq!(ceremony.begin().require_sealed(), Err(AdminError::NotSealed(1)));
    assert_eq!(AdminError::NotSealed(1).check(), "genesis-sealed");
}

#[test]
fn documents_are_found_by_their_hash_alone() {
    let ceremony = Ceremony::new();
    let other = Hash::of(b"another genesis");
    let error = AdminState::begin(other, &ceremony.store).unwrap_err();
    assert!(matches!(error, AdminError::MissingDocument { hash, .. } if hash == other), "{error}");
    assert_eq!(error.check(), "documents");

    for name in [ceremony.fingerprint, ceremony.genesis.plan] {
        let mut store = ceremony.store.clone();
        store.0.remove(&name);
        let error = AdminState::begin(ceremony.fingerprint, &store).unwrap_err();
        assert!(matches!(error, AdminError::MissingDocument { hash, .. } if hash == name), "{error}");

        // One bit of the last digit of the document's "v":1, which would be another document.
        let mut store = ceremony.store.clone();
        let bytes = store.0.get_mut(&name).unwrap();
        let at = bytes.len() - 2;
        bytes[at] ^= 1;
        let found = Hash::of(bytes);
        let error = AdminState::begin(ceremony.fingerprint, &store).unwrap_err();
        assert!(
            matches!(error, AdminError::DocumentHash { expected, found: is, .. } if expected == name && is == found),
            "{error}"
        );
    }
}

#[test]
fn a_genesis_that_breaks_its_rules_is_refused_whatever_its_fingerprint() {
    let mut ceremony = Ceremony::new();
    ceremony.genesis.keys.pop();
    let fingerprint = ceremony.store.put(ceremony.genesis_bytes());
    let error = AdminState::begin(fingerprint, &ceremony.store).unwrap_err();
    assert_eq!(error.check(), "genesis", "{error}");
}

#[test]
fn the_first_records_stand_in_their_order() {
    let mut ceremony = Ceremony::new();
    let signatures = ceremony.signatures();
    let seal = ceremony.seal(signatures);
    let empty = AdminState::begin(ceremony.fingerprint, &ceremony.store).unwrap();
    let one = ceremony.begin();
    let store = &ceremony.store;

    let record_1 = ceremony.next(&one, &seal);
    let error = empty.clone().apply(&record_1, store).unwrap_err();
    assert!(matches!(error, AdminError::Chain(ChainError::Place { at: 0, found: 1, .. })), "{error}");
    assert_eq!(error.check(), "admin-chain");

    let seal_first = ceremony.next(&empty, &seal);
    refused_by_rule(&empty, store, &seal_first, "may not stand here");
    let plan = Body::Plan(PlanBody { plan: ceremony.genesis.plan });
    refused_by_rule(&one, store, &ceremony.next(&one, &plan), "may not stand here");
    let unsealed_start = ceremony.next(&one, &start(Vec::new()));
    refused_by_rule(&one, store, &unsealed_start, "may not stand here");

    let mut sealed = one;
    sealed.apply(&record_1, store).unwrap();
    refused_by_rule(&sealed, store, &ceremony.next(&sealed, &seal), "may not stand here");
    refused_by_rule(&sealed, store, &ceremony.next(&sealed, &plan), "may not stand here");
}

#[test]
fn record_0_is_the_one_that_the_genesis_names() {
    let ceremony = Ceremony::new();
    let empty = AdminState::begin(ceremony.fingerprint, &ceremony.store).unwrap();
    let other_plan = Body::Plan(PlanBody { plan: Hash::of(b"another plan") });
    let record = ceremony.next(&empty, &other_plan);
    refused_by_rule(&empty, &ceremony.store, &record, "names plan");
    // The same body at another time: another leaf.
    let plan = Body::Plan(PlanBody { plan: ceremony.genesis.plan });
    let record = ceremony.next(&empty, &plan);
    refused_by_rule(&empty, &ceremony.store, &record, "has leaf hash");
}

/// Applies a seal with these signatures and gives the error.
fn seal_error(ceremony: &Ceremony, signatures: Vec<PersonSignature>) -> AdminError {
    let mut state = ceremony.begin();
    let record = ceremony.next(&state, &ceremony.seal(signatures));
    let error = state.apply(&record, &ceremony.store).unwrap_err();
    assert!(state.require_sealed().is_err());
    error
}

/// Asserts that a signature of `member` is what is refused, for a reason that holds `problem`.
fn refused_signature(error: &AdminError, member: &str, problem: &str) {
    match error {
        AdminError::Signature { member: found, problem: why } => {
            assert_eq!(found.as_str(), member);
            assert!(why.contains(problem), "{why:?} lacks {problem:?}");
            assert_eq!(error.check(), "genesis-signatures");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_administrator_signs_once() {
    let mut ceremony = Ceremony::new();
    let all = ceremony.signatures();
    for (missing, member) in ["alice", "bob", "carol", "dave"].into_iter().enumerate() {
        let mut signatures = all.clone();
        signatures.remove(missing);
        refused_signature(&seal_error(&ceremony, signatures), member, "is missing");
    }
    refused_signature(&seal_error(&ceremony, Vec::new()), "alice", "is missing");

    let mut doubled = all.clone();
    doubled[1] = doubled[0].clone();
    let mut swapped = all.clone();
    swapped.swap(0, 1);
    for signatures in [doubled, swapped] {
        let error = seal_error(&ceremony, signatures);
        assert!(matches!(&error, AdminError::Rule { at: 1, problem } if problem.contains("each once")), "{error}");
    }
}

#[test]
fn only_administrators_sign_and_only_with_their_own_keys() {
    let mut ceremony = Ceremony::new();
    let all = ceremony.signatures();
    let genesis = ceremony.genesis_bytes();

    // The auditor is in the roster and may not sign.
    let auditor = Person::new("audrey", "ed25519");
    let mut signatures = all.clone();
    signatures.insert(
        1,
        PersonSignature {
            document: ceremony.store.put(auditor.sign(Act::Genesis, &genesis)),
            key: auditor.key.fingerprint(),
            member: auditor.id.clone(),
        },
    );
    let error = seal_error(&ceremony, signatures);
    refused_signature(&error, "audrey", "is not an administrator");

    // A key of the same kind that is not enrolled.
    let stranger = Person::new("alice", "ed25519");
    let foreign = PersonSignature {
        document: ceremony.store.put(stranger.sign(Act::Genesis, &genesis)),
        key: stranger.key.fingerprint(),
        member: stranger.id.clone(),
    };
    let mut signatures = all.clone();
    signatures[0] = foreign;
    refused_signature(&seal_error(&ceremony, signatures), "alice", "another key");

    // Bob's good signature under Alice's name.
    let mut signatures = all.clone();
    signatures[0].document = all[1].document;
    refused_signature(&seal_error(&ceremony, signatures), "alice", "another key");

    // The record names another key than the one that signed.
    let mut signatures = all.clone();
    signatures[2].key = all[0].key.clone();
    refused_signature(&seal_error(&ceremony, signatures), "carol", "the record names");

    // The signature's document is gone, or is no armor.
    let mut signatures = all.clone();
    signatures[3].document = Hash::of(b"gone");
    let error = seal_error(&ceremony, signatures);
    assert!(matches!(error, AdminError::MissingDocument { .. }), "{error}");
    let mut signatures = all;
    signatures[3].document = ceremony.store.put(b"\xff".to_vec());
    refused_signature(&seal_error(&ceremony, signatures), "dave", "is not text");
}

#[test]
fn a_signature_holds_for_one_document_and_one_act() {
    let mut ceremony = Ceremony::new();
    let all = ceremony.signatures();
    let mut other = ceremony.genesis_bytes();
    let at = other.len() - 2;
    other[at] ^= 1;
    for (act, document, problem) in [
        (Act::Genesis, other, "does not verify"),
        (Act::Approve, ceremony.genesis_bytes(), "genesis@countersign is needed"),
    ] {
        let mut signatures = all.clone();
        let armor = ceremony.people[1].sign(act, &document);
        signatures[1].document = ceremony.store.put(armor);
        refused_signature(&seal_error(&ceremony, signatures), "bob", problem);
    }
    let mut keyless = common::ceremony::member("eve", Role::Administrator);
    keyless.ssh_keys.clear();
    let armor = ceremony.people[0].sign(Act::Genesis, b"x");
    assert!(check_genesis_signature(&keyless, &armor, b"x").is_err());
}

#[test]
fn the_seal_is_of_the_pinned_genesis() {
    let mut ceremony = Ceremony::new();
    let signatures = ceremony.signatures();
    let state = ceremony.begin();
    let body = Body::Genesis(GenesisBody { genesis: Hash::of(b"another genesis"), heads: Vec::new(), signatures });
    let record = ceremony.next(&state, &body);
    refused_by_rule(&state, &ceremony.store, &record, "seals genesis");
}

#[test]
fn heads_grow_and_name_a_trail() {
    let mut ceremony = Ceremony::new();
    let mut state = ceremony.sealed();
    let root = Hash::of(b"root");
    let five = ceremony.next(&state, &start(vec![head(DECISIONS, 5, root)]));
    state.apply(&five, &ceremony.store).unwrap();
    for heads in [
        vec![head(DECISIONS, 5, root)],
        vec![head(DECISIONS, 4, root)],
        vec![head(METRICS, 2, root), head(METRICS, 2, root)],
        vec![head("acme.example/none", 1, root)],
        vec![head(ADMIN_TRAIL, 3, root)],
    ] {
        let record = ceremony.next(&state, &start(heads));
        refused_by_rule(&state, &ceremony.store, &record, "does not grow");
    }
    let more = vec![head(DECISIONS, 6, root), head(METRICS, 2, root)];
    let record = ceremony.next(&state, &start(more));
    state.apply(&record, &ceremony.store).unwrap();

    // The size of no tree that anyone signed: also where the trail has no head yet.
    let signatures = ceremony.signatures();
    let one = ceremony.begin();
    let body =
        Body::Genesis(GenesisBody { genesis: ceremony.fingerprint, heads: vec![head(METRICS, 0, root)], signatures });
    let record = ceremony.next(&one, &body);
    refused_by_rule(&one, &ceremony.store, &record, "does not grow");
}

#[test]
fn only_known_control_records_of_the_admin_key_stand_in_the_admin_trail() {
    let mut ceremony = Ceremony::new();
    let mut state = ceremony.sealed();
    let header = Header {
        trail: origin(ADMIN_TRAIL),
        seq: 2,
        time: time(200),
        prev: state.chain().last_leaf(),
        kids: vec![ceremony.admin_kid()],
    };
    let bytes = |header: &Header, content: Content| {
        let header = header.clone();
        Record { header, content }.to_bytes().unwrap()
    };

    let event = Content::Event(Event {
        type_name: TypeName::parse("llm.completion").unwrap(),
        category: Category::Normal,
        decision: Decision::Allow,
        result: EventResult::Delivered,
        event_id: EventId::parse("e-1").unwrap(),
        client: MemberId::parse("gw-1").unwrap(),
        links: Vec::new(),
        parts: Default::default(),
    });
    refused_by_rule(&state, &ceremony.store, &bytes(&header, event), "an event");

    let unknown = Content::Control(Control {
        type_name: TypeName::parse("countersign.later").unwrap(),
        body: serde_json::json!({}),
    });
    let error = state.clone().apply(&bytes(&header, unknown), &ceremony.store).unwrap_err();
    assert_eq!(error.check(), "admin-records");
    assert!(matches!(error, AdminError::Control { at: 2, source: ControlError::UnknownType(_) }), "{error}");

    let trail = Body::Trail(countersign_trail::control::TrailBody {
        admin_seq: 0,
        admin_trail: origin(ADMIN_TRAIL),
        mode: Mode::Batch,
    });
    let record = control_bytes(header.clone(), &trail);
    refused_by_rule(&state, &ceremony.store, &record, "may not stand here");

    for kids in [vec![], vec![ceremony.kid(Purpose::Evidence, None)], vec![ceremony.admin_kid(), ceremony.admin_kid()]]
    {
        let header = Header { kids, ..header.clone() };
        let record = control_bytes(header, &start(Vec::new()));
        refused_by_rule(&state, &ceremony.store, &record, "the admin key in force");
    }

    for body in [
        Body::Gap(GapBody { from: time(121), reason: "stopped".to_owned(), to: time(199) }),
        Body::Hsm(HsmBody {
            heads: Vec::new(),
            reason: "HSM_TIMEOUT".to_owned(),
            state: "down".to_owned(),
            time: time(200),
            token: TokenRole::Record,
        }),
    ] {
        let record = ceremony.next(&state, &body);
        state.apply(&record, &ceremony.store).unwrap();
    }
    assert_eq!(state.chain().size(), 4);
}
