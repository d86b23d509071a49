//! What several tests share: software keys in the place of tokens, people with real SSH keys, and
//! a first ceremony made of them. Other crates include it with `#[path]`.
#![allow(dead_code, unused_imports, reason = "each test binary uses its part")]

pub(crate) mod ceremony;
pub(crate) mod keys;
pub(crate) mod people;

pub(crate) use ceremony::{Ceremony, Store, origin, time};
pub(crate) use keys::SoftKey;
pub(crate) use people::Person;
