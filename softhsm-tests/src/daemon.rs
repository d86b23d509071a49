//! The running daemon.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::stage::Stage;

/// How long the daemon may take until it is ready: SoftHSM workers start one after another.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// How long it may take to stop.
const STOP_LIMIT: Duration = Duration::from_secs(60);
/// How often it is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A daemon process; killed when dropped.
pub struct Daemon {
    child: Child,
    operations_port: u16,
    log: std::path::PathBuf,
}

impl Stage {
    /// Starts the daemon and waits until it is ready.
    pub fn start(&self) -> Result<Daemon> {
        let mut daemon = self.spawn()?;
        daemon.wait_ready()?;
        Ok(daemon)
    }

    /// Starts the daemon without waiting. Its log goes to `countersignd.log`.
    pub fn spawn(&self) -> Result<Daemon> {
        self.spawn_by(self.countersignd(&[]))
    }

    /// The same by another command, which becomes the daemon: for one that runs in a place of its own.
    pub fn spawn_by(&self, mut command: Command) -> Result<Daemon> {
        let log = self.folder.join("countersignd.log");
        let file = File::options().create(true).append(true).open(&log)?;
        let child = command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).spawn();
        Ok(Daemon { child: child.context("countersignd")?, operations_port: self.operations_port, log })
    }
}

impl Daemon {
    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until /readyz answers 200; an exit before that is an error with the log's end.
    pub fn wait_ready(&mut self) -> Result<()> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("countersignd ended with {status}:\n{}", self.log_end());
            }
            if get(self.operations_port, "/readyz").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")) {
                return Ok(());
            }
            if begun.elapsed() > READY_LIMIT {
                bail!("countersignd was not ready within {READY_LIMIT:?}:\n{}", self.log_end());
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Waits for an exit that the daemon makes by itself.
    pub fn wait_exit(&mut self, limit: Duration) -> Result<ExitStatus> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if begun.elapsed() > limit {
                bail!("countersignd did not end within {limit:?}:\n{}", self.log_end());
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// SIGTERM, and wait for the clean end.
    pub fn stop(mut self) -> Result<()> {
        self.signal(Signal::TERM)?;
        let status = self.wait_exit(STOP_LIMIT)?;
        if status.success() { Ok(()) } else { bail!("countersignd ended with {status}:\n{}", self.log_end()) }
    }

    /// SIGKILL, and reap.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("a process id")?;
        Ok(kill_process(pid, signal)?)
    }

    /// What /metrics answers.
    pub fn metrics(&self) -> Result<String> {
        get(self.operations_port, "/metrics")
    }

    /// What /readyz answers.
    pub fn readyz(&self) -> Result<String> {
        get(self.operations_port, "/readyz")
    }

    /// The end of the daemon's log.
    pub fn log_end(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One HTTP/1.1 request to a loopback port.
pub fn get(port: u16, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
