//! The documents that people review and sign: the ceremony [plan](Plan) and the
//! [genesis](Genesis).
//!
//! A document is canonical JSON, named by the SHA-256 of its bytes, kept in a content-addressed
//! table and exported whole. People's signatures (SSHSIG armour) are documents too.

mod genesis;
mod plan;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::jcs::{self, JcsError};

pub use genesis::{FirstRecord, Genesis, GenesisKey, REQUIRED_ATTRIBUTES, TokenFacts};
pub use plan::{
    MAX_CLIENT_ROOTS, MAX_MEMBERS, MAX_TRAILS, MIN_APPROVALS, Member, Mode, Plan, Role, TokenPlan, TokenRole,
    TrailPlan, is_spiffe_id, planned_keys,
};

/// The longest document, in bytes.
pub const MAX_DOCUMENT_LEN: usize = 1 << 20;

/// Why a document is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// Not canonical JSON of the document's shape.
    #[error("{document}: {source}")]
    Json {
        /// Which document.
        document: &'static str,
        /// What is wrong.
        source: JcsError,
    },
    /// A rule between its members is broken.
    #[error("{document}: {problem}")]
    Rule {
        /// Which document.
        document: &'static str,
        /// Which rule, with the offending value.
        problem: String,
    },
}

fn parse<T: DeserializeOwned + Serialize>(document: &'static str, bytes: &[u8]) -> Result<T, DocumentError> {
    jcs::parse_canonical(bytes, MAX_DOCUMENT_LEN).map_err(|source| DocumentError::Json { document, source })
}

fn must(document: &'static str, holds: bool, problem: impl FnOnce() -> String) -> Result<(), DocumentError> {
    if holds { Ok(()) } else { Err(DocumentError::Rule { document, problem: problem() }) }
}

fn sorted_unique<'a>(names: impl Iterator<Item = &'a str>) -> bool {
    let names: Vec<&str> = names.collect();
    names.windows(2).all(|pair| pair[0] < pair[1])
}
