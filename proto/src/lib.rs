//! The gRPC interface of Countersign (`countersign/v1/*.proto`), generated at build time.
//!
//! - [`v1`]: messages, clients and servers. The comments in the `.proto` files are the reference.
//! - [`event`]: the one decoding of an event, for daemon and client alike.
//! - [`codec`]: Protobuf within bounds.
//! - [`FILE_DESCRIPTOR_SET`]: for server reflection.

pub mod codec;
pub mod event;

/// Messages, clients and servers of package `countersign.v1`.
#[allow(missing_docs, clippy::all, clippy::pedantic, unreachable_pub)]
pub mod v1 {
    tonic::include_proto!("countersign.v1");
}

/// The encoded `google.protobuf.FileDescriptorSet` of the package.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/countersign.v1.bin"));

/// The longest answer message of the daemon, encoded, in bytes; a client takes as much. An answer that
/// did not fit would fail after its records are signed, and again at every repeat. So it holds
/// 4,096 of the largest answers to one event: a record of about 7.5 KiB (16 links to trails whose
/// names have 200 bytes), its salts and signature, and a proof of its own of about 3 KiB.
pub const MAX_ANSWER_LEN: usize = 64 << 20;
