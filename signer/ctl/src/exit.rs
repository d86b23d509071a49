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

/// What each exit code means in a command's help text.
const MEANINGS: [(Exit, &str); 9] = [
    (Exit::Failed, "failed: a file, an input, or an answer of the daemon"),
    (Exit::Refused, "sign: at least one event was refused; the others are signed"),
    (Exit::Denied, "denied: the daemon does not let this identity do it"),
    (Exit::Unavailable, "the daemon or its HSM is not available; try again"),
    (Exit::Older, "the trail is older than what was seen of it before"),
    (Exit::Fork, "fork: two histories of one trail that do not fit together"),
    (Exit::Tampered, "a signature, proof or commitment does not hold"),
    (Exit::Malformed, "a document is not in its format, or not what the plan asks for"),
    (Exit::Usage, "wrong usage: command line, profile or ceremony file"),
];

/// How commands that work with files alone may end.
pub(crate) const WITH_FILES: &[Exit] = &[Exit::Failed, Exit::Usage];
/// How commands that read plan or genesis may end.
pub(crate) const WITH_DOCUMENTS: &[Exit] = &[Exit::Failed, Exit::Malformed, Exit::Usage];
/// How commands that sign documents may end.
pub(crate) const WITH_SIGNATURES: &[Exit] = &[Exit::Failed, Exit::Tampered, Exit::Malformed, Exit::Usage];
/// How commands that show what the daemon tells may end.
pub(crate) const WITH_DAEMON: &[Exit] = &[Exit::Failed, Exit::Denied, Exit::Unavailable, Exit::Usage];
/// How commands that check what the daemon tells may end.
pub(crate) const WITH_CHECKS: &[Exit] =
    &[Exit::Failed, Exit::Denied, Exit::Unavailable, Exit::Tampered, Exit::Malformed, Exit::Usage];
/// How commands that hold heads against those seen before may end.
pub(crate) const WITH_HEADS: &[Exit] = &[
    Exit::Failed,
    Exit::Denied,
    Exit::Unavailable,
    Exit::Older,
    Exit::Fork,
    Exit::Tampered,
    Exit::Malformed,
    Exit::Usage,
];

/// The table of a command's exit codes, as it stands at the end of the help text.
pub(crate) fn table(exits: &[Exit]) -> String {
    let mut text = "Exit codes:\n   0  succeeded".to_owned();
    for (exit, meaning) in MEANINGS.iter().filter(|(exit, _)| exits.contains(exit)) {
        text.push_str(&format!("\n  {:>2}  {meaning}", *exit as u8));
    }
    text
}

/// The table of every exit code that there is.
pub(crate) fn whole_table() -> String {
    table(&MEANINGS.map(|(exit, _)| exit))
}

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
