//! The framed protocol between a pool and its worker processes.
//!
//! ```text
//! preamble   8 bytes, once, pool to worker: "CSHSM" 0x00, u16 little-endian version
//! frame      u32 little-endian length (at most 16 MiB), then that many bytes:
//!            postcard of a sequence of requests (to the worker) or replies (from it)
//! ```
//! Many messages share a frame. A request has an id; its replies carry it and come in any order.
//! The first request is `Start`; a worker that gives up says why with `Exiting`, id 0.

use std::fmt;
use std::io::{self, Read};

use bytes::Bytes;
use countersign_trail::keys::Kid;
use serde::de::{self, DeserializeOwned};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::config::{GeneratedKey, KeyBinding, KeySpec, ListedObject, RecoveryProof, TokenConfig, TokenInfo};
use crate::error::HsmError;
use crate::mark::{Mark, Marked};

/// Longest frame, in bytes.
pub(crate) const MAX_FRAME_BYTES: usize = 16 * 1024 * 1024;
/// Message bytes in one `Sign` request beyond which a further message goes into the next request;
/// a single longer message is a request of its own.
pub(crate) const CHUNK_BYTES: usize = 1024 * 1024;
/// Most messages in one `Sign` request.
///
/// Signatures are handed on request by request, so that the first are verified while the others are
/// made.
pub(crate) const MAX_CHUNK_ITEMS: usize = 64;
/// Raised whenever a message changes; a worker of another version refuses to start.
pub(crate) const PREAMBLE: [u8; 8] = *b"CSHSM\0\x02\0";

/// Why bytes are not a frame.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("a frame of {0} bytes, at most {MAX_FRAME_BYTES} are allowed")]
    TooLong(usize),
    #[error("a frame that does not decode: {0}")]
    Malformed(postcard::Error),
    #[error("{0} bytes follow the frame's messages")]
    Trailing(usize),
    #[error("the socket: {0}")]
    Io(#[from] io::Error),
}

/// Bytes, carried as one block.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Blob(pub(crate) Bytes);

impl fmt::Debug for Blob {
    /// Shows the length alone: contents never reach a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blob({} bytes)", self.0.len())
    }
}

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Blob, D::Error> {
        struct Block;
        impl de::Visitor<'_> for Block {
            type Value = Blob;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Blob, E> {
                Ok(Blob(Bytes::copy_from_slice(bytes)))
            }
        }
        deserializer.deserialize_bytes(Block)
    }
}

/// Pool to worker.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) id: u64,
    pub(crate) call: Call,
}

/// What the worker is asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Call {
    /// The first request, once.
    Start(Box<Start>),
    /// Keys to use from now on. Answer: `Bound`.
    Bind(Vec<KeyBinding>),
    /// Keys never to use again. Answer: `Done`.
    Unbind(Vec<Kid>),
    /// Messages to sign. Answers: `Signed`, one or more, until every item has its result.
    Sign(Vec<WireItem>),
    /// Answer: `Mac`.
    Mac([u8; 32]),
    /// Answer: `Checked`.
    CheckMac(RecoveryProof),
    /// Answer: `Generated`.
    Generate(Box<KeySpec>),
    /// Gives both objects their final label. Answer: `Done`.
    Finalize { cka_id: Vec<u8>, instance: String, name: String },
    /// Destroys both objects and reads back their absence. Answer: `Done`.
    Destroy { cka_id: Vec<u8> },
    /// Destroys what unfinished generations left. Answer: `Listed`, what was destroyed.
    Sweep { instance: String },
    /// Answer: `Listed`, every object with a label of ours.
    List,
    /// Answer: `Marked`, the mark of an admin trail.
    Mark(Marked),
    /// Makes an empty mark file, while the token holds no key of ours. Answer: `Done`.
    CreateMark,
    /// Sets a mark on an operator's word. Answer: `Done`.
    ConfirmMark(Mark),
}

/// What a worker needs to know before it opens the module.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Start {
    pub(crate) token: TokenConfig,
    pub(crate) keys: Vec<KeyBinding>,
}

/// One message to sign.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct WireItem {
    pub(crate) kid: Kid,
    pub(crate) message: Blob,
    pub(crate) recovery: Option<RecoveryProof>,
}

/// Worker to pool.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Reply {
    pub(crate) id: u64,
    pub(crate) answer: Answer,
}

/// What the worker answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Answer {
    Started {
        info: TokenInfo,
        refused: Vec<(Kid, HsmError)>,
    },
    Bound {
        refused: Vec<(Kid, HsmError)>,
    },
    /// Consecutive items of a `Sign` request, from item `first` on; signatures are in wire form.
    Signed {
        first: u32,
        results: Vec<Result<Blob, HsmError>>,
    },
    Mac([u8; 32]),
    Checked(bool),
    Generated(Box<GeneratedKey>),
    Listed(Vec<ListedObject>),
    Marked(Option<Mark>),
    Done,
    /// The call failed; the worker goes on.
    Failed(HsmError),
    /// The worker ends now. Latched: it must not be started again before an operator acts.
    Exiting {
        error: HsmError,
        latched: bool,
    },
}

/// One frame, length prefix included.
pub(crate) fn encode<T: Serialize>(messages: &[T]) -> Result<Vec<u8>, FrameError> {
    let mut frame = postcard::to_extend(messages, vec![0; 4]).map_err(FrameError::Malformed)?;
    let len = frame.len() - 4;
    let prefix = u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes();
    if len > MAX_FRAME_BYTES {
        return Err(FrameError::TooLong(len));
    }
    frame[..4].copy_from_slice(&prefix);
    Ok(frame)
}

/// The messages of one frame, without its length prefix.
pub(crate) fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<Vec<T>, FrameError> {
    let (messages, rest) = postcard::take_from_bytes(body).map_err(FrameError::Malformed)?;
    if rest.is_empty() { Ok(messages) } else { Err(FrameError::Trailing(rest.len())) }
}

/// The body length that a prefix announces, if it is within the bound.
pub(crate) fn body_len(prefix: [u8; 4]) -> Result<usize, FrameError> {
    let len = u32::from_le_bytes(prefix) as usize;
    if len > MAX_FRAME_BYTES {
        return Err(FrameError::TooLong(len));
    }
    Ok(len)
}

/// Reads one frame; None when the peer has closed between frames.
pub(crate) fn read<T: DeserializeOwned>(from: &mut impl Read) -> Result<Option<Vec<T>>, FrameError> {
    let mut prefix = [0; 4];
    match from.read(&mut prefix[..1])? {
        0 => return Ok(None),
        _ => from.read_exact(&mut prefix[1..])?,
    }
    let mut body = vec![0; body_len(prefix)?];
    from.read_exact(&mut body)?;
    decode(&body).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(id: u64) -> Request {
        Request { id, call: Call::Mac([7; 32]) }
    }

    #[test]
    fn frames_carry_many_messages() {
        let frame = encode(&[request(1), request(2)]).unwrap();
        let mut two = frame.clone();
        two.extend_from_slice(&frame);
        let mut reader = two.as_slice();
        for _ in 0..2 {
            let messages: Vec<Request> = read(&mut reader).unwrap().unwrap();
            assert_eq!(messages.iter().map(|m| m.id).collect::<Vec<_>>(), [1, 2]);
        }
        assert!(read::<Request>(&mut reader).unwrap().is_none());
    }

    #[test]
    fn a_frame_over_the_bound_is_refused_before_it_is_read() {
        let prefix = u32::try_from(MAX_FRAME_BYTES + 1).unwrap().to_le_bytes();
        let error = read::<Request>(&mut prefix.as_slice()).unwrap_err();
        assert!(matches!(error, FrameError::TooLong(n) if n == MAX_FRAME_BYTES + 1));
        let item =
            WireItem { kid: Kid::from_bytes([1; 32]), message: Blob(vec![0; MAX_FRAME_BYTES].into()), recovery: None };
        let call = Call::Sign(vec![item]);
        let error = encode(&[Request { id: 1, call }]).unwrap_err();
        assert!(matches!(error, FrameError::TooLong(_)));
    }

    #[test]
    fn torn_and_padded_frames_are_refused() {
        let frame = encode(&[request(1)]).unwrap();
        for end in 1..frame.len() {
            assert!(read::<Request>(&mut &frame[..end]).is_err(), "cut at {end}");
        }
        let mut padded = frame[4..].to_vec();
        padded.push(0);
        assert!(matches!(decode::<Request>(&padded), Err(FrameError::Trailing(1))));
    }

    #[test]
    fn blobs_do_not_show_their_contents() {
        assert_eq!(format!("{:?}", Blob(Bytes::from_static(b"secret"))), "Blob(6 bytes)");
    }
}
