//! One trail, record by record: sequence, hash chain, time, tree.
//!
//! The verifier, `fsck` and the daemon's own start walk a trail with this.

use crate::hash::Hash;
use crate::origin::Origin;
use crate::record::{Record, RecordError};
use crate::time::Timestamp;
use crate::tree::{self, CompactRange, TreeError};

/// Why a record does not continue its trail.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// Not a record at all.
    #[error("record {at}: {source}")]
    Record {
        /// Where it stands.
        at: u64,
        /// What is wrong with it.
        source: RecordError,
    },
    /// It names another place than the one where it stands.
    #[error("record {at} says that it is record {found} of {trail}")]
    Place {
        /// Where it stands.
        at: u64,
        /// The sequence number in it.
        found: u64,
        /// The trail in it.
        trail: Origin,
    },
    /// It follows another record.
    #[error("record {at}: prev is {found}, the record before has leaf hash {expected}")]
    Prev {
        /// Where it stands.
        at: u64,
        /// The leaf hash of the record before it.
        expected: Hash,
        /// The `prev` in it.
        found: Hash,
    },
    /// Its time is before the time of the record before.
    #[error("record {at}: time {found} is before {last}, the time of the record before")]
    Time {
        /// Where it stands.
        at: u64,
        /// The time of the record before it.
        last: Timestamp,
        /// The time in it.
        found: Timestamp,
    },
    /// The tree is full.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

/// A trail up to some record.
#[derive(Clone, Debug)]
pub struct Chain {
    origin: Origin,
    frontier: CompactRange,
    last_leaf: Hash,
    last_time: Option<Timestamp>,
}

impl Chain {
    /// An empty trail whose record 0 must have `first_prev` as its `prev`.
    pub fn new(origin: Origin, first_prev: Hash) -> Chain {
        Chain { origin, frontier: CompactRange::empty(), last_leaf: first_prev, last_time: None }
    }

    /// Checks that `bytes` continue the trail, appends them, and gives the parsed record with its
    /// leaf hash. On an error the trail is as it was.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(Record, Hash), ChainError> {
        let at = self.size();
        let record = Record::parse(bytes).map_err(|source| ChainError::Record { at, source })?;
        let header = &record.header;
        if header.seq != at || header.trail != self.origin {
            return Err(ChainError::Place { at, found: header.seq, trail: header.trail.clone() });
        }
        if header.prev != self.last_leaf {
            return Err(ChainError::Prev { at, expected: self.last_leaf, found: header.prev });
        }
        if let Some(last) = self.last_time.filter(|last| header.time < *last) {
            return Err(ChainError::Time { at, last, found: header.time });
        }
        let leaf = tree::leaf_hash(bytes);
        self.frontier.push(leaf)?;
        self.last_leaf = leaf;
        self.last_time = Some(header.time);
        Ok((record, leaf))
    }

    /// The trail's name.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Number of records.
    pub fn size(&self) -> u64 {
        self.frontier.size()
    }

    /// RFC 6962 root.
    pub fn root(&self) -> Hash {
        self.frontier.root()
    }

    /// The tree's frontier.
    pub fn frontier(&self) -> &CompactRange {
        &self.frontier
    }

    /// Leaf hash of the last record; for an empty trail, what record 0 must name.
    pub fn last_leaf(&self) -> Hash {
        self.last_leaf
    }

    /// Time of the last record.
    pub fn last_time(&self) -> Option<Timestamp> {
        self.last_time
    }
}
