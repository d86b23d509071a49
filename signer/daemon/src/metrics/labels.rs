//! The closed lists that labels come from.

use prometheus_client::encoding::EncodeLabelSet;

/// A stage of a batch, in the order of its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// From the arrival of its first event to its sequencing.
    Queue,
    /// Its records and tree are built, and a worker has made the intent's MAC.
    Intent,
    /// The HSM signs; beside it, all but the last signatures are verified.
    Hsm,
    /// From the last signature's arrival until all are verified.
    Verify,
    /// One transaction of the store: this batch's outcome, the next one's intent, or both.
    Commit,
    /// Its answers are handed over.
    Release,
}

impl Stage {
    pub(super) fn word(self) -> &'static str {
        match self {
            Stage::Queue => "queue",
            Stage::Intent => "intent",
            Stage::Hsm => "hsm",
            Stage::Verify => "verify",
            Stage::Commit => "commit",
            Stage::Release => "release",
        }
    }
}

/// What a token's workers can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HsmState {
    /// None has signed yet.
    Starting,
    /// All sign.
    Ready,
    /// Some sign.
    Degraded,
    /// None signs.
    Down,
}

impl HsmState {
    pub(super) const ALL: [HsmState; 4] = [HsmState::Starting, HsmState::Ready, HsmState::Degraded, HsmState::Down];

    /// The word, also in GetStatus.
    pub fn word(self) -> &'static str {
        match self {
            HsmState::Starting => "starting",
            HsmState::Ready => "ready",
            HsmState::Degraded => "degraded",
            HsmState::Down => "down",
        }
    }
}

/// Why a connection ended before a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusedConnection {
    /// Too many are in handshake, in all or from one address.
    Handshakes,
    /// All connections are taken.
    Total,
    /// The member's connections are taken.
    Client,
    /// The handshake took too long.
    HandshakeTimeout,
    /// The handshake failed: no certificate, a foreign, expired or revoked one, an old TLS, …
    Handshake,
}

impl RefusedConnection {
    pub(super) fn word(self) -> &'static str {
        match self {
            RefusedConnection::Handshakes => "limit_handshakes",
            RefusedConnection::Total => "limit_total",
            RefusedConnection::Client => "limit_client",
            RefusedConnection::HandshakeTimeout => "handshake_timeout",
            RefusedConnection::Handshake => "handshake",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OperationLabels {
    pub(super) operation: &'static str,
    pub(super) outcome: &'static str,
    pub(super) reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ClientLabels {
    pub(super) client: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct RecordLabels {
    pub(super) trail: String,
    pub(super) client: String,
    pub(super) outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct StageLabels {
    pub(super) stage: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct HsmLabels {
    pub(super) token: &'static str,
    pub(super) state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OutcomeLabels {
    pub(super) outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct CauseLabels {
    pub(super) cause: &'static str,
}
