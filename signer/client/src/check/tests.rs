mod bounds;

use std::cell::Cell;

use countersign_trail::dsse::pae;
use countersign_trail::id::{EventId, TypeName};
use countersign_trail::keys::Algorithm;
use countersign_trail::origin::Origin;
use countersign_trail::record::{Category, Control, Decision, EventResult, write_control};
use countersign_trail::signing::RECORD_PAYLOAD_TYPE;

use super::*;
use crate::common::SoftKey;
use crate::testing::{Draft, Lie, MEMBER, Notary, TRAIL, full_event, plain_event};

const MODES: [(Mode, Algorithm); 4] = [
    (Mode::Record, Algorithm::Ed25519),
    (Mode::Record, Algorithm::EcdsaP256),
    (Mode::Batch, Algorithm::Ed25519),
    (Mode::Batch, Algorithm::EcdsaP256),
];

fn member() -> MemberId {
    MemberId::parse(MEMBER).unwrap()
}

/// A client of one trail.
struct Gateway {
    trust: TrailTrust,
    held: Held,
}

impl Gateway {
    fn of(notary: &Notary) -> Gateway {
        Gateway { trust: notary.trust(), held: Held::default() }
    }

    fn prepare(&self, events: &[v1::Event]) -> Vec<Sent> {
        let floor = self.held.floor(TRAIL);
        events.iter().map(|event| Sent::prepare(event.clone(), &member(), floor).unwrap()).collect()
    }

    fn check(&self, sent: &mut [Sent], answer: v1::SignBatchResponse) -> Result<Vec<Outcome>, Arc<Alarm>> {
        let skew = Duration::from_secs(300);
        Checker { trust: &self.trust, held: &self.held, skew }.message(sent, answer.answers, answer.proofs)
    }

    /// Sends `events`, has them answered with `lie`, and checks.
    fn call(&self, notary: &mut Notary, events: &[v1::Event], lie: Lie<'_>) -> Vec<Outcome> {
        let mut sent = self.prepare(events);
        let events: Vec<v1::Event> = sent.iter().map(|sent| sent.event.clone()).collect();
        let answer = notary.answer_with(&events, lie);
        self.check(&mut sent, answer).unwrap()
    }
}

fn receipts(outcomes: Vec<Outcome>) -> Vec<Receipt> {
    let receipt = |outcome| match outcome {
        Outcome::Signed(receipt) => receipt,
        other => panic!("not signed: {other:?}"),
    };
    outcomes.into_iter().map(receipt).collect()
}

/// The one alarm of an outcome: both sides are in it, and differ.
fn reason(outcome: &Outcome) -> AlarmReason {
    let Outcome::Alarm(alarm) = outcome else { panic!("no alarm: {outcome:?}") };
    assert_ne!(alarm.expected, alarm.found);
    assert!(alarm.sent.len() == 1 && alarm.answer.answers.len() == 1, "both sides are kept");
    alarm.reason
}

#[test]
fn honest_answers_become_receipts_that_verify() {
    for (mode, algorithm) in MODES {
        let mut notary = Notary::new(mode, algorithm);
        let gateway = Gateway::of(&notary);
        for count in [1, 3, 8] {
            let mut events = vec![plain_event(""); count];
            events[0] = full_event("");
            let receipts = receipts(gateway.call(&mut notary, &events, &|_| {}));
            assert_eq!(receipts.len(), count);
            for receipt in &receipts {
                let json = receipt.to_json().unwrap();
                let parsed = countersign_trail::receipt::Receipt::parse(&json).unwrap();
                parsed.verify(&notary.key.public()).unwrap();
                assert_eq!(parsed.leaf(), receipt.leaf_hash);
            }
            assert_eq!(receipts[0].salt("request"), Some(&[7; 32]));
            assert!(receipts[0].salt("response").is_none(), "the client keeps that one");
        }
        assert_eq!(gateway.held.newest(TRAIL).unwrap().seq, 12);
        assert_eq!(gateway.held.floor(TRAIL), 13);
    }
}

#[test]
fn a_repeat_has_the_answer_of_the_first() {
    for (mode, algorithm) in MODES {
        let mut notary = Notary::new(mode, algorithm);
        let gateway = Gateway::of(&notary);
        let first = receipts(gateway.call(&mut notary, &[full_event("e-1"), full_event("e-2")], &|_| {}));
        // Alone, beside a new one, and twice in one message.
        let again = [full_event("e-2"), plain_event(""), full_event("e-1"), full_event("e-2")];
        let again = receipts(gateway.call(&mut notary, &again, &|_| {}));
        assert_eq!(again[0].record, first[1].record);
        assert_eq!(again[2].record, first[0].record);
        assert_eq!(again[3].record, first[1].record);
        assert_eq!(gateway.held.newest(TRAIL).unwrap().seq, 3, "the newest stays the newest");
    }
}

/// A daemon that commits to something else than it was sent, with every hash and signature right.
#[test]
fn a_daemon_that_signs_lies_is_caught() {
    type Change = Box<dyn Fn(&mut Draft)>;
    let minutes = |draft: &mut Draft, minutes: i64| {
        let micros = draft.header.time.as_micros() + minutes * 60_000_000;
        draft.header.time = Timestamp::from_micros(micros).unwrap();
    };
    let other = |name: &str| PartName::parse(name).unwrap();
    let false_part = |name: &'static str| -> Change {
        Box::new(move |draft| {
            draft.event.parts.insert(PartName::parse(name).unwrap(), Hash::of(b"another content"));
        })
    };
    let lies: Vec<(&str, AlarmReason, Change)> = vec![
        ("trail", AlarmReason::Trail, Box::new(|d| d.header.trail = Origin::parse("acme.example/other").unwrap())),
        ("seq", AlarmReason::Seq, Box::new(|d| d.header.seq += 1)),
        ("ahead", AlarmReason::Time, Box::new(move |d| minutes(d, 6))),
        ("behind", AlarmReason::Time, Box::new(move |d| minutes(d, -6))),
        ("other key", AlarmReason::Key, Box::new(|d| d.header.kids = vec![Kid::from_bytes([9; 32])])),
        ("two keys", AlarmReason::Key, Box::new(|d| d.header.kids.push(Kid::from_bytes([9; 32])))),
        ("no key", AlarmReason::Key, Box::new(|d| d.header.kids.clear())),
        ("prev", AlarmReason::Chain, Box::new(|d| d.header.prev = Hash::of(b"another"))),
        ("type", AlarmReason::Content, Box::new(|d| d.event.type_name = TypeName::parse("llm.other").unwrap())),
        ("category", AlarmReason::Content, Box::new(|d| d.event.category = Category::Normal)),
        ("decision", AlarmReason::Content, Box::new(|d| d.event.decision = Decision::Allow)),
        ("result", AlarmReason::Content, Box::new(|d| d.event.result = EventResult::Delivered)),
        ("event_id", AlarmReason::Content, Box::new(|d| d.event.event_id = EventId::parse("e-9").unwrap())),
        ("client", AlarmReason::Client, Box::new(|d| d.event.client = MemberId::parse("gw-2").unwrap())),
        ("no link", AlarmReason::Content, Box::new(|d| d.event.links.clear())),
        ("link seq", AlarmReason::Content, Box::new(|d| d.event.links[0].seq = 1)),
        ("link leaf", AlarmReason::Content, Box::new(|d| d.event.links[0].leaf_hash = Hash::of(b"x"))),
        ("link trail", AlarmReason::Content, Box::new(|d| d.event.links[0].trail = Origin::parse("a.b/c").unwrap())),
        ("link rel", AlarmReason::Content, Box::new(move |d| d.event.links[0].rel = other("outcome"))),
        ("part less", AlarmReason::Part, Box::new(|d| drop(d.event.parts.pop_first()))),
        ("part more", AlarmReason::Part, false_part("extra")),
        ("facts", AlarmReason::Part, false_part("facts")),
        ("request", AlarmReason::Part, false_part("request")),
        ("response", AlarmReason::Part, false_part("response")),
        ("subject", AlarmReason::Part, false_part("subject")),
    ];
    for (mode, algorithm) in MODES {
        for (name, want, lie) in &lies {
            let mut notary = Notary::new(mode, algorithm);
            let gateway = Gateway::of(&notary);
            receipts(gateway.call(&mut notary, &[plain_event("")], &|_| {}));
            // The second of three events is lied about; the others hold.
            let place = Cell::new(0);
            let second = |draft: &mut Draft| {
                if place.replace(place.get() + 1) == 1 {
                    lie(draft);
                }
            };
            let outcomes = gateway.call(&mut notary, &[full_event(""), full_event(""), plain_event("")], &second);
            assert_eq!(reason(&outcomes[1]), *want, "{name} in {mode:?} {algorithm:?}");
            assert!(matches!(outcomes[0], Outcome::Signed(_)), "{name}: {:?}", outcomes[0]);
            assert!(matches!(outcomes[2], Outcome::Signed(_)), "{name}: {:?}", outcomes[2]);
        }
    }
}

#[test]
fn a_control_record_is_no_answer() {
    for (mode, algorithm) in MODES {
        let mut notary = Notary::new(mode, algorithm);
        let gateway = Gateway::of(&notary);
        let mut sent = gateway.prepare(&[plain_event("")]);
        let body = serde_json::json!({"since": "2026-01-31T08:00:00.000000Z"});
        let control = Control { type_name: TypeName::parse("countersign.heartbeat").unwrap(), body };
        let header = countersign_trail::record::Header {
            trail: notary.origin.clone(),
            seq: notary.size(),
            time: Timestamp::from_micros(now_micros()).unwrap(),
            prev: Hash::of(b"record 0"),
            kids: vec![notary.kid()],
        };
        let mut bytes = Vec::new();
        write_control(&mut bytes, &header, &control).unwrap();
        let salts = vec![v1::Salt { part: "facts".to_owned(), salt: vec![0; 32].into() }];
        let signed = notary.append(bytes, salts);
        let proofs = if mode == Mode::Batch { vec![notary.prove(&[signed.seq])] } else { Vec::new() };
        let answers = vec![v1::Answer { outcome: Some(v1::answer::Outcome::Signed(signed)) }];
        let outcomes = gateway.check(&mut sent, v1::SignBatchResponse { answers, proofs }).unwrap();
        assert_eq!(reason(&outcomes[0]), AlarmReason::Content);
    }
}

fn signed_mut(answer: &mut v1::SignBatchResponse) -> &mut v1::Signed {
    signed_at(answer, 1)
}

fn signed_at(answer: &mut v1::SignBatchResponse, at: usize) -> &mut v1::Signed {
    match &mut answer.answers[at].outcome {
        Some(v1::answer::Outcome::Signed(signed)) => signed,
        other => panic!("{other:?}"),
    }
}

fn flip(bytes: &mut bytes::Bytes, at: usize) {
    let mut changed = bytes.to_vec();
    changed[at] ^= 1;
    *bytes = changed.into();
}

/// Signatures are checked together, and each verdict is its own record's.
#[test]
fn a_false_signature_costs_its_own_record_alone() {
    for algorithm in [Algorithm::Ed25519, Algorithm::EcdsaP256] {
        let mut notary = Notary::new(Mode::Record, algorithm);
        let gateway = Gateway::of(&notary);
        // The second round is beyond the number after which a key has its multiples.
        for _ in 0..2 {
            let mut sent = gateway.prepare(&vec![plain_event(""); 40]);
            let events: Vec<v1::Event> = sent.iter().map(|sent| sent.event.clone()).collect();
            let mut answer = notary.answer(&events);
            signed_at(&mut answer, 3).signature = vec![0x30, 0].into();
            flip(&mut signed_at(&mut answer, 7).signature, 40);
            let outcomes = gateway.check(&mut sent, answer).unwrap();
            for (at, outcome) in outcomes.iter().enumerate() {
                match at {
                    3 | 7 => assert_eq!(reason(outcome), AlarmReason::Signature, "{algorithm:?}, record {at}"),
                    _ => assert!(matches!(outcome, Outcome::Signed(_)), "{algorithm:?}, record {at}: {outcome:?}"),
                }
            }
        }
    }
}

/// Somebody between who changes an honest answer.
#[test]
fn a_changed_answer_is_caught() {
    type Change = Box<dyn Fn(&mut v1::SignBatchResponse, &Notary)>;
    let both: Vec<(&str, AlarmReason, Change)> = vec![
        ("no record", AlarmReason::Record, Box::new(|a, _| signed_mut(a).record = bytes::Bytes::new())),
        ("seq", AlarmReason::Seq, Box::new(|a, _| signed_mut(a).seq += 1)),
        ("leaf hash", AlarmReason::Leaf, Box::new(|a, _| flip(&mut signed_mut(a).leaf_hash, 3))),
        ("short leaf hash", AlarmReason::Leaf, Box::new(|a, _| signed_mut(a).leaf_hash.truncate(31))),
        ("salt", AlarmReason::Part, Box::new(|a, _| flip(&mut signed_mut(a).salts[0].salt, 0))),
        ("own salt", AlarmReason::Salt, Box::new(|a, _| flip(&mut signed_mut(a).salts[1].salt, 0))),
        ("short salt", AlarmReason::Salt, Box::new(|a, _| signed_mut(a).salts[0].salt.truncate(31))),
        ("no salt", AlarmReason::Salt, Box::new(|a, _| drop(signed_mut(a).salts.remove(0)))),
        (
            "a salt more",
            AlarmReason::Salt,
            Box::new(|a, _| {
                signed_mut(a).salts.push(v1::Salt { part: "response".to_owned(), salt: vec![0; 32].into() });
            }),
        ),
        (
            "a salt twice",
            AlarmReason::Salt,
            Box::new(|a, _| {
                let twice = signed_mut(a).salts[0].clone();
                signed_mut(a).salts.push(twice);
            }),
        ),
    ];
    let record: Vec<(&str, AlarmReason, Change)> = vec![
        ("no signature", AlarmReason::Signature, Box::new(|a, _| signed_mut(a).signature = bytes::Bytes::new())),
        (
            "foreign signature",
            AlarmReason::Signature,
            Box::new(|a, notary| {
                let foreign = SoftKey::new(notary.key.public().algorithm(), 12);
                let message = pae(RECORD_PAYLOAD_TYPE, &signed_mut(a).record);
                signed_mut(a).signature = foreign.sign(&message).into();
            }),
        ),
        (
            "signature of the bare record",
            AlarmReason::Signature,
            Box::new(|a, notary| {
                signed_mut(a).signature = notary.key.sign(&signed_mut(a).record).into();
            }),
        ),
    ];
    let batch: Vec<(&str, AlarmReason, Change)> = vec![
        ("a signature", AlarmReason::Signature, Box::new(|a, _| signed_mut(a).signature = vec![0; 64].into())),
        ("no proof", AlarmReason::Proof, Box::new(|a, _| a.proofs.clear())),
        ("proof of others", AlarmReason::Proof, Box::new(|a, notary| a.proofs[0] = notary.prove(&[2, 4]))),
        ("proof of more", AlarmReason::Proof, Box::new(|a, notary| a.proofs[0] = notary.prove(&[0, 2, 3, 4]))),
        ("a hash", AlarmReason::Proof, Box::new(|a, _| flip(&mut a.proofs[0].hashes[0], 0))),
        ("a short hash", AlarmReason::Proof, Box::new(|a, _| a.proofs[0].hashes[0].truncate(31))),
        ("a hash less", AlarmReason::Proof, Box::new(|a, _| drop(a.proofs[0].hashes.pop()))),
        ("a hash more", AlarmReason::Proof, Box::new(|a, _| a.proofs[0].hashes.push(vec![0; 32].into()))),
        ("seqs twice", AlarmReason::Proof, Box::new(|a, _| a.proofs[0].seqs[0] = 3)),
        ("no checkpoint", AlarmReason::Checkpoint, Box::new(|a, _| a.proofs[0].checkpoint = bytes::Bytes::new())),
        (
            "checkpoint of another trail",
            AlarmReason::Checkpoint,
            Box::new(|a, notary| {
                a.proofs[0].checkpoint = notary.checkpoint(&Origin::parse("acme.example/other").unwrap(), &notary.key);
            }),
        ),
        (
            "checkpoint by another key",
            AlarmReason::Checkpoint,
            Box::new(|a, notary| {
                let foreign = SoftKey::new(notary.key.public().algorithm(), 12);
                a.proofs[0].checkpoint = notary.checkpoint(&notary.origin, &foreign);
            }),
        ),
    ];
    for (mode, algorithm) in MODES {
        let own = if mode == Mode::Record { &record } else { &batch };
        for (name, want, change) in both.iter().chain(own) {
            let mut notary = Notary::new(mode, algorithm);
            let gateway = Gateway::of(&notary);
            receipts(gateway.call(&mut notary, &[plain_event("")], &|_| {}));
            let mut sent = gateway.prepare(&[full_event(""), full_event(""), plain_event("")]);
            let events: Vec<v1::Event> = sent.iter().map(|sent| sent.event.clone()).collect();
            let mut answer = notary.answer(&events);
            change(&mut answer, &notary);
            let outcomes = gateway.check(&mut sent, answer).unwrap();
            assert_eq!(reason(&outcomes[1]), *want, "{name} in {mode:?} {algorithm:?}");
            assert!(gateway.held.newest(TRAIL).is_none_or(|newest| newest.seq != 3), "a false answer is not held");
        }
    }
}

#[test]
fn no_byte_of_an_answer_can_be_changed() {
    for (mode, algorithm) in MODES {
        let mut notary = Notary::new(mode, algorithm);
        let gateway = Gateway::of(&notary);
        let events = [full_event("e-1"), full_event("e-2"), plain_event("e-3")];
        let honest = notary.answer(&events);
        let caught = |change: &dyn Fn(&mut v1::SignBatchResponse), what: String| {
            let mut answer = honest.clone();
            change(&mut answer);
            let outcomes = gateway.check(&mut gateway.prepare(&events), answer).unwrap();
            assert!(matches!(outcomes[1], Outcome::Alarm(_)), "{what} in {mode:?} {algorithm:?}");
        };
        let signed = signed_mut(&mut honest.clone()).clone();
        for at in 0..signed.record.len() {
            caught(&|a| flip(&mut signed_mut(a).record, at), format!("record byte {at}"));
        }
        for at in 0..signed.signature.len() {
            caught(&|a| flip(&mut signed_mut(a).signature, at), format!("signature byte {at}"));
        }
        for (proof, at) in honest.proofs.iter().flat_map(|proof| (0..proof.checkpoint.len()).map(move |at| (proof, at)))
        {
            assert_eq!(proof, &honest.proofs[0]);
            caught(&|a| flip(&mut a.proofs[0].checkpoint, at), format!("checkpoint byte {at}"));
        }
        // The gateway that saw all those lies still takes the truth.
        receipts(gateway.check(&mut gateway.prepare(&events), honest.clone()).unwrap());
    }
}

#[test]
fn answers_and_events_go_one_to_one() {
    let mut notary = Notary::new(Mode::Batch, Algorithm::Ed25519);
    let gateway = Gateway::of(&notary);
    let events = [plain_event("e-1"), plain_event("e-2")];
    let honest = notary.answer(&events);
    let mut fewer = honest.clone();
    fewer.answers.pop();
    let alarm = gateway.check(&mut gateway.prepare(&events), fewer).unwrap_err();
    assert_eq!(alarm.reason, AlarmReason::Answers);
    assert_eq!(alarm.sent, events);
    assert_eq!(alarm.answer.answers, honest.answers[..1]);
    assert_eq!(alarm.answer.proofs[..], honest.proofs);
    let mut exchanged = honest.clone();
    exchanged.answers.swap(0, 1);
    let outcomes = gateway.check(&mut gateway.prepare(&events), exchanged).unwrap();
    assert_eq!([reason(&outcomes[0]), reason(&outcomes[1])], [AlarmReason::Content; 2]);
    let mut neither = honest;
    neither.answers[1].outcome = None;
    let outcomes = gateway.check(&mut gateway.prepare(&events), neither).unwrap();
    assert!(matches!(&outcomes[1], Outcome::Alarm(alarm) if alarm.reason == AlarmReason::Answers));
}

/// A daemon restored from an older copy, that does not look at the held head.
#[test]
fn a_second_history_is_caught() {
    for (mode, algorithm) in MODES {
        let mut notary = Notary::new(mode, algorithm);
        let gateway = Gateway::of(&notary);
        receipts(gateway.call(&mut notary, &[plain_event("e-1")], &|_| {}));
        let backup = notary.backup();
        receipts(gateway.call(&mut notary, &[plain_event("e-2")], &|_| {}));
        notary.restore(backup);
        let forked = gateway.call(&mut notary, &[plain_event("e-3")], &|_| {});
        assert_eq!(reason(&forked[0]), AlarmReason::Fork, "{mode:?}");
        // Further on, where the place is new and the record before is not.
        let after = gateway.call(&mut notary, &[plain_event("e-4")], &|_| {});
        assert_eq!(reason(&after[0]), AlarmReason::Chain, "{mode:?}");
        assert_eq!(gateway.held.newest(TRAIL).unwrap().seq, 2);
    }
}

#[test]
fn a_new_record_below_the_held_head_is_caught() {
    for (mode, algorithm) in MODES {
        let mut notary = Notary::new(mode, algorithm);
        let gateway = Gateway::of(&notary);
        let backup = notary.backup();
        // Another client's records, which this one does not hold, then its own.
        notary.answer(&[plain_event("x-1"), plain_event("x-2")]);
        receipts(gateway.call(&mut notary, &[plain_event("")], &|_| {}));
        notary.restore(backup);
        let outcomes = gateway.call(&mut notary, &[plain_event("")], &|_| {});
        assert_eq!(reason(&outcomes[0]), AlarmReason::Order, "{mode:?}");
    }
}

#[test]
fn a_record_that_its_held_successor_does_not_name_is_caught() {
    for (mode, algorithm) in MODES {
        let mut notary = Notary::new(mode, algorithm);
        let gateway = Gateway::of(&notary);
        let backup = notary.backup();
        // Record 1 is another client's, record 2 is ours and names it.
        notary.answer(&[plain_event("x-1")]);
        receipts(gateway.call(&mut notary, &[plain_event("e-1")], &|_| {}));
        notary.restore(backup);
        // A caller's own id may be a repeat, so its low place alone is no contradiction.
        let outcomes = gateway.call(&mut notary, &[plain_event("e-2")], &|_| {});
        assert_eq!(reason(&outcomes[0]), AlarmReason::Chain, "{mode:?}");
    }
}

#[test]
fn two_roots_at_one_size_are_caught() {
    let mut notary = Notary::new(Mode::Batch, Algorithm::Ed25519);
    let gateway = Gateway::of(&notary);
    let backup = notary.backup();
    notary.answer(&[plain_event("x-1")]);
    receipts(gateway.call(&mut notary, &[plain_event("e-1")], &|_| {}));
    notary.restore(backup);
    // Record 1 is unknown to this client; the tree of size 3 is not.
    let mut sent = gateway.prepare(&[plain_event("e-2")]);
    let mut answer = notary.answer(&[plain_event("e-2")]);
    notary.answer(&[plain_event("x-2")]);
    answer.proofs = vec![notary.prove(&[1])];
    let outcomes = gateway.check(&mut sent, answer).unwrap();
    assert_eq!(reason(&outcomes[0]), AlarmReason::Fork);
}

#[test]
fn the_age_of_a_repeat_is_bounded_by_its_event_id() {
    let mut notary = Notary::new(Mode::Record, Algorithm::Ed25519);
    let gateway = Gateway::of(&notary);
    let hours_ago = |hours: i64| now_micros() - hours * 3_600_000_000;
    let dated = |micros: i64| move |draft: &mut Draft| draft.header.time = Timestamp::from_micros(micros).unwrap();
    // A caller's opaque id may be a repeat of any age; a UUIDv7 says when it was made.
    receipts(gateway.call(&mut notary, &[plain_event("job-17")], &dated(hours_ago(5))));
    let v7 = |micros: i64| {
        let context = uuid::Timestamp::from_unix_time((micros / 1_000_000) as u64, 0, 0, 0);
        uuid::Uuid::new_v7(context).to_string()
    };
    receipts(gateway.call(&mut notary, &[plain_event(&v7(hours_ago(3)))], &dated(hours_ago(3))));
    let outcomes = gateway.call(&mut notary, &[plain_event(&v7(hours_ago(2)))], &dated(hours_ago(3)));
    assert_eq!(reason(&outcomes[0]), AlarmReason::Time);
}

#[test]
fn refusals_pass_through() {
    let mut notary = Notary::new(Mode::Batch, Algorithm::Ed25519);
    let gateway = Gateway::of(&notary);
    let events = [plain_event("e-1"), plain_event("e-2")];
    let mut answer = notary.answer(&events[..1]);
    let refused = v1::Refused { code: 8, reason: "OVERLOADED".to_owned(), message: "x".to_owned(), retry_after_ms: 20 };
    answer.answers.push(v1::Answer { outcome: Some(v1::answer::Outcome::Refused(refused)) });
    let outcomes = gateway.check(&mut gateway.prepare(&events), answer).unwrap();
    assert!(matches!(outcomes[0], Outcome::Signed(_)));
    let Outcome::Refused(refusal) = &outcomes[1] else { panic!("{:?}", outcomes[1]) };
    assert_eq!((refusal.reason.as_str(), refusal.retry_after), ("OVERLOADED", Some(Duration::from_millis(20))));
}
