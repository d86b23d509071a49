//! The configuration file: one TOML document, one struct, whose docs are the reference.
//!
//! - [`Config::load`]: reads, refuses unknown keys with line and column, checks every bound.
//! - `sections`: the tables with bounds. `token`: the two tokens. `locate`: where a key stands.
//!
//! Relative paths are taken from the folder of the configuration file. The file can admit nobody:
//! who may write or read comes from the genesis.

mod error;
mod locate;
mod sections;
mod token;

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use countersign_trail::hash::Hash;
use serde::Deserialize;

pub use self::error::ConfigError;
pub use self::sections::{Batch, Checkpoint, Clock, Heartbeat, Limits};
pub use self::token::Token;

use self::sections::OutOfBounds;

/// Longest configuration file, in bytes.
pub const MAX_FILE_BYTES: u64 = 1 << 20;
/// Most files of revocation lists.
pub const MAX_CRL_FILES: usize = 64;
/// The keys whose value is a list. Anywhere else serde would take a list for a table, its values for
/// the keys in their order.
const LISTS: &[&str] = &["tls.crls"];
/// Default port of the gRPC listener.
pub const DEFAULT_GRPC_PORT: u16 = 9463;
/// Default port of the operations listener.
pub const DEFAULT_OPERATIONS_PORT: u16 = 9464;

/// The whole file.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Folder of the store (`store.db`) and of the lock; made by `countersignd init`.
    pub data_dir: PathBuf,
    /// Folder of the second head, on another disk than `data_dir` where there is one.
    pub head_dir: PathBuf,
    /// Genesis fingerprint: SHA-256 of the genesis document, 64 lower-case hexadecimal digits.
    /// Absent only until the genesis is sealed.
    pub genesis: Option<Hash>,
    /// The token of the keys that sign records, checkpoints and evidence.
    pub record_token: Token,
    /// The token of the admin trail's key. Another token, with another PIN.
    pub admin_token: Token,
    /// Where to listen.
    #[serde(default)]
    pub listen: Listen,
    /// The server's certificate, and revocation of clients.
    pub tls: Tls,
    /// Bounds on what callers may ask for and hold.
    #[serde(default)]
    pub limits: Limits,
    /// When a batch is full.
    #[serde(default)]
    pub batch: Batch,
    /// Checkpoints of record-mode trails.
    #[serde(default)]
    pub checkpoint: Checkpoint,
    /// Signs of life of idle trails.
    #[serde(default)]
    pub heartbeat: Heartbeat,
    /// What counts as a step of the clock.
    #[serde(default)]
    pub clock: Clock,
    /// Logging.
    #[serde(default)]
    pub log: Log,
}

/// Where to listen. An address is `IP:port`; port 0 takes a free one, which is logged.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Listen {
    /// gRPC over mutual TLS. Default 127.0.0.1:9463.
    pub grpc: SocketAddr,
    /// `/metrics`, `/healthz` and `/readyz` over plain HTTP: keep it on loopback or a private
    /// network. Default 127.0.0.1:9464.
    pub operations: SocketAddr,
    /// Public, read-only keys and checkpoints over TLS, without client certificates. Default: none.
    pub public: Option<SocketAddr>,
    /// Serve gRPC reflection on the gRPC listener. Default false.
    pub reflection: bool,
}

impl Default for Listen {
    fn default() -> Listen {
        let loopback = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
        Listen {
            grpc: loopback(DEFAULT_GRPC_PORT),
            operations: loopback(DEFAULT_OPERATIONS_PORT),
            public: None,
            reflection: false,
        }
    }
}

/// The server's certificate, and revocation of clients. Which authorities issue clients stands in
/// the genesis, not here.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// PEM file: the server's certificate, then its intermediates.
    pub certificate: PathBuf,
    /// PEM file: the certificate's private key, which others than owner and group cannot read.
    pub key: PathBuf,
    /// Files of certificate revocation lists, PEM or DER, at most 64. With any list given, every
    /// issuer in a client's chain must have one. Default: none, and nothing is revoked.
    #[serde(default)]
    pub crls: Vec<PathBuf>,
    /// Refuse clients whose issuer's list is past its nextUpdate. Default true.
    #[serde(default = "yes")]
    pub enforce_crl_expiry: bool,
    /// How often the files are read again, in seconds; SIGHUP reads them at once. Default 30,
    /// allowed 1 to 3600.
    #[serde(default = "default_reload_seconds")]
    pub reload_seconds: u32,
}

fn yes() -> bool {
    true
}

fn default_reload_seconds() -> u32 {
    30
}

/// Logging, to standard error.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// `text` or `json` (one object a line). Default `text`.
    pub format: LogFormat,
    /// Directives of the form `level` or `target=level`, separated by commas. Default `info`.
    pub filter: String,
}

impl Default for Log {
    fn default() -> Log {
        Log { format: LogFormat::Text, filter: "info".to_owned() }
    }
}

/// How a log line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Config {
    /// Reads and checks the file; also gives the SHA-256 of its bytes.
    ///
    /// # Errors
    /// The file cannot be read, is not TOML, has an unknown, missing or wrong key, or a value
    /// outside its bounds. The error names file, line, column and key.
    pub fn load(path: &Path) -> Result<(Config, Hash), ConfigError> {
        let text = read(path)?;
        let base = path.parent().unwrap_or(Path::new(""));
        let config = Config::parse(&text, base).map_err(|error| error.in_file(path))?;
        Ok((config, Hash::of(text.as_bytes())))
    }

    /// Parses and checks `text`; relative paths are taken from `base`.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(text: &str, base: &Path) -> Result<Config, ConfigError> {
        let document = toml::Deserializer::parse(text).map_err(|error| ConfigError::toml(text, "", &error))?;
        if let Some((key, offset)) = locate::list(text, LISTS) {
            return Err(ConfigError::shape(text, offset, &key, "is a list, where a value or a table belongs"));
        }
        let mut config: Config = serde_path_to_error::deserialize(document)
            .map_err(|error| ConfigError::toml(text, &error.path().to_string(), error.inner()))?;
        config.check().map_err(|OutOfBounds { key, problem }| ConfigError::bounds(text, &key, problem))?;
        config.resolve(base);
        Ok(config)
    }

    fn check(&self) -> Result<(), OutOfBounds> {
        self.record_token.check("record_token")?;
        self.admin_token.check("admin_token")?;
        self.limits.check("limits")?;
        self.limits.check_relations("limits")?;
        self.batch.check("batch")?;
        self.checkpoint.check("checkpoint")?;
        self.heartbeat.check("heartbeat")?;
        self.clock.check("clock")?;
        sections::in_range("tls.reload_seconds", u64::from(self.tls.reload_seconds), 1, 3600)?;
        sections::in_range("number of files in tls.crls", self.tls.crls.len() as u64, 0, MAX_CRL_FILES as u64)?;
        sections::in_range("length of log.filter", self.log.filter.len() as u64, 0, 4096)?;
        if let Err(error) = crate::logging::filter(&self.log.filter) {
            return Err(OutOfBounds::new("log.filter", &error.to_string()));
        }
        if self.data_dir == self.head_dir {
            return Err(OutOfBounds::new("head_dir", "is data_dir: a second head beside the first guards nothing"));
        }
        if self.record_token.pin_source() == self.admin_token.pin_source() {
            return Err(OutOfBounds::new("admin_token", "has the PIN of record_token; the tokens need two PINs"));
        }
        let ports = [Some(self.listen.grpc), Some(self.listen.operations), self.listen.public];
        let fixed: Vec<SocketAddr> = ports.into_iter().flatten().filter(|address| address.port() != 0).collect();
        let twice = fixed.iter().enumerate().find(|(i, address)| fixed[..*i].contains(address));
        match twice {
            Some((_, address)) => Err(OutOfBounds::new("listen", &format!("names {address} twice"))),
            None => Ok(()),
        }
    }

    fn resolve(&mut self, base: &Path) {
        let resolve = |path: &mut PathBuf| *path = base.join(&*path);
        resolve(&mut self.data_dir);
        resolve(&mut self.head_dir);
        resolve(&mut self.tls.certificate);
        resolve(&mut self.tls.key);
        self.tls.crls.iter_mut().for_each(resolve);
        for token in [&mut self.record_token, &mut self.admin_token] {
            token.paths().for_each(resolve);
        }
    }
}

fn read(path: &Path) -> Result<String, ConfigError> {
    let failed = |source| ConfigError::Read { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut text = String::new();
    file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(ConfigError::TooLarge { path: path.to_owned() });
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
