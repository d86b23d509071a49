//! SHA-256 values: a 32-byte newtype with one text form.
//!
//! Text (Display, FromStr, serde) is exactly 64 lower-case hexadecimal digits, so that one value
//! has one spelling wherever it is hashed, signed or compared. Source: FIPS 180-4.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest, Sha256};

/// Length of a SHA-256 value in bytes.
pub const HASH_LEN: usize = 32;

/// Length of a SHA-256 value in text: two hexadecimal digits a byte.
pub const HASH_TEXT_LEN: usize = 2 * HASH_LEN;

/// A SHA-256 value. Ordered as bytes; comparison is not constant-time (hashes here are public).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash([u8; HASH_LEN]);

impl Hash {
    /// SHA-256 of the empty string: the root of the empty tree (RFC 6962, 2.1).
    pub const OF_EMPTY: Hash = Hash([
        0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24, 0x27, 0xae,
        0x41, 0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55,
    ]);

    /// SHA-256 of `bytes`.
    pub fn of(bytes: &[u8]) -> Hash {
        Hash(Sha256::digest(bytes).into())
    }

    /// SHA-256 of the concatenation of `parts`, without building it. No separators are added: the
    /// caller makes the boundaries unambiguous.
    pub fn of_parts(parts: &[&[u8]]) -> Hash {
        let mut hasher = Sha256::new();
        for part in parts {
            hasher.update(part);
        }
        Hash(hasher.finalize().into())
    }

    /// The hash whose value is `bytes`.
    pub const fn from_bytes(bytes: [u8; HASH_LEN]) -> Hash {
        Hash(bytes)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; HASH_LEN] {
        &self.0
    }

    /// The 32 bytes, by value.
    pub const fn to_bytes(self) -> [u8; HASH_LEN] {
        self.0
    }
}

impl From<[u8; HASH_LEN]> for Hash {
    fn from(bytes: [u8; HASH_LEN]) -> Hash {
        Hash(bytes)
    }
}

impl From<Hash> for [u8; HASH_LEN] {
    fn from(hash: Hash) -> [u8; HASH_LEN] {
        hash.0
    }
}

impl AsRef<[u8]> for Hash {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Exactly 32 bytes, as read from a store or a message.
impl TryFrom<&[u8]> for Hash {
    type Error = HashError;

    fn try_from(bytes: &[u8]) -> Result<Hash, HashError> {
        match <[u8; HASH_LEN]>::try_from(bytes) {
            Ok(bytes) => Ok(Hash(bytes)),
            Err(_) => Err(HashError::ByteLength(bytes.len())),
        }
    }
}

/// Why bytes or text are not a SHA-256 value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HashError {
    /// Bytes of another length than 32.
    #[error("a SHA-256 value has {HASH_LEN} bytes, not {0}")]
    ByteLength(usize),
    /// Text of another length than 64.
    #[error("a SHA-256 value is written with {HASH_TEXT_LEN} hexadecimal digits, not {0} bytes")]
    TextLength(usize),
    /// A byte that is not one of `0-9a-f`, at this offset.
    #[error("a SHA-256 value is written with the digits 0-9 and a-f; byte {0} is another one")]
    Digit(usize),
}

impl FromStr for Hash {
    type Err = HashError;

    fn from_str(text: &str) -> Result<Hash, HashError> {
        if text.len() != HASH_TEXT_LEN {
            return Err(HashError::TextLength(text.len()));
        }
        let other = |byte: u8| !matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if let Some(at) = text.bytes().position(other) {
            return Err(HashError::Digit(at));
        }
        let mut bytes = [0; HASH_LEN];
        // Unreachable after the checks above, and still an error rather than a panic.
        hex::decode_to_slice(text, &mut bytes).map_err(|_| HashError::TextLength(text.len()))?;
        Ok(Hash(bytes))
    }
}

/// Calls `use_text` with the text form, without allocating.
fn with_text<T>(hash: &Hash, use_text: impl FnOnce(&str) -> T) -> T {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [b'0'; HASH_TEXT_LEN];
    for (pair, byte) in text.chunks_exact_mut(2).zip(hash.0) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
    // The digits are ASCII, so the text is always valid.
    use_text(std::str::from_utf8(&text).unwrap_or_default())
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        with_text(self, |text| f.pad(text))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        with_text(self, |text| f.write_str(text))
    }
}

impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        with_text(self, |text| serializer.serialize_str(text))
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Hash, D::Error> {
        struct Text;
        impl de::Visitor<'_> for Text {
            type Value = Hash;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{HASH_TEXT_LEN} lower-case hexadecimal digits")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Hash, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn hashes_the_known_answers_of_fips_180() {
        assert_eq!(Hash::of(b"abc").to_string(), ABC);
        assert_eq!(Hash::of(b""), Hash::OF_EMPTY);
        assert_eq!(Hash::of_parts(&[b"a", b"", b"bc"]).to_string(), ABC);
    }

    #[test]
    fn text_has_one_spelling() {
        let hash: Hash = ABC.parse().unwrap();
        assert_eq!(hash, Hash::of(b"abc"));
        assert_eq!(
            ABC.to_uppercase().parse::<Hash>(),
            Err(HashError::Digit(0)),
            "upper case is another spelling of the same value"
        );
        assert_eq!(ABC[1..].parse::<Hash>(), Err(HashError::TextLength(63)));
        assert_eq!(format!("{ABC}\n").parse::<Hash>(), Err(HashError::TextLength(65)));
        let umlaut = format!("{}ä", &ABC[2..]);
        assert_eq!(umlaut.parse::<Hash>(), Err(HashError::Digit(62)));
    }

    #[test]
    fn serde_uses_the_text() {
        let json = format!("\"{ABC}\"");
        assert_eq!(serde_json::to_string(&Hash::of(b"abc")).unwrap(), json);
        assert_eq!(serde_json::from_str::<Hash>(&json).unwrap(), Hash::of(b"abc"));
        assert!(serde_json::from_str::<Hash>(&json.to_uppercase()).is_err());
        assert!(serde_json::from_str::<Hash>("[1,2]").is_err());
    }

    #[test]
    fn bytes_have_one_length() {
        let bytes = [7u8; 33];
        assert_eq!(Hash::try_from(&bytes[..32]).unwrap(), Hash::from_bytes([7; 32]));
        assert_eq!(Hash::try_from(&bytes[..]), Err(HashError::ByteLength(33)));
    }
}
