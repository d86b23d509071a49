//! Times and event ids, made from the payload alone.

use crate::MapError;
use crate::payload::{Payload, text};

/// The year 10000 in microseconds, where RFC 3339 ends; a multiple of 2^8, so exact as a float.
const END_OF_TIME: f64 = 253_402_300_800_000_000.0;

/// Microseconds since 1970 from LiteLLM's seconds as a float, which around now are exact to a
/// quarter of a microsecond, so that rounding gives back the microsecond that LiteLLM measured.
///
/// # Errors
/// [`MapError::Number`] outside the years 1970 to 9999.
pub fn microseconds(field: &'static str, literal: &str) -> Result<u64, MapError> {
    let rounded = literal.parse::<f64>().ok().map(|seconds| (seconds * 1e6).round());
    match rounded {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole and within the bounds")]
        Some(micros) if (0.0..END_OF_TIME).contains(&micros) => Ok(micros as u64),
        _ => Err(bad_number(field, literal, "time between 1970 and 9999")),
    }
}

/// The error for a number that cannot be used, with at most 64 characters of it.
pub(crate) fn bad_number(field: &'static str, literal: &str, wanted: &'static str) -> MapError {
    MapError::Number { field, value: literal.chars().take(64).collect(), wanted }
}

/// RFC 3339 in UTC with exactly six digits of fraction, 27 bytes.
#[must_use]
pub fn rfc3339(micros: u64) -> String {
    let (seconds, fraction) = (micros / 1_000_000, micros % 1_000_000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction:06}Z")
}

/// Year, month and day of the proleptic Gregorian calendar from days since 1970-01-01, after
/// Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_shifted + 2) / 5 + 1;
    let month = if month_shifted < 10 { month_shifted + 3 } else { month_shifted - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

/// A UUIDv7 (RFC 9562 section 5.7), so that ids sort by the start of the call: 48 bits of
/// milliseconds, 12 bits of the millisecond's fraction (section 6.2, method 3), and 62 bits that
/// come from LiteLLM's ids instead of chance, so that the same payload always has the same id.
#[must_use]
pub fn event_id(started: u64, payload: &Payload<'_>) -> String {
    let call = text(payload.litellm_call_id.as_ref()).unwrap_or_default();
    let hash = fnv1a(&[call, &payload.id, &payload.call_type, &payload.status]);
    let millis = u128::from(started / 1000) & 0xffff_ffff_ffff;
    let fraction = u128::from(started % 1000 * 4096 / 1000);
    let tail = (hash ^ (hash >> 64)) & ((1 << 62) - 1);
    let bits = millis << 80 | 7 << 76 | fraction << 64 | 0b10 << 62 | tail;
    let hex = format!("{bits:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// 128-bit FNV-1a over the fields, each ended by a byte that UTF-8 never has. It spreads ids that
/// are unique already; nothing depends on its being hard to invert.
fn fnv1a(fields: &[&str]) -> u128 {
    let bytes = fields.iter().flat_map(|field| field.bytes().chain([0xff]));
    bytes.fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d, |hash: u128, byte| {
        (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_keep_their_microseconds() {
        for (literal, expected) in [
            ("1795177879.636745", "2026-11-20T12:31:19.636745Z"),
            ("1795178871.83443", "2026-11-20T12:47:51.834430Z"),
            ("0", "1970-01-01T00:00:00.000000Z"),
            ("951782399.999999", "2000-02-28T23:59:59.999999Z"),
            ("951782400.0", "2000-02-29T00:00:00.000000Z"),
            ("4107542400.0", "2100-03-01T00:00:00.000000Z"),
        ] {
            assert_eq!(rfc3339(microseconds("startTime", literal).unwrap()), expected);
        }
        for literal in ["-1", "1e300", "\"x\"", "253402300800"] {
            assert!(microseconds("startTime", literal).is_err(), "{literal}");
        }
    }

    /// The published 128-bit FNV-1a values of "" and "a" (draft-eastlake-fnv, appendix).
    #[test]
    fn hash_is_fnv1a() {
        assert_eq!(fnv1a(&[]), 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d);
        let a = (fnv1a(&[]) ^ u128::from(b'a')).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
        assert_eq!(a, 0xd228_cb69_6f1a_8caf_7891_2b70_4e4a_8964);
    }
}
