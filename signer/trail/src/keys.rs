//! Public keys of HSM keys, their names and their encodings.
//!
//! Two algorithms exist: Ed25519 and ECDSA over P-256 with SHA-256. A key is read from SPKI DER
//! (RFC 5280, 4.1.2.7) or from its raw point, and accepted only in the one canonical encoding; SPKI,
//! PEM and JWK are always generated from it, never kept beside it.
//!
//! A [`PublicKey`] holds its decompressed point, so that checking many signatures of one key pays
//! for the point once.

use std::fmt;
use std::str::FromStr;

use ed25519_dalek::VerifyingKey as Ed25519Key;
use p256::ecdsa::VerifyingKey as P256Key;
use p256::ecdsa::signature::Verifier as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest as _, Sha256};

use crate::base64;
use crate::ecdsa::{self, EcdsaError};

/// `SubjectPublicKeyInfo` of Ed25519 up to the 32 bytes of the key (RFC 8410, section 4).
const SPKI_ED25519: &[u8] = &[
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

/// `SubjectPublicKeyInfo` of a P-256 key (named curve, RFC 5480, 2.1.1) up to its 65-byte point.
const SPKI_P256: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// Length in bytes of a raw Ed25519 public key.
pub const ED25519_RAW_LEN: usize = 32;

/// Length in bytes of a raw P-256 public key: `04 || x || y` (SEC 1, 2.3.3).
pub const P256_RAW_LEN: usize = 65;

/// Length in bytes of an Ed25519 signature.
pub const ED25519_SIGNATURE_LEN: usize = 64;

/// Characters of base64 in a full line of PEM (RFC 7468, section 2).
const PEM_COLUMNS: usize = 64;

/// Why bytes are not a public key of ours, or a signature does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The DER is not the canonical SPKI of an Ed25519 or P-256 key.
    #[error(
        "{0} bytes of SPKI are not the canonical DER of an Ed25519 (44 bytes) or P-256 (91 bytes, \
         named curve, uncompressed point) public key"
    )]
    Spki(usize),
    /// A raw key has the wrong length.
    #[error("a raw {algorithm} public key is {} bytes, this one has {len}", .algorithm.raw_len())]
    RawLength {
        /// The algorithm that was asked for.
        algorithm: Algorithm,
        /// Length in bytes of what was given.
        len: usize,
    },
    /// The bytes do not encode a point of the curve, or not canonically.
    #[error(
        "the bytes of the {0} public key are not the canonical encoding of a point on its curve"
    )]
    Point(Algorithm),
    /// An Ed25519 point outside the prime-order subgroup: a small-order key accepts forgeries, a
    /// mixed-order one is judged differently by different verifiers.
    #[error(
        "the Ed25519 public key is not of prime order; it cannot come from a correct key generation"
    )]
    Order,
    /// Text or bytes are not a key identifier.
    #[error("a kid is 43 characters of base64url without padding (32 bytes, RFC 7638)")]
    Kid,
    /// An algorithm name is unknown.
    #[error("an algorithm is named ed25519 or ecdsa-p256")]
    AlgorithmName,
    /// An Ed25519 signature has another length than 64 bytes.
    #[error("an Ed25519 signature is 64 bytes, this one has {0}")]
    SignatureLength(usize),
    /// An ECDSA signature is not in the one accepted encoding.
    #[error(transparent)]
    SignatureEncoding(#[from] EcdsaError),
    /// A well-formed signature is not this key's over this message.
    #[error("the {0} signature does not verify: other key, other message, or forged")]
    Signature(Algorithm),
}

/// The signature algorithm of an HSM key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Algorithm {
    /// Ed25519 (RFC 8032, pure).
    #[serde(rename = "ed25519")]
    Ed25519,
    /// ECDSA over P-256 with SHA-256 (FIPS 186-5).
    #[serde(rename = "ecdsa-p256")]
    EcdsaP256,
}

impl Algorithm {
    /// The name in configuration, documents and reports.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Ed25519 => "ed25519",
            Algorithm::EcdsaP256 => "ecdsa-p256",
        }
    }

    /// Length in bytes of a raw public key.
    pub fn raw_len(self) -> usize {
        match self {
            Algorithm::Ed25519 => ED25519_RAW_LEN,
            Algorithm::EcdsaP256 => P256_RAW_LEN,
        }
    }

    fn spki_prefix(self) -> &'static [u8] {
        match self {
            Algorithm::Ed25519 => SPKI_ED25519,
            Algorithm::EcdsaP256 => SPKI_P256,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Algorithm {
    type Err = KeyError;

    fn from_str(name: &str) -> Result<Algorithm, KeyError> {
        match name {
            "ed25519" => Ok(Algorithm::Ed25519),
            "ecdsa-p256" => Ok(Algorithm::EcdsaP256),
            _ => Err(KeyError::AlgorithmName),
        }
    }
}

/// A key identifier: the RFC 7638 thumbprint (SHA-256) of the public key, written as 43 characters
/// of base64url.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kid([u8; 32]);

impl Kid {
    /// The kid with these 32 raw bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Kid {
        Kid(bytes)
    }

    /// The 32 raw bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Kid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&base64::url_encode(&self.0))
    }
}

impl fmt::Debug for Kid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kid({self})")
    }
}

impl FromStr for Kid {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Kid, KeyError> {
        // 43 characters: the decoder is never given more.
        if text.len() != 43 {
            return Err(KeyError::Kid);
        }
        let bytes = base64::url_decode(text).map_err(|_| KeyError::Kid)?;
        Ok(Kid(bytes.try_into().map_err(|_| KeyError::Kid)?))
    }
}

impl Serialize for Kid {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Kid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Kid, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// The public half of an HSM key, its point checked.
#[derive(Clone)]
pub struct PublicKey {
    point: Point,
    kid: Kid,
}

#[derive(Clone)]
enum Point {
    Ed25519(Ed25519Key),
    /// The key, and its uncompressed point.
    EcdsaP256(P256Key, [u8; P256_RAW_LEN]),
}

impl PublicKey {
    /// Reads the canonical SPKI DER of a key: 44 bytes (Ed25519) or 91 (P-256).
    ///
    /// # Errors
    /// Any other encoding, and points that are not a valid key.
    pub fn from_spki_der(der: &[u8]) -> Result<PublicKey, KeyError> {
        for algorithm in [Algorithm::Ed25519, Algorithm::EcdsaP256] {
            if let Some(raw) = der.strip_prefix(algorithm.spki_prefix())
                && raw.len() == algorithm.raw_len()
            {
                return PublicKey::from_raw(algorithm, raw);
            }
        }
        Err(KeyError::Spki(der.len()))
    }

    /// Reads a raw key: the 32 bytes of an Ed25519 key, or the 65 bytes `04 || x || y` of a P-256
    /// point.
    ///
    /// # Errors
    /// Another length, a point off the curve or not canonically encoded, an Ed25519 point outside
    /// the prime-order subgroup (public-key validation of SP 800-186, D.1.3).
    pub fn from_raw(algorithm: Algorithm, raw: &[u8]) -> Result<PublicKey, KeyError> {
        let wrong_length = KeyError::RawLength {
            algorithm,
            len: raw.len(),
        };
        let point = match algorithm {
            Algorithm::Ed25519 => ed25519(raw.try_into().map_err(|_| wrong_length)?)?,
            Algorithm::EcdsaP256 => p256(raw.try_into().map_err(|_| wrong_length)?)?,
        };
        let kid = Kid(Sha256::digest(thumbprint_input(&point)).into());
        Ok(PublicKey { point, kid })
    }

    /// The algorithm.
    pub fn algorithm(&self) -> Algorithm {
        match &self.point {
            Point::Ed25519(_) => Algorithm::Ed25519,
            Point::EcdsaP256(..) => Algorithm::EcdsaP256,
        }
    }

    /// The raw key: 32 bytes (Ed25519), or 65 bytes `04 || x || y` (P-256).
    pub fn raw(&self) -> &[u8] {
        match &self.point {
            Point::Ed25519(key) => key.as_bytes(),
            Point::EcdsaP256(_, raw) => raw,
        }
    }

    /// The key identifier.
    pub fn kid(&self) -> Kid {
        self.kid
    }

    /// The canonical SPKI DER: 44 bytes (Ed25519) or 91 (P-256).
    pub fn spki_der(&self) -> Vec<u8> {
        [self.algorithm().spki_prefix(), self.raw()].concat()
    }

    /// The SPKI as PEM (RFC 7468, strict form): lines of 64 characters, LF, one at the end too.
    pub fn pem(&self) -> String {
        let text = base64::std_encode(&self.spki_der());
        let mut pem = String::from("-----BEGIN PUBLIC KEY-----\n");
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let (line, after) = rest.split_at(rest.len().min(PEM_COLUMNS));
            pem.push_str(line);
            pem.push('\n');
            rest = after;
        }
        pem.push_str("-----END PUBLIC KEY-----\n");
        pem
    }

    /// The key as a JWK (RFC 7517; RFC 8037 for Ed25519, RFC 7518 for P-256) with members `kty`,
    /// `crv`, `x`, `y` (P-256 alone), `kid`, `use` ("sig") and `alg`.
    pub fn jwk(&self) -> serde_json::Value {
        let kid = self.kid.to_string();
        match &self.point {
            Point::Ed25519(key) => serde_json::json!({
                "kty": "OKP", "crv": "Ed25519", "x": base64::url_encode(key.as_bytes()),
                "kid": kid, "use": "sig", "alg": "EdDSA",
            }),
            Point::EcdsaP256(_, raw) => serde_json::json!({
                "kty": "EC", "crv": "P-256", "x": base64::url_encode(&raw[1..33]),
                "y": base64::url_encode(&raw[33..]), "kid": kid, "use": "sig", "alg": "ES256",
            }),
        }
    }

    /// Checks a signature in wire form over a whole message.
    ///
    /// Ed25519: 64 bytes, strict (RFC 8032 with canonical S, no small-order R, no cofactor).
    /// ECDSA: SHA-256, minimal DER with low S (see [`crate::ecdsa`]).
    ///
    /// # Errors
    /// A signature in any other encoding, and one that does not hold.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), KeyError> {
        let refused = KeyError::Signature(self.algorithm());
        match &self.point {
            Point::Ed25519(key) => {
                let bytes: &[u8; ED25519_SIGNATURE_LEN] = signature
                    .try_into()
                    .map_err(|_| KeyError::SignatureLength(signature.len()))?;
                let signature = ed25519_dalek::Signature::from_bytes(bytes);
                key.verify_strict(message, &signature).map_err(|_| refused)
            }
            Point::EcdsaP256(key, _) => {
                let raw = ecdsa::der_to_raw(signature)?;
                let signature = p256::ecdsa::Signature::from_slice(&raw).map_err(|_| refused)?;
                key.verify(message, &signature).map_err(|_| refused)
            }
        }
    }
}

fn ed25519(raw: &[u8; ED25519_RAW_LEN]) -> Result<Point, KeyError> {
    let key = Ed25519Key::from_bytes(raw).map_err(|_| KeyError::Point(Algorithm::Ed25519))?;
    let point = key.to_edwards();
    // Decompression accepts y >= p; only the reduced encoding is canonical (RFC 8032, 5.1.3).
    if point.compress().as_bytes() != raw {
        return Err(KeyError::Point(Algorithm::Ed25519));
    }
    if point.is_small_order() || !point.is_torsion_free() {
        return Err(KeyError::Order);
    }
    Ok(Point::Ed25519(key))
}

fn p256(raw: &[u8; P256_RAW_LEN]) -> Result<Point, KeyError> {
    // Other first bytes are compressed, hybrid or identity points.
    if raw[0] != 0x04 {
        return Err(KeyError::Point(Algorithm::EcdsaP256));
    }
    let key = P256Key::from_sec1_bytes(raw).map_err(|_| KeyError::Point(Algorithm::EcdsaP256))?;
    Ok(Point::EcdsaP256(key, *raw))
}

/// The JSON that RFC 7638 hashes: the required members alone, in lexicographic order, no white
/// space. Base64url needs no escaping.
fn thumbprint_input(point: &Point) -> String {
    match point {
        Point::Ed25519(key) => {
            let x = base64::url_encode(key.as_bytes());
            format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#)
        }
        Point::EcdsaP256(_, raw) => {
            let (x, y) = (
                base64::url_encode(&raw[1..33]),
                base64::url_encode(&raw[33..]),
            );
            format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#)
        }
    }
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &PublicKey) -> bool {
        self.algorithm() == other.algorithm() && self.raw() == other.raw()
    }
}

impl Eq for PublicKey {}

impl std::hash::Hash for PublicKey {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.kid.hash(state);
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({}, {})", self.algorithm(), self.kid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::pkcs8::EncodePublicKey as _;
    use ed25519_dalek::{Signer as _, SigningKey as Ed25519SigningKey};
    use p256::ecdsa::SigningKey as P256SigningKey;
    use proptest::prelude::*;

    fn ed25519_pair(seed: u8) -> (Ed25519SigningKey, PublicKey) {
        let private = Ed25519SigningKey::from_bytes(&[seed; 32]);
        let public =
            PublicKey::from_raw(Algorithm::Ed25519, private.verifying_key().as_bytes()).unwrap();
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
        assert_eq!(
            key.kid().to_string(),
            "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
        );
        // RFC 9449, 4.2 (the key) and 6.1 (its thumbprint).
        let mut raw = vec![4];
        raw.extend(base64::url_decode("l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs").unwrap());
        raw.extend(base64::url_decode("9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA").unwrap());
        let key = PublicKey::from_raw(Algorithm::EcdsaP256, &raw).unwrap();
        assert_eq!(
            key.kid().to_string(),
            "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"
        );
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
        assert_eq!(
            key.verify(&[0x73], &signature),
            Err(KeyError::Signature(Algorithm::Ed25519))
        );
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
            assert_eq!(
                PublicKey::from_spki_der(&longer),
                Err(KeyError::Spki(longer.len()))
            );
            for len in 0..der.len() {
                assert_eq!(
                    PublicKey::from_spki_der(&der[..len]),
                    Err(KeyError::Spki(len))
                );
            }
            for at in 0..key.algorithm().spki_prefix().len() {
                let mut other = der.clone();
                other[at] ^= 1;
                assert_eq!(
                    PublicKey::from_spki_der(&other),
                    Err(KeyError::Spki(der.len()))
                );
            }
        }
    }

    #[test]
    fn bad_ed25519_points_are_refused() {
        let parse = |hex: &str| {
            PublicKey::from_raw(Algorithm::Ed25519, &hex::decode(hex).unwrap()).unwrap_err()
        };
        // The identity, the point of order 2, one of order 4, one of order 8.
        let zeros = "00".repeat(30);
        assert_eq!(parse(&format!("0100{zeros}")), KeyError::Order);
        assert_eq!(parse(&format!("ec{}7f", "ff".repeat(30))), KeyError::Order);
        assert_eq!(parse(&format!("0000{zeros}")), KeyError::Order);
        assert_eq!(
            parse("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa"),
            KeyError::Order
        );
        // y = p + 1, the identity once more, not canonical.
        assert_eq!(
            parse(&format!("ee{}7f", "ff".repeat(30))),
            KeyError::Point(Algorithm::Ed25519)
        );
        // y = 2 is no point of the curve.
        assert_eq!(
            parse(&format!("0200{zeros}")),
            KeyError::Point(Algorithm::Ed25519)
        );
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
        assert_eq!(
            PublicKey::from_raw(Algorithm::Ed25519, &mixed),
            Err(KeyError::Order)
        );
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
                Err(KeyError::RawLength {
                    algorithm: Algorithm::EcdsaP256,
                    len
                })
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
                assert!(
                    key.verify(message, &signature[..len]).is_err(),
                    "length {len}"
                );
            }
            assert!(
                key.verify(message, &[&signature[..], &[0]].concat())
                    .is_err()
            );
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
        assert_eq!(
            public.verify(b"m", high.to_der().as_bytes()),
            Err(KeyError::SignatureEncoding(EcdsaError::HighS))
        );
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
        assert_eq!(
            base64::std_decode(&body.concat()).unwrap(),
            public.spki_der()
        );
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
        for text in [
            "",
            "A",
            &"A".repeat(42),
            &"A".repeat(44),
            &"B".repeat(43),
            &"=".repeat(43),
        ] {
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
}
