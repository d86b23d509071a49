//! What a pool is told: the token, the keys, the command that runs a worker.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use countersign_trail::keys::{Algorithm, Kid};
use countersign_trail::origin::Origin;
use countersign_trail::signing::{MAX_STATEMENT_LEN, Purpose};
use serde::{Deserialize, Serialize};

/// Most worker processes of one pool.
pub const MAX_WORKERS: u16 = 64;
/// Most sessions, and so signing threads, of one worker.
pub const MAX_SESSIONS: u16 = 256;
/// Most keys bound at a time: 64 trails with a record and a checkpoint key each, twice (rotation
/// overlaps), and the keys of the instance.
pub const MAX_KEYS: usize = 64 * 2 * 2 + 16;
/// Longest message that is signed, in bytes: the longest statement, and 1 KiB for its DSSE
/// pre-authentication encoding.
pub const MAX_MESSAGE_BYTES: usize = MAX_STATEMENT_LEN + 1024;
/// Most messages of one call of [`crate::Pool::sign`].
pub const MAX_BATCH_ITEMS: usize = 8192;
/// Most bytes of messages of one call of [`crate::Pool::sign`].
pub const MAX_BATCH_BYTES: usize = 64 * 1024 * 1024;
/// Length of every CKA_ID that this crate makes, in bytes.
pub const CKA_ID_BYTES: usize = 16;

/// Where the user PIN of a token stands. Only a worker opens it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PinSource {
    /// A regular file that nobody but the worker's user can read; one trailing newline is dropped.
    File(PathBuf),
    /// A systemd credential by name: a file below `$CREDENTIALS_DIRECTORY`.
    Credential(String),
}

/// A user that workers run as: neither id is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerUser {
    /// Numeric user id.
    pub uid: u32,
    /// Numeric group id: the only group that they are in.
    pub gid: u32,
}

/// One token and how it is used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenConfig {
    /// The PKCS#11 module, an absolute path.
    pub module: PathBuf,
    /// CK_TOKEN_INFO.label, without its padding.
    pub token_label: String,
    /// CK_TOKEN_INFO.serialNumber, without its padding. A token with the label and another serial
    /// is refused. None only before the serial is known.
    pub token_serial: Option<String>,
    /// Where the user PIN stands.
    pub pin: PinSource,
    /// The file of 32 random bytes that keys the MAC over intents, PINs and the mark.
    pub mac_key_file: PathBuf,
    /// The folder of the PIN state and of the mark, a file of each per token serial.
    pub state_dir: PathBuf,
    /// For file tokens: the folder that is fsynced after every change of a key.
    pub sync_dir: Option<PathBuf>,
    /// Worker processes, 1 to [`MAX_WORKERS`].
    pub workers: u16,
    /// Sessions, one signing thread each, per worker, 1 to [`MAX_SESSIONS`].
    pub sessions_per_worker: u16,
    /// Longest time that one PKCS#11 signing call may take.
    pub call_deadline: Duration,
    /// The user that workers run as, for a daemon that runs as root; None keeps the daemon's.
    pub user: Option<WorkerUser>,
}

impl TokenConfig {
    /// Longest time that a start of a worker (load, initialise, log in, find the keys) or the
    /// generation of a key may take: four signing calls, at least 10 s and at most 120 s.
    pub fn slow_deadline(&self) -> Duration {
        (self.call_deadline * 4).clamp(Duration::from_secs(10), Duration::from_secs(120))
    }
}

/// The command that runs [`crate::worker_main`]. It must carry no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerCommand {
    /// The program; the daemon passes its own executable.
    pub program: PathBuf,
    /// Its arguments; the daemon passes `hsm-worker`.
    pub args: Vec<OsString>,
    /// Environment on top of the daemon's own (a module's configuration file, for example).
    pub envs: Vec<(OsString, OsString)>,
}

/// One key that the pool may use, and what for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyBinding {
    /// The key's RFC 7638 thumbprint.
    pub kid: Kid,
    /// The public key that the token must show, as DER SubjectPublicKeyInfo.
    pub public_key: Vec<u8>,
    /// The key's one purpose.
    pub purpose: Purpose,
    /// The key's trail; None for keys of the instance.
    pub trail: Option<Origin>,
    /// The CKA_ID of both objects in the token, 1 to 64 bytes.
    pub cka_id: Vec<u8>,
}

/// One message to sign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignItem {
    /// The key.
    pub kid: Kid,
    /// The whole message, at most [`MAX_MESSAGE_BYTES`]; the worker hashes it itself.
    pub message: Bytes,
    /// For an intent that is taken up again after a crash: the proof that it was one.
    pub recovery: Option<RecoveryProof>,
}

/// Proof that an intent was made on this host: its digest and the MAC over it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryProof {
    /// SHA-256 over the intent, as the daemon builds it.
    pub digest: [u8; 32],
    /// What [`crate::Pool::mac`] answered for the digest.
    pub mac: [u8; 32],
}

/// A key to generate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeySpec {
    /// The instance: part of the label and of the probe.
    pub instance: String,
    /// The key's name within the instance, for people: part of the label. 1 to 200 characters of
    /// `a-z 0-9 . _ / -`.
    pub name: String,
    /// The kind of key.
    pub algorithm: Algorithm,
    /// RFC 3339 time, for the probe.
    pub time: String,
}

/// A generated key, not yet final: its label begins with `pending:`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GeneratedKey {
    /// The key's RFC 7638 thumbprint.
    pub kid: Kid,
    /// DER SubjectPublicKeyInfo.
    pub public_key: Vec<u8>,
    /// The CKA_ID of both objects, [`CKA_ID_BYTES`] bytes.
    pub cka_id: Vec<u8>,
    /// The private object's boolean attributes as read back, by PKCS#11 name
    /// (`CKA_SENSITIVE`, …). An attribute that the token does not show is absent.
    pub attributes: std::collections::BTreeMap<String, bool>,
    /// The probe that the key signed: JCS JSON {instance, kid, nonce, time}.
    pub probe_payload: Vec<u8>,
    /// The signature over the DSSE pre-authentication encoding of the probe, in wire form.
    pub probe_signature: Vec<u8>,
}

/// An object of ours in the token.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ListedObject {
    /// CKA_LABEL.
    pub label: String,
    /// CKA_ID.
    pub cka_id: Vec<u8>,
    /// True for the private object, false for the public one.
    pub private: bool,
}

/// Whom a worker talks to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenInfo {
    /// CK_TOKEN_INFO.serialNumber.
    pub serial: String,
    /// CK_TOKEN_INFO.label.
    pub label: String,
    /// CK_TOKEN_INFO.model.
    pub model: String,
    /// CK_TOKEN_INFO.manufacturerID.
    pub manufacturer: String,
    /// CK_TOKEN_INFO.firmwareVersion, `major.minor`.
    pub firmware: String,
    /// SHA-256 of the module file, lower-case hex.
    pub module_sha256: String,
}
