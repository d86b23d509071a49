//! The parts of a tile's records: one line of canonical JSON each.

use serde::Deserialize;

use crate::base64;
use crate::hash::Hash;
use crate::id::PartName;
use crate::jcs;
use crate::part::{self, MAX_PARTS, MAX_PARTS_BYTES, SALT_LEN};
use crate::record::decimal;
use crate::tiles::TILE_WIDTH;

/// The longest line, in bytes: the content in base64, and 1,024 for everything else (name 32, media
/// type 128 twice over for escapes, salt 43, seq 20, the members' names).
pub const MAX_PART_LINE_LEN: usize = MAX_PARTS_BYTES.div_ceil(3) * 4 + 1024;

/// The most lines of a file: 256 records of 16 parts.
const MAX_LINES: usize = TILE_WIDTH as usize * MAX_PARTS;

/// A part of a record, or the note that it is withheld.
///
/// Given: `{"data":base64,"media_type":"…","name":"facts","salt":base64url,"seq":"17"}`. Withheld:
/// `{"media_type":"…","name":"facts","seq":"17","withheld":true}`, the media type where it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PartLine {
    /// The content is there.
    Given {
        /// Sequence number of the record.
        seq: u64,
        /// Its name in the record.
        name: PartName,
        /// Its media type.
        media_type: String,
        /// Its salt.
        salt: [u8; SALT_LEN],
        /// Its bytes; none is a part too.
        data: Vec<u8>,
    },
    /// The record commits to it; the content is kept elsewhere, or not shown.
    Withheld {
        /// Sequence number of the record.
        seq: u64,
        /// Its name in the record.
        name: PartName,
        /// Its media type, where the daemon knows it.
        media_type: Option<String>,
    },
}

/// Why bytes are not the parts of a tile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PartsError {
    /// A line is not in its one spelling.
    #[error("line {0} is not a part in canonical form")]
    Line(usize),
    /// A line is too long.
    #[error("line {line} has {len} bytes, the bound is {MAX_PART_LINE_LEN}")]
    TooLong {
        /// The line, from 1.
        line: usize,
        /// Its length in bytes.
        len: usize,
    },
    /// More lines than a tile's records can have parts.
    #[error("more than {MAX_LINES} lines")]
    TooMany,
    /// The lines do not ascend by (seq, name).
    #[error("line {0} does not come after the line before it by (seq, name)")]
    Order(usize),
    /// The last line has no line feed, or there is no line.
    #[error("the file is empty or does not end in a line feed")]
    Unfinished,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    data: Option<String>,
    media_type: Option<String>,
    name: PartName,
    salt: Option<String>,
    #[serde(with = "decimal")]
    seq: u64,
    withheld: Option<bool>,
}

impl PartLine {
    /// Sequence number of its record.
    pub fn seq(&self) -> u64 {
        match self {
            PartLine::Given { seq, .. } | PartLine::Withheld { seq, .. } => *seq,
        }
    }

    /// Its name in the record.
    pub fn name(&self) -> &PartName {
        match self {
            PartLine::Given { name, .. } | PartLine::Withheld { name, .. } => name,
        }
    }

    /// The commitment that the record must hold; none where the content is withheld.
    pub fn commitment(&self) -> Option<Hash> {
        match self {
            PartLine::Given { name, media_type, salt, data, .. } => {
                Some(part::commitment(name, media_type, salt, data))
            }
            PartLine::Withheld { .. } => None,
        }
    }

    /// Appends the line, without line feed.
    fn write(&self, out: &mut Vec<u8>) {
        let member = |out: &mut Vec<u8>, start: &str, text: &str| {
            out.extend_from_slice(start.as_bytes());
            jcs::write_string(out, text);
        };
        match self {
            PartLine::Given { seq, name, media_type, salt, data } => {
                member(out, "{\"data\":", &base64::std_encode(data));
                member(out, ",\"media_type\":", media_type);
                member(out, ",\"name\":", name.as_str());
                member(out, ",\"salt\":", &base64::url_encode(salt));
                member(out, ",\"seq\":", &seq.to_string());
                out.push(b'}');
            }
            PartLine::Withheld { seq, name, media_type } => {
                out.push(b'{');
                if let Some(media_type) = media_type {
                    member(out, "\"media_type\":", media_type);
                    out.push(b',');
                }
                member(out, "\"name\":", name.as_str());
                member(out, ",\"seq\":", &seq.to_string());
                out.extend_from_slice(b",\"withheld\":true}");
            }
        }
    }

    fn parse(line: &[u8]) -> Option<PartLine> {
        let Raw { data, media_type, name, salt, seq, withheld } = serde_json::from_slice(line).ok()?;
        if !media_type.as_deref().is_none_or(part::is_media_type) {
            return None;
        }
        let part = match (data, media_type, salt, withheld) {
            (Some(data), Some(media_type), Some(salt), None) => {
                let salt = base64::url_decode(&salt).ok()?.try_into().ok()?;
                let data = base64::std_decode(&data).ok()?;
                PartLine::Given { seq, name, media_type, salt, data }
            }
            (None, media_type, None, Some(true)) => PartLine::Withheld { seq, name, media_type },
            _ => return None,
        };
        // One spelling.
        let mut again = Vec::with_capacity(line.len());
        part.write(&mut again);
        (again == line).then_some(part)
    }
}

/// Parses a file of parts: lines that ascend by (seq, name), each ended by a line feed.
///
/// # Errors
/// [`PartsError`], with the line's number from 1.
pub fn parse_parts(bytes: &[u8]) -> Result<Vec<PartLine>, PartsError> {
    let body = bytes.strip_suffix(b"\n").ok_or(PartsError::Unfinished)?;
    let mut parts: Vec<PartLine> = Vec::new();
    for (at, line) in body.split(|byte| *byte == b'\n').enumerate() {
        let number = at + 1;
        if number > MAX_LINES {
            return Err(PartsError::TooMany);
        }
        if line.len() > MAX_PART_LINE_LEN {
            return Err(PartsError::TooLong { line: number, len: line.len() });
        }
        let part = PartLine::parse(line).ok_or(PartsError::Line(number))?;
        if parts.last().is_some_and(|last| (last.seq(), last.name()) >= (part.seq(), part.name())) {
            return Err(PartsError::Order(number));
        }
        parts.push(part);
    }
    Ok(parts)
}

/// The bytes of a file of parts. The caller keeps the order; [`parse_parts`] demands it.
pub fn write_parts(parts: &[PartLine]) -> Vec<u8> {
    let mut out = Vec::new();
    for part in parts {
        part.write(&mut out);
        out.push(b'\n');
    }
    out
}
