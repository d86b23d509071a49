//! HTTP/1.1 as bytes: what is sent is what the test wrote.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::tls::TlsStream;

/// No answer takes longer on a busy machine; the listeners close an idle connection before.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Status line and headers.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The body as text.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// A header's value.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (header, value) = line.split_once(": ")?;
            header.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    fn parse(bytes: &[u8]) -> Answer {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("the end of the head");
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).expect("a status line");
        Answer { status: status.parse().unwrap(), body: bytes[end + 4..].to_vec(), head }
    }
}

/// A request's head, which asks for the connection's end.
pub(crate) fn head(method: &str, path: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
}

/// Sends a request over TLS and reads to the connection's end.
pub(crate) fn over_tls(mut stream: TlsStream, request: &[u8]) -> Answer {
    stream.sock.set_read_timeout(Some(ANSWER_LIMIT)).unwrap();
    exchange(&mut stream, request)
}

/// The same without TLS, to a loopback port.
pub(crate) fn plain(port: u16, request: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(ANSWER_LIMIT)).unwrap();
    exchange(&mut stream, request)
}

fn exchange(stream: &mut (impl Read + Write), request: &[u8]) -> Answer {
    // A listener that refuses early may close before it has read everything.
    let _ = stream.write_all(request);
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => bytes.extend(&buffer[..count]),
            Err(error) if !bytes.is_empty() && closed(error.kind()) => break,
            Err(error) => panic!("{error}, after {} bytes", bytes.len()),
        }
    }
    Answer::parse(&bytes)
}

fn closed(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
}
