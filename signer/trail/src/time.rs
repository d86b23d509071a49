//! Time as it stands in signed bytes: RFC 3339, UTC, microseconds, one spelling.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

const MICROS_PER_SECOND: i64 = 1_000_000;
const SECONDS_PER_DAY: i64 = 86_400;
/// 9999-12-31T23:59:59.999999Z, the last time that four digits of year can spell.
const MAX_MICROS: i64 = 253_402_300_799_999_999;

/// Microseconds since 1970-01-01T00:00:00Z, no leap seconds, up to the end of year 9999.
///
/// Its only text is `YYYY-MM-DDThh:mm:ss.ffffffZ` (27 bytes).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Timestamp(i64);

/// A text or a number that is not a [`Timestamp`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a time: want YYYY-MM-DDThh:mm:ss.ffffffZ in the years 1970 to 9999")]
pub struct TimeError {
    text: String,
}

impl Timestamp {
    /// 1970-01-01T00:00:00.000000Z.
    pub const EPOCH: Timestamp = Timestamp(0);

    /// From microseconds since the epoch; refuses times before 1970 and after 9999.
    pub fn from_micros(micros: i64) -> Result<Self, TimeError> {
        if (0..=MAX_MICROS).contains(&micros) { Ok(Self(micros)) } else { Err(TimeError { text: micros.to_string() }) }
    }

    /// Microseconds since the epoch, never negative.
    pub fn as_micros(self) -> i64 {
        self.0
    }

    /// Writes the 27-byte text without allocating.
    pub fn write(self, out: &mut Vec<u8>) {
        let seconds = self.0 / MICROS_PER_SECOND;
        let micros = self.0 % MICROS_PER_SECOND;
        let (year, month, day) = civil_from_days(seconds / SECONDS_PER_DAY);
        let second_of_day = seconds % SECONDS_PER_DAY;
        digits(out, year, 4);
        out.push(b'-');
        digits(out, month, 2);
        out.push(b'-');
        digits(out, day, 2);
        out.push(b'T');
        digits(out, second_of_day / 3600, 2);
        out.push(b':');
        digits(out, second_of_day / 60 % 60, 2);
        out.push(b':');
        digits(out, second_of_day % 60, 2);
        out.push(b'.');
        digits(out, micros, 6);
        out.push(b'Z');
    }
}

fn digits(out: &mut Vec<u8>, value: i64, width: usize) {
    let mut buffer = [b'0'; 6];
    let mut rest = value;
    for slot in buffer[..width].iter_mut().rev() {
        *slot = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    out.extend_from_slice(&buffer[..width]);
}

/// Days since 1970-01-01 to a Gregorian date (Hinnant, "chrono-compatible low-level date
/// algorithms"), for days that are not negative.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z / 146_097;
    let day_of_era = z % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// The inverse of [`civil_from_days`].
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let y = if month <= 2 { year - 1 } else { year };
    let era = y / 400;
    let year_of_era = y % 400;
    let shifted_month = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * shifted_month + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Vec::with_capacity(27);
        self.write(&mut text);
        f.write_str(&String::from_utf8_lossy(&text))
    }
}

impl FromStr for Timestamp {
    type Err = TimeError;

    fn from_str(text: &str) -> Result<Self, TimeError> {
        parse(text.as_bytes())
            .filter(|time| {
                // One spelling: a date such as 30 February does not come back as it went in.
                let mut again = Vec::with_capacity(27);
                time.write(&mut again);
                again == text.as_bytes()
            })
            .ok_or_else(|| TimeError { text: text.chars().take(40).collect() })
    }
}

fn parse(text: &[u8]) -> Option<Timestamp> {
    const SHAPE: &[u8; 27] = b"0000-00-00T00:00:00.000000Z";
    if text.len() != SHAPE.len() {
        return None;
    }
    let fits = |(b, s): (&u8, &u8)| {
        if *s == b'0' { b.is_ascii_digit() } else { b == s }
    };
    if !text.iter().zip(SHAPE).all(fits) {
        return None;
    }
    let number = |range: std::ops::Range<usize>| text[range].iter().fold(0i64, |n, b| n * 10 + i64::from(b - b'0'));
    let (year, month, day) = (number(0..4), number(5..7), number(8..10));
    let (hour, minute, second) = (number(11..13), number(14..16), number(17..19));
    if year < 1970 || !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 59
    {
        return None;
    }
    let seconds = days_from_civil(year, month, day) * SECONDS_PER_DAY + hour * 3600 + minute * 60 + second;
    Timestamp::from_micros(seconds * MICROS_PER_SECOND + number(20..26)).ok()
}

impl TryFrom<String> for Timestamp {
    type Error = TimeError;
    fn try_from(text: String) -> Result<Self, TimeError> {
        text.parse()
    }
}

impl From<Timestamp> for String {
    fn from(time: Timestamp) -> String {
        time.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_times() {
        for (micros, text) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_400_000_000, "2000-02-29T00:00:00.000000Z"),
            (1_700_000_000_123_456, "2023-11-14T22:13:20.123456Z"),
            (MAX_MICROS, "9999-12-31T23:59:59.999999Z"),
        ] {
            let time = Timestamp::from_micros(micros).unwrap();
            assert_eq!(time.to_string(), text);
            assert_eq!(text.parse::<Timestamp>().unwrap(), time);
        }
    }

    #[test]
    fn one_spelling() {
        for bad in [
            "2023-11-14T22:13:20.12345Z",
            "2023-11-14T22:13:20.123456+00:00",
            "2023-02-30T00:00:00.000000Z",
            "2023-13-01T00:00:00.000000Z",
            "2023-11-14t22:13:20.123456z",
            "2023-11-14T22:13:60.000000Z",
            "1969-12-31T23:59:59.999999Z",
            "2023-11-14T22:13:20.123456Z ",
            "",
        ] {
            assert!(bad.parse::<Timestamp>().is_err(), "{bad}");
        }
        assert!(Timestamp::from_micros(-1).is_err());
        assert!(Timestamp::from_micros(MAX_MICROS + 1).is_err());
    }

    proptest! {
        #[test]
        fn round_trip(micros in 0..=MAX_MICROS) {
            let time = Timestamp::from_micros(micros).unwrap();
            prop_assert_eq!(time.to_string().parse::<Timestamp>().unwrap(), time);
        }
    }
}
