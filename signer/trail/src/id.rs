//! Short names with a grammar: members, instances, event ids, record types, parts.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A text that does not follow a name's grammar.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {what}: {grammar}")]
pub struct NameError {
    what: &'static str,
    grammar: &'static str,
    text: String,
}

/// The prefix of the record types that only the daemon writes.
pub const RESERVED_TYPE_PREFIX: &str = "countersign.";

fn lower(b: u8) -> bool {
    b.is_ascii_lowercase()
}

fn dashed(text: &str) -> bool {
    text.len() <= 64
        && text.bytes().next().is_some_and(lower)
        && text.bytes().all(|b| lower(b) || b.is_ascii_digit() || b == b'-')
}

fn dotted(text: &str) -> bool {
    text.len() <= 64
        && text.bytes().next().is_some_and(lower)
        && text.bytes().all(|b| lower(b) || b.is_ascii_digit() || b"._-".contains(&b))
}

fn visible_ascii(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| (0x21..=0x7e).contains(&b))
}

fn letters(text: &str) -> bool {
    (1..=32).contains(&text.len()) && text.bytes().all(lower)
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $grammar:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Box<str>);

        impl $name {
            /// Checks `text` against the grammar.
            pub fn parse(text: &str) -> Result<Self, NameError> {
                let follows: fn(&str) -> bool = $check;
                if follows(text) {
                    Ok(Self(text.into()))
                } else {
                    let text = text.chars().take(64).collect();
                    Err(NameError { what: $what, grammar: $grammar, text })
                }
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::parse(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                Self::parse(&text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0.into()
            }
        }
    };
}

name!(
    /// A member of the roster: a person or a machine. 1 to 64 bytes.
    MemberId, "a member id", "a letter a-z, then a-z 0-9 -, at most 64 bytes", dashed
);
name!(
    /// The name of an appliance. 1 to 64 bytes.
    InstanceId, "an instance id", "a letter a-z, then a-z 0-9 -, at most 64 bytes", dashed
);
name!(
    /// The caller's name of an event, unique per trail and client; opaque. 1 to 64 bytes.
    EventId, "an event id", "1 to 64 visible ASCII bytes, 0x21 to 0x7e", visible_ascii
);
name!(
    /// The type of a record. 1 to 64 bytes. Types that begin with `countersign.` are the daemon's.
    TypeName, "a record type", "a letter a-z, then a-z 0-9 . _ -, at most 64 bytes", dotted
);
name!(
    /// The name of a part of an event. 1 to 32 bytes.
    PartName, "a part name", "1 to 32 letters a-z", letters
);

impl TypeName {
    /// Whether only the daemon may write this type.
    pub fn is_reserved(&self) -> bool {
        self.as_str().starts_with(RESERVED_TYPE_PREFIX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grammars() {
        assert!(MemberId::parse("gw-1").is_ok());
        assert!(MemberId::parse("1gw").is_err());
        assert!(MemberId::parse("").is_err());
        assert!(EventId::parse("0198-a!~").is_ok());
        assert!(EventId::parse("a b").is_err());
        assert!(EventId::parse(&"x".repeat(65)).is_err());
        assert!(TypeName::parse("llm.completion").is_ok_and(|t| !t.is_reserved()));
        assert!(TypeName::parse("countersign.gap").is_ok_and(|t| t.is_reserved()));
        assert!(PartName::parse("facts").is_ok());
        assert!(PartName::parse("facts1").is_err());
    }
}
