//! The PIN latch: a refused PIN is never presented again, an unproven one once.
//!
//! One JSON file per token serial, `<state dir>/<serial>.pin`, shared by all workers of the token:
//!
//! ```text
//! {"v":1, "serial", "state", "proof", "cause", "cleared"}
//! state  unproven  no PIN was presented yet, or an operator cleared the latch
//!        pending   an unproven PIN is being presented; found at a start, its outcome is unknown
//!        proven    a login on this token succeeded with the PIN whose MAC is `proof`
//!        refused   the token refused a PIN, for `cause`
//! ```
//! `pending` is durable before C_Login and `refused` or `proven` after it. Pending and refused keep
//! every worker from presenting any PIN, across restarts, until [`pin_clear`]. A proven PIN whose
//! login crashes, hangs or fails for another reason stays proven. The file is replaced by rename,
//! with an exclusive lock on `<serial>.pin.lock` around read, decision, write, login and write.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use cryptoki::types::RawAuthPin;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use crate::error::{Halt, HsmError, Reason};
use crate::files;
use crate::mac::MacKey;

/// Longest state file, in bytes: five short members and two texts of at most 300 bytes.
const MAX_STATE_BYTES: u64 = 4096;
const VERSION: u8 = 1;

/// What the token said to a C_Login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LoginOutcome {
    /// The token took the PIN.
    LoggedIn,
    /// This process was logged in already: nothing was learnt about the PIN.
    Already,
    /// The token spoke about the PIN, and did not take it.
    PinRefused(String),
    /// The login failed for another reason.
    Failed(Halt),
}

/// What [`pin_clear`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PinClear {
    /// A latch was undone; the next login presents the PIN once.
    Cleared,
    /// There was no latch.
    NothingToClear,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Unproven,
    Pending,
    Proven,
    Refused,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StateFile {
    v: u8,
    serial: String,
    state: State,
    /// Hex MAC of the proven PIN.
    proof: Option<String>,
    cause: Option<String>,
    /// An operator cleared the latch and the next start has not recorded it yet.
    cleared: bool,
}

/// The state file of one token, locked.
struct Latch {
    path: PathBuf,
    serial: String,
    _lock: File,
}

impl Latch {
    fn lock(state_dir: &Path, serial: &str) -> Result<Latch, HsmError> {
        let path = files::of_serial(state_dir, serial, "pin");
        let lock = files::lock_beside(&path).map_err(|(path, error)| state_error(&path, error))?;
        Ok(Latch { path, serial: serial.to_owned(), _lock: lock })
    }

    /// The state; an absent file is unproven, an unreadable one an error.
    fn load(&self) -> Result<StateFile, HsmError> {
        let file = match files::open_plain(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(self.fresh()),
            Err(error) => return Err(state_error(&self.path, error)),
        };
        let mut text = Vec::new();
        file.take(MAX_STATE_BYTES).read_to_end(&mut text).map_err(|error| state_error(&self.path, error))?;
        let state: StateFile = serde_json::from_slice(&text).map_err(|error| state_error(&self.path, error))?;
        if state.v != VERSION || state.serial != self.serial {
            return Err(state_error(&self.path, "of another version or another token"));
        }
        Ok(state)
    }

    fn fresh(&self) -> StateFile {
        StateFile {
            v: VERSION,
            serial: self.serial.clone(),
            state: State::Unproven,
            proof: None,
            cause: None,
            cleared: false,
        }
    }

    /// Durable on return.
    fn store(&self, state: &StateFile) -> Result<(), HsmError> {
        let text = serde_json::to_vec(state).map_err(|error| state_error(&self.path, error))?;
        files::replace(&self.path, &text).map_err(|error| state_error(&self.path, error))
    }
}

/// Logs in through `attempt` if the latch allows it, and makes the outcome durable.
///
/// `pin` is called only when some PIN may be presented at all.
pub(crate) fn login(
    state_dir: &Path,
    serial: &str,
    mac: &MacKey,
    pin: impl FnOnce() -> Result<RawAuthPin, HsmError>,
    attempt: impl FnOnce(&RawAuthPin) -> LoginOutcome,
) -> Result<(), Halt> {
    let latch = Latch::lock(state_dir, serial).map_err(Halt::replace)?;
    let mut state = latch.load().map_err(Halt::latch)?;
    if let Some(refusal) = refusal(&state) {
        return Err(Halt::latch(refusal));
    }
    let pin = pin().map_err(Halt::replace)?;
    let proof = hex(&mac.pin(pin.expose_secret()).map_err(Halt::replace)?);
    let proven = state.state == State::Proven
        && state.proof.as_deref().is_some_and(|old| bool::from(old.as_bytes().ct_eq(proof.as_bytes())));
    if !proven {
        state.state = State::Pending;
        state.proof = None;
        state.cause = None;
        latch.store(&state).map_err(Halt::replace)?;
    }
    match attempt(&pin) {
        LoginOutcome::LoggedIn if proven => Ok(()),
        LoginOutcome::LoggedIn => {
            state.state = State::Proven;
            state.proof = Some(proof);
            latch.store(&state).map_err(Halt::latch)
        }
        LoginOutcome::Already if proven => Ok(()),
        LoginOutcome::Already => {
            state.state = State::Unproven;
            latch.store(&state).map_err(Halt::latch)
        }
        LoginOutcome::PinRefused(cause) => {
            state.state = State::Refused;
            state.proof = None;
            state.cause = Some(cause);
            latch.store(&state).map_err(Halt::latch)?;
            Err(Halt::latch(refusal(&state).unwrap_or_else(|| latched(serial, "refused"))))
        }
        LoginOutcome::Failed(halt) if proven => Err(halt),
        LoginOutcome::Failed(halt) => {
            let text = format!("an unproven PIN was presented once and the login failed: {}", halt.error);
            state.cause = Some(HsmError::new(Reason::PinLatched, &text).detail().to_owned());
            latch.store(&state).map_err(Halt::latch)?;
            Err(Halt::latch(latched(serial, &text)))
        }
    }
}

fn refusal(state: &StateFile) -> Option<HsmError> {
    let cause = state.cause.as_deref();
    match state.state {
        State::Unproven | State::Proven => None,
        State::Refused => {
            Some(latched(&state.serial, &format!("a PIN was refused ({})", cause.unwrap_or("no cause noted"))))
        }
        State::Pending => {
            Some(latched(&state.serial, cause.unwrap_or("an unproven PIN was presented and its outcome is unknown")))
        }
    }
}

fn latched(serial: &str, what: &str) -> HsmError {
    HsmError::new(Reason::PinLatched, format!("token {serial}: {what}; correct the PIN, then run pin-clear"))
}

/// Undoes the latch of a token, with the daemon stopped, and leaves a mark for the next start.
///
/// A damaged state file counts as a latch. A proven PIN stays proven: nothing to clear.
///
/// # Errors
/// [`Reason::PinState`] when the state cannot be locked or written.
pub fn pin_clear(state_dir: &Path, serial: &str) -> Result<PinClear, HsmError> {
    let latch = Latch::lock(state_dir, serial)?;
    match latch.load() {
        Ok(state) if matches!(state.state, State::Unproven | State::Proven) => {
            return Ok(PinClear::NothingToClear);
        }
        _ => {}
    }
    let mut state = latch.fresh();
    state.cleared = true;
    latch.store(&state)?;
    Ok(PinClear::Cleared)
}

/// Whether an operator cleared this token's latch and no start has recorded it yet.
///
/// # Errors
/// [`Reason::PinState`] when the state cannot be locked or read.
pub fn pin_cleared_marker(state_dir: &Path, serial: &str) -> Result<bool, HsmError> {
    Ok(Latch::lock(state_dir, serial)?.load()?.cleared)
}

/// Takes the mark away, once its record is durable.
///
/// # Errors
/// [`Reason::PinState`] when the state cannot be locked, read or written.
pub fn consume_pin_cleared_marker(state_dir: &Path, serial: &str) -> Result<(), HsmError> {
    let latch = Latch::lock(state_dir, serial)?;
    let mut state = latch.load()?;
    if state.cleared {
        state.cleared = false;
        latch.store(&state)?;
    }
    Ok(())
}

fn state_error(path: &Path, what: impl std::fmt::Display) -> HsmError {
    HsmError::new(Reason::PinState, format!("{}: {what}", path.display()))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
#[path = "latch_tests.rs"]
mod tests;
