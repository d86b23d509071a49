//! The formats of Countersign: everything that is hashed, signed or exported.
//!
//! Daemon, client and verifier share this crate, so it has no I/O, no clock, no randomness and no
//! threads: bytes in, bytes or an error out. It builds for wasm32.
//!
//! Invariants:
//! - Exact bytes are hashed and signed. Parsers accept one byte string for one value and refuse
//!   every other spelling of it; nothing is re-serialised to verify it.
//! - No input panics. Every length has a bound, a constant beside the code that checks it.
#![forbid(unsafe_code)]

pub mod admin;
pub mod archive;
pub mod base64;
pub mod chain;
pub mod checkpoint;
pub mod control;
pub mod document;
pub mod dsse;
pub mod ecdsa;
pub mod evidence;
pub mod hash;
pub mod id;
pub mod jcs;
pub mod keys;
pub mod multiproof;
pub mod note;
pub mod origin;
pub mod part;
pub mod receipt;
pub mod record;
pub mod signing;
pub mod sshsig;
pub mod tiles;
pub mod time;
pub mod tlog_proof;
pub mod tree;
