//! Lines of events, read on a thread of their own.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::Path;

use countersign_proto::event::{self, line};
use countersign_proto::v1;
use tokio::sync::mpsc;

use crate::exit::{Outcome, failed};
use crate::files;

/// A line of the input.
pub(super) struct Line {
    /// Counted from 1.
    pub(super) number: u64,
    /// The event that it is, every bound checked; or why it is none.
    pub(super) event: Result<v1::Event, Bad>,
}

/// Why a line is not sent.
pub(super) struct Bad {
    /// Stable reason.
    pub(super) reason: &'static str,
    /// For people.
    pub(super) message: String,
}

/// The number of lines of a file; none for standard input and whatever else cannot be read twice.
pub(super) fn count(path: &Path) -> Outcome<Option<u64>> {
    let is_file = path.as_os_str() != "-" && path.metadata().is_ok_and(|metadata| metadata.is_file());
    if !is_file {
        return Ok(None);
    }
    let mut reader = BufReader::with_capacity(1 << 20, open(path)?);
    let mut lines = 0;
    let mut ended = true;
    loop {
        let buffer = reader.fill_buf().map_err(|error| files::io("read", path, &error))?;
        let Some(last) = buffer.last() else { break };
        lines += buffer.iter().filter(|byte| **byte == b'\n').count() as u64;
        ended = *last == b'\n';
        let read = buffer.len();
        reader.consume(read);
    }
    Ok(Some(lines + u64::from(!ended)))
}

/// Reads `path` (`-`: standard input) on a thread; at most `bound` lines wait to be taken. The last
/// item is an error where reading failed.
pub(super) fn start(path: &Path, bound: usize) -> Outcome<mpsc::Receiver<Outcome<Line>>> {
    let reader: Box<dyn BufRead + Send> = if path.as_os_str() == "-" {
        Box::new(BufReader::new(io::stdin()))
    } else {
        Box::new(BufReader::with_capacity(1 << 20, open(path)?))
    };
    let (sender, receiver) = mpsc::channel(bound);
    let path = path.to_owned();
    // Standard input cannot be read without blocking: this thread is left behind at the end.
    let thread = std::thread::Builder::new().name("input".to_owned()).spawn(move || {
        if let Err(error) = lines(reader, &sender) {
            let _ = sender.blocking_send(Err(files::io("read", &path, &error)));
        }
    });
    thread.map_err(|error| failed(format!("cannot start a thread: {error}")))?;
    Ok(receiver)
}

fn open(path: &Path) -> Outcome<File> {
    File::open(path).map_err(|error| files::io("read", path, &error))
}

fn lines(mut reader: Box<dyn BufRead + Send>, sender: &mpsc::Sender<Outcome<Line>>) -> io::Result<()> {
    let bound = line::MAX_LINE_LEN as u64 + 1;
    let mut number = 0;
    loop {
        let mut text = Vec::new();
        if reader.by_ref().take(bound).read_until(b'\n', &mut text)? == 0 {
            return Ok(());
        }
        number += 1;
        let whole = text.last() == Some(&b'\n');
        if whole {
            text.pop();
        } else if text.len() as u64 == bound {
            skip_line(&mut reader)?;
        }
        if text.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let line = Line { number, event: parse(&text) };
        if sender.blocking_send(Ok(line)).is_err() {
            return Ok(());
        }
    }
}

/// Reads on behind a line that is too long.
fn skip_line(reader: &mut impl BufRead) -> io::Result<()> {
    loop {
        let buffer = reader.fill_buf()?;
        if buffer.is_empty() {
            return Ok(());
        }
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let read = end.map_or(buffer.len(), |at| at + 1);
        reader.consume(read);
        if end.is_some() {
            return Ok(());
        }
    }
}

fn parse(text: &[u8]) -> Result<v1::Event, Bad> {
    let event = line::parse(text).map_err(|error| Bad { reason: "INVALID_LINE", message: error.to_string() })?;
    // The client library gives an event_id to an event without one.
    let mut checked = event.clone();
    if checked.event_id.is_empty() {
        checked.event_id = "-".to_owned();
    }
    event::decode(&checked).map_err(|error| Bad { reason: error.reason(), message: error.to_string() })?;
    Ok(event)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENT: &str =
        r#"{"event_id":"e1","type":"llm.completion","category":"normal","decision":"allow","result":"delivered"}"#;

    fn read(bytes: &[u8]) -> Vec<(u64, Result<String, &'static str>)> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events");
        std::fs::write(&path, bytes).unwrap();
        let mut receiver = start(&path, 4).unwrap();
        let mut lines = Vec::new();
        while let Some(line) = receiver.blocking_recv() {
            let line = line.unwrap();
            lines.push((line.number, line.event.map(|event| event.event_id).map_err(|bad| bad.reason)));
        }
        lines
    }

    #[test]
    fn lines_keep_their_numbers_and_bad_ones_say_why() {
        let without_id = EVENT.replace(r#""event_id":"e1","#, "");
        let reserved = EVENT.replace("llm.completion", "countersign.plan");
        let text = format!("{EVENT}\n\n{{}}\n{reserved}\n{without_id}");
        let want =
            vec![(1, Ok("e1".to_owned())), (3, Err("INVALID_LINE")), (4, Err("RESERVED_TYPE")), (5, Ok(String::new()))];
        assert_eq!(read(text.as_bytes()), want);
    }

    #[test]
    fn a_line_beyond_the_bound_is_skipped_whole() {
        let mut bytes = vec![b' '; line::MAX_LINE_LEN + 100];
        bytes[0] = b'{';
        bytes.extend_from_slice(format!("\n{EVENT}\n").as_bytes());
        assert_eq!(read(&bytes), vec![(1, Err("INVALID_LINE")), (2, Ok("e1".to_owned()))]);
    }

    #[test]
    fn lines_of_a_file_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events");
        for (text, want) in [("", 0), ("a", 1), ("a\n", 1), ("a\nb", 2)] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(count(&path).unwrap(), Some(want), "{text:?}");
        }
        assert_eq!(count(Path::new("-")).unwrap(), None);
    }
}
