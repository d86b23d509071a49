//! The two encodings of an ECDSA signature, beside the p256 crate's.
#![no_main]

use countersign_fuzz::{genuine, seed};
use countersign_trail::ecdsa::{EcdsaError, der_to_raw, raw_to_der_low_s};
use libfuzzer_sys::fuzz_target;
use p256::ecdsa::Signature;

fn seeds() {
    let numbers: [[u8; 64]; 5] = [
        [1; 64],
        [0x7f; 64],
        std::array::from_fn(|at| if at % 32 == 31 { 1 } else { 0 }),
        std::array::from_fn(|at| if at % 32 < 16 { 0 } else { 0x90 }),
        std::array::from_fn(|at| if at < 32 { 0xff * u8::from(at > 3) } else { 0xfe * u8::from(at > 40) }),
    ];
    let der = numbers.iter().map(|raw| raw_to_der_low_s(raw).unwrap());
    genuine(der, |der| der_to_raw(der).is_ok());
    seed(numbers);
    // High S.
    seed([Signature::from_slice(&[0x99; 64]).unwrap().to_der().as_bytes()]);
}

fuzz_target!(init: seeds(), |bytes: &[u8]| {
    match (der_to_raw(bytes), Signature::from_der(bytes)) {
        (Ok(raw), theirs) => {
            let theirs = theirs.expect("the p256 crate takes what we take");
            assert_eq!(theirs.to_bytes()[..], raw);
            assert_eq!(theirs, theirs.normalize_s(), "S is low");
            assert_eq!(raw_to_der_low_s(&raw).as_deref(), Ok(bytes));
        }
        (Err(EcdsaError::HighS), theirs) => {
            let theirs = theirs.expect("nothing but S is wrong");
            assert_ne!(theirs, theirs.normalize_s(), "S is high");
        }
        (Err(error), theirs) => assert!(theirs.is_err(), "{error}, and the p256 crate takes it"),
    }
    match (raw_to_der_low_s(bytes), Signature::from_slice(bytes)) {
        (Ok(der), Ok(theirs)) => {
            let low = theirs.normalize_s();
            assert_eq!(der, low.to_der().as_bytes());
            assert_eq!(der_to_raw(&der).unwrap(), low.to_bytes()[..]);
        }
        (ours, theirs) => assert_eq!(ours.is_ok(), theirs.is_ok()),
    }
});
