//! Appending whole lines, and reading them back when a writer was killed inside one.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;

use crate::Error;

/// Longest line that is read: an input of [`crate::transcript::MAX_INPUT_BYTES`] in hex and 4 KiB for the rest.
const MAX_LINE_BYTES: u64 = 2 * crate::transcript::MAX_INPUT_BYTES as u64 + 4096;

/// Appends a line that ends in a newline with one write(2). `file` must have been opened for appending.
///
/// # Errors
/// Whatever write(2) answers; a short write (a full disk) is an error too.
pub(crate) fn append(mut file: &File, line: &[u8]) -> std::io::Result<()> {
    let written = file.write(line)?;
    if written == line.len() {
        return Ok(());
    }
    let reason = format!("wrote {written} of {} bytes; is the disk full?", line.len());
    Err(std::io::Error::new(std::io::ErrorKind::WriteZero, reason))
}

/// Reads an append-only file whose every line begins with `start`, and gives each whole line to `take` with its
/// number. A line that holds `start` again was torn: what stands before is counted, what follows is read.
///
/// `start` must be unable to occur inside a whole line. Returns the number of torn lines.
///
/// # Errors
/// The file cannot be read, a line exceeds [`MAX_LINE_BYTES`], or `take` refuses a whole line.
pub(crate) fn read(
    path: &Path,
    start: &str,
    mut take: impl FnMut(usize, &str) -> Result<Taken, Error>,
) -> Result<u64, Error> {
    let file = File::open(path).map_err(|source| Error::io(path, source))?;
    // What is appended from now on is left for the next reading.
    let length = file.metadata().map_err(|source| Error::io(path, source))?.len();
    let mut reader = BufReader::new(file.take(length));
    let mut torn = 0;
    let mut bytes = Vec::new();
    for number in 1.. {
        bytes.clear();
        let mut bounded = reader.by_ref().take(MAX_LINE_BYTES + 1);
        bounded.read_until(b'\n', &mut bytes).map_err(|source| Error::io(path, source))?;
        if bytes.is_empty() {
            break;
        }
        if bytes.len() as u64 > MAX_LINE_BYTES {
            return Err(Error::line(path, number, format!("longer than {MAX_LINE_BYTES} bytes")));
        }
        // A line can be torn inside a character; whole entries are UTF-8 and come through unchanged.
        let line = String::from_utf8_lossy(&bytes);
        let ended = line.ends_with('\n');
        let starts: Vec<usize> = line.match_indices(start).map(|(at, _)| at).collect();
        if starts.first() != Some(&0) {
            torn += 1; // a fragment shorter than `start`
        }
        for (index, &from) in starts.iter().enumerate() {
            let to = starts.get(index + 1).copied().unwrap_or(line.len());
            let last = index + 1 == starts.len();
            let piece = line.get(from..to).unwrap_or_default().trim_end_matches('\n');
            match take(number, piece)? {
                Taken::Whole => {}
                // Only a killed writer explains it, and then something follows in the same line, or nothing at all.
                Taken::Torn if !last || !ended => torn += 1,
                Taken::Torn => return Err(Error::line(path, number, "is not a whole entry")),
            }
        }
    }
    Ok(torn)
}

/// What a reader found a line to be.
pub(crate) enum Taken {
    Whole,
    Torn,
}
