//! The manifest: an in-toto Statement v1 over every other file of the bundle, in DSSE.

use serde::{Deserialize, Serialize};

use crate::hash::Hash;
use crate::id::{InstanceId, PartName};
use crate::jcs::{self, JcsError};
use crate::keys::Kid;
use crate::origin::Origin;
use crate::record::decimal;
use crate::signing::MAX_STATEMENT_LEN;
use crate::time::Timestamp;

/// The type of an in-toto Statement v1.
pub const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
/// The predicate type of a bundle's manifest.
pub const MANIFEST_PREDICATE_TYPE: &str = "https://countersign.dev/evidence-manifest/v1";

/// Why bytes are not a manifest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Not canonical JSON of the statement's shape.
    #[error("manifest: {0}")]
    Json(#[from] JcsError),
    /// A rule between its members is broken.
    #[error("manifest: {0}")]
    Rule(&'static str),
}

/// An in-toto Statement whose subjects are the files of a bundle, in the bundle's order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    /// [`STATEMENT_TYPE`].
    #[serde(rename = "_type")]
    pub statement_type: String,
    /// What the bundle is.
    pub predicate: Predicate,
    /// [`MANIFEST_PREDICATE_TYPE`].
    #[serde(rename = "predicateType")]
    pub predicate_type: String,
    /// Every file before the manifest.
    pub subject: Vec<Subject>,
}

/// A file and its digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subject {
    /// SHA-256 of its bytes.
    pub digest: Digest,
    /// Its name in the archive.
    pub name: String,
}

/// The digest of a file, as in-toto writes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Digest {
    /// SHA-256.
    pub sha256: Hash,
}

/// What the statement says of the bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Predicate {
    /// When the bundle was made.
    pub created: Timestamp,
    /// The genesis fingerprint.
    pub genesis: Hash,
    /// The appliance.
    pub instance: InstanceId,
    /// The evidence key that signs.
    pub kid: Kid,
    /// The key's statement counter: no two statements of a key have one number.
    #[serde(with = "decimal")]
    pub number: u64,
    /// The exported trails in the bundle's order.
    pub trails: Vec<TrailHead>,
    /// 1.
    pub v: u64,
    /// Names of parts that were withheld on purpose, ascending.
    pub withheld: Vec<PartName>,
}

/// An exported trail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrailHead {
    /// The trail.
    pub origin: Origin,
    /// RFC 6962 root at `size`.
    pub root: Hash,
    /// Number of records.
    #[serde(with = "decimal")]
    pub size: u64,
}

impl Statement {
    /// The statement over `subject` with `predicate`.
    pub fn new(subject: Vec<Subject>, predicate: Predicate) -> Statement {
        Statement {
            statement_type: STATEMENT_TYPE.to_owned(),
            predicate,
            predicate_type: MANIFEST_PREDICATE_TYPE.to_owned(),
            subject,
        }
    }

    /// Parses the payload of a manifest's envelope.
    ///
    /// # Errors
    /// [`ManifestError`].
    pub fn parse(payload: &[u8]) -> Result<Statement, ManifestError> {
        let statement: Statement = jcs::parse_canonical(payload, MAX_STATEMENT_LEN)?;
        let rule = |holds: bool, problem| {
            if holds { Ok(()) } else { Err(ManifestError::Rule(problem)) }
        };
        rule(statement.statement_type == STATEMENT_TYPE, "_type is not that of an in-toto Statement v1")?;
        rule(statement.predicate_type == MANIFEST_PREDICATE_TYPE, "predicateType is not evidence-manifest/v1")?;
        rule(statement.predicate.v == 1, "v is not 1")?;
        let withheld = &statement.predicate.withheld;
        rule(withheld.windows(2).all(|pair| pair[0] < pair[1]), "withheld is not sorted, each name once")?;
        Ok(statement)
    }

    /// The payload's bytes.
    ///
    /// # Errors
    /// [`ManifestError::Json`] for a statement beyond [`MAX_STATEMENT_LEN`].
    pub fn to_bytes(&self) -> Result<Vec<u8>, ManifestError> {
        let bytes = jcs::to_canonical(self)?;
        if bytes.len() > MAX_STATEMENT_LEN {
            return Err(JcsError::TooLong { len: bytes.len(), max: MAX_STATEMENT_LEN }.into());
        }
        Ok(bytes)
    }
}
