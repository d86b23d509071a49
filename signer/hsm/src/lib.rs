//! The HSM: worker processes that load a PKCS#11 module, and the pool that supervises them.
//!
//! A vendor's module can crash, hang or corrupt memory, and nothing but the end of its process
//! clears a hung call. So the daemon never loads one: [`Pool`] runs workers, one token each, that
//! speak a framed protocol over a socket pair, and kills and restarts them. This crate is the only
//! user of cryptoki.
//!
//! | module | what it does |
//! |---|---|
//! | `config`, `error` | what a pool is told; stable reasons |
//! | `pool` | supervision, routing, back-pressure (tokio) |
//! | `protocol` | frames between pool and worker |
//! | `worker` | the process: module, sessions, keys, signing, generation (threads) |
//! | `ladder` | what each PKCS#11 return value means |
//! | `guard` | no two inputs for one position |
//! | `mark` | nor for an admin checkpoint, across restarts |
//! | `latch`, `pin` | a refused PIN is never presented again, an unproven one once |
//! | `mac` | the MAC over intents |
//!
//! Invariants:
//! - A worker signs whole messages, hashed by itself, of its key's purpose and trail; a second
//!   input for a position is refused before the token is asked; for an admin checkpoint also by the
//!   workers that come after it.
//! - Only a worker opens a PIN or the MAC key. Neither is ever in an argument, the environment, a
//!   log line or a frame.
//! - Every return value of a module has a row in one table; unknown ones latch down.
//! - A hung or crashed module costs its worker process, never the daemon, and never memory without
//!   a bound.
#![forbid(unsafe_code)]

mod config;
mod error;
mod files;
mod guard;
mod ladder;
mod latch;
mod mac;
mod mark;
mod pin;
mod pool;
mod probe;
mod protocol;
mod sync;
mod worker;

pub use config::{
    CKA_ID_BYTES, GeneratedKey, KeyBinding, KeySpec, ListedObject, MAX_BATCH_BYTES, MAX_BATCH_ITEMS, MAX_KEYS,
    MAX_MESSAGE_BYTES, MAX_SESSIONS, MAX_WORKERS, PinSource, RecoveryProof, SignItem, TokenConfig, TokenInfo,
    WorkerCommand, WorkerUser,
};
pub use error::{HsmError, MAX_DETAIL_BYTES, Reason};
pub use latch::{PinClear, consume_pin_cleared_marker, pin_clear, pin_cleared_marker};
pub use mac::{MAC_BYTES, create_mac_key};
pub use mark::{Mark, Marked};
pub use pin::MAX_PIN_BYTES;
pub use pool::{Pool, PoolCounters, PoolSpec, PoolState, Signing};
pub use worker::worker_main;
