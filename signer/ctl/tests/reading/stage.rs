//! A folder with an auditor's profile, beside a daemon that it leads to.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rcgen::SanType;

use crate::daemon::Daemon;
use crate::listener::{Pki, serve};

pub(crate) struct Stage {
    pub(crate) daemon: Daemon,
    dir: tempfile::TempDir,
    _runtime: tokio::runtime::Runtime,
}

impl Stage {
    /// A daemon with `events` events in each trail.
    pub(crate) fn new(events: u64) -> Stage {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let (daemon, pki) = (Daemon::new(events), Pki::new());
        let address = runtime.block_on(serve(daemon.clone(), &pki));
        let (certificate, key) = pki.issue(SanType::URI("spiffe://acme.example/audrey".try_into().unwrap()));
        let fingerprint = daemon.state().ceremony.fingerprint;
        let profile = format!(
            "endpoint = \"https://localhost:{}\"\nca = \"ca.pem\"\ncertificate = \"cert.pem\"\nkey = \"key.pem\"\ngenesis = \"{fingerprint}\"\n",
            address.port()
        );
        let files = [
            ("ca.pem", pki.ca()),
            ("cert.pem", certificate.pem()),
            ("key.pem", key.serialize_pem()),
            ("profile.toml", profile),
        ];
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        Stage { daemon, dir, _runtime: runtime }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `countersign ARGS` as the auditor, with state of the stage's own.
    pub(crate) fn countersign(&self, args: &[&str]) -> Run {
        let mut command = Command::new(env!("CARGO_BIN_EXE_countersign"));
        command.args(args).current_dir(self.dir.path()).stdin(Stdio::null());
        command.env("COUNTERSIGN_PROFILE", self.path("profile.toml")).env("XDG_STATE_HOME", self.path("state"));
        let output = command.output().unwrap();
        Run {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// The folder of the heads that were seen.
    pub(crate) fn heads(&self) -> PathBuf {
        let fingerprint = self.daemon.state().ceremony.fingerprint.to_string();
        self.path("state").join("countersign").join(fingerprint).join("heads")
    }
}

#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    /// The command succeeded and printed each text.
    pub(crate) fn shows(&self, texts: &[&str]) {
        assert_eq!(self.code, 0, "{self:?}");
        for text in texts {
            assert!(self.stdout.contains(text), "{text:?} is not in {}", self.stdout);
        }
    }

    /// The command ended with `code`, and its message holds each text.
    pub(crate) fn refused(&self, code: i32, texts: &[&str]) {
        assert_eq!(self.code, code, "{self:?}");
        for text in texts {
            assert!(self.stderr.contains(text), "{text:?} is not in {}", self.stderr);
        }
    }
}

/// The names in a folder that end so.
pub(crate) fn names_ending(folder: &Path, end: &str) -> Vec<String> {
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(end)).collect()
}
