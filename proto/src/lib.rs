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
