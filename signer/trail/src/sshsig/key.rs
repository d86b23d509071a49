//! A person's public SSH key: which kinds are accepted, and their one spelling.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest as _, Sha256};
use ssh_key::encoding::{Decode as _, Encode as _};
use ssh_key::public::{EcdsaPublicKey, KeyData, RsaPublicKey};

use super::SshSigError;
use crate::base64;
use crate::keys::{Algorithm, PublicKey};

/// Longest public key line in bytes. RSA with 8192 bits has 1,396 characters of base64.
pub const LINE_MAX: usize = 4_096;

/// Shortest and longest RSA modulus in bits.
pub const RSA_BITS: std::ops::RangeInclusive<usize> = 3_072..=8_192;

/// The only application string of a security key: OpenSSH's default.
pub const SK_APPLICATION: &str = "ssh:";

/// `65537` as an SSH mpint, the public exponent that OpenSSH and all tokens use.
pub(super) const RSA_EXPONENT: [u8; 3] = [1, 0, 1];

/// A person's public SSH key. Its text, order and equality leave the comment out.
#[derive(Clone)]
pub struct SshPublicKey {
    pub(super) data: KeyData,
    pub(super) check: Check,
    /// The key in SSH wire format (RFC 4253, 6.6).
    pub(super) blob: Vec<u8>,
}

/// What verifies a signature of the key.
#[derive(Clone)]
pub(super) enum Check {
    /// Strict Ed25519 of [`crate::keys`].
    Strict(Box<PublicKey>),
    /// The `ssh-key` crate: ECDSA with either S.
    Ecdsa,
    /// The `ssh-key` crate: RSA; the length of the modulus in bytes.
    Rsa(usize),
}

impl SshPublicKey {
    /// Reads one line of a public key file, without its line end: algorithm, base64, and at most a
    /// comment (UTF-8 without control characters), which is dropped.
    ///
    /// # Errors
    /// Another form (several spaces, options before the key), a key of another kind, a weak key.
    pub fn parse(line: &str) -> Result<SshPublicKey, SshSigError> {
        if line.len() > LINE_MAX || line.chars().any(char::is_control) {
            return Err(SshSigError::KeyLine);
        }
        let (algorithm, rest) = line.split_once(' ').ok_or(SshSigError::KeyLine)?;
        let text = rest.split_once(' ').map_or(rest, |(text, _)| text);
        let blob = base64::std_decode(text).map_err(|_| SshSigError::KeyLine)?;
        let data = KeyData::decode(&mut blob.as_slice()).map_err(|_| SshSigError::KeyLine)?;
        let key = SshPublicKey::new(data)?;
        if key.blob != blob || key.algorithm() != algorithm {
            return Err(SshSigError::KeyLine);
        }
        Ok(key)
    }

    pub(super) fn new(data: KeyData) -> Result<SshPublicKey, SshSigError> {
        let ed25519 = |raw: &[u8]| PublicKey::from_raw(Algorithm::Ed25519, raw).map_err(SshSigError::KeyPoint);
        let p256 = |raw: &[u8]| PublicKey::from_raw(Algorithm::EcdsaP256, raw).map_err(SshSigError::KeyPoint);
        let check = match &data {
            KeyData::Ed25519(key) => Check::Strict(Box::new(ed25519(&key.0)?)),
            KeyData::SkEd25519(key) => {
                check_application(key.application())?;
                Check::Strict(Box::new(ed25519(&key.public_key().0)?))
            }
            KeyData::Ecdsa(EcdsaPublicKey::NistP256(point)) => {
                p256(point.as_bytes())?;
                Check::Ecdsa
            }
            KeyData::SkEcdsaSha2NistP256(key) => {
                check_application(key.application())?;
                p256(key.ec_point().as_bytes())?;
                Check::Ecdsa
            }
            KeyData::Rsa(key) => Check::Rsa(check_rsa(key)?),
            _ => return Err(SshSigError::KeyKind),
        };
        let blob = data.encode_vec().map_err(|_| SshSigError::KeyLine)?;
        Ok(SshPublicKey { data, check, blob })
    }

    /// The algorithm's name, as the line begins.
    pub fn algorithm(&self) -> &'static str {
        match &self.data {
            KeyData::SkEd25519(_) => "sk-ssh-ed25519@openssh.com",
            KeyData::SkEcdsaSha2NistP256(_) => "sk-ecdsa-sha2-nistp256@openssh.com",
            KeyData::Ecdsa(_) => "ecdsa-sha2-nistp256",
            KeyData::Rsa(_) => "ssh-rsa",
            // `new` lets no other kind through.
            _ => "ssh-ed25519",
        }
    }

    /// Whether the private key lives in a security key (FIDO).
    pub fn is_security_key(&self) -> bool {
        matches!(self.data, KeyData::SkEd25519(_) | KeyData::SkEcdsaSha2NistP256(_))
    }

    /// The fingerprint as `ssh-keygen -l` shows it: `SHA256:` and 43 characters of base64.
    pub fn fingerprint(&self) -> String {
        let text = base64::std_encode(&Sha256::digest(&self.blob));
        format!("SHA256:{}", text.trim_end_matches('='))
    }
}

impl fmt::Display for SshPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.algorithm(), base64::std_encode(&self.blob))
    }
}

impl fmt::Debug for SshPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SshPublicKey({}, {})", self.algorithm(), self.fingerprint())
    }
}

impl FromStr for SshPublicKey {
    type Err = SshSigError;

    fn from_str(line: &str) -> Result<SshPublicKey, SshSigError> {
        SshPublicKey::parse(line)
    }
}

impl PartialEq for SshPublicKey {
    fn eq(&self, other: &SshPublicKey) -> bool {
        self.blob == other.blob
    }
}

impl Eq for SshPublicKey {}

impl PartialOrd for SshPublicKey {
    fn partial_cmp(&self, other: &SshPublicKey) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for SshPublicKey {
    fn cmp(&self, other: &SshPublicKey) -> std::cmp::Ordering {
        self.blob.cmp(&other.blob)
    }
}

impl std::hash::Hash for SshPublicKey {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.blob.hash(state);
    }
}

impl Serialize for SshPublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// In documents a key has one spelling: without a comment.
impl<'de> Deserialize<'de> for SshPublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<SshPublicKey, D::Error> {
        let text = String::deserialize(deserializer)?;
        let key = SshPublicKey::parse(&text).map_err(de::Error::custom)?;
        if key.to_string() != text {
            return Err(de::Error::custom("an SSH key in a document has no comment"));
        }
        Ok(key)
    }
}

fn check_application(application: &str) -> Result<(), SshSigError> {
    if application != SK_APPLICATION {
        return Err(SshSigError::SkApplication);
    }
    Ok(())
}

/// Checks an RSA key; gives the length of its modulus in bytes.
fn check_rsa(key: &RsaPublicKey) -> Result<usize, SshSigError> {
    if key.e().as_bytes() != RSA_EXPONENT {
        return Err(SshSigError::RsaExponent);
    }
    // The crate's own `key_size` counts whole bytes.
    let modulus = key.n().as_positive_bytes().unwrap_or_default();
    let zeros = modulus.first().map_or(0, |byte| byte.leading_zeros() as usize);
    let bits = modulus.len() * 8 - zeros;
    if !RSA_BITS.contains(&bits) {
        return Err(SshSigError::RsaBits(bits));
    }
    Ok(modulus.len())
}
