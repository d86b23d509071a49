//! People's signatures: OpenSSH SSHSIG over exact document bytes (PROTOCOL.sshsig, PROTOCOL.u2f).
//!
//! The `ssh-key` crate parses, and verifies ECDSA and RSA. This module adds what a signature that
//! stands as evidence needs and what that crate leaves open:
//! - the armor is byte for byte what `ssh-keygen -Y sign` writes, and decodes to the one encoding of
//!   its fields; nothing is skipped, wrapped differently or appended;
//! - the namespace is one of ours (the [`Act`]), version 1, reserved empty;
//! - the signing key is the enrolled one, and the signature's algorithm is that key's;
//! - Ed25519 is verified strictly, and no key is a weak point (see [`crate::keys`]);
//! - security keys: the user was present, the application is `ssh:`;
//! - RSA is PKCS #1 v1.5 with SHA-256 or SHA-512, 3072 to 8192 bits, exponent 65537. DSA, SHA-1 and
//!   certificates are refused, and so are the other NIST curves.
//!
//! OpenSSH does not lower S, so from an ECDSA signature anyone can make a second one over the same
//! document: who counts signatures counts persons, never signature bytes.

mod key;

use std::fmt;

use p256::ecdsa::signature::Verifier as _;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use ssh_key::encoding::{Decode as _, Encode as _};
use ssh_key::{Algorithm as SshAlgorithm, SshSig};

use crate::base64;
use crate::keys::KeyError;
use key::Check;
pub use key::{LINE_MAX, RSA_BITS, SK_APPLICATION, SshPublicKey};

/// Longest armored signature in bytes. RSA with 8192 bits needs about 2,900.
pub const ARMOR_MAX: usize = 4_096;

const BEGIN: &str = "-----BEGIN SSH SIGNATURE-----\n";
const END: &str = "-----END SSH SIGNATURE-----\n";

/// Characters of base64 in a full line of the armor.
const ARMOR_COLUMNS: usize = 70;

/// What follows the raw signature of a security key: flags (1 byte) and counter (4 bytes).
const SK_TRAILER_LEN: usize = 5;

/// Flags of a security key's signature (PROTOCOL.u2f; CTAP 2.1, 6.1).
const SK_USER_PRESENT: u8 = 0x01;
const SK_USER_VERIFIED: u8 = 0x04;

/// Why a line is not a public key of ours, or a signature is not one of its person's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SshSigError {
    /// The line is not `algorithm base64 [comment]`, or not in its one spelling.
    #[error("not an OpenSSH public key line: one line \"algorithm base64 [comment]\", at most 4096 bytes")]
    KeyLine,
    /// The key is of a kind that is not accepted.
    #[error(
        "an SSH key of this kind is not accepted; use ssh-ed25519, ecdsa-sha2-nistp256, \
         sk-ssh-ed25519@openssh.com, sk-ecdsa-sha2-nistp256@openssh.com or ssh-rsa"
    )]
    KeyKind,
    /// The point of the key is not valid.
    #[error("the SSH key is not valid: {0}")]
    KeyPoint(KeyError),
    /// The RSA modulus is too short or too long.
    #[error("the RSA key has {0} bits, 3072 to 8192 are accepted")]
    RsaBits(usize),
    /// The RSA exponent is not 65537.
    #[error("the public exponent of the RSA key is not 65537")]
    RsaExponent,
    /// The security key was made for another application.
    #[error("the application of the security key is not \"ssh:\"; generate it without -O application")]
    SkApplication,
    /// The text is not armor as `ssh-keygen -Y sign` writes it.
    #[error("not an armored SSH signature exactly as \"ssh-keygen -Y sign\" writes it")]
    Armor,
    /// The armor does not hold a signature in the one encoding of its fields.
    #[error("the armor does not hold an SSHSIG version 1 in its canonical encoding")]
    Encoding,
    /// The namespace, which is given, is none of ours.
    #[error("the namespace of the SSH signature, {0:?}, is no act of this system (such as approve@countersign)")]
    UnknownNamespace(String),
    /// The signature is one for another act.
    #[error("the SSH signature is for {found}, {expected} is needed")]
    OtherNamespace {
        /// The act needed.
        expected: Act,
        /// The act that was signed.
        found: Act,
    },
    /// The signature was made by another key.
    #[error("the SSH signature was made by another key than the enrolled one")]
    OtherKey,
    /// The signature algorithm is not that of the key, or uses SHA-1.
    #[error("the SSH signature's algorithm is not accepted for its key (RSA needs rsa-sha2-256 or -512)")]
    SignatureAlgorithm,
    /// A security key signed without a touch.
    #[error("the security key signed without a touch; use a key without no-touch-required")]
    SkNoPresence,
    /// The signature is not the key's over this document.
    #[error("the SSH signature does not verify: other document, or forged")]
    Signature,
}

/// What a person does by signing a document; the SSHSIG namespace says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Act {
    /// Proposes an action.
    Propose,
    /// Approves a proposal.
    Approve,
    /// Rejects a proposal.
    Reject,
    /// Withdraws an own proposal.
    Withdraw,
    /// Suspends a key.
    Suspend,
    /// Marks a suspected compromise.
    Compromise,
    /// Revokes a client.
    Revoke,
    /// Asks for the generation of a key.
    Generate,
    /// Signs the genesis document.
    Genesis,
    /// Attests the newest heads.
    Head,
}

impl Act {
    /// Every act.
    pub const ALL: [Act; 10] = [
        Act::Propose,
        Act::Approve,
        Act::Reject,
        Act::Withdraw,
        Act::Suspend,
        Act::Compromise,
        Act::Revoke,
        Act::Generate,
        Act::Genesis,
        Act::Head,
    ];

    /// The namespace, as given to `ssh-keygen -n`.
    pub fn namespace(self) -> &'static str {
        match self {
            Act::Propose => "propose@countersign",
            Act::Approve => "approve@countersign",
            Act::Reject => "reject@countersign",
            Act::Withdraw => "withdraw@countersign",
            Act::Suspend => "suspend@countersign",
            Act::Compromise => "compromise@countersign",
            Act::Revoke => "revoke@countersign",
            Act::Generate => "generate@countersign",
            Act::Genesis => "genesis@countersign",
            Act::Head => "head@countersign",
        }
    }

    /// The act with this namespace.
    pub fn from_namespace(namespace: &str) -> Option<Act> {
        Act::ALL.into_iter().find(|act| act.namespace() == namespace)
    }
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.namespace())
    }
}

/// A parsed signature that has not been verified.
#[derive(Clone, Debug)]
pub struct SshSignature {
    sig: SshSig,
    key: SshPublicKey,
    act: Act,
}

/// What a verified signature says beyond that it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// For a security key, what it said about this signature.
    pub security_key: Option<SecurityKeyUse>,
}

/// The signed statement of a security key about one signature; the user was present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SecurityKeyUse {
    /// Whether it also verified the user, by PIN or fingerprint.
    pub user_verified: bool,
    /// Its signature counter.
    pub counter: u32,
}

impl SshSignature {
    /// Reads an armored signature of at most [`ARMOR_MAX`] bytes. Key, namespace and hash are those
    /// that it claims; [`SshSignature::verify`] checks them.
    ///
    /// # Errors
    /// Anything that `ssh-keygen -Y sign` would not have written with an accepted key for an act.
    pub fn parse(armored: &str) -> Result<SshSignature, SshSigError> {
        let blob = unarmor(armored)?;
        let sig = SshSig::decode(&mut blob.as_slice()).map_err(|_| SshSigError::Encoding)?;
        let canonical = sig.encode_vec().map_err(|_| SshSigError::Encoding)?;
        if canonical != blob || sig.version() != SshSig::VERSION || !sig.reserved().is_empty() {
            return Err(SshSigError::Encoding);
        }
        let act = Act::from_namespace(sig.namespace())
            .ok_or_else(|| SshSigError::UnknownNamespace(sig.namespace().to_owned()))?;
        let key = SshPublicKey::new(sig.public_key().clone())?;
        check_algorithm(&sig, &key)?;
        Ok(SshSignature { sig, key, act })
    }

    /// The key that the signature claims, to find its person by.
    pub fn key(&self) -> &SshPublicKey {
        &self.key
    }

    /// The act that the signature claims.
    pub fn act(&self) -> Act {
        self.act
    }

    /// Verifies the signature over a document with the enrolled key of a person.
    ///
    /// # Errors
    /// Another key or act than expected, a security key without touch, a signature that does not
    /// hold.
    pub fn verify(&self, key: &SshPublicKey, act: Act, document: &[u8]) -> Result<Verified, SshSigError> {
        if self.key != *key {
            return Err(SshSigError::OtherKey);
        }
        if self.act != act {
            return Err(SshSigError::OtherNamespace { expected: act, found: self.act });
        }
        let message =
            SshSig::signed_data(act.namespace(), self.sig.hash_alg(), document).map_err(|_| SshSigError::Encoding)?;
        let bytes = self.sig.signature_bytes();
        let (signature, sk) = if key.is_security_key() {
            let at = bytes.len().checked_sub(SK_TRAILER_LEN).ok_or(SshSigError::Encoding)?;
            (&bytes[..at], Some(&bytes[at..]))
        } else {
            (bytes, None)
        };
        let holds = match &key.check {
            Check::Strict(ed25519) => {
                let message = sk.map_or(message.clone(), |trailer| sk_message(trailer, &message));
                ed25519.verify(&message, signature).is_ok()
            }
            Check::Ecdsa => key.data.verify(&message, self.sig.signature()).is_ok(),
            Check::Rsa(len) => bytes.len() == *len && key.data.verify(&message, self.sig.signature()).is_ok(),
        };
        if !holds {
            return Err(SshSigError::Signature);
        }
        Ok(Verified { security_key: sk.map(security_key_use).transpose()? })
    }
}

/// Verifies an armored signature over a document with the enrolled key of a person: parse and
/// [`SshSignature::verify`] in one.
///
/// # Errors
/// Those of both.
pub fn verify_sshsig(armored: &str, key: &SshPublicKey, act: Act, document: &[u8]) -> Result<Verified, SshSigError> {
    SshSignature::parse(armored)?.verify(key, act, document)
}

/// What a security key signs: SHA-256 of the application, flags, counter, SHA-256 of the message
/// (PROTOCOL.u2f, "SSH U2F signatures").
fn sk_message(trailer: &[u8], message: &[u8]) -> Vec<u8> {
    [&Sha256::digest(SK_APPLICATION)[..], trailer, &Sha256::digest(message)[..]].concat()
}

fn security_key_use(trailer: &[u8]) -> Result<SecurityKeyUse, SshSigError> {
    let [flags, counter @ ..] = trailer else {
        return Err(SshSigError::Encoding);
    };
    if flags & SK_USER_PRESENT == 0 {
        return Err(SshSigError::SkNoPresence);
    }
    Ok(SecurityKeyUse {
        user_verified: flags & SK_USER_VERIFIED != 0,
        counter: u32::from_be_bytes(counter.try_into().map_err(|_| SshSigError::Encoding)?),
    })
}

fn check_algorithm(sig: &SshSig, key: &SshPublicKey) -> Result<(), SshSigError> {
    let algorithm = sig.algorithm();
    let accepted = match key.check {
        // SHA-1 is `Rsa { hash: None }`.
        Check::Rsa(_) => matches!(algorithm, SshAlgorithm::Rsa { hash: Some(_) }),
        Check::Strict(_) | Check::Ecdsa => algorithm == key.data.algorithm(),
    };
    if !accepted {
        return Err(SshSigError::SignatureAlgorithm);
    }
    Ok(())
}

/// The bytes within armor that is exactly as [`armor`] writes it.
fn unarmor(armored: &str) -> Result<Vec<u8>, SshSigError> {
    if armored.len() > ARMOR_MAX {
        return Err(SshSigError::Armor);
    }
    let body = armored.strip_prefix(BEGIN).and_then(|rest| rest.strip_suffix(END));
    let text = body.ok_or(SshSigError::Armor)?.replace('\n', "");
    let blob = base64::std_decode(&text).map_err(|_| SshSigError::Armor)?;
    if armor(&blob) != armored {
        return Err(SshSigError::Armor);
    }
    Ok(blob)
}

/// The armor of OpenSSH's sshsig.c: base64 in lines of 70, each ended by LF, the last one too.
fn armor(blob: &[u8]) -> String {
    let text = base64::std_encode(blob);
    let mut armored = String::from(BEGIN);
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(ARMOR_COLUMNS));
        armored.push_str(line);
        armored.push('\n');
        rest = after;
    }
    armored.push_str(END);
    armored
}

#[cfg(test)]
mod sk_tests;
#[cfg(test)]
mod tests;
