//! The faulty module under a real client (cryptoki), over a real token (SoftHSM 2).
//!
//! A PKCS#11 module takes its configuration from the environment of its process and keeps state in it, and some
//! faults end the process. So each test is its own parent: it makes a token and a shared folder, runs itself again as
//! one or more client processes with a role, and then judges what they left.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "these are tests, helpers included")]

mod faults;
mod pass_through;
mod processes;
mod support;
