//! The library by which a gateway signs its decisions and checks every answer.
//!
//! ```no_run
//! # async fn example(ca: Vec<u8>, cert: Vec<u8>, key: Vec<u8>, event: countersign_client::v1::Event)
//! # -> Result<(), Box<dyn std::error::Error>> {
//! use countersign_client::{Client, ClientConfig, Connection, Trust};
//!
//! let connection = Connection::new("https://countersign.example:9463", ca, cert, key);
//! let fingerprint = "0f5c…".parse()?; // from the people of the ceremony
//! let client = Client::connect(ClientConfig::new(connection, Trust::Genesis(fingerprint))).await?;
//! let receipt = client.sign("acme.example/decisions", event).await?;
//! println!("{} is record {} at {}", receipt.event_id, receipt.seq, receipt.time);
//! # Ok(())
//! # }
//! ```
//!
//! An event, and how its call may end:
//!
//! ```no_run
//! # async fn example(client: countersign_client::Client) {
//! use countersign_client::{Bytes, new_event_id, v1};
//!
//! let request = v1::Content {
//!     media_type: "application/json".to_owned(),
//!     body: Some(v1::content::Body::Data(Bytes::from_static(br#"{"prompt":"hello"}"#))),
//!     ..v1::Content::default()
//! };
//! let event = v1::Event {
//!     event_id: new_event_id(), // kept with the event until the receipt is
//!     r#type: "llm.completion".to_owned(),
//!     category: v1::Category::Block.into(),
//!     decision: v1::Decision::Block.into(),
//!     result: v1::Result::Blocked.into(),
//!     facts: Some(v1::Facts { request_id: "req-1".to_owned(), ..v1::Facts::default() }),
//!     request: Some(request),
//!     ..v1::Event::default()
//! };
//! match client.sign("acme.example/decisions", event.clone()).await {
//!     Ok(receipt) => println!("{} is record {} at {}", receipt.event_id, receipt.seq, receipt.time),
//!     Err(error) if error.certainly_not_recorded() => eprintln!("not recorded: {error}"),
//!     Err(error) => eprintln!("sign it again, as it is, to find out: {error}"),
//! }
//! # }
//! ```
//!
//! [`Client::sign_stream`] has an example of a stream.
//!
//! An answer is durable, in order and signed; and nothing of it is believed: see [`Alarm`].
//!
//! - [`Connection`], [`ClientConfig`], [`Trust`]: where, who, whose signatures count, how long.
//! - [`Client`]: one event, a batch, or a stream ([`SignSender`], [`SignReceiver`]).
//! - [`Receipt`]: the record's exact bytes and its proof, checkable by anyone for ever.
//! - [`ClientError`]: what may be done about it; [`Alarm`]: a false answer, with both sides.
//! - [`v1`], [`MemberId`] and others: the types in all these of the crates beneath, so that a gateway
//!   depends on this one alone.
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

pub use bytes::Bytes;
pub use check::new_event_id;
pub use config::{ClientConfig, Connection, MAX_DEADLINE, Pin, Trust};
pub use connect::channel;
pub use countersign_proto::event::EventError;
pub use countersign_proto::v1;
pub use countersign_trail::admin::AdminError;
pub use countersign_trail::checkpoint::SignedCheckpoint;
pub use countersign_trail::document::DocumentError;
pub use countersign_trail::hash::Hash;
pub use countersign_trail::id::{MemberId, NameError, PartName};
pub use countersign_trail::keys::{Algorithm, KeyError, Kid, PublicKey};
pub use countersign_trail::origin::{Origin, OriginError};
pub use countersign_trail::part::SALT_LEN;
pub use countersign_trail::receipt::ReceiptError;
pub use countersign_trail::time::Timestamp;
pub use countersign_trail::tlog_proof::{TlogProof, TlogProofError};
pub use error::{Alarm, AlarmReason, ClientError, ConfigError, RawAnswer, Refusal, TrustError};
pub use receipt::{Proof, Receipt};
pub use rustls::Error as TlsError;
pub use sign::{Client, MAX_BATCH};
pub use stream::{SignReceiver, SignSender};
pub use tonic::Code;
pub use tonic::transport::Channel;
