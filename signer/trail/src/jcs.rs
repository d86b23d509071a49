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
/// spellings to one value: what was read is written again, and must be the same bytes.
pub fn parse_canonical<T: DeserializeOwned + Serialize>(bytes: &[u8], max: usize) -> Result<T, JcsError> {
    let value = check_canonical(bytes, max)?;
    let parsed: T = serde_json::from_value(value).map_err(|error| JcsError::Shape(error.to_string()))?;
    // Serde takes a list of values for an object, and null for a member that may be absent.
    same_bytes(&to_canonical(&parsed)?, bytes)?;
    Ok(parsed)
}

/// Parses canonical JSON of at most `max` bytes without a shape.
pub fn check_canonical(bytes: &[u8], max: usize) -> Result<Value, JcsError> {
    if bytes.len() > max {
        return Err(JcsError::TooLong { len: bytes.len(), max });
    }
    let value: Value = serde_json::from_slice(bytes).map_err(|error| JcsError::Shape(error.to_string()))?;
    check_numbers(&value, 0)?;
    same_bytes(&to_canonical(&value)?, bytes)?;
    Ok(value)
}

fn same_bytes(canonical: &[u8], bytes: &[u8]) -> Result<(), JcsError> {
    if canonical == bytes {
        return Ok(());
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
    use serde::Deserialize;

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

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Shape {
        inner: Inner,
        #[serde(skip_serializing_if = "Option::is_none")]
        maybe: Option<bool>,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        a: u64,
    }

    #[test]
    fn a_list_is_no_object_and_null_is_not_absent() {
        let parse = |text: &str| parse_canonical::<Shape>(text.as_bytes(), 100);
        assert_eq!(parse(r#"{"inner":{"a":1}}"#), Ok(Shape { inner: Inner { a: 1 }, maybe: None }));
        assert_eq!(parse(r#"{"inner":{"a":1},"maybe":true}"#).unwrap().maybe, Some(true));
        for other in [
            r#"{"inner":[1]}"#,
            r#"[{"a":1},null]"#,
            r#"[{"a":1},true]"#,
            r#"[[1],null]"#,
            r#"{"inner":{"a":1},"maybe":null}"#,
        ] {
            assert!(matches!(parse(other), Err(JcsError::NotCanonical { .. })), "{other}: {:?}", parse(other));
        }
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
