//! Costs: LiteLLM's binary floats as decimal strings.

use crate::MapError;

/// Longest decimal string of an event, in bytes (`Cost` in `event.proto`).
pub const MAX_DECIMAL_BYTES: usize = 40;

/// The shortest decimal that reads back as the same 64-bit float, without exponent: `3.9e-05`
/// becomes `0.000039`, `0.00022500000000000002` stays.
///
/// # Errors
/// [`MapError::Number`] when `literal` is no finite number at or above zero, or needs more than
/// [`MAX_DECIMAL_BYTES`].
pub fn decimal(field: &'static str, literal: &str) -> Result<String, MapError> {
    // str::parse rounds correctly and Display is the shortest round trip without exponent: both
    // are documented for f64, and together they do not depend on how the number was printed.
    let number = literal.parse::<f64>().ok().filter(|number| number.is_finite() && *number >= 0.0);
    number
        // Adding zero turns a negative zero into zero.
        .map(|number| format!("{}", number + 0.0))
        .filter(|text| text.len() <= MAX_DECIMAL_BYTES)
        .ok_or_else(|| crate::id::bad_number(field, literal, "amount of at most 40 digits"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_become_their_shortest_decimal() {
        for (literal, expected) in [
            ("0.0", "0"),
            ("-0.0", "0"),
            ("3.9e-05", "0.000039"),
            ("2E-7", "0.0000002"),
            ("0.00022500000000000002", "0.00022500000000000002"),
            ("0.000225000000000000020", "0.00022500000000000002"),
            ("1e3", "1000"),
            ("12", "12"),
        ] {
            let text = decimal("response_cost", literal).unwrap();
            assert_eq!(text, expected, "{literal}");
            let (back, there): (f64, f64) = (text.parse().unwrap(), literal.parse().unwrap());
            assert_eq!(back, there);
        }
    }

    #[test]
    fn other_numbers_are_refused() {
        for literal in ["-1e-9", "1e999", "1e-60", "\"1\"", "null", "NaN"] {
            assert!(decimal("response_cost", literal).is_err(), "{literal}");
        }
    }
}
