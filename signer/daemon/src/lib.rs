//! The signing daemon.
//!
//! A record's way: [`service`] (authorise, decode, admit) -> [`sequencer`] (order, build) ->
//! [`store`] (intent) -> [`signer`] (HSM, then software) -> [`store`] (outcome) -> [`service`]
//! (answer). [`run`] starts and drains all of it; [`genesis`] is the ceremony before the first run.
//!
//! | module | what it is |
//! |---|---|
//! | [`access`] | who may do what |
//! | [`admin_log`] | the admin records that the daemon writes by itself |
//! | [`appliance`] | the running appliance: what every service works with |
//! | [`backup`] | a copy of the store, and what a restore means |
//! | [`clock`] | steps of the wall clock |
//! | [`config`] | the one configuration struct |
//! | [`decoding`] | reasons for what the gRPC framework refuses |
//! | [`documents`] | documents for the replay of the admin trail |
//! | [`export`] | the evidence bundle |
//! | [`fail`] | points at which a test build can be told to die |
//! | [`fsck`] | everything derived again from the store |
//! | [`genesis`] | the first ceremony: init and seal |
//! | [`http`] | metrics, readiness, and what is public |
//! | [`intake`] | what a call holds before it is decoded and until it is answered |
//! | [`limits`] | how much may be in flight, and how fast |
//! | [`logging`] | structured logs |
//! | [`metrics`] | counters and histograms |
//! | [`notify`] | systemd |
//! | [`peer`] | the proven identity of a connection |
//! | [`pin`] | pin-clear |
//! | [`preflight`] | `--check-config`: what the configuration names is there |
//! | [`reason`] | the stable reason codes of every refusal |
//! | [`run`] | start, serve, drain |
//! | [`sequencer`] | one task a trail: batches, intents, signatures, answers |
//! | [`service`] | the gRPC services |
//! | [`signer`] | a token's keys: signed by the HSM, verified in software |
//! | [`store`] | what is durable |
//! | [`timekeeper`] | time that never goes back |
//! | [`tls`] | mutual TLS, reloaded without a restart |
//! | [`tokens`] | starting the two tokens' workers |

pub mod access;
pub mod admin_log;
pub mod appliance;
pub mod backup;
pub mod clock;
pub mod config;
pub mod decoding;
pub mod documents;
pub mod export;
pub mod fail;
pub mod fsck;
pub mod genesis;
pub mod http;
pub mod intake;
pub mod limits;
pub mod logging;
pub mod metrics;
pub mod notify;
pub mod peer;
pub mod pin;
pub mod preflight;
pub mod reason;
pub mod run;
pub mod sequencer;
pub mod service;
pub mod signer;
pub mod store;
pub mod timekeeper;
pub mod tls;
pub mod tokens;
