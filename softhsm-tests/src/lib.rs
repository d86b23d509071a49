//! A whole appliance on one machine: tokens, certificates, ceremony, daemon.
//!
//! The quickstart, the end-to-end tests and the bench set their stage with this, through the same
//! commands that people use: `countersign`, `countersignd`, `countersign-verify`, `ssh-keygen`.
//!
//! - [`binaries`]: where the built programs are, and running them.
//! - [`pki`]: a private certification authority and the members' certificates.
//! - [`stage`]: the folder of one appliance, from empty to sealed.
//! - [`daemon`]: the running daemon.
//! - [`talk`]: commands by which people talk to it.

pub mod binaries;
pub mod daemon;
pub mod pki;
pub mod stage;
pub mod talk;

pub use binaries::Binaries;
pub use daemon::Daemon;
pub use stage::{Options, Stage, Trail};
