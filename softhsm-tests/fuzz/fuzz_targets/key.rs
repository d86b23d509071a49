//! Public keys: SPKI, raw points, PEM, JWK, kids; beside the p256 and ed25519-dalek crates.
#![no_main]

use countersign_fuzz::{genuine, seed, unhex, vectors};
use countersign_trail::base64;
use countersign_trail::hash::Hash;
use countersign_trail::jcs;
use countersign_trail::keys::{Algorithm, Kid, PublicKey};
use ed25519_dalek::pkcs8::DecodePublicKey as _;
use libfuzzer_sys::fuzz_target;
use serde_json::json;

fn seeds() {
    let vectors = vectors("dsse");
    let spki: Vec<Vec<u8>> = vectors["keys"].as_array().unwrap().iter().map(|key| unhex(&key["spki"])).collect();
    let keys: Vec<PublicKey> = spki.iter().map(|der| PublicKey::from_spki_der(der).unwrap()).collect();
    genuine(&spki, |der| PublicKey::from_spki_der(der).is_ok());
    seed(keys.iter().map(PublicKey::raw));
    seed(keys.iter().map(|key| key.kid().to_string()));
    // Compressed points, of which every second x is one.
    seed((1..9).map(|byte| [&[2 + byte % 2][..], &[byte; 32]].concat()));
    seed(["ed25519", "ecdsa-p256"]);
    // Ed25519 points of order 4 and 1, which nobody may have as a key.
    seed([[0; 32], std::array::from_fn(|at| u8::from(at == 0))]);
}

fuzz_target!(init: seeds(), |bytes: &[u8]| {
    if let Ok(key) = PublicKey::from_spki_der(bytes) {
        assert_eq!(key.spki_der(), bytes);
        check(&key);
    }
    for algorithm in [Algorithm::Ed25519, Algorithm::EcdsaP256] {
        if let Ok(key) = PublicKey::from_raw(algorithm, bytes) {
            assert_eq!((key.algorithm(), key.raw()), (algorithm, bytes));
            check(&key);
        }
    }
    // Any encoding of a point that the crate takes: the uncompressed one is the one that we take.
    if let Ok(theirs) = p256::ecdsa::VerifyingKey::from_sec1_bytes(bytes) {
        let point = theirs.to_sec1_point(false);
        check(&PublicKey::from_raw(Algorithm::EcdsaP256, point.as_bytes()).unwrap());
        assert_eq!(PublicKey::from_raw(Algorithm::EcdsaP256, bytes).is_ok(), point.as_bytes() == bytes);
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(kid) = text.parse::<Kid>() {
        assert_eq!(kid.to_string(), text);
    }
    if let Ok(algorithm) = text.parse::<Algorithm>() {
        assert_eq!(algorithm.name(), text);
    }
});

/// A key's other forms are those that others read.
fn check(key: &PublicKey) {
    let (spki, pem, jwk) = (key.spki_der(), key.pem(), key.jwk());
    assert_eq!(PublicKey::from_spki_der(&spki).as_ref(), Ok(key));
    let x = base64::url_decode(jwk["x"].as_str().unwrap()).unwrap();
    let thumbprint = match key.algorithm() {
        Algorithm::Ed25519 => {
            let theirs = ed25519_dalek::VerifyingKey::from_public_key_der(&spki).unwrap();
            assert_eq!((theirs.as_bytes()[..].to_vec(), theirs.is_weak()), (x, false));
            assert_eq!(ed25519_dalek::VerifyingKey::from_public_key_pem(&pem).unwrap(), theirs);
            json!({"crv": "Ed25519", "kty": "OKP", "x": jwk["x"]})
        }
        Algorithm::EcdsaP256 => {
            let theirs = p256::ecdsa::VerifyingKey::from_public_key_der(&spki).unwrap();
            let y = base64::url_decode(jwk["y"].as_str().unwrap()).unwrap();
            assert_eq!(theirs.to_sec1_point(false).as_bytes(), [&[4][..], &x, &y].concat());
            assert_eq!(p256::ecdsa::VerifyingKey::from_public_key_pem(&pem).unwrap(), theirs);
            json!({"crv": "P-256", "kty": "EC", "x": jwk["x"], "y": jwk["y"]})
        }
    };
    // RFC 7638.
    assert_eq!(Hash::of(&jcs::to_canonical(&thumbprint).unwrap()).as_bytes(), key.kid().as_bytes());
}
