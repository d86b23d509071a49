//! What an HSM key may sign, and the position that each signed byte string takes.
//!
//! | purpose of the key | signed bytes begin with | position |
//! |---|---|---|
//! | record | `DSSEv1 ` and the record payload type | (trail, seq) |
//! | checkpoint, admin checkpoint | a C2SP checkpoint text | (origin, size) |
//! | evidence | `DSSEv1 ` and the in-toto payload type | the statement's number |
//! | any key | `DSSEv1 ` and the probe payload type | its nonce |
//!
//! No two inputs are ever signed for one position. A checkpoint begins with an origin, which by its
//! grammar begins with a lower-case letter, so no entry of this table is a prefix of another.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::checkpoint::Checkpoint;
use crate::hash::Hash;
use crate::id::InstanceId;
use crate::jcs;
use crate::keys::Kid;
use crate::origin::Origin;
use crate::record::{MAX_RECORD_LEN, Record, decimal};
use crate::time::Timestamp;

pub use crate::dsse::{
    PROBE as PROBE_PAYLOAD_TYPE, RECORD as RECORD_PAYLOAD_TYPE, STATEMENT as STATEMENT_PAYLOAD_TYPE,
};

/// The longest statement, in bytes: a manifest line of some 400 bytes for each of 20,000 files.
pub const MAX_STATEMENT_LEN: usize = 8 << 20;
/// The longest probe, in bytes.
pub const MAX_PROBE_LEN: usize = 1024;

/// What a key is for. A key has one purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// Signs the records of one trail (record mode).
    Record,
    /// Signs the checkpoints of one trail.
    Checkpoint,
    /// Signs the checkpoints of the admin trail.
    AdminCheckpoint,
    /// Signs statements of the instance.
    Evidence,
}

impl Purpose {
    /// Every purpose.
    pub const ALL: [Purpose; 4] = [Purpose::Record, Purpose::Checkpoint, Purpose::AdminCheckpoint, Purpose::Evidence];

    /// The word in documents and on the wire.
    pub fn word(self) -> &'static str {
        match self {
            Purpose::Record => "record",
            Purpose::Checkpoint => "checkpoint",
            Purpose::AdminCheckpoint => "admin-checkpoint",
            Purpose::Evidence => "evidence",
        }
    }

    /// The purpose of a word.
    pub fn from_word(word: &str) -> Option<Purpose> {
        Purpose::ALL.into_iter().find(|purpose| purpose.word() == word)
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// What may be signed only once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Position {
    /// A record's place.
    Record {
        /// Its trail.
        trail: Origin,
        /// Its sequence number.
        seq: u64,
    },
    /// A checkpoint's size.
    Checkpoint {
        /// Its trail.
        origin: Origin,
        /// The size of the tree.
        size: u64,
    },
    /// A statement's number under its key.
    Statement {
        /// The key.
        kid: Kid,
        /// From the key's counter.
        number: u64,
    },
    /// A probe's nonce.
    Probe {
        /// 32 random bytes.
        nonce: Hash,
    },
}

impl Position {
    /// The number that grows along the key's life; none for probes.
    pub fn number(&self) -> Option<u64> {
        match self {
            Position::Record { seq: number, .. }
            | Position::Checkpoint { size: number, .. }
            | Position::Statement { number, .. } => Some(*number),
            Position::Probe { .. } => None,
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Position::Record { trail, seq } => write!(f, "record {trail} {seq}"),
            Position::Checkpoint { origin, size } => write!(f, "checkpoint {origin} {size}"),
            Position::Statement { kid, number } => write!(f, "statement {kid} {number}"),
            Position::Probe { nonce } => write!(f, "probe {nonce}"),
        }
    }
}

/// Why a key does not sign a byte string.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SigningError {
    /// The bytes are not of the form that the key's purpose signs.
    #[error("a {purpose} key does not sign this: {problem}")]
    Purpose {
        /// The key's purpose.
        purpose: Purpose,
        /// What is wrong with the bytes.
        problem: String,
    },
    /// The bytes are of the right form, for another trail.
    #[error("the key is of trail {want:?}, the bytes are of {found}")]
    Trail {
        /// The key's trail; empty for a key of the instance.
        want: String,
        /// The trail in the bytes.
        found: Origin,
    },
    /// A record that does not name the key.
    #[error("the record does not name key {0}")]
    Kid(Kid),
}

/// A probe's payload: proof that a key signs, and nothing else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    /// The appliance.
    pub instance: InstanceId,
    /// The key.
    pub kid: Kid,
    /// 32 random bytes, never used twice.
    pub nonce: Hash,
    /// When it was asked for.
    pub time: Timestamp,
}

/// The members of a statement's predicate that say which one it is.
#[derive(Deserialize)]
struct NumberedPredicate {
    kid: Kid,
    #[serde(with = "decimal")]
    number: u64,
}

/// The position of `message` under a key of `purpose` for `trail` (none for a key of the
/// instance), or why that key does not sign it.
pub fn position_of(
    purpose: Purpose,
    trail: Option<&Origin>,
    kid: &Kid,
    message: &[u8],
) -> Result<Position, SigningError> {
    let wrong = |problem: String| SigningError::Purpose { purpose, problem };
    let dsse = split_pae(message);
    if let Some((PROBE_PAYLOAD_TYPE, payload)) = dsse {
        let probe: Probe = jcs::parse_canonical(payload, MAX_PROBE_LEN).map_err(|e| wrong(e.to_string()))?;
        if probe.kid != *kid {
            return Err(wrong(format!("a probe of key {}", probe.kid)));
        }
        return Ok(Position::Probe { nonce: probe.nonce });
    }
    match (purpose, dsse) {
        (Purpose::Record, Some((RECORD_PAYLOAD_TYPE, payload))) => {
            let record = Record::parse(payload).map_err(|e| wrong(e.to_string()))?;
            same_trail(trail, &record.header.trail)?;
            if !record.header.kids.contains(kid) {
                return Err(SigningError::Kid(*kid));
            }
            Ok(Position::Record { trail: record.header.trail, seq: record.header.seq })
        }
        (Purpose::Checkpoint | Purpose::AdminCheckpoint, None) => {
            let checkpoint = Checkpoint::parse_text(message).map_err(|e| wrong(e.to_string()))?;
            same_trail(trail, &checkpoint.origin)?;
            Ok(Position::Checkpoint { origin: checkpoint.origin, size: checkpoint.size })
        }
        (Purpose::Evidence, Some((STATEMENT_PAYLOAD_TYPE, payload))) => {
            let statement = jcs::check_canonical(payload, MAX_STATEMENT_LEN).map_err(|e| wrong(e.to_string()))?;
            // Serde takes a list of values for an object.
            let predicate = statement.get("predicate").filter(|predicate| predicate.is_object());
            let predicate = predicate.ok_or_else(|| wrong("a statement has an object as predicate".to_owned()))?;
            let predicate = NumberedPredicate::deserialize(predicate).map_err(|e| wrong(e.to_string()))?;
            if predicate.kid != *kid {
                return Err(wrong(format!("a statement of key {}", predicate.kid)));
            }
            Ok(Position::Statement { kid: *kid, number: predicate.number })
        }
        (_, Some((payload_type, _))) => Err(wrong(format!("payload type {payload_type:?}"))),
        (_, None) => Err(wrong("neither a DSSE encoding nor a checkpoint".to_owned())),
    }
}

/// The sequence number that a record to be signed says it has, for choosing who signs it: nothing else
/// of the message is looked at, and [`position_of`] is what decides. `None` for what is no record.
///
/// Of the members of a record only `time`, `trail`, `type` and `v` stand behind `seq`, and none of
/// them can hold a quotation mark.
pub fn claimed_seq(message: &[u8]) -> Option<u64> {
    const MEMBER: &[u8] = br#""seq":""#;
    let (RECORD_PAYLOAD_TYPE, payload) = split_pae(message)? else { return None };
    let at = payload.windows(MEMBER.len()).rposition(|window| window == MEMBER)? + MEMBER.len();
    let digits = payload[at..].split(|byte| *byte == b'"').next()?;
    decimal::parse(std::str::from_utf8(digits).ok()?)
}

fn same_trail(want: Option<&Origin>, found: &Origin) -> Result<(), SigningError> {
    if want == Some(found) {
        return Ok(());
    }
    Err(SigningError::Trail { want: want.map(ToString::to_string).unwrap_or_default(), found: found.clone() })
}

/// Splits a DSSE v1 pre-authentication encoding into payload type and payload; none where the bytes
/// are not exactly one.
fn split_pae(message: &[u8]) -> Option<(&str, &[u8])> {
    let rest = message.strip_prefix(b"DSSEv1 ")?;
    let (payload_type, rest) = take_counted(rest, MAX_PROBE_LEN)?;
    let rest = rest.strip_prefix(b" ")?;
    let (payload, rest) = take_counted(rest, MAX_STATEMENT_LEN.max(MAX_RECORD_LEN))?;
    if rest.is_empty() { Some((std::str::from_utf8(payload_type).ok()?, payload)) } else { None }
}

/// `LEN SP bytes`, with LEN in its one decimal spelling.
fn take_counted(bytes: &[u8], max: usize) -> Option<(&[u8], &[u8])> {
    let space = bytes.iter().take(21).position(|b| *b == b' ')?;
    let len = usize::try_from(decimal::parse(std::str::from_utf8(&bytes[..space]).ok()?)?).ok()?;
    if len > max {
        return None;
    }
    bytes[space + 1..].split_at_checked(len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dsse::pae;

    #[test]
    fn a_statement_is_an_object_and_so_is_its_predicate() {
        let kid = Kid::from_bytes([7; 32]);
        let position = |payload: &str| {
            let message = pae(STATEMENT_PAYLOAD_TYPE, payload.as_bytes());
            position_of(Purpose::Evidence, None, &kid, &message)
        };
        let statement = format!(r#"{{"predicate":{{"kid":"{kid}","number":"3"}}}}"#);
        assert_eq!(position(&statement), Ok(Position::Statement { kid, number: 3 }));
        for other in [
            format!(r#"{{"predicate":["{kid}","3"]}}"#),
            format!(r#"[{{"kid":"{kid}","number":"3"}}]"#),
            format!(r#"[["{kid}","3"]]"#),
            "{}".to_owned(),
        ] {
            assert!(matches!(position(&other), Err(SigningError::Purpose { .. })), "{other}");
        }
    }
}
