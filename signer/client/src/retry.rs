//! Which failures may pass, and how long to wait.
//!
//! A repeat with the same event_id never makes a second record, so whatever may pass is repeated.

use std::time::{Duration, Instant};

use countersign_proto::v1::Refused;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::config::ClientConfig;
use crate::connect::{Faults, causes};
use crate::error::{ClientError, Refusal};

/// `google.rpc.ErrorInfo.domain` of the daemon's errors.
pub(crate) const ERROR_DOMAIN: &str = "countersign";
/// The reason of a failure for which the daemon gave none.
pub(crate) const TRANSPORT: &str = "TRANSPORT";

/// Reads a status: the daemon's own (with an ErrorInfo of its domain) may be repeated where it says
/// so; others by their code.
pub(crate) fn refusal_of(status: &Status) -> Refusal {
    let mut message = status.message().to_owned();
    if let Some(source) = std::error::Error::source(status) {
        message = format!("{message}: {}", causes(source));
    }
    let own = status.get_details_error_info().filter(|info| info.domain == ERROR_DOMAIN);
    let (reason, retry_after) = match own {
        Some(info) => {
            let wait = status.get_details_retry_info().map(|retry| retry.retry_delay.unwrap_or_default());
            (info.reason, wait)
        }
        None => (TRANSPORT.to_owned(), may_pass(status.code()).then_some(Duration::ZERO)),
    };
    Refusal { code: status.code(), reason, message, retry_after }
}

/// Codes that a broken connection, a proxy or a restart leads to.
fn may_pass(code: Code) -> bool {
    matches!(
        code,
        Code::Unavailable
            | Code::Unknown
            | Code::Internal
            | Code::Cancelled
            | Code::Aborted
            | Code::ResourceExhausted
            | Code::DeadlineExceeded
    )
}

/// Reads the refusal of one event of a batch.
pub(crate) fn refusal_of_event(refused: &Refused) -> Refusal {
    Refusal {
        code: Code::from(refused.code),
        reason: refused.reason.clone(),
        message: refused.message.clone(),
        retry_after: (refused.retry_after_ms > 0).then(|| Duration::from_millis(refused.retry_after_ms)),
    }
}

/// The attempts of one call.
pub(crate) struct Retry {
    begun: Instant,
    /// Attempts that failed, at most `max_attempts`.
    pub(crate) attempts: u32,
    max_attempts: u32,
    deadline: Duration,
    backoff: Duration,
    backoff_max: Duration,
    faults: Faults,
}

impl Retry {
    pub(crate) fn new(config: &ClientConfig, faults: &Faults) -> Retry {
        Retry {
            begun: Instant::now(),
            attempts: 0,
            max_attempts: config.attempts.max(1),
            deadline: config.deadline,
            backoff: config.backoff,
            backoff_max: config.backoff_max,
            faults: faults.clone(),
        }
    }

    /// Time that is left for the call.
    pub(crate) fn remaining(&self) -> Duration {
        self.deadline.saturating_sub(self.begun.elapsed())
    }

    /// Counts a failed attempt and waits until the next one may begin.
    ///
    /// # Errors
    /// The refusal as an error, without event_ids, where it may not pass or no attempt is left; the
    /// fault of the connection, where no other connection will do better.
    pub(crate) async fn wait(&mut self, refusal: Refusal) -> Result<(), ClientError> {
        self.attempts += 1;
        let Some(at_least) = refusal.retry_after else {
            return Err(ClientError::Rejected { refusal, attempts: self.attempts, event_ids: Vec::new() });
        };
        if refusal.reason == TRANSPORT
            && let Some(fault) = self.faults.newest()
        {
            return Err(fault);
        }
        let pause = self.pause().max(at_least);
        if self.attempts >= self.max_attempts || pause >= self.remaining() {
            let (attempts, elapsed) = (self.attempts, self.begun.elapsed());
            return Err(ClientError::Exhausted { attempts, elapsed, last: refusal, event_ids: Vec::new() });
        }
        tokio::time::sleep(pause).await;
        Ok(())
    }

    /// Doubles with each attempt; between half and all of it, so that clients that lost one daemon
    /// at one moment do not return at one moment.
    fn pause(&self) -> Duration {
        let doubled = self.backoff.saturating_mul(1 << (self.attempts - 1).min(20));
        let most = doubled.min(self.backoff_max);
        let random = uuid::Uuid::now_v7().as_u128() as u32;
        most / 2 + (most / 2).mul_f64(f64::from(random) / f64::from(u32::MAX))
    }

    /// Calls until it succeeds, is refused for good, or nothing is left. `call` gets the time that
    /// is left.
    pub(crate) async fn run<T, F>(&mut self, mut call: impl FnMut(Duration) -> F) -> Result<T, ClientError>
    where
        F: Future<Output = Result<T, Status>>,
    {
        loop {
            let remaining = self.remaining();
            let late = || Status::deadline_exceeded("no answer within the call's deadline");
            let result = tokio::time::timeout(remaining, call(remaining)).await;
            match result.unwrap_or_else(|_| Err(late())) {
                Ok(answer) => return Ok(answer),
                Err(status) => self.wait(refusal_of(&status)).await?,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic_types::ErrorDetails;

    #[test]
    fn the_daemon_says_what_may_be_repeated() {
        let mut details = ErrorDetails::with_error_info("OVERLOADED", ERROR_DOMAIN, []);
        let unretryable = Status::with_error_details(Code::Unavailable, "x", details.clone());
        assert_eq!(refusal_of(&unretryable).retry_after, None);
        assert_eq!(refusal_of(&unretryable).reason, "OVERLOADED");
        details.set_retry_info(Some(Duration::from_millis(250)));
        let retryable = Status::with_error_details(Code::InvalidArgument, "x", details);
        assert_eq!(refusal_of(&retryable).retry_after, Some(Duration::from_millis(250)));
    }

    #[test]
    fn others_go_by_their_code() {
        assert!(refusal_of(&Status::unavailable("gone")).retry_after.is_some());
        assert!(refusal_of(&Status::permission_denied("no")).retry_after.is_none());
        // A proxy's error of another domain is none of the daemon's.
        let foreign = ErrorDetails::with_error_info("BUSY", "proxy.example", []);
        let foreign = refusal_of(&Status::with_error_details(Code::Unavailable, "x", foreign));
        assert_eq!((foreign.reason.as_str(), foreign.retry_after.is_some()), (TRANSPORT, true));
    }
}
