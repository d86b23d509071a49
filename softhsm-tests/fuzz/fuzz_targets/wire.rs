//! Messages read through before they are decoded: what passes is within the bounds, and what Protobuf
//! reads is no less than Protobuf here.
#![no_main]

use countersign_proto::codec::{MAX_OUTER_ELEMENTS, check};
use countersign_proto::v1;
use libfuzzer_sys::fuzz_target;
use prost::Message as _;

fn seeds() {
    let facts = v1::Facts { classification: vec!["pii".to_owned(); 3], ..v1::Facts::default() };
    let event = v1::Event { r#type: "llm.completion".to_owned(), facts: Some(facts), ..v1::Event::default() };
    let request = v1::SignBatchRequest { trail: "a.b/c".to_owned(), events: vec![event; 2], held: None };
    let proof = v1::Proof { seqs: vec![1, 2, 300], ..v1::Proof::default() };
    let response = v1::SignBatchResponse { answers: vec![v1::Answer::default()], proofs: vec![proof] };
    let messages = [request.encode_to_vec(), response.encode_to_vec()];
    countersign_fuzz::genuine(messages, |bytes| {
        check::<v1::SignBatchRequest>(bytes).is_ok() || check::<v1::SignBatchResponse>(bytes).is_ok()
    });
}

fuzz_target!(init: seeds(), |bytes: &[u8]| {
    let read = check::<v1::SignBatchRequest>(bytes);
    if let Ok(request) = v1::SignBatchRequest::decode(bytes) {
        assert!(read.is_err() || request.events.len() <= MAX_OUTER_ELEMENTS);
        // What prost writes has no group and no unknown field, which it skips when it reads.
        let again = request.encode_to_vec();
        assert!(read.is_err() || check::<v1::SignBatchRequest>(&again).is_ok());
    }
    if check::<v1::SignBatchResponse>(bytes).is_ok()
        && let Ok(response) = v1::SignBatchResponse::decode(bytes)
    {
        assert!(response.answers.len() + response.proofs.len() <= MAX_OUTER_ELEMENTS);
    }
});
