//! Public keys of HSM keys, their names and their encodings.
//!
//! Two algorithms exist: Ed25519 and ECDSA over P-256 with SHA-256. A key is read from SPKI DER
//! (RFC 5280, 4.1.2.7) or from its raw point, and accepted only in the one canonical encoding; SPKI,
//! PEM and JWK are always generated from it, never kept beside it.
//!
//! A [`PublicKey`] holds its decompressed point, so that checking many signatures of one key pays
//! for the point once; an ECDSA key that has checked many holds its multiples, too.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use ed25519_dalek::VerifyingKey as Ed25519Key;
use p256::ecdsa::VerifyingKey as P256Key;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest as _, Sha256};

use crate::base64;
use crate::ecdsa::checker::Checker;
use crate::ecdsa::{self, EcdsaError};

/// `SubjectPublicKeyInfo` of Ed25519 up to the 32 bytes of the key (RFC 8410, section 4).
const SPKI_ED25519: &[u8] = &[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// `SubjectPublicKeyInfo` of a P-256 key (named curve, RFC 5480, 2.1.1) up to its 65-byte point.
const SPKI_P256: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
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
    #[error("the bytes of the {0} public key are not the canonical encoding of a point on its curve")]
    Point(Algorithm),
    /// An Ed25519 point outside the prime-order subgroup: a small-order key accepts forgeries, a
    /// mixed-order one is judged differently by different verifiers.
    #[error("the Ed25519 public key is not of prime order; it cannot come from a correct key generation")]
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

/// A whole message and a signature in wire form.
pub type Signed<'a> = (&'a [u8], &'a [u8]);

/// The public half of an HSM key, its point checked.
#[derive(Clone)]
pub struct PublicKey {
    point: Point,
    kid: Kid,
}

#[derive(Clone)]
enum Point {
    Ed25519(Ed25519Key),
    /// What checks signatures, shared by all clones, and the uncompressed point.
    EcdsaP256(Arc<Checker>, [u8; P256_RAW_LEN]),
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
        let wrong_length = KeyError::RawLength { algorithm, len: raw.len() };
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
        self.verify_each(&[(message, signature)]).pop().unwrap_or(Err(KeyError::Signature(self.algorithm())))
    }

    /// Checks signatures, each over its message, as [`PublicKey::verify`] does: the verdicts in their
    /// order. Many ECDSA signatures cost less together. Takes some 300 bytes of memory for each.
    pub fn verify_each(&self, signed: &[Signed<'_>]) -> Vec<Result<(), KeyError>> {
        match &self.point {
            Point::Ed25519(key) => {
                signed.iter().map(|(message, signature)| verify_ed25519(key, message, signature)).collect()
            }
            Point::EcdsaP256(checker, _) => verify_ecdsa(checker, signed),
        }
    }
}

fn verify_ed25519(key: &Ed25519Key, message: &[u8], signature: &[u8]) -> Result<(), KeyError> {
    let bytes: &[u8; ED25519_SIGNATURE_LEN] =
        signature.try_into().map_err(|_| KeyError::SignatureLength(signature.len()))?;
    let signature = ed25519_dalek::Signature::from_bytes(bytes);
    key.verify_strict(message, &signature).map_err(|_| KeyError::Signature(Algorithm::Ed25519))
}

fn verify_ecdsa(checker: &Checker, signed: &[Signed<'_>]) -> Vec<Result<(), KeyError>> {
    let refused = KeyError::Signature(Algorithm::EcdsaP256);
    let mut readable = Vec::with_capacity(signed.len());
    let mut read = |(message, signature): &Signed<'_>| {
        let raw = ecdsa::der_to_raw(signature)?;
        let signature = p256::ecdsa::Signature::from_slice(&raw).map_err(|_| refused)?;
        readable.push((Sha256::digest(message).into(), signature));
        Ok(())
    };
    let mut verdicts: Vec<Result<(), KeyError>> = signed.iter().map(&mut read).collect();
    let holds = checker.verify(&readable);
    for (verdict, holds) in verdicts.iter_mut().filter(|verdict| verdict.is_ok()).zip(holds) {
        if !holds {
            *verdict = Err(refused);
        }
    }
    verdicts
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
    Ok(Point::EcdsaP256(Arc::new(Checker::new(key)), *raw))
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
            let (x, y) = (base64::url_encode(&raw[1..33]), base64::url_encode(&raw[33..]));
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
mod tests;
