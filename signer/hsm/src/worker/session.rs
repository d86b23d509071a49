//! One session, one thread; and what is done after an error, by the ladder.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cryptoki::error::{Error, RvError};
use cryptoki::session::Session;

use super::engine::{BoundKey, Engine, Lookup, Work, look};
use super::keys::KeyTrouble;
use super::token;
use crate::error::{Halt, HsmError, Reason};
use crate::ladder::{self, Prepare, Remedy};
use crate::protocol::{Answer, Blob, WireItem};
use crate::sync::lock;

/// Pause before a call is made again, so that a token short of resources gets some.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// A signature waits at most so long for the others of its run: far below any call deadline, since
/// the pool takes a worker that answers nothing for hung.
const HOLD: Duration = Duration::from_millis(5);

/// A session and the thread that alone uses it.
pub(super) struct SessionThread {
    pub(super) engine: Arc<Engine>,
    index: usize,
    session: Session,
}

impl SessionThread {
    pub(super) fn spawn(engine: Arc<Engine>, index: usize, session: Session) -> std::io::Result<()> {
        let mut thread = SessionThread { engine, index, session };
        let name = format!("session-{index}");
        std::thread::Builder::new().name(name).spawn(move || thread.run())?;
        Ok(())
    }

    fn run(&mut self) {
        loop {
            match self.engine.queue.pop() {
                Work::Sign { id, first, items } => self.sign_run(id, first, &items),
                Work::Admin { id, call } => {
                    let answer = self.admin(*call).unwrap_or_else(Answer::Failed);
                    self.engine.reply(id, answer);
                }
            }
        }
    }

    /// Signs a run and answers for all of it at once, or for what is signed every [`HOLD`].
    fn sign_run(&mut self, id: u64, mut first: u32, items: &[WireItem]) {
        let mut results = Vec::with_capacity(items.len());
        let mut since = Instant::now();
        for (next, item) in (first + 1..).zip(items) {
            results.push(self.sign(item).map(|signature| Blob(signature.into())));
            if since.elapsed() >= HOLD {
                self.engine.reply(id, Answer::Signed { first, results: std::mem::take(&mut results) });
                (first, since) = (next, Instant::now());
            }
        }
        if !results.is_empty() {
            self.engine.reply(id, Answer::Signed { first, results });
        }
    }

    /// Calls into the module; the watchdog ends the process when it takes longer than `limit`.
    pub(super) fn timed<T>(&self, limit: Duration, call: impl FnOnce(&Session) -> T) -> T {
        self.engine.call_begins(self.index, limit);
        let result = call(&self.session);
        self.engine.call_ends(self.index);
        result
    }

    /// Prepares for another attempt after `error`, or says that the call fails. Does not return
    /// when the worker must end.
    pub(super) fn recover(&mut self, error: &Error, key: Option<&BoundKey>) -> Result<(), HsmError> {
        let (remedy, text) = ladder::judge(error);
        let failure = ladder::failure(remedy, &text);
        match remedy {
            Remedy::Retry(Prepare::Nothing) => std::thread::sleep(RETRY_PAUSE),
            Remedy::Retry(Prepare::FindKey) => match key {
                Some(key) => self.find_again(key)?,
                None => return Err(failure),
            },
            Remedy::Retry(Prepare::Login) => self.login_again(),
            Remedy::NewSession => self.new_session(error),
            Remedy::ReplaceWorker => self.engine.halt(Halt::replace(failure)),
            Remedy::LatchedDown => self.engine.halt(Halt::latch(failure)),
            Remedy::CallersError => return Err(failure),
        }
        Ok(())
    }

    fn login_again(&self) {
        let engine = &self.engine;
        let _one_at_a_time = lock(&engine.login);
        let limit = engine.config.slow_deadline();
        let done = self.timed(limit, |session| engine.token.login(session, &engine.config, &engine.mac));
        if let Err(halt) = done {
            engine.halt(halt);
        }
    }

    fn new_session(&mut self, error: &Error) {
        let limit = self.engine.config.slow_deadline();
        match self.timed(limit, |_| self.engine.token.try_open_session()) {
            Ok(session) => {
                let old = std::mem::replace(&mut self.session, session);
                if !matches!(error, Error::Pkcs11(RvError::OperationActive | RvError::OperationNotInitialized, _)) {
                    // Its handle is void, and may be another session's by now: never close it.
                    std::mem::forget(old);
                }
            }
            Err(error) => self.engine.halt(token::halt(&error)),
        }
    }

    /// Looks for a key whose handle the token no longer knows. A key that was there in this
    /// worker's life and is gone means that the token is: another worker finds out.
    fn find_again(&mut self, key: &BoundKey) -> Result<(), HsmError> {
        let limit = self.engine.config.slow_deadline();
        let found = self.timed(limit, |session| look(session, &key.binding, &key.public));
        match found {
            Ok(handle) => {
                *lock(&key.lookup) = Lookup::Found(handle);
                Ok(())
            }
            Err(KeyTrouble::Refused(error)) if error.reason() == Reason::KeyMissing => {
                let text = format!("key {} was there and is gone", key.binding.kid);
                self.engine.halt(Halt::replace(HsmError::new(Reason::TokenMissing, text)))
            }
            Err(KeyTrouble::Refused(error)) => {
                *lock(&key.lookup) = Lookup::Refused(error.clone());
                Err(error)
            }
            Err(KeyTrouble::Call(error)) => self.engine.halt(token::halt(&error)),
        }
    }
}
