//! The library by which a gateway signs its decisions and checks every answer.
//!
//! ```no_run
//! # async fn example(ca: Vec<u8>, cert: Vec<u8>, key: Vec<u8>, event: countersign_client::v1::Event)
//! # -> Result<(), Box<dyn std::error::Error>> {
//! use countersign_client::{Client, ClientConfig, Connection, Trust};
//!
//! let connection = Connection::new("https://countersign.example:7443", ca, cert, key);
//! let fingerprint = "0f5c…".parse()?; // from the people of the ceremony
//! let client = Client::connect(ClientConfig::new(connection, Trust::Genesis(fingerprint))).await?;
//! let receipt = client.sign("acme.example/decisions", event).await?;
//! println!("record {} at {}", receipt.seq, receipt.time);
//! # Ok(())
//! # }
//! ```
//!
//! An answer is durable, in order and signed; and nothing of it is believed: see [`Alarm`].
//!
//! - [`Connection`], [`ClientConfig`], [`Trust`]: where, who, whose signatures count, how long.
//! - [`Client`]: one event, a batch, or a stream ([`SignSender`], [`SignReceiver`]).
//! - [`Receipt`]: the record's exact bytes and its proof, checkable by anyone for ever.
//! - [`ClientError`]: what may be done about it; [`Alarm`]: a false answer, with both sides.
//! - [`channel`]: the same connection for other services of the daemon.
//!
//! Invariants:
//! - No receipt without: record, client, parts, time, signature or proof, and continuity checked.
//! - A repeat goes out with the same event_id, so that no retry makes a second record.
#![forbid(unsafe_code)]

mod check;
mod codec;
mod config;
mod connect;
mod error;
mod held;
mod keys;
mod receipt;
mod retry;
mod sign;
mod stream;
mod trust;

#[cfg(test)]
#[path = "../../trail/tests/common/mod.rs"]
mod common;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use check::new_event_id;
pub use config::{ClientConfig, Connection, MAX_DEADLINE, Pin, Trust};
pub use connect::channel;
pub use countersign_proto::v1;
pub use error::{Alarm, AlarmReason, ClientError, ConfigError, RawAnswer, Refusal, TrustError};
pub use receipt::{Proof, Receipt};
pub use sign::{Client, MAX_BATCH};
pub use stream::{SignReceiver, SignSender};
