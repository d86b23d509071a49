//! The running appliance: what every service works with.

use std::collections::BTreeMap;
use std::sync::Arc;

use countersign_trail::admin::AdminState;
use countersign_trail::hash::Hash;
use countersign_trail::origin::{Origin, OriginError};
use countersign_trail::time::Timestamp;

use crate::access::Access;
use crate::limits::Admission;
use crate::metrics::Metrics;
use crate::reason::{Reason, Refusal};
use crate::sequencer::TrailHandle;
use crate::signer::TokenSigner;
use crate::store::sqlite::SqliteStore;
use crate::timekeeper::Timekeeper;

/// Everything that outlives a call. Nothing in it changes after the start but what its parts guard.
pub struct Appliance {
    /// The replayed admin trail: keys, roster, trails.
    pub admin: Arc<AdminState>,
    /// Who may do what.
    pub access: Access,
    /// How much may be in flight, and how fast.
    pub admission: Admission,
    /// What is durable.
    pub store: SqliteStore,
    /// Every trail's sequencer, the admin trail's included.
    pub trails: BTreeMap<Origin, TrailHandle>,
    /// The token of records, checkpoints and evidence.
    pub record_token: Arc<TokenSigner>,
    /// The token of the admin trail.
    pub admin_token: Arc<TokenSigner>,
    /// Time.
    pub clock: Arc<Timekeeper>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// When the daemon started.
    pub started_at: Timestamp,
    /// SHA-256 of the genesis document.
    pub genesis: Hash,
    /// Records of one SignBatch or of one message of a SignStream, at most.
    pub max_batch: usize,
}

impl Appliance {
    /// Why nothing new is signed in a trail at present, as far as is known before it is tried.
    pub fn stopped(&self, trail: &TrailHandle) -> Option<Reason> {
        let is_admin = trail.facts().origin == self.admin.plan.admin_trail;
        let token = if is_admin { &self.admin_token } else { &self.record_token };
        let now = trail.now();
        now.stopped.or_else(|| self.clock.stopped()).or_else(|| token.trouble()).or(now.store)
    }

    /// A trail by the name that a caller gave.
    ///
    /// # Errors
    /// INVALID_REQUEST for what is no origin, UNKNOWN_TRAIL.
    pub fn trail(&self, name: &str) -> Result<&TrailHandle, Refusal> {
        let unknown =
            || Refusal::new(Reason::UnknownTrail, "no trail of this name; ListTrails names those that you may read");
        let origin = Origin::parse(name).map_err(no_origin)?;
        self.trails.get(&origin).ok_or_else(unknown)
    }
}

/// What a caller hears whose name of a trail can be none's.
pub fn no_origin(error: OriginError) -> Refusal {
    Refusal::new(Reason::InvalidRequest, format_args!("trail: {error}"))
}
