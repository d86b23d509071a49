//! The frames between a pool and its workers.
//!
//! The protocol is private to its crate; this program compiles its sources.
#![no_main]

#[path = "../../../signer/hsm/src/config.rs"]
#[allow(dead_code, reason = "the pool's and the worker's")]
mod config;
#[path = "../../../signer/hsm/src/error.rs"]
#[allow(dead_code, reason = "the pool's and the worker's")]
mod error;
mod mark {
    pub(crate) use countersign_hsm::{Mark, Marked};
}
#[path = "../../../signer/hsm/src/protocol.rs"]
#[allow(dead_code, reason = "the pool's and the worker's")]
mod protocol;

use std::fmt::Debug;

use countersign_trail::keys::{Algorithm, Kid};
use libfuzzer_sys::fuzz_target;
use serde::Serialize;
use serde::de::DeserializeOwned;

use config::{GeneratedKey, KeySpec, ListedObject, RecoveryProof};
use error::{HsmError, Reason};
use protocol::{Answer, Blob, Call, MAX_FRAME_BYTES, Reply, Request, WireItem, body_len, decode, encode, read};

fn seeds() {
    let (kid, proof) = (Kid::from_bytes([7; 32]), RecoveryProof { digest: [1; 32], mac: [2; 32] });
    let spec =
        KeySpec { instance: "a".to_owned(), name: "b".to_owned(), algorithm: Algorithm::Ed25519, time: String::new() };
    let item = WireItem { kid, message: Blob(vec![7; 40].into()), recovery: Some(proof) };
    let calls = [
        Call::Sign(vec![item.clone(), WireItem { recovery: None, ..item }]),
        Call::CheckMac(proof),
        Call::Generate(Box::new(spec)),
        Call::Finalize { cka_id: vec![1; 16], instance: "a".to_owned(), name: "b".to_owned() },
        Call::Unbind(vec![kid]),
        Call::List,
    ];
    let error = HsmError::new(Reason::HsmTimeout, "late");
    let key = GeneratedKey {
        kid,
        public_key: vec![1; 44],
        cka_id: vec![2; 16],
        attributes: [("CKA_SIGN".to_owned(), true)].into(),
        probe_payload: b"{}".to_vec(),
        probe_signature: vec![3; 64],
    };
    let answers = [
        Answer::Signed { first: 0, results: vec![Ok(Blob(vec![7; 64].into())), Err(error.clone())] },
        Answer::Signed { first: 1, results: Vec::new() },
        Answer::Generated(Box::new(key)),
        Answer::Listed(vec![ListedObject { label: "l".to_owned(), cka_id: vec![4], private: true }]),
        Answer::Bound { refused: vec![(kid, error.clone())] },
        Answer::Exiting { error, latched: true },
    ];
    let requests: Vec<Request> = (0..).zip(calls).map(|(id, call)| Request { id, call }).collect();
    let replies: Vec<Reply> = (0..).zip(answers).map(|(id, answer)| Reply { id, answer }).collect();
    countersign_fuzz::seed([encode(&requests).unwrap(), encode(&replies).unwrap()]);
    countersign_fuzz::seed(requests.chunks(1).map(|one| encode(one).unwrap()));
    countersign_fuzz::seed(replies.chunks(1).map(|one| encode(one).unwrap()));
}

fuzz_target!(init: seeds(), |bytes: &[u8]| {
    check::<Request>(bytes);
    check::<Reply>(bytes);
});

fn check<T: Serialize + DeserializeOwned + Debug>(bytes: &[u8]) {
    let mut rest = bytes;
    let read = read::<T>(&mut rest);
    let Some((prefix, body)) = bytes.split_first_chunk::<4>() else {
        assert!(bytes.is_empty() || read.is_err());
        return;
    };
    // Without a body of the announced length nothing is decoded.
    let announced = body_len(*prefix).ok().and_then(|len| body.get(..len));
    let decoded = announced.map(decode::<T>);
    assert_eq!(read.is_ok(), decoded.as_ref().is_some_and(Result::is_ok));
    let Some(Ok(messages)) = decoded else { return };
    assert_eq!(format!("{messages:?}"), format!("{:?}", read.unwrap().unwrap()));
    assert_eq!(rest, &body[announced.map_or(0, <[u8]>::len)..], "the next frame is left");
    let longer = [announced.unwrap_or_default(), &[0]].concat();
    assert!(decode::<T>(&longer).is_err(), "nothing may follow the messages");
    // Numbers may be written in more bytes than they need; what is sent has one spelling.
    let sent = encode(&messages).unwrap();
    assert!(sent.len() <= 4 + MAX_FRAME_BYTES);
    let again: Vec<T> = decode(&sent[4..]).unwrap();
    assert_eq!(encode(&again).unwrap(), sent);
    assert_eq!(format!("{again:?}"), format!("{messages:?}"));
}
