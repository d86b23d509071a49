//! What the threads of a worker share: the token, the bound keys, the guard, the queue, the writer
//! and the watchdog.

use std::collections::{HashMap, VecDeque};
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock, mpsc};
use std::time::{Duration, Instant};

use countersign_trail::keys::{Kid, PublicKey};
use countersign_trail::origin::Origin;
use countersign_trail::signing::Purpose;
use cryptoki::object::ObjectHandle;
use cryptoki::session::Session;

use super::keys::{self, KeyTrouble};
use super::token::{self, Token};
use crate::config::{KeyBinding, MAX_KEYS, TokenConfig, TokenInfo};
use crate::error::{Halt, HsmError, Reason};
use crate::guard::Guard;
use crate::mac::MacKey;
use crate::protocol::{self, Answer, Call, Reply, WireItem};
use crate::sync::lock;

/// Most replies in one frame; the longest, a run of 32 errors of about 400 bytes, is 12.8 KB:
/// 1024 × 12.8 KB = 13.1 MB, below the longest frame.
const MAX_REPLIES_PER_FRAME: usize = 1024;
/// Kids whose purpose one worker remembers, so that no kid changes it by being bound again.
const MAX_REMEMBERED_KIDS: usize = 4096;
/// How long the last frame may take to leave.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// One thing for a session thread to do.
pub(super) enum Work {
    /// Consecutive items of request `id`, from item `first` on.
    Sign {
        id: u64,
        first: u32,
        items: Vec<WireItem>,
    },
    Admin {
        id: u64,
        call: Box<Call>,
    },
}

/// What waits for a session thread. The pool bounds what it sends before it has answers, so the
/// queue needs no bound of its own.
#[derive(Default)]
pub(super) struct Queue {
    work: Mutex<VecDeque<Work>>,
    more: Condvar,
}

impl Queue {
    pub(super) fn push(&self, work: Work) {
        lock(&self.work).push_back(work);
        self.more.notify_one();
    }

    /// Waits for the next thing to do.
    pub(super) fn pop(&self) -> Work {
        let mut queue = lock(&self.work);
        loop {
            if let Some(work) = queue.pop_front() {
                return work;
            }
            queue = self.more.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Where a bound key stands in the token.
#[derive(Clone)]
pub(super) enum Lookup {
    Found(ObjectHandle),
    Refused(HsmError),
}

/// A key that this worker may use.
pub(super) struct BoundKey {
    pub(super) binding: KeyBinding,
    pub(super) public: PublicKey,
    /// Set by whichever session thread looked last.
    pub(super) lookup: Mutex<Lookup>,
}

/// The shared part of a worker.
pub(super) struct Engine {
    pub(super) config: TokenConfig,
    pub(super) token: Token,
    pub(super) info: TokenInfo,
    pub(super) mac: MacKey,
    pub(super) queue: Queue,
    pub(super) guard: Mutex<Guard>,
    /// Held around a login after the first.
    pub(super) login: Mutex<()>,
    keys: RwLock<HashMap<Kid, Arc<BoundKey>>>,
    purposes: Mutex<HashMap<Kid, (Purpose, Option<Origin>)>>,
    replies: mpsc::Sender<Reply>,
    began: Instant,
    /// Per session thread: when its call into the module must be over, in milliseconds since
    /// `began`; 0 while there is none.
    calls: Vec<AtomicU64>,
}

impl Engine {
    /// Starts the writer and the watchdog.
    pub(super) fn start(
        config: TokenConfig,
        token: Token,
        mac: MacKey,
        socket: UnixStream,
    ) -> std::io::Result<Arc<Engine>> {
        let (replies, queue) = mpsc::channel();
        let calls = (0..config.sessions_per_worker).map(|_| AtomicU64::new(0)).collect();
        let engine = Arc::new(Engine {
            info: token.info.clone(),
            config,
            token,
            mac,
            queue: Queue::default(),
            guard: Mutex::new(Guard::default()),
            login: Mutex::new(()),
            keys: RwLock::new(HashMap::new()),
            purposes: Mutex::new(HashMap::new()),
            replies,
            began: Instant::now(),
            calls,
        });
        std::thread::Builder::new().name("writer".into()).spawn(move || write_replies(&queue, socket))?;
        let watched = Arc::clone(&engine);
        std::thread::Builder::new().name("watchdog".into()).spawn(move || watched.watch())?;
        Ok(engine)
    }

    pub(super) fn reply(&self, id: u64, answer: Answer) {
        // The writer ends only with the process.
        let _ = self.replies.send(Reply { id, answer });
    }

    /// Says why and ends the process.
    pub(super) fn halt(&self, halt: Halt) -> ! {
        eprintln!("hsm-worker: ends: {}", halt.error);
        self.reply(0, Answer::Exiting { error: halt.error, latched: halt.latched });
        std::thread::sleep(LAST_WORDS);
        super::die()
    }

    /// Marks the call of session thread `index` as begun; it must end within `limit`.
    pub(super) fn call_begins(&self, index: usize, limit: Duration) {
        let deadline = self.began.elapsed() + limit;
        self.calls[index].store(millis(deadline).max(1), Ordering::Release);
    }

    /// Marks the call of session thread `index` as over.
    pub(super) fn call_ends(&self, index: usize) {
        self.calls[index].store(0, Ordering::Release);
    }

    /// Ends the process when a call lasts too long: nothing else clears a hung call.
    fn watch(&self) {
        let pause = (self.config.call_deadline / 8).clamp(Duration::from_millis(5), Duration::from_millis(250));
        loop {
            std::thread::sleep(pause);
            let now = millis(self.began.elapsed());
            let hung = self.calls.iter().any(|call| {
                let deadline = call.load(Ordering::Acquire);
                deadline != 0 && now > deadline
            });
            if hung {
                let text = "the module did not return from a call in time";
                self.halt(Halt::replace(HsmError::new(Reason::HsmTimeout, text)));
            }
        }
    }

    /// The bound key, if there is one.
    pub(super) fn key(&self, kid: &Kid) -> Result<Arc<BoundKey>, HsmError> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.get(kid).cloned().ok_or_else(|| HsmError::new(Reason::KeyUnknown, format!("no key {kid} is bound")))
    }

    /// Binds keys, each checked in the token; returns those that may not be used, and why. They
    /// stay bound when the token refuses them, and every use looks again.
    ///
    /// # Errors
    /// The module's error that is not about one key.
    pub(super) fn bind(&self, session: &Session, bindings: Vec<KeyBinding>) -> Result<Vec<(Kid, HsmError)>, Halt> {
        let mut refused = Vec::new();
        for binding in bindings {
            let kid = binding.kid;
            let public = match self.accept(&binding) {
                Ok(public) => public,
                Err(error) => {
                    refused.push((kid, error));
                    continue;
                }
            };
            let lookup = match look(session, &binding, &public) {
                Ok(handle) => Lookup::Found(handle),
                Err(KeyTrouble::Refused(error)) => {
                    refused.push((kid, error.clone()));
                    Lookup::Refused(error)
                }
                Err(KeyTrouble::Call(error)) => return Err(token::halt(&error)),
            };
            let key = BoundKey { binding, public, lookup: Mutex::new(lookup) };
            let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
            keys.insert(kid, Arc::new(key));
        }
        Ok(refused)
    }

    /// Checks a binding without the token: kid and key agree, the purpose is not another one than
    /// before.
    fn accept(&self, binding: &KeyBinding) -> Result<PublicKey, HsmError> {
        let mismatch = |text: String| HsmError::new(Reason::KeyMismatch, format!("{}: {text}", binding.kid));
        if binding.cka_id.is_empty() || binding.cka_id.len() > 64 {
            return Err(mismatch("CKA_ID must have 1 to 64 bytes".to_owned()));
        }
        let public = PublicKey::from_spki_der(&binding.public_key).map_err(|error| mismatch(error.to_string()))?;
        if public.kid() != binding.kid {
            return Err(mismatch(format!("the public key's thumbprint is {}", public.kid())));
        }
        let use_for = (binding.purpose, binding.trail.clone());
        let mut purposes = lock(&self.purposes);
        match purposes.get(&binding.kid) {
            Some(known) if *known != use_for => {
                return Err(mismatch(format!("bound before as a {} key", known.0)));
            }
            Some(_) => {}
            None if purposes.len() >= MAX_REMEMBERED_KIDS => {
                let text = format!("more than {MAX_REMEMBERED_KIDS} keys were bound to one worker");
                return Err(HsmError::new(Reason::TooLarge, text));
            }
            None => {
                purposes.insert(binding.kid, use_for);
            }
        }
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        if keys.len() >= MAX_KEYS && !keys.contains_key(&binding.kid) {
            return Err(HsmError::new(Reason::TooLarge, format!("more than {MAX_KEYS} keys are bound")));
        }
        Ok(public)
    }

    pub(super) fn unbind(&self, kids: &[Kid]) {
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        for kid in kids {
            keys.remove(kid);
        }
    }

    /// The bound keys that the token refuses, by kid.
    pub(super) fn refused(&self) -> Vec<(Kid, HsmError)> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let refusal = |(kid, key): (&Kid, &Arc<BoundKey>)| match &*lock(&key.lookup) {
            Lookup::Found(_) => None,
            Lookup::Refused(error) => Some((*kid, error.clone())),
        };
        keys.iter().filter_map(refusal).collect()
    }
}

/// Finds a bound key in the token: the right attributes and the very public key.
pub(super) fn look(session: &Session, binding: &KeyBinding, public: &PublicKey) -> Result<ObjectHandle, KeyTrouble> {
    let found = keys::find(session, &binding.cka_id)?;
    if found.public != *public {
        let text = format!("{}: the token shows another public key, {}", binding.kid, found.public.kid());
        return Err(KeyTrouble::Refused(HsmError::new(Reason::KeyMismatch, text)));
    }
    Ok(found.handle)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Gathers replies into frames. The last one is `Exiting`.
fn write_replies(queue: &mpsc::Receiver<Reply>, mut socket: UnixStream) {
    while let Ok(first) = queue.recv() {
        let mut replies = vec![first];
        while replies.len() < MAX_REPLIES_PER_FRAME
            && let Ok(reply) = queue.try_recv()
        {
            replies.push(reply);
        }
        let last = replies.iter().any(|reply| matches!(reply.answer, Answer::Exiting { .. }));
        let written = protocol::encode(&replies)
            .map_err(|error| error.to_string())
            .and_then(|frame| socket.write_all(&frame).map_err(|error| error.to_string()));
        if let Err(error) = &written {
            eprintln!("hsm-worker: cannot answer: {error}");
        }
        if last || written.is_err() {
            super::die();
        }
    }
}
