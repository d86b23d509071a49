//! The two encodings of an ECDSA signature and its verification, beside the p256 crate's.
#![no_main]

use std::sync::OnceLock;

use countersign_fuzz::{genuine, seed};
use countersign_trail::ecdsa::{EcdsaError, der_to_raw, raw_to_der_low_s};
use countersign_trail::keys::{Algorithm, PublicKey};
use libfuzzer_sys::fuzz_target;
use p256::ecdsa::signature::{Signer as _, Verifier as _};
use p256::ecdsa::{Signature, SigningKey};

/// The longest input that is signed as a message; longer ones are signatures.
const SIGNED: usize = 7;

/// One key for the whole run: it verifies another way after its first signatures.
fn key() -> &'static (SigningKey, PublicKey) {
    static KEY: OnceLock<(SigningKey, PublicKey)> = OnceLock::new();
    KEY.get_or_init(|| {
        let private = SigningKey::from_slice(&[7; 32]).unwrap();
        let point = private.verifying_key().to_sec1_point(false);
        let public = PublicKey::from_raw(Algorithm::EcdsaP256, point.as_bytes()).unwrap();
        (private, public)
    })
}

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
    let signature: Signature = key().0.sign(b"message");
    genuine([raw_to_der_low_s(&signature.to_bytes()).unwrap()], |der| key().1.verify(b"message", der).is_ok());
    // High S.
    seed([Signature::from_slice(&[0x99; 64]).unwrap().to_der().as_bytes()]);
}

fuzz_target!(init: seeds(), |bytes: &[u8]| {
    let (private, public) = key();
    if bytes.len() <= SIGNED {
        let signature: Signature = private.sign(bytes);
        let der = raw_to_der_low_s(&signature.to_bytes()).unwrap();
        assert!(public.verify(bytes, &der).is_ok());
        assert!(public.verify(b"another message", &der).is_err());
    }
    match (der_to_raw(bytes), Signature::from_der(bytes)) {
        (Ok(raw), theirs) => {
            let theirs = theirs.expect("the p256 crate takes what we take");
            assert_eq!(theirs.to_bytes()[..], raw);
            assert_eq!(theirs, theirs.normalize_s(), "S is low");
            assert_eq!(raw_to_der_low_s(&raw).as_deref(), Ok(bytes));
            assert_eq!(public.verify(b"message", bytes).is_ok(), private.verifying_key().verify(b"message", &theirs).is_ok());
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
