//! The one error type of the crate: a stable reason and a bounded detail for the log.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Longest detail text of an [`HsmError`], in bytes. Anything longer is cut.
pub const MAX_DETAIL_BYTES: usize = 300;

/// What happened, as a stable word. Details never replace it; programs compare reasons only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Reason {
    /// No worker can take the call now, or the worker died during it. Safe to repeat.
    HsmUnavailable,
    /// The module did not answer within the call's deadline; its process was killed.
    HsmTimeout,
    /// The token answered something that no table row allows to repeat. An operator must look.
    HsmLatched,
    /// The PIN was refused, or an unproven PIN's outcome is unknown. `pin-clear` undoes it.
    PinLatched,
    /// The PIN file or credential is missing, too open, empty or too long.
    PinUnreadable,
    /// The PIN state file cannot be read, written or understood.
    PinState,
    /// The mark of the admin checkpoints is missing, damaged, another token's or another MAC key's,
    /// or cannot be read or written.
    MarkState,
    /// The MAC key file is missing, too open or damaged.
    MacKey,
    /// No token with the configured label is present.
    TokenMissing,
    /// The token with the configured label has another serial number, or several have the label.
    TokenMismatch,
    /// The module cannot be loaded or initialised.
    ModuleLoad,
    /// No binding for this kid: the key may not be used.
    KeyUnknown,
    /// The token has no key with this CKA_ID.
    KeyMissing,
    /// The token has more than one key with this CKA_ID.
    KeyAmbiguous,
    /// The key can leave the token, or could once.
    KeyExtractable,
    /// The key's attributes are not those of a signing key made in the token.
    KeyAttributes,
    /// The token's public key is not the one that the binding names, or the kid is bound already
    /// to another purpose.
    KeyMismatch,
    /// The message is not what a key of this purpose and trail may sign.
    PurposeMismatch,
    /// Another input was signed for this position before.
    PositionConflict,
    /// The position lies too far below the newest and no valid proof of recovery came with it; or it
    /// lies below the durable mark of the admin checkpoints.
    PositionStale,
    /// The proof of recovery does not hold.
    RecoveryRefused,
    /// The backlog is full. Nothing was signed; repeat later.
    Overloaded,
    /// The call is beyond a bound of this crate.
    TooLarge,
    /// The token's signature has the wrong form or does not verify.
    BadSignature,
    /// The token refused the call as the caller's mistake.
    HsmRejected,
    /// A frame of the worker protocol was malformed.
    Protocol,
    /// A worker process ended without saying why.
    WorkerDied,
    /// A file operation failed.
    Io,
}

impl Reason {
    /// The stable word, as in logs, metrics and answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Reason::HsmUnavailable => "HSM_UNAVAILABLE",
            Reason::HsmTimeout => "HSM_TIMEOUT",
            Reason::HsmLatched => "HSM_LATCHED",
            Reason::PinLatched => "PIN_LATCHED",
            Reason::PinUnreadable => "PIN_UNREADABLE",
            Reason::PinState => "PIN_STATE",
            Reason::MarkState => "MARK_STATE",
            Reason::MacKey => "MAC_KEY",
            Reason::TokenMissing => "TOKEN_MISSING",
            Reason::TokenMismatch => "TOKEN_MISMATCH",
            Reason::ModuleLoad => "MODULE_LOAD",
            Reason::KeyUnknown => "KEY_UNKNOWN",
            Reason::KeyMissing => "KEY_MISSING",
            Reason::KeyAmbiguous => "KEY_AMBIGUOUS",
            Reason::KeyExtractable => "KEY_EXTRACTABLE",
            Reason::KeyAttributes => "KEY_ATTRIBUTES",
            Reason::KeyMismatch => "KEY_MISMATCH",
            Reason::PurposeMismatch => "PURPOSE_MISMATCH",
            Reason::PositionConflict => "POSITION_CONFLICT",
            Reason::PositionStale => "POSITION_STALE",
            Reason::RecoveryRefused => "RECOVERY_REFUSED",
            Reason::Overloaded => "OVERLOADED",
            Reason::TooLarge => "TOO_LARGE",
            Reason::BadSignature => "BAD_SIGNATURE",
            Reason::HsmRejected => "HSM_REJECTED",
            Reason::Protocol => "PROTOCOL",
            Reason::WorkerDied => "WORKER_DIED",
            Reason::Io => "IO",
        }
    }

    /// Whether the same call may succeed later without anybody changing anything.
    pub const fn retryable(self) -> bool {
        matches!(
            self,
            Reason::HsmUnavailable
                | Reason::HsmTimeout
                | Reason::TokenMissing
                | Reason::KeyMissing
                | Reason::Overloaded
                | Reason::BadSignature
                | Reason::WorkerDied
        )
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A refused or failed call: the stable [`Reason`] and a bounded text that says to what and why.
///
/// The text never holds a PIN, key material or message content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{reason}: {detail}")]
pub struct HsmError {
    reason: Reason,
    detail: String,
}

impl HsmError {
    /// An error with `reason`; `detail` is cut at [`MAX_DETAIL_BYTES`].
    pub fn new(reason: Reason, detail: impl fmt::Display) -> HsmError {
        let mut detail = detail.to_string();
        if detail.len() > MAX_DETAIL_BYTES {
            let mut end = MAX_DETAIL_BYTES;
            while !detail.is_char_boundary(end) {
                end -= 1;
            }
            detail.truncate(end);
        }
        HsmError { reason, detail }
    }

    /// The stable reason.
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// What happened, to what, and what to do.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// Whether the same call may succeed later without anybody changing anything.
    pub fn retryable(&self) -> bool {
        self.reason.retryable()
    }
}

/// Why a worker ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Halt {
    pub(crate) error: HsmError,
    /// True when nothing may start again before an operator acts.
    pub(crate) latched: bool,
}

impl Halt {
    /// The supervisor may start another worker, with back-off.
    pub(crate) fn replace(error: HsmError) -> Halt {
        Halt { error, latched: false }
    }

    /// Nothing starts again by itself.
    pub(crate) fn latch(error: HsmError) -> Halt {
        Halt { error, latched: true }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_are_cut_at_a_character() {
        let error = HsmError::new(Reason::Io, "ä".repeat(MAX_DETAIL_BYTES));
        assert_eq!(error.detail().len(), MAX_DETAIL_BYTES);
        let error = HsmError::new(Reason::Io, format!("x{}", "ä".repeat(MAX_DETAIL_BYTES)));
        assert_eq!(error.detail().len(), MAX_DETAIL_BYTES - 1);
    }
}
