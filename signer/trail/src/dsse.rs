//! DSSE v1 (Dead Simple Signing Envelope): what is signed, and the envelope that carries it.
//!
//! The signed bytes are the pre-authentication encoding ([`pae`]) of payload type and payload, never
//! JSON. The envelope is JSON, accepted in exactly one spelling: RFC 8785 order and no white space,
//! standard base64 with padding, signatures in ascending order of their keyid, each keyid once. The
//! DSSE specification lets a verifier be laxer; evidence gains nothing from a second spelling.

use serde::Deserialize;

use crate::base64::{self, Base64Error};
use crate::keys::{KeyError, Kid, PublicKey};

/// Payload type of a record.
pub const RECORD: &str = "application/vnd.countersign.record.v1+json";

/// Payload type of an in-toto statement.
pub const STATEMENT: &str = "application/vnd.in-toto+json";

/// Payload type of the probe that proves the possession of a new key.
pub const PROBE: &str = "application/vnd.countersign.probe.v1+json";

/// Most signatures in one envelope.
pub const SIGNATURES_MAX: usize = 16;

/// Longest payload in bytes: 16 MiB.
pub const PAYLOAD_MAX: usize = 16 << 20;

/// Longest payload type in bytes.
pub const PAYLOAD_TYPE_MAX: usize = 255;

/// Longest signature in bytes: ML-DSA-87 (FIPS 204), the longest that a token of ours could make.
pub const SIGNATURE_MAX: usize = 4_627;

/// Longest envelope in bytes: payload and signatures in base64 (4 characters for 3 bytes), the
/// payload type, and 64 bytes for the rest of each signature and 64 for the rest of the envelope.
pub const ENVELOPE_MAX: usize =
    PAYLOAD_MAX.div_ceil(3) * 4 + SIGNATURES_MAX * (SIGNATURE_MAX.div_ceil(3) * 4 + 64) + PAYLOAD_TYPE_MAX + 64;

/// Why bytes are not an envelope of ours, or an envelope does not prove what is asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DsseError {
    /// Longer than the bound of its kind.
    #[error("{what} of {len} bytes, the bound is {max}")]
    TooLong {
        /// Envelope, payload or signature.
        what: &'static str,
        /// The length found, in bytes.
        len: usize,
        /// The bound, in bytes.
        max: usize,
    },
    /// Not JSON, or not with exactly the members of an envelope.
    #[error("not a DSSE envelope: JSON error at line {line}, column {column}")]
    Shape {
        /// Line of the JSON error, from 1.
        line: usize,
        /// Column of the JSON error, from 1.
        column: usize,
    },
    /// An envelope, but not in its one spelling.
    #[error("a DSSE envelope that is not in canonical form from byte {at} on")]
    NotCanonical {
        /// The first byte that differs from the canonical form.
        at: usize,
    },
    /// The payload type is empty, too long, or has characters outside visible ASCII.
    #[error("a DSSE payload type is 1 to 255 characters of visible ASCII without quote and backslash")]
    PayloadType,
    /// No signature, or more than 16.
    #[error("a DSSE envelope has 1 to 16 signatures, this one has {0}")]
    SignatureCount(usize),
    /// Two signatures have one keyid.
    #[error("the keyid {0} occurs twice in a DSSE envelope")]
    DuplicateKeyid(Kid),
    /// A keyid is not a kid.
    #[error("a keyid of a DSSE envelope is not a kid: {0}")]
    Keyid(KeyError),
    /// A member is not standard base64.
    #[error("{member} of a DSSE envelope is not canonical base64: {error}")]
    Base64 {
        /// `payload` or `sig`.
        member: &'static str,
        /// What is wrong with it.
        error: Base64Error,
    },
    /// The envelope has another payload type than the one asked for.
    #[error("the DSSE payload type is not {0}")]
    OtherPayloadType(&'static str),
    /// The envelope has no signature of the key.
    #[error("the DSSE envelope has no signature of the key {0}")]
    NotSignedBy(Kid),
    /// The key's signature does not hold.
    #[error("the DSSE signature of the key {kid}: {error}")]
    Signature {
        /// The key.
        kid: Kid,
        /// Why it does not hold.
        error: KeyError,
    },
}

/// The pre-authentication encoding, the bytes that are signed: `DSSEv1 SP len(type) SP type SP
/// len(payload) SP payload`, lengths in bytes as decimals.
pub fn pae(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    bytes.extend_from_slice(payload);
    bytes
}

/// One signature of an envelope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// The key that made it.
    pub keyid: Kid,
    /// The signature in wire form, at most [`SIGNATURE_MAX`] bytes.
    pub sig: Vec<u8>,
}

/// A payload with its signatures. An existing value keeps every bound of this module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    payload_type: String,
    payload: Vec<u8>,
    signatures: Vec<Signature>,
}

/// The envelope as its JSON has it. Borrowed strings cannot hold escapes, which the canonical form
/// never has.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Json<'a> {
    payload: &'a str,
    payload_type: &'a str,
    #[serde(borrow)]
    signatures: Vec<JsonSignature<'a>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonSignature<'a> {
    keyid: &'a str,
    sig: &'a str,
}

impl Envelope {
    /// Puts an envelope together; signatures are brought into ascending order of their keyid.
    ///
    /// # Errors
    /// A bound exceeded, no signature, a keyid that occurs twice.
    pub fn new(payload_type: &str, payload: Vec<u8>, mut signatures: Vec<Signature>) -> Result<Envelope, DsseError> {
        let visible = |b: u8| b.is_ascii_graphic() && b != b'"' && b != b'\\';
        if !(1..=PAYLOAD_TYPE_MAX).contains(&payload_type.len()) || !payload_type.bytes().all(visible) {
            return Err(DsseError::PayloadType);
        }
        bounded("a DSSE payload", payload.len(), PAYLOAD_MAX)?;
        if !(1..=SIGNATURES_MAX).contains(&signatures.len()) {
            return Err(DsseError::SignatureCount(signatures.len()));
        }
        for signature in &signatures {
            bounded("a DSSE signature", signature.sig.len(), SIGNATURE_MAX)?;
        }
        signatures.sort_by_cached_key(|signature| signature.keyid.to_string());
        for pair in signatures.windows(2) {
            if pair[0].keyid == pair[1].keyid {
                return Err(DsseError::DuplicateKeyid(pair[0].keyid));
            }
        }
        Ok(Envelope { payload_type: payload_type.to_owned(), payload, signatures })
    }

    /// Reads an envelope of at most [`ENVELOPE_MAX`] bytes in its one spelling.
    ///
    /// # Errors
    /// Everything that [`Envelope::to_json`] would not have written.
    pub fn parse(bytes: &[u8]) -> Result<Envelope, DsseError> {
        bounded("a DSSE envelope", bytes.len(), ENVELOPE_MAX)?;
        let json: Json<'_> = serde_json::from_slice(bytes)
            .map_err(|error| DsseError::Shape { line: error.line(), column: error.column() })?;
        if json.signatures.len() > SIGNATURES_MAX {
            return Err(DsseError::SignatureCount(json.signatures.len()));
        }
        let mut signatures = Vec::with_capacity(json.signatures.len());
        for signature in &json.signatures {
            signatures.push(Signature {
                keyid: signature.keyid.parse().map_err(DsseError::Keyid)?,
                sig: decode("sig", signature.sig)?,
            });
        }
        let payload = decode("payload", json.payload)?;
        let envelope = Envelope::new(json.payload_type, payload, signatures)?;
        let canonical = envelope.to_json();
        if canonical != bytes {
            let common = canonical.iter().zip(bytes).take_while(|(a, b)| a == b).count();
            return Err(DsseError::NotCanonical { at: common });
        }
        Ok(envelope)
    }

    /// The envelope as JSON, the only accepted bytes for it. No newline at the end.
    pub fn to_json(&self) -> Vec<u8> {
        // No string in here needs escaping: base64, kids, and a checked payload type.
        let mut json = String::from("{\"payload\":\"");
        json.push_str(&base64::std_encode(&self.payload));
        json.push_str("\",\"payloadType\":\"");
        json.push_str(&self.payload_type);
        json.push_str("\",\"signatures\":[");
        for (i, signature) in self.signatures.iter().enumerate() {
            json.push_str(if i == 0 { "{\"keyid\":\"" } else { ",{\"keyid\":\"" });
            json.push_str(&signature.keyid.to_string());
            json.push_str("\",\"sig\":\"");
            json.push_str(&base64::std_encode(&signature.sig));
            json.push_str("\"}");
        }
        json.push_str("]}");
        json.into_bytes()
    }

    /// The payload type.
    pub fn payload_type(&self) -> &str {
        &self.payload_type
    }

    /// The payload.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// The signatures, 1 to 16, in ascending order of their keyid's text.
    pub fn signatures(&self) -> &[Signature] {
        &self.signatures
    }

    /// Checks that the envelope has this payload type and a good signature of this key, and gives
    /// the payload. Other keys' signatures are not looked at.
    ///
    /// # Errors
    /// Another payload type, no signature of the key, or one that does not hold.
    pub fn verify(&self, payload_type: &'static str, key: &PublicKey) -> Result<&[u8], DsseError> {
        if self.payload_type != payload_type {
            return Err(DsseError::OtherPayloadType(payload_type));
        }
        let kid = key.kid();
        let signature =
            self.signatures.iter().find(|signature| signature.keyid == kid).ok_or(DsseError::NotSignedBy(kid))?;
        key.verify(&pae(payload_type, &self.payload), &signature.sig)
            .map_err(|error| DsseError::Signature { kid, error })?;
        Ok(&self.payload)
    }
}

fn bounded(what: &'static str, len: usize, max: usize) -> Result<(), DsseError> {
    if len > max {
        return Err(DsseError::TooLong { what, len, max });
    }
    Ok(())
}

fn decode(member: &'static str, text: &str) -> Result<Vec<u8>, DsseError> {
    base64::std_decode(text).map_err(|error| DsseError::Base64 { member, error })
}

#[cfg(test)]
mod tests;
