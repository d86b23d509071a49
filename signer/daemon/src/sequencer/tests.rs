//! The sequencer on a real SoftHSM token, with a store and a clock that do as they are told.
//!
//! The workers outlive every restart of the sequencer, so that their guards, which refuse a second
//! input for a position, watch the whole test.
//!
//! - [`bench`]: one trail, its token, its store.
//! - [`told_store`]: a store that fails as it is told.
//! - [`store_steps`]: a store that fails every step twice, that is full, that somebody else writes to.
//! - [`idle`]: heartbeats, gaps.
//! - [`deadlines`]: events that nobody waits for any more.

mod bench;
mod deadlines;
mod idle;
mod store_steps;
mod told_store;

/// Set for the process that plays the worker.
const ENV_WORKER: &str = "COUNTERSIGN_TEST_WORKER";

/// Not a test: the process that [`bench`] starts as the HSM worker.
#[test]
fn worker_process() {
    if std::env::var_os(ENV_WORKER).is_some() {
        countersign_hsm::worker_main();
        std::process::exit(0);
    }
}
