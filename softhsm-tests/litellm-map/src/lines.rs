//! Whole files of payloads, line by line.

use std::collections::HashSet;
use std::io::{self, BufRead, Read, Write};

use crate::{MapError, map_payload};

/// Longest line that is read, in bytes: 4 MiB, some hundred times the largest payload captured.
pub const MAX_INPUT_LINE: usize = 4 * 1024 * 1024;
/// Longest event, in bytes without its line feed: 256 KiB.
pub const MAX_EVENT_LINE: usize = 256 * 1024;
/// Most lines of one file; their ids are held in memory, about 64 bytes each.
pub const MAX_LINES: u64 = 1_000_000;

/// What went wrong with a file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinesError {
    /// Reading or writing failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A payload that cannot be mapped.
    #[error("line {line}: {source}")]
    Payload {
        /// Counted from 1.
        line: u64,
        /// What is wrong with it.
        source: MapError,
    },
    /// A line over [`MAX_INPUT_LINE`].
    #[error("line {line}: longer than {MAX_INPUT_LINE} bytes")]
    LineTooLong {
        /// Counted from 1.
        line: u64,
    },
    /// An event over [`MAX_EVENT_LINE`].
    #[error("line {line}: its event has {bytes} bytes, the bound is {MAX_EVENT_LINE}")]
    EventTooLong {
        /// Counted from 1.
        line: u64,
        /// Length of the event.
        bytes: usize,
    },
    /// Two lines of one call.
    #[error("line {line}: the event id {event_id} was made from an earlier line already: is it there twice?")]
    Duplicate {
        /// Counted from 1.
        line: u64,
        /// The id.
        event_id: String,
    },
    /// More than [`MAX_LINES`].
    #[error("more than {MAX_LINES} lines: split the file")]
    TooManyLines,
}

/// Maps every line of `input` to one line of `output`, in order; returns how many. Nothing after
/// the first fault is mapped.
///
/// # Errors
/// [`LinesError`], with the line at fault.
pub fn map_lines(mut input: impl BufRead, mut output: impl Write) -> Result<u64, LinesError> {
    let mut seen = HashSet::new();
    let mut buffer = Vec::new();
    for line in 1..=MAX_LINES + 1 {
        buffer.clear();
        // One byte more than allowed tells a long line from one that just fits.
        let limit = MAX_INPUT_LINE as u64 + 1;
        if input.by_ref().take(limit).read_until(b'\n', &mut buffer)? == 0 {
            output.flush()?;
            return Ok(line - 1);
        }
        if line > MAX_LINES {
            break;
        }
        if buffer.len() > MAX_INPUT_LINE {
            return Err(LinesError::LineTooLong { line });
        }
        let at_line = |source| LinesError::Payload { line, source };
        let event = map_payload(&buffer).map_err(at_line)?;
        let mut text = serde_json::to_vec(&event).map_err(|error| at_line(error.into()))?;
        if text.len() > MAX_EVENT_LINE {
            return Err(LinesError::EventTooLong { line, bytes: text.len() });
        }
        text.push(b'\n');
        output.write_all(&text)?;
        if let Some(event_id) = seen.replace(event.event_id) {
            return Err(LinesError::Duplicate { line, event_id });
        }
    }
    Err(LinesError::TooManyLines)
}
