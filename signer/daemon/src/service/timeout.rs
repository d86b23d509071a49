//! How long a caller waits: the header `grpc-timeout`.
//!
//! The framework ends a call whose time is over as CANCELLED, without a reason. [`InTimeLayer`]
//! stands inside of that, where it is asked first, and answers DEADLINE_EXCEEDED with its details.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tonic::codegen::http::{Request, Response};
use tower::{Layer, Service};

use crate::reason::{Reason, Refusal};

/// The header.
pub const HEADER: &str = "grpc-timeout";

/// Reads a time-out: one to eight digits and a unit (gRPC over HTTP/2, "Timeout"). None for anything
/// else.
pub fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(value * 3600)),
        "M" => Some(Duration::from_secs(value * 60)),
        "S" => Some(Duration::from_secs(value)),
        "m" => Some(Duration::from_millis(value)),
        "u" => Some(Duration::from_micros(value)),
        "n" => Some(Duration::from_nanos(value)),
        _ => None,
    }
}

/// What a caller hears whose deadline passed while its events were on their way.
pub fn late() -> Refusal {
    Refusal::new(Reason::DeadlineExceeded, "the deadline passed; repeat with the same event ids to learn the answer")
}

/// Puts [`InTime`] around every service.
#[derive(Clone, Copy, Debug)]
pub struct InTimeLayer;

/// A service whose calls end with DEADLINE_EXCEEDED when their `grpc-timeout` has passed before they
/// began to answer.
#[derive(Clone, Debug)]
pub struct InTime<S>(S);

impl<S> Layer<S> for InTimeLayer {
    type Service = InTime<S>;

    fn layer(&self, inner: S) -> InTime<S> {
        InTime(inner)
    }
}

impl<S, Q, B> Service<Request<Q>> for InTime<S>
where
    S: Service<Request<Q>, Response = Response<B>>,
    S::Error: 'static,
    S::Future: Send + 'static,
    B: Default + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Q>) -> Self::Future {
        let asked = request.headers().get(HEADER).and_then(|value| value.to_str().ok()).and_then(parse);
        let deadline = asked.and_then(|wait| Instant::now().checked_add(wait));
        let answer = self.0.call(request);
        match deadline {
            None => Box::pin(answer),
            Some(at) => Box::pin(in_time(at, answer)),
        }
    }
}

async fn in_time<B: Default, E>(
    at: Instant,
    answer: impl Future<Output = Result<Response<B>, E>>,
) -> Result<Response<B>, E> {
    let (mut answer, mut over) = (pin!(answer), pin!(sleep_until(at)));
    poll_fn(|context| {
        // The clock too, and first: within the same millisecond the framework's timer may fire before
        // ours, and a service that keeps the deadline itself may answer event by event.
        if over.as_mut().poll(context).is_ready() || at <= Instant::now() {
            return Poll::Ready(Ok(late().to_status().into_http()));
        }
        answer.as_mut().poll(context)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_and_the_longest_number() {
        for (text, want) in [
            ("2H", Duration::from_secs(7200)),
            ("3M", Duration::from_secs(180)),
            ("4S", Duration::from_secs(4)),
            ("5m", Duration::from_millis(5)),
            ("6u", Duration::from_micros(6)),
            ("7n", Duration::from_nanos(7)),
            ("0S", Duration::ZERO),
            ("99999999H", Duration::from_secs(99_999_999 * 3600)),
        ] {
            assert_eq!(parse(text), Some(want), "{text}");
        }
    }

    #[test]
    fn anything_else_is_none() {
        for text in ["", "S", "1", "1s", "-1S", "+1S", " 1S", "1 S", "1.5S", "100000000S", "1SS", "1\u{b5}", "\u{b5}"] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
