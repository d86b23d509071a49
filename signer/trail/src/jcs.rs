//! JSON with one spelling: RFC 8785 (JCS), narrowed.
//!
//! Accepted: objects, arrays, strings, booleans, null, and integers within ±2^53. Refused: floats,
//! larger integers (they are decimal strings in our formats), duplicate keys, any byte that the
//! canonical form does not have.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The largest integer that every JSON reader keeps exact.
const MAX_SAFE_INTEGER: i64 = 1 << 53;
/// The deepest nesting of arrays and objects.
pub const MAX_DEPTH: usize = 32;

/// Why a byte string is not canonical JSON of the wanted shape.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JcsError {
    /// Longer than the bound of its kind.
    #[error("{len} bytes of JSON, the bound is {max}")]
    TooLong {
        /// The length found, in bytes.
        len: usize,
        /// The bound, in bytes.
        max: usize,
    },
    /// Not JSON, or not of the wanted shape (unknown, missing or ill-typed members).
    #[error("not the expected JSON: {0}")]
    Shape(String),
    /// A number that is not an integer within ±2^53.
    #[error("a number that is not an integer within 2^53")]
    Number,
    /// Nested deeper than [`MAX_DEPTH`].
    #[error("nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// JSON, but not the canonical spelling of its value.
    #[error("not in canonical form (RFC 8785) from byte {at} on")]
    NotCanonical {
        /// The first byte that differs from the canonical form.
        at: usize,
    },
}

/// Parses canonical JSON of at most `max` bytes into `T`.
///
/// `T` should deny unknown fields; this function refuses everything else that would give two
/// spellings to one value.
pub fn parse_canonical<T: DeserializeOwned>(bytes: &[u8], max: usize) -> Result<T, JcsError> {
    let value = check_canonical(bytes, max)?;
    serde_json::from_value(value).map_err(|error| JcsError::Shape(error.to_string()))
}

/// Parses canonical JSON of at most `max` bytes without a shape.
pub fn check_canonical(bytes: &[u8], max: usize) -> Result<Value, JcsError> {
    if bytes.len() > max {
        return Err(JcsError::TooLong { len: bytes.len(), max });
    }
    let value: Value = serde_json::from_slice(bytes).map_err(|error| JcsError::Shape(error.to_string()))?;
    check_numbers(&value, 0)?;
    let canonical = to_canonical(&value)?;
    if canonical == bytes {
        return Ok(value);
    }
    let at = canonical.iter().zip(bytes).take_while(|(a, b)| a == b).count();
    Err(JcsError::NotCanonical { at })
}

/// Checks that every number of `value`, which stands `depth` levels deep, is an integer within ±2^53,
/// and that nothing is nested too deep.
pub(crate) fn check_numbers(value: &Value, depth: usize) -> Result<(), JcsError> {
    if depth > MAX_DEPTH {
        return Err(JcsError::TooDeep);
    }
    match value {
        Value::Number(number) => match number.as_i64() {
            Some(n) if (-MAX_SAFE_INTEGER..=MAX_SAFE_INTEGER).contains(&n) => Ok(()),
            _ => Err(JcsError::Number),
        },
        Value::Array(items) => items.iter().try_for_each(|item| check_numbers(item, depth + 1)),
        Value::Object(members) => members.values().try_for_each(|member| check_numbers(member, depth + 1)),
        Value::Null | Value::Bool(_) | Value::String(_) => Ok(()),
    }
}

/// The canonical form of `value`.
pub fn to_canonical(value: &impl Serialize) -> Result<Vec<u8>, JcsError> {
    serde_json_canonicalizer::to_vec(value).map_err(|error| JcsError::Shape(error.to_string()))
}

/// Appends `text` as a JSON string in canonical form (RFC 8785, 3.2.2.2): the writer of records and
/// parts, which know the order of their members, uses this instead of building a tree.
pub fn write_string(out: &mut Vec<u8>, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut plain_from = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.extend_from_slice(&bytes[plain_from..at]);
        plain_from = at + 1;
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            0x08 => out.extend_from_slice(b"\\b"),
            0x09 => out.extend_from_slice(b"\\t"),
            0x0a => out.extend_from_slice(b"\\n"),
            0x0c => out.extend_from_slice(b"\\f"),
            0x0d => out.extend_from_slice(b"\\r"),
            _ => {
                out.extend_from_slice(b"\\u00");
                out.push(HEX[usize::from(byte >> 4)]);
                out.push(HEX[usize::from(byte & 15)]);
            }
        }
    }
    out.extend_from_slice(&bytes[plain_from..]);
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_spelling_only() {
        assert!(check_canonical(br#"{"a":1,"b":[true,null,"x"]}"#, 100).is_ok());
        for bad in [
            &br#"{"b":1,"a":1}"#[..],
            br#"{"a":1,"a":1}"#,
            br#"{ "a":1}"#,
            br#"{"a":1} "#,
            br#"{"a":1.0}"#,
            br#"{"a":1.5}"#,
            br#"{"a":1e2}"#,
            br#"{"a":-0}"#,
            br#"{"a":9007199254740993}"#,
            br#"{"a":"\u0041"}"#,
            br#"{"a":"\/"}"#,
            b"\xef\xbb\xbf{}",
            b"{\"a\":\"\xff\"}",
            b"",
        ] {
            assert!(check_canonical(bad, 100).is_err(), "{}", String::from_utf8_lossy(bad));
        }
        assert!(matches!(check_canonical(b"{}", 1), Err(JcsError::TooLong { .. })));
        let deep = format!("{}{}", "[".repeat(40), "]".repeat(40));
        assert_eq!(check_canonical(deep.as_bytes(), 100), Err(JcsError::TooDeep));
    }

    proptest! {
        #[test]
        fn strings_agree_with_the_library(text in any::<String>()) {
            let mut ours = Vec::new();
            write_string(&mut ours, &text);
            prop_assert_eq!(ours, to_canonical(&text).unwrap());
        }
    }
}
