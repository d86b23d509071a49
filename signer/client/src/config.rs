//! How the client connects, what it trusts, and how long it tries.

use std::fmt;
use std::time::Duration;

use countersign_trail::hash::Hash;
use countersign_trail::id::MemberId;
use countersign_trail::keys::{Kid, PublicKey};

/// Where the daemon is and who we are. PEM values are contents, not paths.
#[derive(Clone)]
pub struct Connection {
    /// `https://HOST:PORT`.
    pub endpoint: String,
    /// The name that the daemon's certificate must have; none: HOST.
    pub server_name: Option<String>,
    /// Certificates of the authorities that may have signed the daemon's certificate.
    pub ca_pem: Vec<u8>,
    /// Our certificate, then its intermediates. Its one URI name is our SPIFFE ID.
    pub cert_pem: Vec<u8>,
    /// Our private key (PKCS#8, SEC 1 or PKCS#1).
    pub key_pem: Vec<u8>,
    /// For TCP and TLS together.
    pub connect_timeout: Duration,
}

impl Connection {
    /// A connection with a time-out of 5 seconds.
    pub fn new(endpoint: &str, ca_pem: Vec<u8>, cert_pem: Vec<u8>, key_pem: Vec<u8>) -> Connection {
        Connection {
            endpoint: endpoint.to_owned(),
            server_name: None,
            ca_pem,
            cert_pem,
            key_pem,
            connect_timeout: Duration::from_secs(5),
        }
    }
}

impl fmt::Debug for Connection {
    /// Without the private key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("endpoint", &self.endpoint)
            .field("server_name", &self.server_name)
            .field("connect_timeout", &self.connect_timeout)
            .finish_non_exhaustive()
    }
}

/// Whose signatures count.
#[derive(Clone, Debug)]
pub enum Trust {
    /// The keys of the genesis with this fingerprint, which come from the daemon as documents and
    /// are checked down from it, our own id in the roster included. The choice for everyone who was
    /// given the fingerprint by the people of the ceremony.
    Genesis(Hash),
    /// These keys. What each is for, and of which trail, is taken from the daemon's list; the
    /// signed bytes themselves name the trail.
    Pinned(Vec<Pin>),
}

/// A pinned key.
#[derive(Clone)]
pub enum Pin {
    /// By its RFC 7638 thumbprint.
    Kid(Kid),
    /// The key itself.
    Key(PublicKey),
}

impl Pin {
    pub(crate) fn kid(&self) -> Kid {
        match self {
            Pin::Kid(kid) => *kid,
            Pin::Key(key) => key.kid(),
        }
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pin({})", self.kid())
    }
}

/// The longest [`ClientConfig::deadline`]; a longer one is this long.
pub const MAX_DEADLINE: Duration = Duration::from_secs(3_600);

/// Everything about a client.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Where the daemon is and who we are.
    pub connection: Connection,
    /// Whose signatures count.
    pub trust: Trust,
    /// Our id in the roster. With [`Trust::Genesis`] it may be left out; where given, it must be
    /// the one that the roster has for our certificate.
    pub member: Option<MemberId>,
    /// How far a new record's time may be from our clock, either way. 5 minutes.
    pub clock_skew: Duration,
    /// How long a call may take, all attempts together, at most [`MAX_DEADLINE`]. 30 seconds.
    pub deadline: Duration,
    /// How often a call is tried at most. No bound but `deadline`, so that a daemon has that long to
    /// restart.
    pub attempts: u32,
    /// Wait before the second attempt; doubles with each, and half of it is random. 50 ms.
    pub backoff: Duration,
    /// The longest wait between attempts. 2 seconds.
    pub backoff_max: Duration,
    /// Messages of a stream that may wait for their answers, 1 to 64. 16.
    pub stream_window: usize,
}

impl ClientConfig {
    /// A configuration with the documented defaults.
    pub fn new(connection: Connection, trust: Trust) -> ClientConfig {
        ClientConfig {
            connection,
            trust,
            member: None,
            clock_skew: Duration::from_secs(300),
            deadline: Duration::from_secs(30),
            attempts: u32::MAX,
            backoff: Duration::from_millis(50),
            backoff_max: Duration::from_secs(2),
            stream_window: 16,
        }
    }
}
