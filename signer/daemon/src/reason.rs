//! The one list of stable reason codes.
//!
//! A reason stands, with the same spelling, in gRPC errors (`google.rpc.ErrorInfo`), in the answers
//! of a batch, in metrics, in logs and in the table of docs/src/errors.md, which a test compares
//! with this list.

use std::fmt;
use std::time::Duration;

use countersign_proto::v1::Refused;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use self::Outcome::{Denied, Failed};
use self::Reason as R;

/// `google.rpc.ErrorInfo.domain` of every error.
pub const ERROR_DOMAIN: &str = "countersign";

/// Longest message of an error, in bytes: with the details (message again, reason, domain) it stays
/// far below the 8 KiB that HTTP/2 peers take as a header list.
pub const MAX_MESSAGE_BYTES: usize = 512;

/// How an operation ended: the same three words in the API, the metrics, the admin trail and docs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Outcome {
    /// It was done, and is durable.
    Succeeded,
    /// A rule about the caller or the request refused it.
    Denied,
    /// The daemon could not do it.
    Failed,
}

impl Outcome {
    /// The word.
    pub const fn word(self) -> &'static str {
        match self {
            Outcome::Succeeded => "succeeded",
            Outcome::Denied => "denied",
            Outcome::Failed => "failed",
        }
    }
}

/// Why an operation was denied or failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the meaning of each stands in TABLE, which is also the documentation")]
pub enum Reason {
    Unauthenticated,
    UnknownIdentity,
    CertificateExpired,
    CertificateRevoked,
    NotGranted,
    RoleForbids,
    UnknownTrail,
    InvalidEvent,
    ReservedType,
    EventTooLarge,
    BatchTooLarge,
    MessageTooLarge,
    InvalidLink,
    AlreadyExists,
    InvalidHead,
    HeadMismatch,
    TrailLatched,
    DeadlineExceeded,
    Overloaded,
    RateLimited,
    Draining,
    HsmUnavailable,
    HsmTimeout,
    HsmLatched,
    PinLatched,
    StoreUnavailable,
    StoreFull,
    ClockStep,
    NotFound,
    InvalidRequest,
    InvalidPageToken,
    Internal,
}

/// A line of the table.
struct Row {
    reason: Reason,
    code: &'static str,
    grpc: Code,
    outcome: Outcome,
    /// Milliseconds before the same call may be repeated; None: not without a change.
    retry_ms: Option<u64>,
    meaning: &'static str,
    action: &'static str,
}

/// Number of reasons.
const COUNT: usize = 32;

/// In the order of [`Reason`], which indexes it; a test holds the two together.
#[rustfmt::skip]
const TABLE: [Row; COUNT] = [
    row(R::Unauthenticated, "UNAUTHENTICATED", Code::Unauthenticated, Denied, None,
        "The call did not come over a connection with a client certificate.",
        "Connect with mutual TLS and a certificate of one of the genesis's client roots."),
    row(R::UnknownIdentity, "UNKNOWN_IDENTITY", Code::PermissionDenied, Denied, None,
        "The SPIFFE ID of the client certificate stands in no roster entry.",
        "Use a certificate with an enrolled SPIFFE ID."),
    row(R::CertificateExpired, "CERTIFICATE_EXPIRED", Code::Unauthenticated, Denied, None,
        "The client certificate of this connection has expired since the connection was made.",
        "Connect again with a current certificate."),
    row(R::CertificateRevoked, "CERTIFICATE_REVOKED", Code::Unauthenticated, Denied, None,
        "The client certificate of this connection, or one of its issuers, has been revoked.",
        "Connect again with another certificate."),
    row(R::NotGranted, "NOT_GRANTED", Code::PermissionDenied, Denied, None,
        "The caller has no grant for this trail, which may not exist at all.",
        "Use a trail that the genesis grants to the caller."),
    row(R::RoleForbids, "ROLE_FORBIDS", Code::PermissionDenied, Denied, None,
        "The caller's role does not include this operation.",
        "Call as a member with the role that the operation needs."),
    row(R::UnknownTrail, "UNKNOWN_TRAIL", Code::NotFound, Denied, None,
        "No trail has this origin.",
        "Check the origin against ListTrails."),
    row(R::InvalidEvent, "INVALID_EVENT", Code::InvalidArgument, Denied, None,
        "A field of the event breaks its rule; the message names the field.",
        "Correct the event."),
    row(R::ReservedType, "RESERVED_TYPE", Code::InvalidArgument, Denied, None,
        "The event's type begins with `countersign.`, which is the daemon's own name space.",
        "Use another type."),
    row(R::EventTooLarge, "EVENT_TOO_LARGE", Code::InvalidArgument, Denied, None,
        "The event, its record or its parts are larger than their bound.",
        "Send less, or a commitment in place of the content."),
    row(R::BatchTooLarge, "BATCH_TOO_LARGE", Code::InvalidArgument, Denied, None,
        "The call carries more events than a batch may have.",
        "Send smaller batches."),
    row(R::MessageTooLarge, "MESSAGE_TOO_LARGE", Code::OutOfRange, Denied, None,
        "The encoded gRPC message is larger than the daemon's bound, or has more fields than any honest one of its length.",
        "Send smaller messages."),
    row(R::InvalidLink, "INVALID_LINK", Code::InvalidArgument, Denied, None,
        "A link breaks a rule, or names no stored record of a trail that the caller may write.",
        "Correct the link's trail, seq and leaf hash."),
    row(R::AlreadyExists, "ALREADY_EXISTS", Code::AlreadyExists, Denied, None,
        "The caller used this event_id in this trail before, for other content.",
        "Use a new event_id for a new event."),
    row(R::InvalidHead, "INVALID_HEAD", Code::InvalidArgument, Denied, None,
        "The held head does not verify under the trail's keys.",
        "Send the head as it was received, or none."),
    row(R::HeadMismatch, "HEAD_MISMATCH", Code::DataLoss, Failed, None,
        "The caller holds a genuine head that the daemon's store does not have; the trail is latched.",
        "Keep the head as evidence and tell the administrators: the store lost records."),
    row(R::TrailLatched, "TRAIL_LATCHED", Code::FailedPrecondition, Failed, None,
        "The trail lost its end and nothing more is signed in it.",
        "Tell the administrators; only a successor trail goes on."),
    row(R::DeadlineExceeded, "DEADLINE_EXCEEDED", Code::DeadlineExceeded, Failed, Some(100),
        "The call's deadline passed; the event may be signed or not.",
        "Repeat with the same event_id and a longer deadline."),
    row(R::Overloaded, "OVERLOADED", Code::ResourceExhausted, Failed, Some(250),
        "The budget for events in flight, or the caller's share of it, is used up; nothing was stored.",
        "Repeat with the same event_id after the time in RetryInfo."),
    row(R::RateLimited, "RATE_LIMITED", Code::ResourceExhausted, Denied, Some(1_000),
        "The caller sends more events a second than it may; nothing was stored.",
        "Repeat with the same event_id after the time in RetryInfo."),
    row(R::Draining, "DRAINING", Code::Unavailable, Failed, Some(2_000),
        "The daemon is shutting down and takes no new work.",
        "Repeat with the same event_id once it is back."),
    row(R::HsmUnavailable, "HSM_UNAVAILABLE", Code::Unavailable, Failed, Some(1_000),
        "No HSM worker can sign at the moment.",
        "Repeat with the same event_id after the time in RetryInfo."),
    row(R::HsmTimeout, "HSM_TIMEOUT", Code::Unavailable, Failed, Some(1_000),
        "The HSM did not answer in time and its worker was replaced.",
        "Repeat with the same event_id after the time in RetryInfo."),
    row(R::HsmLatched, "HSM_LATCHED", Code::Unavailable, Failed, None,
        "The HSM answered something after which nothing is tried again by itself.",
        "An operator reads the daemon's log, repairs the token and restarts the daemon."),
    row(R::PinLatched, "PIN_LATCHED", Code::Unavailable, Failed, None,
        "The token refused the PIN, and it is not presented again.",
        "An operator corrects the PIN and runs `countersignd pin-clear` on the host."),
    row(R::StoreUnavailable, "STORE_UNAVAILABLE", Code::Unavailable, Failed, Some(1_000),
        "The store did not take or give the records.",
        "Repeat with the same event_id after the time in RetryInfo."),
    row(R::StoreFull, "STORE_FULL", Code::ResourceExhausted, Failed, Some(30_000),
        "The store's disk is full and new events are refused.",
        "An operator makes room; then repeat with the same event_id."),
    row(R::ClockStep, "CLOCK_STEP", Code::FailedPrecondition, Failed, None,
        "The host's clock stepped, and nothing is issued until that is confirmed.",
        "An operator checks the clock and confirms it."),
    row(R::NotFound, "NOT_FOUND", Code::NotFound, Denied, None,
        "There is no such record, key or document.",
        "Check what was asked for."),
    row(R::InvalidRequest, "INVALID_REQUEST", Code::InvalidArgument, Denied, None,
        "The request cannot be decoded, or one of its fields, outside the event, breaks its rule; the message says which.",
        "Correct the request."),
    row(R::InvalidPageToken, "INVALID_PAGE_TOKEN", Code::InvalidArgument, Denied, None,
        "The page token is not one that this daemon gave for this query.",
        "Start again from the first page."),
    row(R::Internal, "INTERNAL", Code::Internal, Failed, None,
        "The daemon met a condition that it should never meet.",
        "An operator reads the daemon's log."),
];

const fn row(
    reason: Reason,
    code: &'static str,
    grpc: Code,
    outcome: Outcome,
    retry_ms: Option<u64>,
    meaning: &'static str,
    action: &'static str,
) -> Row {
    Row { reason, code, grpc, outcome, retry_ms, meaning, action }
}

impl Reason {
    /// Every reason, in the order of the documentation.
    pub fn all() -> impl Iterator<Item = Reason> {
        TABLE.iter().map(|row| row.reason)
    }

    const fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }

    /// The stable spelling, `[A-Z_]+`.
    pub const fn code(self) -> &'static str {
        self.row().code
    }

    /// The gRPC status code.
    pub const fn grpc_code(self) -> Code {
        self.row().grpc
    }

    /// Denied or failed, never succeeded.
    pub const fn outcome(self) -> Outcome {
        self.row().outcome
    }

    /// Whether the very same call may succeed later.
    pub const fn retryable(self) -> bool {
        self.row().retry_ms.is_some()
    }

    /// When to repeat, where nothing better is known; None when not retryable.
    pub const fn default_retry_after(self) -> Option<Duration> {
        match self.row().retry_ms {
            Some(ms) => Some(Duration::from_millis(ms)),
            None => None,
        }
    }

    /// What happened, in one sentence.
    pub const fn meaning(self) -> &'static str {
        self.row().meaning
    }

    /// What to do about it, in one sentence.
    pub const fn action(self) -> &'static str {
        self.row().action
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// A refused or failed operation: the reason, a message for the caller, and when to repeat.
///
/// The message never holds content of an event, a PIN or a path of the host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {message}")]
pub struct Refusal {
    reason: Reason,
    message: String,
    retry_after: Option<Duration>,
}

impl Refusal {
    /// A refusal with the reason's own time to repeat. `message` is cut at [`MAX_MESSAGE_BYTES`].
    pub fn new(reason: Reason, message: impl fmt::Display) -> Refusal {
        let mut message = message.to_string();
        message.truncate(message.floor_char_boundary(MAX_MESSAGE_BYTES));
        Refusal { reason, message, retry_after: reason.default_retry_after() }
    }

    /// The same, to be repeated not before `after`. Changes nothing for a reason that is not
    /// retryable.
    pub fn retry_after(mut self, after: Duration) -> Refusal {
        if self.reason.retryable() {
            self.retry_after = Some(after);
        }
        self
    }

    /// The stable reason.
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// What happened, to what.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// When to repeat; None when not retryable.
    pub fn retry(&self) -> Option<Duration> {
        self.retry_after
    }

    /// As a gRPC error with `google.rpc.ErrorInfo` and, when retryable, `google.rpc.RetryInfo`.
    pub fn to_status(&self) -> Status {
        let mut details = ErrorDetails::new();
        details.set_error_info(self.reason.code(), ERROR_DOMAIN, []);
        if let Some(after) = self.retry_after {
            details.set_retry_info(Some(after));
        }
        Status::with_error_details(self.reason.grpc_code(), self.message.clone(), details)
    }

    /// As the answer to one event of a batch.
    pub fn to_refused(&self) -> Refused {
        let wait = self.retry_after.map_or(0, |after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX));
        Refused {
            code: self.reason.grpc_code() as i32,
            reason: self.reason.code().to_owned(),
            message: self.message.clone(),
            // 0 means "do not repeat"; a retryable refusal is never 0.
            retry_after_ms: if self.retry_after.is_some() { wait.max(1) } else { 0 },
        }
    }
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Refusal {
        Refusal::new(reason, reason.meaning())
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Status {
        refusal.to_status()
    }
}

/// A gRPC error for `reason`, with its own time to repeat.
pub fn to_status(reason: Reason, message: impl fmt::Display) -> Status {
    Refusal::new(reason, message).to_status()
}

/// The table of docs/src/errors.md, in Markdown.
pub fn markdown_table() -> String {
    let mut table = String::from(
        "| reason | gRPC code | outcome | repeat after | meaning | what to do |\n|---|---|---|---|---|---|\n",
    );
    for row in &TABLE {
        let grpc = format!("{:?}", row.grpc);
        let retry = row.retry_ms.map_or("no".to_owned(), |ms| format!("{ms} ms"));
        table.push_str(&format!(
            "| `{}` | {} ({}) | {} | {} | {} | {} |\n",
            row.code,
            grpc,
            row.grpc as i32,
            row.outcome.word(),
            retry,
            row.meaning,
            row.action,
        ));
    }
    table
}

#[cfg(test)]
mod tests;
