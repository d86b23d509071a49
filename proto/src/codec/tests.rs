use prost::Message as _;
use tonic::Code;

use super::*;
use crate::v1;

fn verdict<U: Name>(message: &impl Message) -> Result<(), Code> {
    check::<U>(&message.encode_to_vec()).map_err(|status| status.code())
}

fn batch(events: Vec<v1::Event>) -> v1::SignBatchRequest {
    v1::SignBatchRequest { trail: "demo.example/trail".to_owned(), events, held: None }
}

#[test]
fn the_most_of_an_honest_message_passes() {
    let small = v1::Event {
        r#type: "a".to_owned(),
        category: 1,
        decision: 1,
        result: 1,
        facts: Some(v1::Facts::default()),
        ..Default::default()
    };
    assert_eq!(verdict::<v1::SignBatchRequest>(&batch(vec![small; 4_096])), Ok(()));
    let link =
        v1::Link { rel: "follows".to_owned(), trail: "demo.example/trail".to_owned(), seq: 7, ..Default::default() };
    let linked = v1::Event { links: vec![link; 16], ..Default::default() };
    assert_eq!(verdict::<v1::SignBatchRequest>(&batch(vec![linked; 4_096])), Ok(()));
}

#[test]
fn more_events_than_any_message_has_are_not_decoded() {
    let events = |count| batch(vec![v1::Event::default(); count]);
    assert_eq!(verdict::<v1::SignBatchRequest>(&events(MAX_OUTER_ELEMENTS - 1)), Ok(()));
    assert_eq!(verdict::<v1::SignBatchRequest>(&events(MAX_OUTER_ELEMENTS)), Err(Code::OutOfRange));
    let answers = |count| v1::SignBatchResponse { answers: vec![v1::Answer::default(); count], proofs: Vec::new() };
    assert_eq!(verdict::<v1::SignBatchResponse>(&answers(MAX_OUTER_ELEMENTS + 1)), Err(Code::OutOfRange));
}

#[test]
fn elements_count_at_every_depth() {
    let lists = |count| {
        let facts = v1::Facts { classification: vec![String::new(); count], ..Default::default() };
        batch(vec![v1::Event { facts: Some(facts), ..Default::default() }])
    };
    assert_eq!(verdict::<v1::SignBatchRequest>(&lists(MAX_ELEMENTS)), Ok(()));
    assert_eq!(verdict::<v1::SignBatchRequest>(&lists(3 * MAX_ELEMENTS)), Err(Code::OutOfRange));
    // The same bytes as content are one element.
    let data = lists(3 * MAX_ELEMENTS).encode_to_vec().into();
    let content = v1::Content { body: Some(v1::content::Body::Data(data)), ..Default::default() };
    let event = v1::Event { request: Some(content), ..Default::default() };
    assert_eq!(verdict::<v1::SignBatchRequest>(&batch(vec![event])), Ok(()));
}

#[test]
fn numbers_in_one_field_count_each() {
    let answer = |count: u64| {
        let proof = v1::Proof { seqs: (0..count).map(|_| 1).collect(), ..Default::default() };
        v1::SignBatchResponse { answers: Vec::new(), proofs: vec![proof] }
    };
    assert_eq!(verdict::<v1::SignBatchResponse>(&answer(4_096)), Ok(()));
    assert_eq!(verdict::<v1::SignBatchResponse>(&answer(200_000)), Err(Code::OutOfRange));
}

#[test]
fn what_is_no_protobuf_is_named_so() {
    for bytes in [&[0x0a, 5, 1][..], &[0x12, 2, 0x0a, 9], &[0x0b, 0x0c], &[0xff], &[0x08, 0xff]] {
        let status = check::<v1::SignBatchRequest>(bytes).unwrap_err();
        assert_eq!(status.code(), Code::Internal, "{bytes:02x?}: {status}");
    }
}

#[test]
fn every_message_has_its_shape() {
    for name in [v1::SignRequest::NAME, v1::SignBatchRequest::NAME, v1::Event::NAME, v1::ListRecordsResponse::NAME] {
        assert!(SHAPES.iter().any(|(known, _)| *known == name), "{name}");
    }
    let (_, fields) = SHAPES.iter().find(|(name, _)| *name == v1::SignBatchRequest::NAME).unwrap();
    let holds_events = |inner: &Inner| matches!(inner, Inner::Message(place) if SHAPES[*place].0 == v1::Event::NAME);
    assert!(fields.iter().any(|(_, inner)| holds_events(inner)));
}
