//! The ceremony's commands, end to end: the real binary, real SSH keys and a real ssh-agent. Only
//! the HSM's keys are made in software.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops at the first surprise")]

#[path = "../../../trail/tests/common/mod.rs"]
mod common;

mod plan;
mod sign;
mod stage;
