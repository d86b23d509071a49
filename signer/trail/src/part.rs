//! Parts of an event: what the record commits to without containing it.

use crate::hash::Hash;
use crate::id::PartName;

/// A part's salt, in bytes: with less than this an erased part's content could be guessed back.
pub const SALT_LEN: usize = 32;
/// The most parts that one event may have.
pub const MAX_PARTS: usize = 16;
/// The longest media type, in bytes.
pub const MAX_MEDIA_TYPE_LEN: usize = 128;
/// The most bytes in the parts of one event together.
pub const MAX_PARTS_BYTES: usize = 1 << 20;

const DOMAIN: &[u8] = b"countersign/part/v1\0";

/// Whether `text` may be a media type: 1 to 128 visible ASCII bytes.
pub fn is_media_type(text: &str) -> bool {
    (1..=MAX_MEDIA_TYPE_LEN).contains(&text.len()) && text.bytes().all(|b| (0x21..=0x7e).contains(&b))
}

/// The commitment of a part:
/// `SHA-256("countersign/part/v1\0" || name || 0x00 || media type || 0x00 || salt || bytes)`.
///
/// Neither a name nor a media type holds a zero byte, and the salt's length is fixed, so no two
/// different parts have the same input.
pub fn commitment(name: &PartName, media_type: &str, salt: &[u8; SALT_LEN], bytes: &[u8]) -> Hash {
    Hash::of_parts(&[DOMAIN, name.as_str().as_bytes(), b"\0", media_type.as_bytes(), b"\0", salt, bytes])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_counts() {
        let name = PartName::parse("facts").unwrap();
        let base = commitment(&name, "application/json", &[7; 32], b"{}");
        assert_ne!(base, commitment(&PartName::parse("subject").unwrap(), "application/json", &[7; 32], b"{}"));
        assert_ne!(base, commitment(&name, "text/plain", &[7; 32], b"{}"));
        assert_ne!(base, commitment(&name, "application/json", &[8; 32], b"{}"));
        assert_ne!(base, commitment(&name, "application/json", &[7; 32], b"{ }"));
        let mut input = b"countersign/part/v1\0facts\0application/json\0".to_vec();
        input.extend_from_slice(&[7; 32]);
        input.extend_from_slice(b"{}");
        assert_eq!(base, Hash::of(&input));
    }
}
