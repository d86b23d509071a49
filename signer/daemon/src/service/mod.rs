//! The gRPC services, and what stands beside them.
//!
//! - [`answer`]: answers and their proofs.
//! - [`audit`]: trails, records, proofs, keys, evidence.
//! - [`held`]: what a client says it holds.
//! - [`public`]: readiness, and what anyone may read.
//! - [`signing`]: Sign, SignBatch, SignStream.
//! - [`submit`]: one request's way through decoding, repeats and the sequencer.
//! - [`timeout`]: how long a caller waits.

pub mod answer;
pub mod audit;
pub mod held;
pub mod public;
pub mod signing;
pub mod submit;
pub mod timeout;
