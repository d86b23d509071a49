//! Why a call failed, and what raises the alarm.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use countersign_proto::event::EventError;
use countersign_proto::v1;
use countersign_trail::admin::AdminError;
use countersign_trail::document::DocumentError;
use countersign_trail::hash::Hash;
use countersign_trail::id::NameError;
use countersign_trail::keys::{KeyError, Kid};
use countersign_trail::origin::{Origin, OriginError};
use countersign_trail::receipt::ReceiptError;

/// Why the client or a call could not do its work. Whether an event was recorded all the same is
/// open unless [`ClientError::certainly_not_recorded`]: to find out, send the same event again with
/// the same event_id. Where it is open, [`ClientError::event_ids`] says for which ones.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ClientError {
    /// The configuration is wrong.
    #[error("client configuration: {0}")]
    Config(#[from] ConfigError),
    /// What the daemon gave as keys is not what was pinned.
    #[error("trust: {0}")]
    Trust(#[from] TrustError),
    /// No connection: host, port, certificates or name. From a call: TLS was refused on one side,
    /// and a repeat changes nothing before `problem` is mended.
    #[error("cannot connect to {endpoint}: {problem}")]
    Connect {
        /// As configured.
        endpoint: String,
        /// The chain of causes.
        problem: String,
        /// The events of the call: an earlier attempt may have recorded them.
        event_ids: Vec<String>,
    },
    /// The event breaks a bound; it was not sent.
    #[error("event {index}: {source}")]
    Event {
        /// Its place in the call, from 0.
        index: usize,
        /// What is wrong.
        source: EventError,
    },
    /// More or fewer events than a message may carry.
    #[error("a batch of {0} events, 1 to 4,096 are allowed")]
    BatchSize(usize),
    /// No key of this trail is trusted.
    #[error("the trail {0:?} is not among those whose keys are trusted")]
    UnknownTrail(String),
    /// The daemon refused, and will again until something is changed. What went out before may
    /// have been recorded: see [`ClientError::certainly_not_recorded`].
    #[error("refused: {refusal}{}", Of(event_ids))]
    Rejected {
        /// The refusal.
        refusal: Refusal,
        /// How often these events went out, the refused time included; in a stream, the messages
        /// behind the refused one count, too.
        attempts: u32,
        /// The events that it is about: one in the results of a message, else all of the call, or
        /// all of the stream that are unanswered.
        event_ids: Vec<String>,
    },
    /// Every attempt failed in a way that may pass, and attempts or time are used up.
    #[error("gave up after {attempts} attempts in {elapsed:?}: {last}{}", Of(event_ids))]
    Exhausted {
        /// Attempts made.
        attempts: u32,
        /// Time since the call began.
        elapsed: Duration,
        /// How the last attempt failed.
        last: Refusal,
        /// The events whose fate is open, as in [`ClientError::Rejected`].
        event_ids: Vec<String>,
    },
    /// What was to be held is no receipt, or proves nothing under the trusted keys.
    #[error(transparent)]
    Receipt(#[from] ReceiptError),
    /// The stream is over: its other half is gone, or it has failed. What was to be sent was not.
    #[error("the stream has ended")]
    StreamEnded,
    /// An answer does not go with what was sent. Keep it: it is evidence against the daemon, or of
    /// somebody between.
    #[error("ALARM {0}")]
    Alarm(Arc<Alarm>),
}

/// Reasons of outcome "denied" (docs/src/errors.md): no sequence number is used for a call that
/// ends with one of them.
const DENIED: &[&str] = &[
    "UNAUTHENTICATED",
    "UNKNOWN_IDENTITY",
    "CERTIFICATE_EXPIRED",
    "CERTIFICATE_REVOKED",
    "NOT_GRANTED",
    "ROLE_FORBIDS",
    "UNKNOWN_TRAIL",
    "INVALID_EVENT",
    "RESERVED_TYPE",
    "EVENT_TOO_LARGE",
    "BATCH_TOO_LARGE",
    "MESSAGE_TOO_LARGE",
    "INVALID_LINK",
    "ALREADY_EXISTS",
    "INVALID_HEAD",
    "RATE_LIMITED",
    "NOT_FOUND",
    "INVALID_REQUEST",
    "INVALID_PAGE_TOKEN",
];

/// The events of an error, for people.
struct Of<'a>(&'a [String]);

impl fmt::Display for Of<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [] => Ok(()),
            [one] => write!(f, " (event_id {one})"),
            [first, ..] => write!(f, " ({} events, the first with event_id {first})", self.0.len()),
        }
    }
}

impl ClientError {
    /// A stable reason code: the daemon's own for refusals, the alarm's for alarms.
    pub fn reason(&self) -> &str {
        match self {
            ClientError::Config(_) => "CONFIG",
            ClientError::Trust(_) => "TRUST",
            ClientError::Connect { .. } => "CONNECT",
            ClientError::Event { source, .. } => source.reason(),
            ClientError::BatchSize(_) => "BATCH_TOO_LARGE",
            ClientError::UnknownTrail(_) => "UNKNOWN_TRAIL",
            ClientError::Rejected { refusal, .. } => &refusal.reason,
            ClientError::Exhausted { last, .. } => &last.reason,
            ClientError::Receipt(_) => "RECEIPT",
            ClientError::StreamEnded => "STREAM_ENDED",
            ClientError::Alarm(alarm) => alarm.reason.code(),
        }
    }

    /// Whether the call that ended so recorded none of its events: nothing was sent, or the first
    /// attempt was refused with a reason of outcome "denied". The latter is the daemon's word, which
    /// nobody signed. It says nothing about earlier calls with the same event_id.
    pub fn certainly_not_recorded(&self) -> bool {
        match self {
            ClientError::Config(_)
            | ClientError::Trust(_)
            | ClientError::Event { .. }
            | ClientError::BatchSize(_)
            | ClientError::UnknownTrail(_)
            | ClientError::Receipt(_) => true,
            // While connecting there are no events yet; in a call an earlier attempt may have arrived.
            ClientError::Connect { event_ids, .. } => event_ids.is_empty(),
            ClientError::Rejected { refusal, attempts, .. } => {
                *attempts <= 1 && DENIED.contains(&refusal.reason.as_str())
            }
            // A stream that has ended may have unanswered events.
            ClientError::Exhausted { .. } | ClientError::StreamEnded | ClientError::Alarm(_) => false,
        }
    }

    /// The event_ids of the events that went out, or were about to; those that had none, with the
    /// one that they were given. Empty where nothing was to be sent.
    pub fn event_ids(&self) -> Vec<&str> {
        match self {
            ClientError::Connect { event_ids, .. }
            | ClientError::Rejected { event_ids, .. }
            | ClientError::Exhausted { event_ids, .. } => event_ids.iter().map(String::as_str).collect(),
            ClientError::Alarm(alarm) => alarm.sent.iter().map(|event| event.event_id.as_str()).collect(),
            _ => Vec::new(),
        }
    }

    /// The same, as the error of these events.
    pub(crate) fn about(mut self, ids: Vec<String>) -> ClientError {
        if let ClientError::Connect { event_ids, .. }
        | ClientError::Rejected { event_ids, .. }
        | ClientError::Exhausted { event_ids, .. } = &mut self
        {
            *event_ids = ids;
        }
        self
    }
}

/// A refusal in the daemon's words, or a fault of the transport.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The gRPC code.
    pub code: tonic::Code,
    /// `google.rpc.ErrorInfo.reason`; `TRANSPORT` where the daemon gave none.
    pub reason: String,
    /// For people.
    pub message: String,
    /// Not before this time, for refusals that may pass; none: not without a change.
    pub retry_after: Option<Duration>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.message)
    }
}

/// What is wrong with a configuration.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not `https://host:port`.
    #[error("endpoint {0:?} is not https://HOST:PORT")]
    Endpoint(String),
    /// Not a DNS name or an address.
    #[error("server_name {0:?} is neither a DNS name nor an IP address")]
    ServerName(String),
    /// A PEM file without the wanted section.
    #[error("{file}: {problem}")]
    Pem {
        /// Which setting.
        file: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// Certificate and key do not make a TLS client.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The certificate's identity.
    #[error("the client certificate has {0} URI names; exactly one (a SPIFFE ID) is wanted")]
    SpiffeIds(usize),
}

/// Why the keys are not trusted.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TrustError {
    /// The daemon did not give a document or its keys.
    #[error("{what}: {refusal}")]
    Fetch {
        /// What was asked for.
        what: &'static str,
        /// Why it was not given.
        refusal: Refusal,
    },
    /// A document with another hash than its name.
    #[error("{what} has SHA-256 {found}, wanted {wanted}")]
    Hash {
        /// Which document.
        what: &'static str,
        /// The hash that names it.
        wanted: Hash,
        /// The hash of its bytes.
        found: Hash,
    },
    /// A document breaks its rules.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// Genesis and plan do not go together.
    #[error(transparent)]
    Genesis(#[from] AdminError),
    /// Our certificate's SPIFFE ID stands in no roster entry.
    #[error("the roster of the genesis has no member with {0}")]
    NotEnrolled(String),
    /// The roster's id for our certificate is not the configured one.
    #[error("the roster knows our certificate as {roster}, the configuration says {configured}")]
    OtherMember {
        /// From the genesis.
        roster: String,
        /// From the configuration.
        configured: String,
    },
    /// Pinned keys do not say who we are.
    #[error("with pinned keys the configuration wants `member`, our id in the roster")]
    MemberMissing,
    /// A pinned key that the daemon does not list.
    #[error("the daemon lists no key {0}, which is pinned")]
    PinMissing(Kid),
    /// A listed key that is none.
    #[error("key {kid} as the daemon lists it: {problem}")]
    Key {
        /// As listed.
        kid: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl From<OriginError> for TrustError {
    fn from(error: OriginError) -> TrustError {
        TrustError::Key { kid: String::new(), problem: error.to_string() }
    }
}

impl From<KeyError> for TrustError {
    fn from(error: KeyError) -> TrustError {
        TrustError::Key { kid: String::new(), problem: error.to_string() }
    }
}

impl From<NameError> for TrustError {
    fn from(error: NameError) -> TrustError {
        TrustError::Key { kid: String::new(), problem: error.to_string() }
    }
}

macro_rules! alarms {
    ($($(#[$doc:meta])* $variant:ident = $code:literal),+ $(,)?) => {
        /// What about an answer does not go with what was sent or is held.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum AlarmReason { $($(#[$doc])* $variant),+ }

        impl AlarmReason {
            /// Every reason.
            pub const ALL: &'static [AlarmReason] = &[$(AlarmReason::$variant),+];

            /// The stable code.
            pub fn code(self) -> &'static str {
                match self { $(AlarmReason::$variant => $code),+ }
            }
        }
    };
}

alarms!(
    /// Another number of answers than of events, or an answer that is neither.
    Answers = "ANSWERS",
    /// The record's bytes are no record.
    Record = "RECORD",
    /// A record of another trail.
    Trail = "TRAIL",
    /// The record's seq is not the answer's.
    Seq = "SEQ",
    /// The leaf hash is not that of the record's bytes.
    Leaf = "LEAF",
    /// Another type, category, decision, result, event_id or links than sent, or a control record.
    Content = "CONTENT",
    /// The record names another client.
    Client = "CLIENT",
    /// The record's time is too far from our clock.
    Time = "TIME",
    /// A salt is missing, of a wrong length, unasked for, or not the one that was sent.
    Salt = "SALT",
    /// A part is missing, unknown, or its commitment is not to what was sent.
    Part = "PART",
    /// The record names a key that is not trusted to vouch for records of the trail.
    Key = "KEY",
    /// The record's signature is missing, unasked for, or does not verify.
    Signature = "SIGNATURE",
    /// The checkpoint is malformed, of another trail, or its signature does not verify.
    Checkpoint = "CHECKPOINT",
    /// No proof for a record, or one that does not lead to the checkpoint's root.
    Proof = "PROOF",
    /// A new record at or below a head that is held.
    Order = "ORDER",
    /// Two different records at one place, or two different roots at one size.
    Fork = "FORK",
    /// A record that does not name its neighbour, which is held, in `prev`.
    Chain = "CHAIN",
);

/// An answer that does not go with what was sent, with both sides.
#[derive(Clone, Debug)]
pub struct Alarm {
    /// What is wrong.
    pub reason: AlarmReason,
    /// The trail that was asked for.
    pub trail: Origin,
    /// What was sent or is held, as text.
    pub expected: String,
    /// What came, as text.
    pub found: String,
    /// The events as they were sent: the one that the answer is about, or where answers and events
    /// do not go together, all of the message. At most 4,096; none where nothing was unanswered.
    pub sent: Vec<v1::Event>,
    /// The answer as it came.
    pub answer: RawAnswer,
}

/// An answer as it came; at most the 64 MiB of a message that are taken.
#[derive(Clone, Debug, Default)]
pub struct RawAnswer {
    /// The answer to the one event, or where answers and events do not go together, all of the
    /// message.
    pub answers: Vec<v1::Answer>,
    /// The proofs of the message, shared by its alarms.
    pub proofs: Arc<[v1::Proof]>,
}

impl fmt::Display for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Alarm { reason, trail, expected, found, sent, .. } = self;
        write!(f, "{} in {trail}", reason.code())?;
        match &sent[..] {
            [] => {}
            [event] => write!(f, ", event_id {}", event.event_id)?,
            [first, ..] => write!(f, ", {} events, the first with event_id {}", sent.len(), first.event_id)?,
        }
        write!(f, ": expected {expected}, found {found}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_denied_are_those_of_the_documentation() {
        let docs = include_str!("../../../docs/src/errors.md");
        let rows = docs.lines().filter(|line| line.starts_with("| `"));
        let cells = rows.map(|row| row.split(" | ").collect::<Vec<_>>());
        let denied = cells.filter(|cells| cells[2] == "denied");
        let denied: Vec<&str> = denied.map(|cells| cells[0].trim_matches(['|', ' ', '`'])).collect();
        assert_eq!(DENIED, denied);
    }
}
