//! What a call holds before its messages are decoded, and until its answer has left.
//!
//! [`Admission`](crate::limits::Admission) bounds events that are decoded. Here their callers are held to
//! the same numbers before and after: the bytes of messages that have not arrived whole, and the events
//! whose answers a caller does not read. Who may not sign is refused before its message is read.
//!
//! - [`arriving`] wraps the body of a signing request: the length that a message declares is taken from
//!   the caller's budget and given back when the message has been decoded;
//! - [`leaving`] wraps the body of an answer with the [`Permit`] of its events.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::http::{Request, Response};
use bytes::Bytes;
use http_body::Frame;
use tonic::Status;
use tonic::body::Body;

use crate::appliance::Appliance;
use crate::limits::{Arriving, Permit};
use crate::peer::Peer;
use crate::reason::Refusal;

/// Path of the calls whose messages are counted. All others are small.
const SIGNING: &str = "/countersign.v1.SigningService/";
/// Before each gRPC message: whether it is compressed, and its length, big-endian.
const PREFIX_LEN: usize = 5;

/// Wraps a request's body: for `tower::util::MapRequestLayer`. `message_bytes` is the bound of one
/// message, beyond which it is refused by its declared length alone.
pub fn arriving(appliance: &Appliance, message_bytes: usize, request: Request<Body>) -> Request<Body> {
    if !request.uri().path().starts_with(SIGNING) {
        return request;
    }
    let peer = request.extensions().get::<Peer>();
    let gateway = appliance.access.authorise_gateway(peer, appliance.clock.now()).map_err(Refusal::from);
    let budget = gateway.and_then(|caller| appliance.admission.arriving(&caller.id));
    let messages = Messages { bound: message_bytes, ..Messages::default() };
    request.map(|body| Body::new(ArrivingBody { body, budget, messages }))
}

/// The events of an answer, for its response's extensions.
#[derive(Clone)]
pub struct Leaving(Arc<Permit>);

impl Leaving {
    /// Until the answer has left.
    pub fn new(permit: Arc<Permit>) -> Leaving {
        Leaving(permit)
    }
}

/// Wraps an answer's body: for `tower::util::MapResponseLayer`.
pub fn leaving(mut response: Response<Body>) -> Response<Body> {
    match response.extensions_mut().remove::<Leaving>() {
        None => response,
        Some(Leaving(permit)) => response.map(|body| Body::new(LeavingBody { body, _permit: permit })),
    }
}

/// Where a body stands in its row of messages.
#[derive(Debug, Default)]
struct Messages {
    prefix: [u8; PREFIX_LEN],
    /// Bytes of the prefix that have come.
    prefix_len: usize,
    /// Declared length of the message that is coming, and how much of it has not come.
    len: usize,
    left: usize,
    /// A message that declares more is refused by the framework, which reads no more of it.
    bound: usize,
}

impl Messages {
    /// Goes on by `data`; the declared bytes of the messages that begin in it.
    fn feed(&mut self, mut data: &[u8]) -> usize {
        let mut begun = 0;
        while !data.is_empty() {
            let wanted = if self.left > 0 { self.left } else { PREFIX_LEN - self.prefix_len };
            let (taken, rest) = data.split_at(wanted.min(data.len()));
            data = rest;
            if self.left > 0 {
                self.left -= taken.len();
                continue;
            }
            self.prefix[self.prefix_len..][..taken.len()].copy_from_slice(taken);
            self.prefix_len += taken.len();
            if self.prefix_len == PREFIX_LEN {
                self.prefix_len = 0;
                let [_, length @ ..] = self.prefix;
                self.left = u32::from_be_bytes(length) as usize;
                self.len = if self.left > self.bound { 0 } else { self.left };
                begun += self.len;
            }
        }
        begun
    }

    /// Declared length of a message that has begun and is not whole.
    fn open(&self) -> usize {
        if self.left > 0 { self.len } else { 0 }
    }
}

/// A request's body, its messages counted as they begin.
struct ArrivingBody {
    body: Body,
    budget: Result<Arriving, Refusal>,
    messages: Messages,
}

impl http_body::Body for ArrivingBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let budget = match &mut this.budget {
            Ok(budget) => budget,
            Err(refusal) => return Poll::Ready(Some(Err(refusal.to_status()))),
        };
        // More is wanted only when every whole message has been decoded.
        budget.keep(this.messages.open());
        let Some(frame) = ready!(Pin::new(&mut this.body).poll_frame(cx)?) else { return Poll::Ready(None) };
        let begun = frame.data_ref().map_or(0, |data| this.messages.feed(data));
        if let Err(refusal) = budget.take(begun) {
            let status = refusal.to_status();
            this.budget = Err(refusal);
            return Poll::Ready(Some(Err(status)));
        }
        Poll::Ready(Some(Ok(frame)))
    }
}

/// An answer's body, with what its events hold.
struct LeavingBody {
    body: Body,
    _permit: Arc<Permit>,
}

impl http_body::Body for LeavingBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_counted_by_what_they_declare_however_they_are_cut() {
        let message = |len: usize| [&[0][..], &(len as u32).to_be_bytes(), &vec![7; len]].concat();
        let row = [message(300), message(0), message(5), message(1000)].concat();
        for step in [1, 2, 4, 5, 6, 299, 305, row.len()] {
            let mut messages = Messages { bound: 1000, ..Messages::default() };
            let begun: usize = row.chunks(step).map(|piece| messages.feed(piece)).sum();
            assert_eq!((begun, messages.open()), (1305, 0), "pieces of {step}");
        }
        let mut messages = Messages { bound: 1000, ..Messages::default() };
        assert_eq!(messages.feed(&row[..5]), 300, "taken with the prefix");
        assert_eq!((messages.feed(&row[5..304]), messages.open()), (0, 300));
        assert_eq!((messages.feed(&row[304..305]), messages.open()), (0, 0));
        // Beyond the bound nothing is taken: the framework refuses it.
        let mut messages = Messages { bound: 1000, ..Messages::default() };
        assert_eq!((messages.feed(&message(1001)[..20]), messages.open()), (0, 0));
    }
}
