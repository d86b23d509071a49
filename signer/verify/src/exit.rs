//! What a verification comes to, and the exit code that says so.

use serde::{Serialize, Serializer};

/// The exit code of a wrong command line (BSD sysexits, `EX_USAGE`).
pub const USAGE: u8 = 64;

/// What a verification, or one finding of it, comes to. Ascends by weight: of several findings the
/// heaviest is the outcome.
///
/// A fork is proven only by evidence that is otherwise whole, so a broken signature or digest
/// outweighs it; so does a file that cannot be read. Content that differs from what was signed
/// outweighs a file's form, except that an archive that cannot be opened has no other finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// Everything holds, from the pinned fingerprint on.
    Valid,
    /// Valid, with something that a reader must weigh: a stretch of time without service.
    Reservations,
    /// Everything holds together, but no fingerprint was pinned: anyone could have made it, gaps and all.
    NotAnchored,
    /// Something is missing, or the evidence is older than what is known or asked for.
    Incomplete,
    /// Two signed histories of one trail exist, and this evidence is one of them.
    Fork,
    /// The archive, or a file in it, is not of the form that it must have.
    Malformed,
    /// Something differs from what was signed, or a signature does not hold.
    Tampered,
}

impl Outcome {
    /// The process's exit code.
    pub fn exit_code(self) -> u8 {
        match self {
            Outcome::Valid => 0,
            Outcome::NotAnchored => 10,
            Outcome::Reservations => 15,
            Outcome::Incomplete => 20,
            Outcome::Fork => 30,
            Outcome::Tampered => 40,
            Outcome::Malformed => 50,
        }
    }

    /// The word in the report.
    pub fn word(self) -> &'static str {
        match self {
            Outcome::Valid => "valid",
            Outcome::NotAnchored => "not-anchored",
            Outcome::Reservations => "reservations",
            Outcome::Incomplete => "incomplete",
            Outcome::Fork => "fork",
            Outcome::Tampered => "tampered",
            Outcome::Malformed => "malformed",
        }
    }
}

impl Serialize for Outcome {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.word())
    }
}
