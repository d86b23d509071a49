//! The `transcript.jsonl` file: every input that the module was asked to sign, and what it answered.
//!
//! JSON lines of two kinds. `asked` is written before the real module is called, so that no process that is killed
//! can have had anything signed that is not in the file; `answered` follows when the call returns to the caller:
//! ```text
//! {"phase":"asked","pid":7,"function":"C_Sign","n":3,"mechanism":"0x1057","key_id":"0a","key_label":"k","input":"00ff"}
//! {"phase":"answered","pid":7,"function":"C_Sign","n":3,"rv":"0x0","sig":"…","injected":false}
//! ```
//! `(function, n)` is unique in a folder. The input is what the mechanism takes: the whole message for CKM_EDDSA
//! (0x1057), the digest for CKM_ECDSA (0x1041); for a signature in several parts it is their concatenation, under
//! `C_SignFinal`. The answer is what the caller got: `sig` of a garbage signature is the garbage.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::lines::{self, Taken};
use crate::{Error, Function};

/// File name in the shared folder.
pub const TRANSCRIPT_FILE: &str = "transcript.jsonl";
/// Largest input that is recorded, in bytes; the module aborts beyond. A record with its DSSE framing has 65.6 KB.
pub const MAX_INPUT_BYTES: usize = 1024 * 1024;

/// What every entry begins with. It cannot occur inside of one: within a JSON string its quotes are escaped.
const START: &str = "{\"phase\":";

/// An input that the module was asked to sign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// The process that asked.
    pub pid: u32,
    /// `C_Sign`, `C_SignFinal` or `C_SignRecover`.
    pub function: Function,
    /// The call's number, as in [`crate::counters`].
    pub n: u64,
    /// CK_MECHANISM_TYPE; `None` when no signing operation was active.
    #[serde(with = "code::optional")]
    pub mechanism: Option<u64>,
    /// CKA_ID of the key; `None` when no operation was active or the key has none.
    #[serde(with = "bytes::optional")]
    pub key_id: Option<Vec<u8>>,
    /// CKA_LABEL of the key; `None` as for `key_id`.
    pub key_label: Option<String>,
    /// The exact input.
    #[serde(with = "bytes")]
    pub input: Vec<u8>,
    /// What it answered; `None` when it never did (a hang, an abort, a kill).
    #[serde(skip)]
    pub answer: Option<Answer>,
}

/// What the caller got.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The return value.
    #[serde(with = "code")]
    pub rv: u64,
    /// The signature, when the return value is CKR_OK and the answer was not made up.
    #[serde(rename = "sig", with = "bytes::optional")]
    pub signature: Option<Vec<u8>>,
    /// Whether a rule made the answer what it is.
    pub injected: bool,
}

#[derive(Serialize)]
#[serde(tag = "phase", rename_all = "lowercase")]
enum Line<'a> {
    Asked(&'a Asked),
    Answered(Answered<'a>),
}

#[derive(Serialize)]
struct Answered<'a> {
    pid: u32,
    function: Function,
    n: u64,
    #[serde(flatten)]
    answer: &'a Answer,
}

#[derive(Deserialize)]
#[serde(tag = "phase", rename_all = "lowercase")]
enum ReadLine {
    Asked(Asked),
    Answered(ReadAnswered),
}

#[derive(Deserialize)]
struct ReadAnswered {
    function: Function,
    n: u64,
    #[serde(flatten)]
    answer: Answer,
}

impl Asked {
    /// Appends the `asked` line to the transcript. `file` must have been opened for appending.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn append(&self, file: &File) -> std::io::Result<()> {
        append(file, &Line::Asked(self))
    }

    /// Appends the `answered` line that belongs to this input.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn append_answer(&self, file: &File, answer: &Answer) -> std::io::Result<()> {
        append(file, &Line::Answered(Answered { pid: self.pid, function: self.function, n: self.n, answer }))
    }
}

fn append(file: &File, line: &Line<'_>) -> std::io::Result<()> {
    let mut bytes = serde_json::to_vec(line)?;
    bytes.push(b'\n');
    lines::append(file, &bytes)
}

/// A transcript, read whole.
#[derive(Debug, Clone, Default)]
pub struct Transcript {
    asked: Vec<Asked>,
    torn: u64,
}

impl Transcript {
    /// Reads what the transcript of a folder holds now.
    ///
    /// # Errors
    /// There is no transcript (the module was never loaded with this folder), it holds something else than entries,
    /// an entry twice, or an answer to nothing.
    pub fn read(dir: &Path) -> Result<Self, Error> {
        let path = dir.join(TRANSCRIPT_FILE);
        let mut asked: Vec<Asked> = Vec::new();
        let mut positions = HashMap::new();
        let torn = lines::read(&path, START, |number, piece| {
            match serde_json::from_str(piece) {
                Err(_) => return Ok(Taken::Torn),
                Ok(ReadLine::Asked(entry)) => {
                    if positions.insert((entry.function, entry.n), asked.len()).is_some() {
                        return Err(Error::line(&path, number, "asks a second time under one call number"));
                    }
                    asked.push(entry);
                }
                Ok(ReadLine::Answered(entry)) => {
                    let position = positions.get(&(entry.function, entry.n));
                    let Some(question) = position.and_then(|&position| asked.get_mut(position)) else {
                        return Err(Error::line(&path, number, "answers a call that was not asked"));
                    };
                    if question.answer.replace(entry.answer).is_some() {
                        return Err(Error::line(&path, number, "answers a call a second time"));
                    }
                }
            }
            Ok(Taken::Whole)
        })?;
        Ok(Self { asked, torn })
    }

    /// Every input, with its answer, in the order of the file: an input may have been signed whether or not it was
    /// answered.
    pub fn asked(&self) -> impl ExactSizeIterator<Item = &Asked> {
        self.asked.iter()
    }

    /// How many lines were torn by a kill in the midst of writing them. Nothing was signed for a torn `asked` line,
    /// and a torn `answered` line leaves its input without an answer.
    #[must_use]
    pub fn torn(&self) -> u64 {
        self.torn
    }
}

/// Bytes as lower-case hex.
mod bytes {
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(value: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&hex::encode(value))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        hex::decode(String::deserialize(from)?).map_err(de::Error::custom)
    }

    pub(super) mod optional {
        use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

        pub(crate) fn serialize<S: Serializer>(value: &Option<Vec<u8>>, to: S) -> Result<S::Ok, S::Error> {
            value.as_ref().map(hex::encode).serialize(to)
        }

        pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<u8>>, D::Error> {
            let text = Option::<String>::deserialize(from)?;
            text.map(hex::decode).transpose().map_err(de::Error::custom)
        }
    }
}

/// A PKCS#11 constant as the specification writes it: `0x` and hex digits.
mod code {
    use serde::{Deserialize, Deserializer, Serializer, de};

    fn parse<E: de::Error>(text: &str) -> Result<u64, E> {
        let digits = text.strip_prefix("0x").ok_or_else(|| E::custom("does not begin with 0x"))?;
        u64::from_str_radix(digits, 16).map_err(E::custom)
    }

    pub(super) fn serialize<S: Serializer>(value: &u64, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&format!("{value:#x}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        parse(&String::deserialize(from)?)
    }

    pub(super) mod optional {
        use serde::{Deserialize, Deserializer, Serialize, Serializer};

        pub(crate) fn serialize<S: Serializer>(value: &Option<u64>, to: S) -> Result<S::Ok, S::Error> {
            value.map(|code| format!("{code:#x}")).serialize(to)
        }

        pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
            Option::<String>::deserialize(from)?.as_deref().map(super::parse).transpose()
        }
    }
}
