//! The commands that read, against a daemon that answers truly and then lies: everything that is
//! shown as true must be refused when it is not. The daemon is made of software keys and real TLS;
//! the commands are the real binary. The honest way with the real daemon is the quickstart's.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops at the first surprise")]

#[path = "../../../trail/tests/common/mod.rs"]
mod common;

mod daemon;
mod heads;
mod keys;
mod listener;
mod records;
mod stage;
