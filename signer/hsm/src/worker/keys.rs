//! Finds keys in the token and checks what they are.

use std::collections::BTreeMap;

use countersign_trail::keys::{Algorithm, PublicKey};
use cryptoki::error::Error;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;

use crate::error::{HsmError, Reason};
use crate::latch::hex;

/// DER OBJECT IDENTIFIER prime256v1 (RFC 5480).
pub(super) const P256_PARAMS: [u8; 10] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
/// DER OBJECT IDENTIFIER id-Ed25519 (RFC 8410).
pub(super) const ED25519_PARAMS: [u8; 5] = [0x06, 0x03, 0x2b, 0x65, 0x70];
/// DER PrintableString "edwards25519", the other spelling that PKCS#11 3.0 allows.
const EDWARDS25519_PARAMS: [u8; 14] = *b"\x13\x0cedwards25519";

/// The attributes that are read back, and what a key that we use must show: None where any value,
/// or none at all, will do.
const ATTRIBUTES: [(&str, AttributeType, Option<bool>); 12] = [
    ("CKA_TOKEN", AttributeType::Token, Some(true)),
    ("CKA_PRIVATE", AttributeType::Private, None),
    ("CKA_SENSITIVE", AttributeType::Sensitive, Some(true)),
    ("CKA_EXTRACTABLE", AttributeType::Extractable, Some(false)),
    ("CKA_LOCAL", AttributeType::Local, Some(true)),
    ("CKA_ALWAYS_SENSITIVE", AttributeType::AlwaysSensitive, Some(true)),
    ("CKA_NEVER_EXTRACTABLE", AttributeType::NeverExtractable, Some(true)),
    ("CKA_SIGN", AttributeType::Sign, Some(true)),
    ("CKA_DECRYPT", AttributeType::Decrypt, None),
    ("CKA_UNWRAP", AttributeType::Unwrap, None),
    ("CKA_DERIVE", AttributeType::Derive, None),
    ("CKA_SIGN_RECOVER", AttributeType::SignRecover, None),
];
/// Must not be true; a token that has no such attribute on a private key has no such use either.
const NEVER: [&str; 3] = ["CKA_DECRYPT", "CKA_UNWRAP", "CKA_DERIVE"];
/// A key that fails one of these has left the token, or could.
const KEEPS_IT_IN: [&str; 4] = ["CKA_SENSITIVE", "CKA_EXTRACTABLE", "CKA_ALWAYS_SENSITIVE", "CKA_NEVER_EXTRACTABLE"];

/// Why a key was not taken.
#[derive(Debug)]
pub(super) enum KeyTrouble {
    /// A call failed; the ladder says what follows.
    Call(Error),
    /// The token answered, and the answer rules the key out.
    Refused(HsmError),
}

impl From<Error> for KeyTrouble {
    fn from(error: Error) -> KeyTrouble {
        KeyTrouble::Call(error)
    }
}

/// A key pair as the token shows it.
pub(super) struct FoundKey {
    pub(super) handle: ObjectHandle,
    pub(super) public: PublicKey,
    pub(super) attributes: BTreeMap<String, bool>,
}

/// Finds the key pair with `cka_id`, checks the private object's attributes and reads the public
/// key from the public object.
pub(super) fn find(session: &Session, cka_id: &[u8]) -> Result<FoundKey, KeyTrouble> {
    let handle = find_one(session, ObjectClass::PRIVATE_KEY, cka_id)?;
    let attributes = read_attributes(session, handle)?;
    check(&attributes).map_err(|(reason, what)| refuse(reason, cka_id, &what))?;
    let public = find_one(session, ObjectClass::PUBLIC_KEY, cka_id)?;
    let public = read_public(session, public, cka_id)?;
    Ok(FoundKey { handle, public, attributes })
}

fn refuse(reason: Reason, cka_id: &[u8], what: &str) -> KeyTrouble {
    let id = hex(&cka_id[..cka_id.len().min(64)]);
    KeyTrouble::Refused(HsmError::new(reason, format!("key with CKA_ID {id}: {what}")))
}

/// All token objects of `class` with `cka_id`.
pub(super) fn find_all(session: &Session, class: ObjectClass, cka_id: &[u8]) -> Result<Vec<ObjectHandle>, Error> {
    session.find_objects(&[Attribute::Class(class), Attribute::Token(true), Attribute::Id(cka_id.to_vec())])
}

fn find_one(session: &Session, class: ObjectClass, cka_id: &[u8]) -> Result<ObjectHandle, KeyTrouble> {
    let found = find_all(session, class, cka_id)?;
    let what = if class == ObjectClass::PRIVATE_KEY { "private" } else { "public" };
    match found.as_slice() {
        [one] => Ok(*one),
        [] => Err(refuse(Reason::KeyMissing, cka_id, &format!("no {what} object in the token"))),
        more => {
            let text = format!("{} {what} objects in the token", more.len());
            Err(refuse(Reason::KeyAmbiguous, cka_id, &text))
        }
    }
}

fn read_attributes(session: &Session, handle: ObjectHandle) -> Result<BTreeMap<String, bool>, Error> {
    let kinds: Vec<AttributeType> = ATTRIBUTES.iter().map(|row| row.1).collect();
    let values = session.get_attributes(handle, &kinds)?;
    Ok(values
        .into_iter()
        .filter_map(|value| {
            let name = ATTRIBUTES.iter().find(|row| row.1 == value.attribute_type())?.0;
            Some((name.to_owned(), boolean(&value)?))
        })
        .collect())
}

fn boolean(value: &Attribute) -> Option<bool> {
    match value {
        Attribute::Token(b)
        | Attribute::Private(b)
        | Attribute::Sensitive(b)
        | Attribute::Extractable(b)
        | Attribute::Local(b)
        | Attribute::AlwaysSensitive(b)
        | Attribute::NeverExtractable(b)
        | Attribute::Sign(b)
        | Attribute::Decrypt(b)
        | Attribute::Unwrap(b)
        | Attribute::Derive(b)
        | Attribute::SignRecover(b) => Some(*b),
        _ => None,
    }
}

fn check(attributes: &BTreeMap<String, bool>) -> Result<(), (Reason, String)> {
    for (name, _, want) in ATTRIBUTES {
        let found = attributes.get(name).copied();
        let good = match want {
            Some(want) => found == Some(want),
            None => !(NEVER.contains(&name) && found == Some(true)),
        };
        if !good {
            let reason = if KEEPS_IT_IN.contains(&name) { Reason::KeyExtractable } else { Reason::KeyAttributes };
            let found = found.map_or("not shown".to_owned(), |found| found.to_string());
            return Err((reason, format!("{name} is {found}")));
        }
    }
    Ok(())
}

fn read_public(session: &Session, handle: ObjectHandle, cka_id: &[u8]) -> Result<PublicKey, KeyTrouble> {
    let kinds = [AttributeType::KeyType, AttributeType::EcParams, AttributeType::EcPoint];
    let (mut kind, mut params, mut point) = (None, None, None);
    for value in session.get_attributes(handle, &kinds)? {
        match value {
            Attribute::KeyType(value) => kind = Some(value),
            Attribute::EcParams(value) => params = Some(value),
            Attribute::EcPoint(value) => point = Some(value),
            _ => {}
        }
    }
    let wrong = |what: &str| refuse(Reason::KeyMismatch, cka_id, what);
    let (Some(kind), Some(params), Some(point)) = (kind, params, point) else {
        return Err(wrong("the public object shows no curve or point"));
    };
    let algorithm = match params.as_slice() {
        p if kind == KeyType::EC && p == P256_PARAMS => Algorithm::EcdsaP256,
        p if kind == KeyType::EC_EDWARDS && (p == ED25519_PARAMS || p == EDWARDS25519_PARAMS) => Algorithm::Ed25519,
        _ => return Err(wrong("neither Ed25519 nor ECDSA P-256")),
    };
    let raw = unwrap_point(algorithm, &point).ok_or_else(|| wrong("CKA_EC_POINT has no known form"))?;
    PublicKey::from_raw(algorithm, raw).map_err(|error| wrong(&error.to_string()))
}

/// The raw point: PKCS#11 wraps it in a DER OCTET STRING, some tokens do not.
fn unwrap_point(algorithm: Algorithm, point: &[u8]) -> Option<&[u8]> {
    let len = algorithm.raw_len();
    match point {
        raw if raw.len() == len => Some(raw),
        [0x04, inner_len, raw @ ..] if raw.len() == len && usize::from(*inner_len) == len => Some(raw),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> BTreeMap<String, bool> {
        ATTRIBUTES.iter().map(|(name, _, want)| ((*name).to_owned(), want.unwrap_or(false))).collect()
    }

    #[test]
    fn every_required_attribute_is_required() {
        check(&good()).unwrap();
        for (name, _, want) in ATTRIBUTES {
            let Some(want) = want else { continue };
            let mut wrong = good();
            wrong.insert(name.to_owned(), !want);
            assert!(check(&wrong).is_err(), "{name} wrong");
            wrong.remove(name);
            assert!(check(&wrong).is_err(), "{name} absent");
        }
        for name in NEVER {
            let mut wrong = good();
            wrong.insert(name.to_owned(), true);
            assert_eq!(check(&wrong).unwrap_err().0, Reason::KeyAttributes);
            wrong.remove(name);
            check(&wrong).unwrap();
        }
        let mut out = good();
        out.insert("CKA_EXTRACTABLE".to_owned(), true);
        assert_eq!(check(&out).unwrap_err().0, Reason::KeyExtractable);
    }

    #[test]
    fn points_are_taken_wrapped_and_raw() {
        let raw = [7; 32];
        assert_eq!(unwrap_point(Algorithm::Ed25519, &raw), Some(&raw[..]));
        let wrapped = [&[0x04, 32][..], &raw].concat();
        assert_eq!(unwrap_point(Algorithm::Ed25519, &wrapped), Some(&raw[..]));
        assert_eq!(unwrap_point(Algorithm::Ed25519, &[&[0x04, 31][..], &raw].concat()), None);
        assert_eq!(unwrap_point(Algorithm::Ed25519, &raw[1..]), None);
        assert_eq!(unwrap_point(Algorithm::EcdsaP256, &[4; 65]), Some(&[4; 65][..]));
        let wrapped = [&[0x04, 65][..], &[4; 65]].concat();
        assert_eq!(unwrap_point(Algorithm::EcdsaP256, &wrapped), Some(&[4; 65][..]));
    }
}
