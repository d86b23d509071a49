//! Strict base64: every byte string has exactly one accepted spelling.
//!
//! The standard alphabet with padding (RFC 4648, section 4) serves signed notes, checkpoints,
//! proofs and DSSE; the URL-safe alphabet without padding (section 5) serves kids, JWKs and salts.
//! Refused: the other alphabet, missing or superfluous padding, white space, and bits set in the
//! last character that no byte carries (RFC 4648, 3.5).
//!
//! These functions put no bound on length: the caller has bounded its input.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

/// Why text is not canonical base64. It never contains the text, which may be secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Base64Error {
    /// A byte outside the alphabet (padding in the wrong place and white space included).
    #[error("byte {0} is not allowed there in base64 of this alphabet")]
    Byte(usize),
    /// A number of characters that no encoding has.
    #[error("{0} characters are no base64 encoding of whole bytes")]
    Length(usize),
    /// The last character carries bits beyond the last byte.
    #[error("the last base64 character, at {0}, is not the canonical one")]
    LastCharacter(usize),
    /// Padding is missing where this alphabet needs it, or present where it has none.
    #[error("the base64 padding is not the canonical one")]
    Padding,
}

impl From<base64::DecodeError> for Base64Error {
    fn from(error: base64::DecodeError) -> Base64Error {
        match error {
            base64::DecodeError::InvalidByte(at, _) => Base64Error::Byte(at),
            base64::DecodeError::InvalidLength(length) => Base64Error::Length(length),
            base64::DecodeError::InvalidLastSymbol { offset, .. } => Base64Error::LastCharacter(offset),
            base64::DecodeError::InvalidPadding => Base64Error::Padding,
        }
    }
}

/// Encodes with the standard alphabet and padding.
pub fn std_encode(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Decodes the standard alphabet with padding.
///
/// # Errors
/// [`Base64Error`] for anything that [`std_encode`] would not have written.
pub fn std_decode(text: &str) -> Result<Vec<u8>, Base64Error> {
    Ok(STANDARD.decode(text)?)
}

/// Encodes with the URL-safe alphabet, without padding.
pub fn url_encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Decodes the URL-safe alphabet without padding.
///
/// # Errors
/// [`Base64Error`] for anything that [`url_encode`] would not have written.
pub fn url_decode(text: &str) -> Result<Vec<u8>, Base64Error> {
    Ok(URL_SAFE_NO_PAD.decode(text)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_answers_of_rfc_4648() {
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")] {
            assert_eq!(std_encode(bytes.as_bytes()), text);
            assert_eq!(std_decode(text).unwrap(), bytes.as_bytes());
            let bare = text.trim_end_matches('=');
            assert_eq!(url_encode(bytes.as_bytes()), bare);
            assert_eq!(url_decode(bare).unwrap(), bytes.as_bytes());
        }
        assert_eq!(std_encode(&[0xfb, 0xff]), "+/8=");
        assert_eq!(url_encode(&[0xfb, 0xff]), "-_8");
    }

    #[test]
    fn other_spellings_are_refused() {
        for text in [
            "Zh==", "Zg=", "Zg", "Zg===", "Zg==\n", " Zg==", "Zg= =", "Zm9=", "-_8=", "Z", "====", "=", "Zg==Zg==",
            "Zm9v\r\n", "Zm\n9v", "Zmä=",
        ] {
            assert!(std_decode(text).is_err(), "{text:?} was accepted");
        }
        for text in ["Zg==", "Zh", "Zm9", "+/8", "Z", "Zg\n", "Zg=", "="] {
            assert!(url_decode(text).is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn causes_are_told_apart() {
        assert_eq!(std_decode("Zh=="), Err(Base64Error::LastCharacter(1)));
        assert_eq!(std_decode("Zg"), Err(Base64Error::Padding));
        assert_eq!(std_decode("Z*=="), Err(Base64Error::Byte(1)));
    }

    proptest! {
        #[test]
        fn whatever_decodes_encodes_to_itself(text in "[A-Za-f0-9+/=_-]{0,12}") {
            if let Ok(bytes) = std_decode(&text) {
                prop_assert_eq!(std_encode(&bytes), text.clone());
            }
            if let Ok(bytes) = url_decode(&text) {
                prop_assert_eq!(url_encode(&bytes), text);
            }
        }

        #[test]
        fn round_trip(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            prop_assert_eq!(std_decode(&std_encode(&bytes)).unwrap(), bytes.clone());
            prop_assert_eq!(url_decode(&url_encode(&bytes)).unwrap(), bytes);
        }
    }
}
