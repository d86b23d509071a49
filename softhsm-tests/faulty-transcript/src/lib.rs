//! The files through which tests drive and observe the faulty PKCS#11 module.
//!
//! `countersign-faulty-module` stands between a PKCS#11 client and a real module. One folder, named by
//! [`ENV_DIR`], is shared by every process that loads it and by the test that watches them:
//!
//! | file | written by | purpose | module |
//! |---|---|---|---|
//! | `control` | the test | rules: which call of which function meets which fault | [`control`] |
//! | `counters` | the module | how many calls each function has had, over all processes | [`counters`] |
//! | `calls.log` | the module | one line for each call of interest, with its return value | [`mod@calls`] |
//! | `transcript.jsonl` | the module | every input it was asked to sign, and every answer | [`transcript`] |
//!
//! Both sides use this crate, so each format is written down once.
//!
//! Invariants:
//! - A call is counted, and an input stands in the transcript, before the real module is called: a process killed
//!   at any moment may leave an input without an answer, never an answer without an input.
//! - Every line is appended by one write(2) with `O_APPEND`. A writer killed inside that write leaves a torn line;
//!   readers find the next whole line behind it and count the torn one.
//! - Nothing here ever holds a PIN.

pub mod calls;
pub mod control;
pub mod counters;
mod error;
mod function;
mod lines;
pub mod transcript;

use std::path::{Path, PathBuf};

pub use calls::{CallLine, Outcome, call_log};
pub use control::{Action, Rule, Which, write_control};
pub use counters::calls;
pub use error::Error;
pub use function::Function;
pub use transcript::{Answer, Asked, Transcript};

/// Environment variable: path of the real PKCS#11 module.
pub const ENV_MODULE: &str = "COUNTERSIGN_FAULTY_MODULE";
/// Environment variable: the shared folder, which must exist.
pub const ENV_DIR: &str = "COUNTERSIGN_FAULTY_DIR";
/// File name of the faulty module's library.
pub const LIBRARY_FILE: &str = "libcountersign_faulty_module.so";

/// The faulty module's library as Cargo built it: beside the running test, or in the folder above it.
///
/// Cargo builds it for the tests of its own package; the tests of another package need
/// `cargo build -p countersign-faulty-module` first, in the same profile. `None` if neither place has it.
#[must_use]
pub fn find_library() -> Option<PathBuf> {
    let test = std::env::current_exe().ok()?;
    test.ancestors().skip(1).take(2).map(|folder| folder.join(LIBRARY_FILE)).find(|path| path.is_file())
}

/// Where SoftHSM 2 puts its module on Debian, Fedora and a default build, in this order; `None` if in none of them.
#[must_use]
pub fn find_softhsm() -> Option<&'static Path> {
    ["/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/pkcs11/libsofthsm2.so", "/usr/local/lib/softhsm/libsofthsm2.so"]
        .map(Path::new)
        .into_iter()
        .find(|path| path.exists())
}
