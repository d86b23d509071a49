//! One worker process: started, spoken to, killed.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::{Child, ChildStderr, Command};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};

use crate::config::{WorkerCommand, WorkerUser};
use crate::error::{HsmError, Reason};
use crate::protocol::{self, FrameError, PREAMBLE, Reply, Request};
use crate::sync::lock;

/// Frames that are read ahead of the slot task.
const READ_AHEAD_FRAMES: usize = 16;
/// Longest line of a worker that is logged, in bytes; the rest of the line is dropped.
const MAX_LOG_LINE_BYTES: u64 = 1024;
/// Most lines of a worker that are logged per second.
const MAX_LOG_LINES_PER_SECOND: u32 = 50;
/// How long a killed process may take to be gone before it is left to the runtime.
const REAP: Duration = Duration::from_secs(5);

/// A running worker and the socket to it.
pub(super) struct Process {
    child: Child,
    pub(super) pid: Option<u32>,
    writer: OwnedWriteHalf,
    /// Decoded frames; closed when the worker has gone or talks nonsense.
    pub(super) replies: mpsc::Receiver<Vec<Reply>>,
}

impl Process {
    /// Sends requests in one frame, within `limit`.
    pub(super) async fn send(&mut self, requests: &[Request], limit: Duration) -> Result<(), HsmError> {
        let frame = protocol::encode(requests).map_err(|error| HsmError::new(Reason::Protocol, error))?;
        self.write(&frame, limit).await
    }

    async fn write(&mut self, bytes: &[u8], limit: Duration) -> Result<(), HsmError> {
        match timeout(limit, self.writer.write_all(bytes)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(HsmError::new(Reason::WorkerDied, format!("its socket: {error}"))),
            Err(_) => Err(HsmError::new(Reason::HsmTimeout, "the worker takes no requests")),
        }
    }

    /// Kills the process and waits for it to be gone; says how it ended.
    pub(super) async fn kill(mut self) -> String {
        // An error means that it is gone already.
        let _ = self.child.start_kill();
        match timeout(REAP, self.child.wait()).await {
            Ok(Ok(status)) => status.to_string(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "not gone yet, left behind".to_owned(),
        }
    }
}

/// Starts worker processes, on a thread of its own that lives as long as the pool: the kernel
/// kills a worker when the very thread that started it ends.
#[derive(Clone)]
pub(super) struct Spawner {
    orders: std::sync::mpsc::Sender<oneshot::Sender<std::io::Result<(Child, StdUnixStream)>>>,
    user: Option<WorkerUser>,
}

impl Spawner {
    pub(super) fn start(command: WorkerCommand, user: Option<WorkerUser>) -> std::io::Result<Spawner> {
        let (orders, queue) = std::sync::mpsc::channel::<oneshot::Sender<_>>();
        let runtime = Handle::current();
        std::thread::Builder::new().name("hsm-spawner".into()).spawn(move || {
            let _context = runtime.enter();
            while let Ok(answer) = queue.recv() {
                // Nobody waits for it any more: dropping the child kills it.
                let _ = answer.send(spawn(&command, user));
            }
        })?;
        Ok(Spawner { orders, user })
    }

    /// Why no process was made. What the system does not permit, waiting does not mend.
    fn refused(&self, error: &std::io::Error) -> HsmError {
        match self.user {
            Some(user) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                let WorkerUser { uid, gid } = user;
                let advice = "only root can start it so, and that user must be able to run the program";
                HsmError::new(Reason::Io, format!("cannot start a worker as uid {uid}, gid {gid}: {error}; {advice}"))
            }
            _ => HsmError::new(Reason::WorkerDied, format!("cannot start a worker: {error}")),
        }
    }

    /// Starts a process and speaks the preamble. `pool` and `slot` name it in the log.
    pub(super) async fn spawn(&self, pool: &str, slot: usize, limit: Duration) -> Result<Process, HsmError> {
        let died = |what: String| HsmError::new(Reason::WorkerDied, format!("cannot start a worker: {what}"));
        let (answer, result) = oneshot::channel();
        self.orders.send(answer).map_err(|_| died("the spawner has ended".to_owned()))?;
        let (mut child, socket) = result
            .await
            .map_err(|_| died("the spawner has ended".to_owned()))?
            .map_err(|error| self.refused(&error))?;
        if let Some(stderr) = child.stderr.take() {
            tokio::spawn(forward_log(stderr, pool.to_owned(), slot));
        }
        let (reader, writer) = UnixStream::from_std(socket).map_err(|error| died(error.to_string()))?.into_split();
        let (sender, replies) = mpsc::channel(READ_AHEAD_FRAMES);
        tokio::spawn(read_replies(reader, sender, pool.to_owned(), slot));
        let mut process = Process { pid: child.id(), child, writer, replies };
        process.write(&PREAMBLE, limit).await?;
        Ok(process)
    }
}

fn spawn(command: &WorkerCommand, user: Option<WorkerUser>) -> std::io::Result<(Child, StdUnixStream)> {
    let (ours, theirs) = StdUnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let mut process = Command::new(&command.program);
    process
        .args(&command.args)
        .envs(command.envs.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    if let Some(user) = user {
        // Further groups are dropped with these: root's child keeps none.
        process.uid(user.uid).gid(user.gid);
    }
    let child = process.spawn()?;
    // The command still holds the worker's end of the socket; end of file needs it closed.
    drop(process);
    Ok((child, ours))
}

/// Decodes frames until the worker is gone. A malformed frame counts as gone.
async fn read_replies(mut reader: OwnedReadHalf, to: mpsc::Sender<Vec<Reply>>, pool: String, slot: usize) {
    loop {
        match read_frame(&mut reader).await {
            Ok(Some(replies)) => {
                if to.send(replies).await.is_err() {
                    return;
                }
            }
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(pool, slot, %error, "HSM worker: bad frame");
                return;
            }
        }
    }
}

async fn read_frame(reader: &mut OwnedReadHalf) -> Result<Option<Vec<Reply>>, FrameError> {
    let mut prefix = [0; 4];
    if reader.read(&mut prefix[..1]).await? == 0 {
        return Ok(None);
    }
    reader.read_exact(&mut prefix[1..]).await?;
    let mut body = vec![0; protocol::body_len(prefix)?];
    reader.read_exact(&mut body).await?;
    protocol::decode(&body).map(Some)
}

/// Logs what the worker (and the vendor's module in it) writes on standard error, within bounds.
async fn forward_log(stderr: ChildStderr, pool: String, slot: usize) {
    let mut lines = BufReader::new(stderr);
    let (mut second, mut logged) = (Instant::now(), 0);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut lines).take(MAX_LOG_LINE_BYTES).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        if line.last() != Some(&b'\n') && skip_line(&mut lines).await.is_err() {
            return;
        }
        if second.elapsed() >= Duration::from_secs(1) {
            (second, logged) = (Instant::now(), 0);
        }
        logged += 1;
        if logged <= MAX_LOG_LINES_PER_SECOND {
            let text = String::from_utf8_lossy(line.trim_ascii_end());
            tracing::info!(pool, slot, line = ?text, "HSM worker");
        }
    }
}

/// Drops bytes up to and with the next newline, holding no more than the reader's buffer.
async fn skip_line(lines: &mut BufReader<ChildStderr>) -> std::io::Result<()> {
    loop {
        let buffer = lines.fill_buf().await?;
        if buffer.is_empty() {
            return Ok(());
        }
        let newline = buffer.iter().position(|byte| *byte == b'\n');
        let used = newline.map_or(buffer.len(), |at| at + 1);
        lines.consume(used);
        if newline.is_some() {
            return Ok(());
        }
    }
}

/// The lock under which workers with one module start, one after another, in whatever pool: file
/// tokens fail now and then when several processes open them at the same time.
pub(super) fn start_lock(module: &Path) -> Arc<tokio::sync::Mutex<()>> {
    type Locks = Mutex<HashMap<PathBuf, Arc<tokio::sync::Mutex<()>>>>;
    static LOCKS: LazyLock<Locks> = LazyLock::new(Locks::default);
    Arc::clone(lock(&LOCKS).entry(module.to_owned()).or_default())
}
