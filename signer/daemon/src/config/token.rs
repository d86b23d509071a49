//! A token's table.

use std::path::PathBuf;
use std::time::Duration;

use countersign_hsm::{PinSource, TokenConfig, WorkerUser};
use serde::Deserialize;

use super::sections::{OutOfBounds, in_range};

/// One PKCS#11 token and how it is used: `[record_token]`, `[admin_token]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// The PKCS#11 module (shared library).
    pub module: PathBuf,
    /// The token's label, without padding, 1 to 32 bytes. Tokens are never chosen by slot number.
    pub label: String,
    /// The token's serial number, without padding, 1 to 16 bytes. A token with this label and
    /// another serial number is refused. Default: any, but the genesis's afterwards.
    pub serial: Option<String>,
    /// File of the user PIN, which only a worker process opens. Either this or `pin_credential`.
    pub pin_file: Option<PathBuf>,
    /// Name of the systemd credential (LoadCredential=) that holds the user PIN.
    pub pin_credential: Option<String>,
    /// File of 32 random bytes that authenticate intents; made by `countersignd init`, kept beside
    /// the PIN, never in the store.
    pub mac_key_file: PathBuf,
    /// Folder of the PIN's state, where a refused PIN is remembered.
    pub state_dir: PathBuf,
    /// For tokens that are files (SoftHSM): the folder to fsync after a key was made. Default: none.
    pub sync_dir: Option<PathBuf>,
    /// Worker processes. Default 1, allowed 1 to 16.
    #[serde(default = "default_workers")]
    pub workers: u16,
    /// Sessions (signing threads) per worker. Default 1, allowed 1 to 64; a network HSM wants many.
    #[serde(default = "default_sessions")]
    pub sessions: u16,
    /// Longest time of one signature before its worker is replaced, in milliseconds. Default 5000,
    /// allowed 50 to 120000.
    #[serde(default = "default_call_deadline_ms")]
    pub call_deadline_ms: u64,
    /// Numeric user id that the workers run as, for a daemon that runs as root. Default: the
    /// daemon's own. Given together with `group`; neither is 0.
    pub user: Option<u32>,
    /// Numeric group id of the workers: the only group that they are in.
    pub group: Option<u32>,
}

fn default_workers() -> u16 {
    1
}

fn default_sessions() -> u16 {
    1
}

fn default_call_deadline_ms() -> u64 {
    5_000
}

impl Token {
    pub(super) fn check(&self, table: &str) -> Result<(), OutOfBounds> {
        let key = |name: &str| format!("{table}.{name}");
        in_range(&key("workers"), u64::from(self.workers), 1, 16)?;
        in_range(&key("sessions"), u64::from(self.sessions), 1, 64)?;
        in_range(&key("call_deadline_ms"), self.call_deadline_ms, 50, 120_000)?;
        let text = |name: &str, value: &str, max: usize| match value.len() {
            1.. if value.len() <= max && value.trim() == value => Ok(()),
            _ => Err(OutOfBounds::new(&key(name), &format!("wants 1 to {max} bytes without spaces around them"))),
        };
        text("label", &self.label, 32)?;
        if let Some(serial) = &self.serial {
            text("serial", serial, 16)?;
        }
        match (self.user, self.group) {
            (None, None) => {}
            (Some(1..), Some(1..)) if self.pin_credential.is_some() => {
                let problem = "can be read by the daemon's own user alone; workers with a `user` want a pin_file";
                return Err(OutOfBounds::new(&key("pin_credential"), problem));
            }
            (Some(1..), Some(1..)) => {}
            _ => return Err(OutOfBounds::new(&key("user"), "and group are given together, and neither is 0")),
        }
        match (&self.pin_file, &self.pin_credential) {
            (Some(_), None) => Ok(()),
            (None, Some(name)) if is_credential_name(name) => Ok(()),
            (None, Some(_)) => {
                Err(OutOfBounds::new(&key("pin_credential"), "is not a credential's name: a plain file name"))
            }
            _ => Err(OutOfBounds::new(&key("pin_file"), "exactly one of pin_file and pin_credential must be given")),
        }
    }

    /// Where the PIN stands. A checked table has one of the two.
    pub(crate) fn pin_source(&self) -> PinSource {
        match (&self.pin_file, &self.pin_credential) {
            (Some(path), _) => PinSource::File(path.clone()),
            (None, name) => PinSource::Credential(name.clone().unwrap_or_default()),
        }
    }

    pub(super) fn paths(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        [&mut self.module, &mut self.mac_key_file, &mut self.state_dir]
            .into_iter()
            .chain(self.pin_file.as_mut())
            .chain(self.sync_dir.as_mut())
    }

    /// The user that the workers run as, where it is not the daemon's own.
    pub fn worker_user(&self) -> Option<WorkerUser> {
        self.user.zip(self.group).map(|(uid, gid)| WorkerUser { uid, gid })
    }

    /// What the pool is told.
    pub fn to_hsm(&self) -> TokenConfig {
        TokenConfig {
            module: self.module.clone(),
            token_label: self.label.clone(),
            token_serial: self.serial.clone(),
            pin: self.pin_source(),
            mac_key_file: self.mac_key_file.clone(),
            state_dir: self.state_dir.clone(),
            sync_dir: self.sync_dir.clone(),
            workers: self.workers,
            sessions_per_worker: self.sessions,
            call_deadline: Duration::from_millis(self.call_deadline_ms),
            user: self.worker_user(),
        }
    }
}

fn is_credential_name(name: &str) -> bool {
    (1..=255).contains(&name.len())
        && !name.contains('/')
        && !name.starts_with('.')
        && !name.chars().any(char::is_control)
}
