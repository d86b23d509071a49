//! The mark: the newest admin checkpoint, and the newest statement of a key, whose signing was begun;
//! durable before the token is asked.
//!
//! A worker's guard ends with its process, and the clients of a gateway's trail hold its newest head.
//! Nobody holds the admin trail's, nor the number of the newest statement. So workers keep one file per token serial, `<state dir>/<serial>.mark`,
//! shared by all workers of the token:
//!
//! ```text
//! {"v":1,"serial":"…","marks":[{"of":"…","size":3,"input":"<SHA-256 of the message>"}]}
//! <HMAC over the serial and that line, 64 hexadecimal digits>
//! ```
//! A mark is of an admin trail, by its origin, its size that of the checkpoint; or of the statements of a
//! key, by its kid, its size the statement's number. Each line ends with a line feed. The file has one spelling, and any other byte is refused. It is
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
use countersign_trail::keys::Kid;
use countersign_trail::origin::Origin;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use crate::error::{HsmError, Reason};
use crate::files;
use crate::latch::hex;
use crate::mac::MacKey;

/// Most marks in a file. An instance has one admin trail and one evidence key, and a token one instance.
const MAX_MARKS: usize = 16;
/// Longest mark file, in bytes. Each of 16 marks has at most 312: the origin 200, the size 20 digits,
/// the hash 64, and 28 around them; with 15 commas 5,007. Around them 30, the serial's 16 bytes with 6
/// for each as JSON may escape it, the MAC 64, two line feeds: 192. In all 5,199.
const MAX_FILE_BYTES: u64 = 8192;
const VERSION: u8 = 1;

/// What a mark is of: an admin trail's checkpoints, or a key's statements. The grammars of origins and kids
/// have nothing in common.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Marked(String);

impl Marked {
    /// The checkpoints of an admin trail.
    pub fn checkpoints(origin: &Origin) -> Marked {
        Marked(origin.to_string())
    }

    /// The statements of an evidence key.
    pub fn statements(kid: &Kid) -> Marked {
        Marked(kid.to_string())
    }
}

impl TryFrom<String> for Marked {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Marked, &'static str> {
        if Origin::parse(&text).is_ok() || text.parse::<Kid>().is_ok() {
            Ok(Marked(text))
        } else {
            Err("neither an origin nor a kid")
        }
    }
}

impl From<Marked> for String {
    fn from(marked: Marked) -> String {
        marked.0
    }
}

impl std::fmt::Display for Marked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// The newest position whose signing was begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mark {
    /// What it is of.
    pub of: Marked,
    /// The checkpoint's size, or the statement's number.
    pub size: u64,
    /// SHA-256 of the message.
    pub input: Hash,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    v: u8,
    serial: String,
    /// One for each thing that is marked.
    marks: Vec<Mark>,
}

/// Lets a message be signed, or says why not; the mark is durable on return.
pub(crate) fn begin(state_dir: &Path, mac: &MacKey, mark: Mark) -> Result<(), HsmError> {
    let file = MarkFile::lock(state_dir, mac)?;
    let mut content = file.load()?;
    if content.advance(mark)? {
        return file.store(&content);
    }
    // A worker that was killed between rename and fsync left the mark visible, and perhaps not durable.
    files::sync_parent(&file.path)
}

/// The mark of a trail or a key; none when nothing of it was begun.
pub(crate) fn get(state_dir: &Path, mac: &MacKey, of: &Marked) -> Result<Option<Mark>, HsmError> {
    let content = MarkFile::lock(state_dir, mac)?.load()?;
    Ok(content.marks.into_iter().find(|mark| mark.of == *of))
}

/// Makes an empty mark file, in the place of any other. The caller has made sure that the token has no
/// key of ours.
pub(crate) fn create(state_dir: &Path, mac: &MacKey) -> Result<(), HsmError> {
    let file = MarkFile::lock(state_dir, mac)?;
    file.store(&file.empty())
}

/// Sets a mark, also where the file is missing or damaged. It never moves back.
pub(crate) fn confirm(state_dir: &Path, mac: &MacKey, mark: Mark) -> Result<(), HsmError> {
    let file = MarkFile::lock(state_dir, mac)?;
    let mut content = file.load().unwrap_or_else(|_| file.empty());
    content.advance(mark)?;
    file.store(&content)
}

impl Content {
    /// Moves a mark forward; false when it stands there already.
    fn advance(&mut self, mark: Mark) -> Result<bool, HsmError> {
        let Some(known) = self.marks.iter_mut().find(|known| known.of == mark.of) else {
            if self.marks.len() >= MAX_MARKS {
                return Err(HsmError::new(Reason::TooLarge, format!("more than {MAX_MARKS} marks")));
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
        let text = format!("{what} number {} of {}; the mark is at {}", mark.size, mark.of, known.size);
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
