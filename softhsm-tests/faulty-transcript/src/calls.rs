//! The `calls.log` file: one line for each call of interest, once its outcome is known.
//!
//! A line is `call PID FUNCTION NUMBER OUTCOME`, e.g. `call 4711 C_Sign 3 0x30`. The outcome is the return value in
//! hex, or `hang` or `abort` where a rule made the call end so. A process killed inside a call leaves no line for it;
//! [`crate::counters`] has counted it nevertheless.

use std::fs::File;
use std::path::Path;

use crate::lines::{self, Taken};
use crate::{Error, Function};

/// File name in the shared folder.
pub const CALLS_FILE: &str = "calls.log";
/// The functions that are always logged; others are when a rule met them.
pub const LOGGED: &[Function] = &[
    Function::C_Initialize,
    Function::C_Finalize,
    Function::C_OpenSession,
    Function::C_Login,
    Function::C_GenerateKeyPair,
    Function::C_SignInit,
    Function::C_Sign,
    Function::C_SignUpdate,
    Function::C_SignFinal,
    Function::C_DestroyObject,
    Function::C_SetAttributeValue,
];

const START: &str = "call ";

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It returned this CK_RV.
    Returned(u64),
    /// It was made to hang.
    Hang,
    /// It was made to abort the process.
    Abort,
}

/// One line of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallLine {
    /// The process that called.
    pub pid: u32,
    /// What it called.
    pub function: Function,
    /// The call's number, as in [`crate::counters`].
    pub n: u64,
    /// How it ended.
    pub outcome: Outcome,
}

impl CallLine {
    /// Appends this line to the log. `file` must have been opened for appending.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn append(&self, file: &File) -> std::io::Result<()> {
        let outcome = match self.outcome {
            Outcome::Returned(rv) => format!("{rv:#x}"),
            Outcome::Hang => "hang".to_owned(),
            Outcome::Abort => "abort".to_owned(),
        };
        let line = format!("{START}{} {} {} {outcome}\n", self.pid, self.function.name(), self.n);
        lines::append(file, line.as_bytes())
    }

    fn parse(line: &str) -> Option<Self> {
        let mut words = line.strip_prefix(START)?.split(' ');
        let mut word = || words.next();
        let (pid, function, n) = (word()?.parse().ok()?, Function::from_name(word()?)?, word()?.parse().ok()?);
        let outcome = match word()? {
            "hang" => Outcome::Hang,
            "abort" => Outcome::Abort,
            rv => Outcome::Returned(u64::from_str_radix(rv.strip_prefix("0x")?, 16).ok()?),
        };
        words.next().is_none().then_some(Self { pid, function, n, outcome })
    }
}

/// The call log, in the order in which calls ended.
///
/// # Errors
/// There is no log (the module was never loaded with this folder), or it holds something else than calls.
pub fn call_log(dir: &Path) -> Result<Vec<CallLine>, Error> {
    let mut log = Vec::new();
    lines::read(&dir.join(CALLS_FILE), START, |_, piece| {
        let parsed = CallLine::parse(piece);
        log.extend(parsed);
        Ok(if parsed.is_some() { Taken::Whole } else { Taken::Torn })
    })?;
    Ok(log)
}
