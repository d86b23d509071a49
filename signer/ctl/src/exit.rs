//! How the command ends: the exit codes, and the one error type behind them.

use std::fmt;
use std::process::ExitCode;

/// Exit codes, the same for every command. Those from 30 on mean what they mean in
/// `countersign-verify`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// 1: a file, an input or the daemon's answer stopped the command.
    Failed = 1,
    /// 3: at least one event was refused; the others are signed.
    Refused = 3,
    /// 4: the daemon denied the call to this identity.
    Denied = 4,
    /// 5: the daemon or its HSM is not available; the call may be retried.
    Unavailable = 5,
    /// 20: the trail is older than what was seen of it before: a head, or a receipt that we hold.
    Older = 20,
    /// 30: two histories of one trail that do not fit together.
    Fork = 30,
    /// 40: a signature, proof or commitment does not hold.
    Tampered = 40,
    /// 50: a document is not in its format.
    Malformed = 50,
    /// 64: the command line or a configuration file is wrong.
    Usage = 64,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// The table of exit codes in every help text.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
   0  succeeded
   1  failed: a file, an input, or an answer of the daemon
   3  sign: at least one event was refused; the others are signed
   4  denied: the daemon does not let this identity do it
   5  the daemon or its HSM is not available; try again
  20  the trail is older than what was seen of it before
  30  fork: two histories of one trail that do not fit together
  40  a signature, proof or commitment does not hold
  50  a document is not in its format
  64  wrong usage: command line, profile or ceremony file";

/// Why a command stopped: what happened, to what, and what to do.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The exit code that goes with it.
    pub(crate) exit: Exit,
    message: String,
    todo: Option<String>,
}

/// What commands return.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// A failure that says what happened to what.
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Failure {
        Failure { exit, message: message.into(), todo: None }
    }

    /// As JSON, for `--json`: `exit_code`, `error`, and `todo` where there is one.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::json!({ "exit_code": self.exit as u8, "error": self.message, "todo": self.todo })
    }

    /// Adds what to do about it.
    pub(crate) fn todo(mut self, todo: impl Into<String>) -> Failure {
        self.todo = Some(todo.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.todo {
            Some(todo) => write!(f, "\n  {todo}"),
            None => Ok(()),
        }
    }
}

/// A failure with exit code 1.
pub(crate) fn failed(message: impl Into<String>) -> Failure {
    Failure::new(Exit::Failed, message)
}

/// A failure of the command line or of a configuration file.
pub(crate) fn usage(message: impl Into<String>) -> Failure {
    Failure::new(Exit::Usage, message)
}
