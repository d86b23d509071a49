//! One call: its number, what the rules do to it, and its line in the log.

use std::thread;
use std::time::Duration;

use countersign_faulty_transcript::calls::LOGGED;
use countersign_faulty_transcript::control::read_control;
use countersign_faulty_transcript::{Action, CallLine, Function, Outcome};
use cryptoki_sys::{CK_FUNCTION_LIST, CK_RV};

use crate::real::{Module, fatal, module};

/// A call that has been counted.
pub(crate) struct Call {
    module: &'static Module,
    pub(crate) function: Function,
    pub(crate) n: u64,
    latency: Duration,
    /// The first rule for this call that is not a latency.
    action: Option<Action>,
}

/// What is left to do for a call whose latency is over and that was not made to hang or abort.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    Return(CK_RV),
    Garbage,
}

impl Call {
    /// Counts a call and looks its rules up.
    pub(crate) fn begin(function: Function) -> Self {
        let module = module();
        let n = module.counters.next(function).unwrap_or_else(|error| fatal(&error.to_string()));
        let rules = read_control(&module.dir).unwrap_or_else(|error| fatal(&error.to_string()));
        let mut call = Self { module, function, n, latency: Duration::ZERO, action: None };
        for rule in rules.iter().filter(|rule| rule.function == function && rule.which.contains(n)) {
            match rule.action {
                Action::Latency(latency) => call.latency = call.latency.saturating_add(latency),
                action => call.action = call.action.or(Some(action)),
            }
        }
        call
    }

    /// Does what the rules ask for before the real module is called. Does not return if that is a hang or an abort.
    pub(crate) fn meet_fault(&self) -> Fault {
        if !self.latency.is_zero() {
            thread::sleep(self.latency);
        }
        match self.action {
            None | Some(Action::Latency(_)) => Fault::None,
            Some(Action::Return(rv)) => Fault::Return(rv),
            Some(Action::Garbage) => Fault::Garbage,
            Some(Action::Hang) => {
                self.log(Outcome::Hang);
                loop {
                    thread::park();
                }
            }
            Some(Action::Abort) => {
                self.log(Outcome::Abort);
                std::process::abort()
            }
        }
    }

    /// Logs the call if it is of interest, and hands its return value on.
    pub(crate) fn end(&self, rv: CK_RV) -> CK_RV {
        if self.action.is_some() || LOGGED.contains(&self.function) {
            self.log(Outcome::Returned(rv));
        }
        rv
    }

    fn log(&self, outcome: Outcome) {
        let line = CallLine { pid: std::process::id(), function: self.function, n: self.n, outcome };
        line.append(&self.module.calls).unwrap_or_else(|error| fatal(&format!("calls.log: {error}")));
    }
}

/// A call that gives no signature: what the rules say, or else what the real module answers.
pub(crate) fn pass_through(function: Function, real: impl FnOnce(&CK_FUNCTION_LIST) -> CK_RV) -> CK_RV {
    let call = Call::begin(function);
    match call.meet_fault() {
        Fault::Return(rv) => call.end(rv),
        Fault::None | Fault::Garbage => call.end(real(&call.module.real)),
    }
}
