//! The mark: the newest admin checkpoint whose signing was begun, durable before the token is asked.
//!
//! A worker's guard ends with its process, and the clients of a gateway's trail hold its newest head.
//! Nobody holds the admin trail's. So workers keep one file per token serial, `<state dir>/<serial>.mark`,
//! shared by all workers of the token:
//!
//! ```text
//! {"v":1,"serial":"…","marks":[{"origin":"…","size":3,"input":"<SHA-256 of the checkpoint's text>"}]}
//! <HMAC over the serial and that line, 64 hexadecimal digits>
//! ```
//! Each line ends with a line feed. The file has one spelling, and any other byte is refused. It is
//! replaced by rename, with an exclusive lock on `<serial>.mark.lock` around read, decision and write.
//!
//! | what is to be signed | what follows |
//! |---|---|
//! | above the mark | the mark moves there, durable on return |
//! | at the mark, the same input | signed again: an open intent after a crash |
//! | at the mark, another input | [`Reason::PositionConflict`] |
//! | below the mark | [`Reason::PositionStale`]; no proof helps, since an open intent is always the newest |
//! | the file is missing, damaged or of another key | [`Reason::MarkState`] |
//!
//! A missing file is never taken for an empty one: [`create`] makes it while the token has no key of
//! ours, and so nothing can have been signed. Where it was lost, [`confirm`] sets it on an operator's word.

use std::cmp::Ordering;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use countersign_trail::hash::Hash;
use countersign_trail::origin::Origin;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use crate::error::{HsmError, Reason};
use crate::files;
use crate::latch::hex;
use crate::mac::MacKey;

/// Most trails in a mark file. An instance has one admin trail, and a token one instance.
const MAX_MARKS: usize = 16;
/// Longest mark file, in bytes. Each of 16 marks has at most 316: the origin 200, the size 20 digits,
/// the hash 64, and 32 around them; with 15 commas 5,071. Around them 30, the serial's 16 bytes with 6
/// for each as JSON may escape it, the MAC 64, two line feeds: 192. In all 5,263.
const MAX_FILE_BYTES: u64 = 8192;
const VERSION: u8 = 1;

/// The newest admin checkpoint of a trail whose signing was begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mark {
    /// The trail.
    pub origin: Origin,
    /// The checkpoint's size.
    pub size: u64,
    /// SHA-256 of the checkpoint's text.
    pub input: Hash,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    v: u8,
    serial: String,
    /// One for each origin.
    marks: Vec<Mark>,
}

/// Lets a checkpoint be signed, or says why not; the mark is durable on return.
pub(crate) fn begin(state_dir: &Path, mac: &MacKey, mark: Mark) -> Result<(), HsmError> {
    let file = MarkFile::lock(state_dir, mac)?;
    let mut content = file.load()?;
    if content.advance(mark)? {
        return file.store(&content);
    }
    // A worker that was killed between rename and fsync left the mark visible, and perhaps not durable.
    files::sync_parent(&file.path)
}

/// The mark of a trail; none when none of its checkpoints was begun.
pub(crate) fn get(state_dir: &Path, mac: &MacKey, origin: &Origin) -> Result<Option<Mark>, HsmError> {
    let content = MarkFile::lock(state_dir, mac)?.load()?;
    Ok(content.marks.into_iter().find(|mark| mark.origin == *origin))
}

/// Makes an empty mark file, in the place of any other. The caller has made sure that the token has no
/// key of ours.
pub(crate) fn create(state_dir: &Path, mac: &MacKey) -> Result<(), HsmError> {
    let file = MarkFile::lock(state_dir, mac)?;
    file.store(&file.empty())
}

/// Sets the mark of a trail, also where the file is missing or damaged. It never moves back.
pub(crate) fn confirm(state_dir: &Path, mac: &MacKey, mark: Mark) -> Result<(), HsmError> {
    let file = MarkFile::lock(state_dir, mac)?;
    let mut content = file.load().unwrap_or_else(|_| file.empty());
    content.advance(mark)?;
    file.store(&content)
}

impl Content {
    /// Moves the mark of a trail forward; false when it stands there already.
    fn advance(&mut self, mark: Mark) -> Result<bool, HsmError> {
        let Some(known) = self.marks.iter_mut().find(|known| known.origin == mark.origin) else {
            if self.marks.len() >= MAX_MARKS {
                return Err(HsmError::new(Reason::TooLarge, format!("marks of more than {MAX_MARKS} trails")));
            }
            self.marks.push(mark);
            return Ok(true);
        };
        if *known == mark {
            return Ok(false);
        }
        let (reason, what) = match mark.size.cmp(&known.size) {
            Ordering::Greater => {
                *known = mark;
                return Ok(true);
            }
            Ordering::Equal => (Reason::PositionConflict, "signing another input was begun for"),
            Ordering::Less => (Reason::PositionStale, "the mark lies beyond"),
        };
        let text = format!("{what} checkpoint {} {}; the mark is at size {}", mark.origin, mark.size, known.size);
        Err(HsmError::new(reason, text))
    }
}

/// The mark file of one token, locked.
struct MarkFile<'k> {
    path: PathBuf,
    mac: &'k MacKey,
    _lock: File,
}

impl MarkFile<'_> {
    fn lock<'k>(state_dir: &Path, mac: &'k MacKey) -> Result<MarkFile<'k>, HsmError> {
        let path = files::of_serial(state_dir, mac.serial(), "mark");
        let lock = files::lock_beside(&path).map_err(|(path, error)| mark_error(&path, error))?;
        Ok(MarkFile { path, mac, _lock: lock })
    }

    fn empty(&self) -> Content {
        Content { v: VERSION, serial: self.mac.serial().to_owned(), marks: Vec::new() }
    }

    /// What the file says, if it is ours to the byte.
    fn load(&self) -> Result<Content, HsmError> {
        let failed = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::NotFound => mark_error(&self.path, "missing"),
            _ => mark_error(&self.path, error),
        };
        let mut bytes = Vec::new();
        files::open_plain(&self.path)
            .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes))
            .map_err(failed)?;
        if bytes.len() as u64 > MAX_FILE_BYTES {
            return Err(mark_error(&self.path, format!("longer than {MAX_FILE_BYTES} bytes")));
        }
        let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let content: Content =
            serde_json::from_slice(line).map_err(|error| mark_error(&self.path, format!("damaged: {error}")))?;
        if content.v != VERSION || content.serial != self.mac.serial() {
            return Err(mark_error(&self.path, "of another version or another token"));
        }
        if bool::from(self.encode(&content)?.ct_eq(&bytes)) {
            Ok(content)
        } else {
            Err(mark_error(&self.path, "damaged, or not authenticated by this MAC key"))
        }
    }

    /// The file's bytes.
    fn encode(&self, content: &Content) -> Result<Vec<u8>, HsmError> {
        let mut bytes = serde_json::to_vec(content).map_err(|error| mark_error(&self.path, error))?;
        bytes.push(b'\n');
        let mac = hex(&self.mac.mark(&bytes)?);
        bytes.extend_from_slice(mac.as_bytes());
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Durable on return.
    fn store(&self, content: &Content) -> Result<(), HsmError> {
        files::replace(&self.path, &self.encode(content)?).map_err(|error| mark_error(&self.path, error))
    }
}

fn mark_error(path: &Path, what: impl std::fmt::Display) -> HsmError {
    HsmError::new(Reason::MarkState, format!("{}: {what}", path.display()))
}

#[cfg(test)]
#[path = "mark_tests.rs"]
mod tests;
