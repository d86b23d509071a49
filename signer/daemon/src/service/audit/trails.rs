//! ListTrails and GetStatus: what there is, and how it goes.

use countersign_hsm::PoolState;
use countersign_proto::v1::{ClientCounts, GetStatusResponse, TokenStatus, Trail};
use countersign_trail::document::TokenRole;
use countersign_trail::keys::Kid;
use countersign_trail::origin::Origin;
use countersign_trail::record::Record;

use super::Audit;
use crate::peer::Peer;
use crate::reason::{Reason, Refusal};
use crate::sequencer::{TrailFacts, TrailHandle};
use crate::signer::TokenSigner;
use crate::store::ReadError;
use crate::store::sqlite::reader::Snapshot;
use crate::store::tree::StoredTree;

/// Version of the daemon.
const VERSION: &str = env!("CARGO_PKG_VERSION");

impl Audit {
    /// The trails that `shown` lets through, by origin.
    pub(super) async fn trails(&self, shown: impl Fn(&Origin) -> bool) -> Result<Vec<Trail>, Refusal> {
        let shown = self.appliance.trails.iter().filter(|(origin, _)| shown(origin));
        let handles: Vec<(TrailHandle, Option<Reason>)> =
            shown.map(|(_, handle)| (handle.clone(), self.appliance.stopped(handle))).collect();
        self.read(move |snapshot| {
            let rows = snapshot.trails()?;
            let describe = |(handle, stopped): &(TrailHandle, Option<Reason>)| {
                let row = rows.iter().find(|row| row.no == handle.facts().no);
                let state = row.and_then(|row| row.latched.clone()).unwrap_or_else(|| "open".to_owned());
                let stopped = stopped.map(|reason| reason.code().to_owned()).unwrap_or_default();
                let now = handle.now();
                Ok(Trail { state, stopped, ..trail(snapshot, handle.facts(), now.signed, now.checkpoint)? })
            };
            handles.iter().map(describe).collect()
        })
        .await
    }

    pub(super) async fn get_status(&self, peer: Option<&Peer>) -> Result<GetStatusResponse, Refusal> {
        let appliance = &self.appliance;
        appliance.access.authorise_status(peer, appliance.clock.now())?;
        let tokens = [(TokenRole::Record, &appliance.record_token), (TokenRole::Admin, &appliance.admin_token)];
        let clients = appliance.metrics.client_counts().map(|(client, counts)| ClientCounts {
            client: client.to_string(),
            offered: counts.offered,
            signed: counts.signed,
            denied: counts.denied,
            failed: counts.failed,
        });
        Ok(GetStatusResponse {
            instance: appliance.admin.plan.instance.to_string(),
            version: VERSION.to_owned(),
            genesis: appliance.genesis.as_bytes().to_vec().into(),
            started_at: appliance.started_at.to_string(),
            tokens: tokens.map(|(role, signer)| token(role, signer)).to_vec(),
            trails: self.trails(|_| true).await?,
            clients: clients.collect(),
        })
    }
}

/// A trail up to `size`; its state apart. Only a head that has a durable checkpoint leaves the daemon.
fn trail(snapshot: &Snapshot<'_>, facts: &TrailFacts, size: u64, checkpoint: u64) -> Result<Trail, ReadError> {
    let damaged = |problem: String| ReadError::Damaged { what: facts.origin.to_string(), problem };
    let root = match checkpoint {
        covered if covered == size => {
            let frontier = StoredTree::new(snapshot, facts.no).frontier(size);
            frontier.map_err(|error| damaged(error.to_string()))?.root().as_bytes().to_vec()
        }
        _ => Vec::new(),
    };
    let last = match size.checked_sub(1) {
        None => None,
        Some(seq) => snapshot.record(facts.no, seq)?,
    };
    let last =
        last.map(|record| Record::parse(&record.bytes)).transpose().map_err(|error| damaged(error.to_string()))?;
    Ok(Trail {
        origin: facts.origin.to_string(),
        mode: facts.mode.word().to_owned(),
        size,
        root: root.into(),
        last_time: last.map(|record| record.header.time.to_string()).unwrap_or_default(),
        kids: facts.record_key.iter().chain([&facts.checkpoint_key]).map(Kid::to_string).collect(),
        ..Trail::default()
    })
}

fn token(role: TokenRole, signer: &TokenSigner) -> TokenStatus {
    let pool = signer.pool();
    let (state, reason) = match &*pool.state().borrow() {
        PoolState::Ready => ("ready", String::new()),
        PoolState::Starting => ("starting", String::new()),
        PoolState::Degraded { reason, .. } => ("degraded", reason.reason().as_str().to_owned()),
        PoolState::Down { reason, .. } => ("down", reason.reason().as_str().to_owned()),
    };
    TokenStatus {
        role: role.word().to_owned(),
        serial: pool.token_info().map(|info| info.serial).unwrap_or_default(),
        state: state.to_owned(),
        reason,
        workers: u32::try_from(pool.worker_pids().iter().flatten().count()).unwrap_or(u32::MAX),
    }
}
