//! Numbers that cost more than their bytes.

use super::*;

#[test]
fn a_place_that_no_trail_has_is_caught() {
    for algorithm in [Algorithm::Ed25519, Algorithm::EcdsaP256] {
        let mut notary = Notary::new(Mode::Record, algorithm);
        let gateway = Gateway::of(&notary);
        let mut sent = gateway.prepare(&[plain_event("e-1")]);
        let mut answer = notary.answer_with(&[plain_event("e-1")], &|draft| draft.header.seq = u64::MAX);
        signed_at(&mut answer, 0).seq = u64::MAX;
        let outcomes = gateway.check(&mut sent, answer).unwrap();
        assert_eq!(reason(&outcomes[0]), AlarmReason::Seq);
        assert!(gateway.held.newest(TRAIL).is_none());
    }
}

#[test]
fn a_proof_of_more_than_was_answered_is_not_worked_through() {
    let mut notary = Notary::new(Mode::Batch, Algorithm::Ed25519);
    let gateway = Gateway::of(&notary);
    let mut sent = gateway.prepare(&[plain_event("e-1")]);
    let mut answer = notary.answer(&[plain_event("e-1")]);
    answer.proofs[0].seqs = vec![1; 1_000];
    let outcomes = gateway.check(&mut sent, answer).unwrap();
    assert_eq!(reason(&outcomes[0]), AlarmReason::Proof);
    let Outcome::Alarm(alarm) = &outcomes[0] else { panic!("{:?}", outcomes[0]) };
    assert_eq!((alarm.expected.as_str(), alarm.found.as_str()), ("a proof of at most 1 records", "one of 1000"));
}
