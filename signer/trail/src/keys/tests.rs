use super::*;
use ed25519_dalek::pkcs8::EncodePublicKey as _;
use ed25519_dalek::{Signer as _, SigningKey as Ed25519SigningKey};
use p256::ecdsa::SigningKey as P256SigningKey;
use proptest::prelude::*;

fn ed25519_pair(seed: u8) -> (Ed25519SigningKey, PublicKey) {
    let private = Ed25519SigningKey::from_bytes(&[seed; 32]);
    let public = PublicKey::from_raw(Algorithm::Ed25519, private.verifying_key().as_bytes()).unwrap();
    (private, public)
}

fn p256_pair(seed: u8) -> (P256SigningKey, PublicKey) {
    let private = P256SigningKey::from_slice(&[seed; 32]).unwrap();
    let point = private.verifying_key().to_sec1_point(false);
    let public = PublicKey::from_raw(Algorithm::EcdsaP256, point.as_bytes()).unwrap();
    (private, public)
}

fn p256_sign(private: &P256SigningKey, message: &[u8]) -> Vec<u8> {
    let signature: p256::ecdsa::Signature = private.sign(message);
    ecdsa::raw_to_der_low_s(&signature.to_bytes()).unwrap()
}

#[test]
fn thumbprints_of_the_rfcs() {
    // RFC 8037, appendix A.2 and A.3.
    let x = base64::url_decode("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo").unwrap();
    let key = PublicKey::from_raw(Algorithm::Ed25519, &x).unwrap();
    assert_eq!(key.kid().to_string(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    // RFC 9449, 4.2 (the key) and 6.1 (its thumbprint).
    let mut raw = vec![4];
    raw.extend(base64::url_decode("l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs").unwrap());
    raw.extend(base64::url_decode("9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA").unwrap());
    let key = PublicKey::from_raw(Algorithm::EcdsaP256, &raw).unwrap();
    assert_eq!(key.kid().to_string(), "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I");
}

#[test]
fn ed25519_vector_of_rfc_8032() {
    // Section 7.1, TEST 2.
    let raw = hex::decode("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c");
    let signature = hex::decode(
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
         085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    )
    .unwrap();
    let key = PublicKey::from_raw(Algorithm::Ed25519, &raw.unwrap()).unwrap();
    assert_eq!(key.verify(&[0x72], &signature), Ok(()));
    assert_eq!(key.verify(&[0x73], &signature), Err(KeyError::Signature(Algorithm::Ed25519)));
}

#[test]
fn spki_agrees_with_other_implementations() {
    let (private, public) = ed25519_pair(7);
    let theirs = private.verifying_key().to_public_key_der().unwrap();
    assert_eq!(public.spki_der(), theirs.as_bytes());
    assert_eq!(PublicKey::from_spki_der(theirs.as_bytes()).unwrap(), public);
    let (private, public) = p256_pair(7);
    let theirs = private.verifying_key().to_public_key_der().unwrap();
    assert_eq!(public.spki_der(), theirs.as_bytes());
    assert_eq!(PublicKey::from_spki_der(theirs.as_bytes()).unwrap(), public);
    assert_ne!(public.kid(), p256_pair(8).1.kid());
}

#[test]
fn other_spki_is_refused() {
    for key in [ed25519_pair(1).1, p256_pair(1).1] {
        let der = key.spki_der();
        let mut longer = der.clone();
        longer.push(0);
        assert_eq!(PublicKey::from_spki_der(&longer), Err(KeyError::Spki(longer.len())));
        for len in 0..der.len() {
            assert_eq!(PublicKey::from_spki_der(&der[..len]), Err(KeyError::Spki(len)));
        }
        for at in 0..key.algorithm().spki_prefix().len() {
            let mut other = der.clone();
            other[at] ^= 1;
            assert_eq!(PublicKey::from_spki_der(&other), Err(KeyError::Spki(der.len())));
        }
    }
}

#[test]
fn bad_ed25519_points_are_refused() {
    let parse = |hex: &str| PublicKey::from_raw(Algorithm::Ed25519, &hex::decode(hex).unwrap()).unwrap_err();
    // The identity, the point of order 2, one of order 4, one of order 8.
    let zeros = "00".repeat(30);
    assert_eq!(parse(&format!("0100{zeros}")), KeyError::Order);
    assert_eq!(parse(&format!("ec{}7f", "ff".repeat(30))), KeyError::Order);
    assert_eq!(parse(&format!("0000{zeros}")), KeyError::Order);
    assert_eq!(parse("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa"), KeyError::Order);
    // y = p + 1, the identity once more, not canonical.
    assert_eq!(parse(&format!("ee{}7f", "ff".repeat(30))), KeyError::Point(Algorithm::Ed25519));
    // y = 2 is no point of the curve.
    assert_eq!(parse(&format!("0200{zeros}")), KeyError::Point(Algorithm::Ed25519));
    // A key of prime order plus the point of order 2: y and x negated.
    let mut mixed = ed25519_pair(3).0.verifying_key().to_bytes();
    let mut borrow = 0_i32;
    let p = |i: usize| match i {
        0 => 0xed_i32,
        31 => 0x7f,
        _ => 0xff,
    };
    let sign = mixed[31] & 0x80;
    mixed[31] &= 0x7f;
    for (i, byte) in mixed.iter_mut().enumerate() {
        let difference = p(i) - i32::from(*byte) - borrow;
        borrow = i32::from(difference < 0);
        *byte = difference.rem_euclid(256) as u8;
    }
    mixed[31] |= sign ^ 0x80;
    assert_eq!(PublicKey::from_raw(Algorithm::Ed25519, &mixed), Err(KeyError::Order));
}

#[test]
fn bad_p256_points_are_refused() {
    let (_, public) = p256_pair(1);
    let raw = public.raw().to_vec();
    let refused = Err(KeyError::Point(Algorithm::EcdsaP256));
    for (at, value) in [(0, 2), (0, 3), (0, 5), (0, 6), (0, 0), (64, raw[64] ^ 1)] {
        let mut other = raw.clone();
        other[at] = value;
        assert_eq!(PublicKey::from_raw(Algorithm::EcdsaP256, &other), refused);
    }
    for len in [0, 1, 33, 64, 66] {
        assert_eq!(
            PublicKey::from_raw(Algorithm::EcdsaP256, &vec![4; len]),
            Err(KeyError::RawLength { algorithm: Algorithm::EcdsaP256, len })
        );
    }
}

#[test]
fn verify_refuses_every_changed_bit() {
    let message = b"message";
    let (private, public) = ed25519_pair(9);
    let signature = private.sign(message).to_bytes().to_vec();
    let (p256_private, p256_public) = p256_pair(9);
    let p256_signature = p256_sign(&p256_private, message);
    for (key, signature) in [(public, signature), (p256_public, p256_signature)] {
        assert_eq!(key.verify(message, &signature), Ok(()));
        assert!(key.verify(b"massage", &signature).is_err());
        for bit in 0..signature.len() * 8 {
            let mut other = signature.clone();
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(key.verify(message, &other).is_err(), "bit {bit}");
        }
        for len in 0..signature.len() {
            assert!(key.verify(message, &signature[..len]).is_err(), "length {len}");
        }
        assert!(key.verify(message, &[&signature[..], &[0]].concat()).is_err());
    }
}

#[test]
fn the_high_s_twin_is_refused() {
    let (private, public) = p256_pair(5);
    let signature: p256::ecdsa::Signature = private.sign(b"m");
    let low = signature.normalize_s();
    let (r, s) = low.split_scalars();
    let high = p256::ecdsa::Signature::from_scalars(r, -s).unwrap();
    assert_eq!(public.verify(b"m", low.to_der().as_bytes()), Ok(()));
    assert_eq!(public.verify(b"m", high.to_der().as_bytes()), Err(KeyError::SignatureEncoding(EcdsaError::HighS)));
}

#[test]
fn pem_and_jwk() {
    let (_, public) = p256_pair(2);
    let pem = public.pem();
    let lines: Vec<&str> = pem.split('\n').collect();
    assert_eq!(lines.first(), Some(&"-----BEGIN PUBLIC KEY-----"));
    assert_eq!(&lines[lines.len() - 2..], ["-----END PUBLIC KEY-----", ""]);
    let body = &lines[1..lines.len() - 2];
    assert!(body[..body.len() - 1].iter().all(|line| line.len() == 64));
    assert_eq!(base64::std_decode(&body.concat()).unwrap(), public.spki_der());
    let jwk = public.jwk();
    assert_eq!(jwk["kty"], "EC");
    assert_eq!(jwk["alg"], "ES256");
    assert_eq!(jwk["kid"], public.kid().to_string());
    assert_eq!(jwk.as_object().unwrap().len(), 7);
    let jwk = ed25519_pair(2).1.jwk();
    assert_eq!(jwk["alg"], "EdDSA");
    assert_eq!(jwk.as_object().unwrap().len(), 6);
}

#[test]
fn kid_text() {
    let kid = p256_pair(2).1.kid();
    assert_eq!(kid.to_string().parse::<Kid>().unwrap(), kid);
    assert_eq!(Kid::from_bytes(*kid.as_bytes()), kid);
    let json = serde_json::to_string(&kid).unwrap();
    assert_eq!(serde_json::from_str::<Kid>(&json).unwrap(), kid);
    for text in ["", "A", &"A".repeat(42), &"A".repeat(44), &"B".repeat(43), &"=".repeat(43)] {
        assert_eq!(text.parse::<Kid>(), Err(KeyError::Kid), "{text}");
    }
}

#[test]
fn algorithm_names() {
    for algorithm in [Algorithm::Ed25519, Algorithm::EcdsaP256] {
        assert_eq!(algorithm.to_string().parse(), Ok(algorithm));
        let json = serde_json::to_string(&algorithm).unwrap();
        assert_eq!(json, format!("\"{algorithm}\""));
    }
    assert_eq!("rsa".parse::<Algorithm>(), Err(KeyError::AlgorithmName));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn signatures_of_another_implementation_hold(
        seed in 1_u8..=200, message in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let (private, public) = p256_pair(seed);
        prop_assert_eq!(public.verify(&message, &p256_sign(&private, &message)), Ok(()));
        let (private, public) = ed25519_pair(seed);
        prop_assert_eq!(public.verify(&message, &private.sign(&message).to_bytes()), Ok(()));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        let _ = PublicKey::from_spki_der(&bytes);
        let _ = PublicKey::from_raw(Algorithm::EcdsaP256, &bytes);
        let _ = ed25519_pair(1).1.verify(&bytes, &bytes);
    }
}
