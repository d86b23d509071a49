//! The process `countersignd hsm-worker`: one token, one module, a few sessions.
//!
//! It talks to its pool over the socket that it finds as descriptor 0 and to nobody else. Threads:
//! the reader (this one) takes requests; each session has a thread of its own, since a session is
//! not shared; the writer gathers replies into frames; the watchdog ends the process when a call
//! into the module lasts too long. It never forks and never finalises the module: it is killed.

mod engine;
mod generate;
mod keys;
mod session;
mod sign;
mod token;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::Arc;

use rustix::process::{DumpableBehavior, Resource, Rlimit, Signal};

use crate::config::{MAX_SESSIONS, RecoveryProof};
use crate::error::{Halt, HsmError, Reason};
use crate::mac::MacKey;
use crate::protocol::{self, Answer, Call, PREAMBLE, Reply, Request, Start, WireItem};
use engine::{Engine, Work};
use session::SessionThread;
use token::Token;

/// Most items that one session takes at a time.
const MAX_RUN_ITEMS: usize = 32;

/// Runs the worker process until its pool closes the socket; see the module's text.
///
/// The process must have been started by a [`crate::Pool`]. The exit code is not 0 when it could
/// not begin; why stands in the last frame.
pub fn worker_main() -> ExitCode {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        eprintln!("hsm-worker: stopped at {place}");
        die();
    }));
    let mut socket = match take_socket() {
        Ok(socket) => socket,
        Err(what) => {
            eprintln!("hsm-worker: {what}; countersignd starts this by itself");
            return ExitCode::from(2);
        }
    };
    let (id, start) = match first_request(&mut socket) {
        Ok(first) => first,
        Err(what) => {
            eprintln!("hsm-worker: {what}");
            return ExitCode::from(2);
        }
    };
    match begin(start, &socket) {
        Ok(engine) => {
            let (info, refused) = (engine.info.clone(), engine.refused());
            engine.reply(id, Answer::Started { info, refused });
            serve(&engine, &mut socket)
        }
        Err(halt) => {
            let answer = Answer::Exiting { error: halt.error, latched: halt.latched };
            if let Ok(frame) = protocol::encode(&[Reply { id: 0, answer }]) {
                let _ = socket.write_all(&frame);
            }
            // Not by returning: that would run the module's own exit handlers.
            die()
        }
    }
}

/// Ends this process at once: no exit handler of the module runs, no thread is waited for.
fn die() -> ! {
    let _ = rustix::process::kill_process(rustix::process::getpid(), Signal::KILL);
    std::process::abort()
}

/// Keeps secrets out of core files and debuggers, and follows the daemon into death.
fn harden() -> rustix::io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    rustix::process::setrlimit(Resource::Core, none)
}

/// Moves the socket away from descriptor 0, so that no module reads it by accident.
fn take_socket() -> Result<UnixStream, String> {
    harden().map_err(|error| format!("cannot harden the process: {error}"))?;
    let fd = std::io::stdin().as_fd().try_clone_to_owned().map_err(|error| format!("descriptor 0: {error}"))?;
    let null = File::open("/dev/null").map_err(|error| format!("/dev/null: {error}"))?;
    rustix::stdio::dup2_stdin(&null).map_err(|error| format!("descriptor 0: {error}"))?;
    let socket = UnixStream::from(fd);
    socket.peer_addr().map_err(|_| "descriptor 0 is no connected socket".to_owned())?;
    Ok(socket)
}

fn first_request(socket: &mut UnixStream) -> Result<(u64, Box<Start>), String> {
    let mut preamble = [0; PREAMBLE.len()];
    socket.read_exact(&mut preamble).map_err(|error| error.to_string())?;
    if preamble != PREAMBLE {
        return Err("the daemon speaks another version; restart it".to_owned());
    }
    let mut requests: Vec<Request> =
        protocol::read(socket).map_err(|error| error.to_string())?.ok_or("closed before the first request")?;
    match (requests.pop(), requests.is_empty()) {
        (Some(Request { id, call: Call::Start(start) }), true) => Ok((id, start)),
        _ => Err("the first request is not Start".to_owned()),
    }
}

/// Opens the module, logs in once, finds the keys, starts the threads.
fn begin(start: Box<Start>, socket: &UnixStream) -> Result<Arc<Engine>, Halt> {
    let config = start.token;
    if config.sessions_per_worker == 0 || config.sessions_per_worker > MAX_SESSIONS {
        let text = format!("{} sessions, 1 to {MAX_SESSIONS} are allowed", config.sessions_per_worker);
        return Err(Halt::replace(HsmError::new(Reason::TooLarge, text)));
    }
    let token = Token::open(&config)?;
    let mac = MacKey::open(&config.mac_key_file, &token.info.serial).map_err(Halt::replace)?;
    let first = token.open_session()?;
    token.login(&first, &config, &mac)?;
    let io = |error: std::io::Error| Halt::replace(HsmError::new(Reason::Io, error));
    let engine = Engine::start(config, token, mac, socket.try_clone().map_err(io)?).map_err(io)?;
    engine.bind(&first, start.keys)?;
    let mut first = Some(first);
    for index in 0..usize::from(engine.config.sessions_per_worker) {
        let session = match first.take() {
            Some(session) => session,
            None => engine.token.open_session()?,
        };
        SessionThread::spawn(Arc::clone(&engine), index, session).map_err(io)?;
    }
    Ok(engine)
}

/// Takes requests until the pool is gone.
fn serve(engine: &Arc<Engine>, socket: &mut UnixStream) -> ! {
    loop {
        match protocol::read::<Request>(socket) {
            Ok(Some(requests)) => {
                for request in requests {
                    dispatch(engine, request);
                }
            }
            Ok(None) => die(),
            Err(error) => {
                engine.halt(Halt::replace(HsmError::new(Reason::Protocol, error)));
            }
        }
    }
}

/// Answers what needs no session, queues the rest.
fn dispatch(engine: &Engine, request: Request) {
    let id = request.id;
    match request.call {
        Call::Sign(items) => queue_runs(engine, id, items),
        Call::Mac(digest) => engine.reply(id, result(engine.mac.intent(&digest).map(Answer::Mac))),
        Call::CheckMac(proof) => engine.reply(id, check_mac(engine, &proof)),
        Call::Unbind(kids) => {
            engine.unbind(&kids);
            engine.reply(id, Answer::Done);
        }
        Call::Start(_) => {
            let error = HsmError::new(Reason::Protocol, "started already");
            engine.reply(id, Answer::Failed(error));
        }
        call => engine.queue.push(Work::Admin { id, call: Box::new(call) }),
    }
}

/// Queues a request's items in runs: one session signs a run and answers for it at once, and no
/// session stays without one while another has two.
fn queue_runs(engine: &Engine, id: u64, items: Vec<WireItem>) {
    let sessions = usize::from(engine.config.sessions_per_worker);
    let run = items.len().div_ceil(sessions).clamp(1, MAX_RUN_ITEMS);
    let (mut first, mut items) = (0, items.into_iter().peekable());
    while items.peek().is_some() {
        let items: Vec<WireItem> = items.by_ref().take(run).collect();
        let next = first + u32::try_from(items.len()).unwrap_or(u32::MAX);
        engine.queue.push(Work::Sign { id, first, items });
        first = next;
    }
}

fn check_mac(engine: &Engine, proof: &RecoveryProof) -> Answer {
    result(engine.mac.check(proof).map(Answer::Checked))
}

fn result(result: Result<Answer, HsmError>) -> Answer {
    result.unwrap_or_else(Answer::Failed)
}
