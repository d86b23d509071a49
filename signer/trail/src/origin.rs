//! The globally unique name of a trail (the "origin" of C2SP tlog-checkpoint).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The longest origin, in bytes.
pub const MAX_ORIGIN_LEN: usize = 200;

/// A trail's name, such as `acme.example/gateway/decisions`.
///
/// Grammar: `^[a-z][a-z0-9-]*(\.[a-z0-9-]+)+(/[a-z0-9._-]+)+$`, at most 200 bytes. No other byte
/// string that a key of this system signs can begin with an origin and a line feed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Origin(String);

/// A text that is not an origin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not an origin: a host name with a dot, then one or more /segments of a-z 0-9 . _ -, at most {MAX_ORIGIN_LEN} bytes"
)]
pub struct OriginError {
    text: String,
}

impl Origin {
    /// Checks `text` against the grammar.
    pub fn parse(text: &str) -> Result<Self, OriginError> {
        if text.len() <= MAX_ORIGIN_LEN && follows_grammar(text) {
            Ok(Self(text.to_owned()))
        } else {
            Err(OriginError { text: text.chars().take(64).collect() })
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name with `~` for `/`: one path segment. `~` is not in the grammar, so no two origins
    /// share a segment.
    pub fn path_segment(&self) -> String {
        self.0.replace('/', "~")
    }
}

fn follows_grammar(text: &str) -> bool {
    let mut segments = text.split('/');
    let Some(host) = segments.next() else {
        return false;
    };
    let label = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    let segment = |s: &str| {
        !s.is_empty() && s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
    };
    let mut rest = segments.peekable();
    host.bytes().next().is_some_and(|b| b.is_ascii_lowercase())
        && host.contains('.')
        && host.split('.').all(label)
        && rest.peek().is_some()
        && rest.all(segment)
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Origin {
    type Err = OriginError;
    fn from_str(text: &str) -> Result<Self, OriginError> {
        Self::parse(text)
    }
}

impl TryFrom<String> for Origin {
    type Error = OriginError;
    fn try_from(text: String) -> Result<Self, OriginError> {
        Self::parse(&text)
    }
}

impl From<Origin> for String {
    fn from(origin: Origin) -> String {
        origin.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grammar() {
        for good in ["a.b/c", "acme.example/gateway/decisions", "a-1.b-2.c/x_y.z-0", "a.-/.."] {
            assert!(Origin::parse(good).is_ok(), "{good}");
        }
        let long = format!("a.b/{}", "c".repeat(197));
        for bad in [
            "", "a", "a/b", "a.b", "a.b/", "A.b/c", "1a.b/c", "a..b/c", "a.b//c", "a.b/c ", "a.b/C", "a.b/c\n",
            "a.b/~", &long,
        ] {
            assert!(Origin::parse(bad).is_err(), "{bad}");
        }
        assert!(Origin::parse(&long[..200]).is_ok());
    }
}
