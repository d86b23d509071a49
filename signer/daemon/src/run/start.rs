//! From a configuration to a running appliance: nothing is believed that is not checked.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use countersign_hsm::{Pool, Reason, consume_pin_cleared_marker, pin_cleared_marker};
use countersign_trail::admin::{AdminError, AdminState, Documents};
use countersign_trail::control::TokenSerial;
use countersign_trail::document::{Role, TokenRole};
use countersign_trail::hash::Hash;
use countersign_trail::origin::Origin;
use tokio::task::JoinSet;

use super::{RunError, bounds, clockwatch};
use crate::access::Access;
use crate::admin_log::AdminLog;
use crate::appliance::Appliance;
use crate::config::{Config, Token};
use crate::documents::StoredDocuments;
use crate::genesis::CeremonyError;
use crate::genesis::records::ADMIN_TRAIL_NO;
use crate::limits::Admission;
use crate::metrics::Metrics;
use crate::sequencer::start::{self as trail_start, Context};
use crate::sequencer::{Fatal, TrailHandle};
use crate::signer::TokenSigner;
use crate::store::TrailRow;
use crate::store::files::FolderLock;
use crate::store::sqlite::SqliteStore;
use crate::timekeeper::Timekeeper;
use crate::tokens;

/// Records that are replayed at once.
const REPLAY_PAGE: u64 = 256;

/// A running appliance, not yet serving.
pub struct Started {
    /// The shared state.
    pub appliance: Arc<Appliance>,
    /// Sequencers; one that ends with an error stops the daemon.
    pub tasks: JoinSet<Result<(), Fatal>>,
    /// Writes the daemon's own admin records.
    pub log: Arc<AdminLog>,
    _lock: FolderLock,
}

/// Replays, checks, recovers, and records the start.
pub async fn start(config: &Config, config_hash: Hash, fingerprint: Hash) -> Result<Started, RunError> {
    let lock = FolderLock::take(&config.data_dir).map_err(CeremonyError::from)?;
    let store = SqliteStore::open(&config.data_dir).map_err(CeremonyError::from)?;
    let (state, rows) = replay(&store, fingerprint)?;
    let state = Arc::new(state);
    let (record_token, record_serial) = token(config, &state, TokenRole::Record).await?;
    let (admin_token, admin_serial) = token(config, &state, TokenRole::Admin).await?;
    let floor = rows.iter().map(|row| row.head.time).max().unwrap_or(state.genesis.created);
    let clock = Arc::new(Timekeeper::guarded(floor, Duration::from_secs(config.clock.max_step_seconds)));
    let step = clockwatch::look(&config.clock, &config.data_dir, floor, &clock);
    let origins: Vec<Origin> = rows.iter().map(|row| row.origin.clone()).collect();
    let members = state.plan.members.iter().map(|member| member.id.clone());
    let metrics = Arc::new(Metrics::new(members, origins));
    let mut context = Context {
        admin: state.clone(),
        store: store.clone(),
        clock: clock.clone(),
        metrics: metrics.clone(),
        bounds: bounds::admin(config),
    };
    let admin_rows = rows.first().map_or(0..0, |row| row.signed..row.head.size);
    let mut tasks = JoinSet::new();
    let mut trails: BTreeMap<Origin, TrailHandle> = BTreeMap::new();
    for row in rows {
        let signer = if row.no == ADMIN_TRAIL_NO { &admin_token } else { &record_token };
        let origin = row.origin.clone();
        let opened = trail_start::open(&context, row, signer.clone(), &config.head_dir).await;
        let (handle, task) = opened.map_err(CeremonyError::from)?;
        tasks.spawn(task);
        trails.insert(origin, handle);
        context.bounds = bounds::trails(config);
    }
    let admin_trail = trails.get(&state.plan.admin_trail).cloned();
    let admin_trail = admin_trail.ok_or_else(|| CeremonyError::Mismatch("the store has no admin trail".to_owned()))?;
    let others = trails.values().filter(|trail| trail.facts().no != ADMIN_TRAIL_NO).cloned().collect();
    let log = Arc::new(AdminLog::new(&with_recovered(&store, &state, admin_rows)?, admin_trail, others, clock.clone()));
    record_start(config, &log, config_hash, vec![admin_serial, record_serial]).await?;
    clockwatch::at_start(step, &config.data_dir, &clock, &log).await.map_err(CeremonyError::from)?;
    let gateways =
        state.plan.members.iter().filter(|member| member.role == Role::Gateway).map(|member| member.id.clone());
    let started_at = clock.now();
    let appliance = Appliance {
        access: Access::new(&state),
        admission: Admission::new(&config.limits, gateways),
        admin: state,
        store,
        trails,
        record_token,
        admin_token,
        clock,
        metrics,
        started_at,
        genesis: fingerprint,
        max_batch: config.limits.batch_records,
    };
    Ok(Started { appliance: Arc::new(appliance), tasks, log, _lock: lock })
}

/// The state with the admin records of an open intent, whose MAC was found to hold: they are signed
/// again, and what they say is not said twice.
fn with_recovered(store: &SqliteStore, state: &AdminState, open: Range<u64>) -> Result<AdminState, CeremonyError> {
    let documents = StoredDocuments::new(store.reader());
    let mut state = state.clone();
    for record in store.reader().read(|snapshot| snapshot.records(ADMIN_TRAIL_NO, open.start, open.end))? {
        state.apply(&record.bytes, &documents)?;
    }
    Ok(state)
}

/// Replays the admin trail from the pinned fingerprint.
pub fn replay(store: &SqliteStore, fingerprint: Hash) -> Result<(AdminState, Vec<TrailRow>), CeremonyError> {
    let documents = StoredDocuments::new(store.reader());
    if documents.document(&fingerprint).is_none() {
        return Err(CeremonyError::Mismatch(format!(
            "the store has no genesis document with fingerprint {fingerprint}: check `genesis` in the configuration, and data_dir"
        )));
    }
    let changed = |error: AdminError| {
        CeremonyError::Mismatch(format!("{error}; the store was changed or is damaged: run `countersignd fsck`"))
    };
    let mut state = AdminState::begin(fingerprint, &documents).map_err(changed)?;
    let rows = store.reader().read(|snapshot| snapshot.trails())?;
    let want = state.trails.len() + 1;
    if rows.len() != want
        || rows.first().is_none_or(|row| row.no != ADMIN_TRAIL_NO || row.origin != state.plan.admin_trail)
    {
        return Err(CeremonyError::Mismatch(format!("the store has {} trails, the genesis {want}", rows.len())));
    }
    let signed = rows[0].signed;
    let mut from = 0;
    while from < signed {
        let to = signed.min(from + REPLAY_PAGE);
        let records = store.reader().read(|snapshot| snapshot.records(ADMIN_TRAIL_NO, from, to))?;
        if records.len() as u64 != to - from {
            return Err(CeremonyError::Mismatch(format!(
                "admin records between {from} and {to} are missing: run `countersignd fsck`"
            )));
        }
        for record in records {
            state.apply(&record.bytes, &documents).map_err(changed)?;
        }
        from = to;
    }
    state.require_sealed()?;
    Ok((state, rows))
}

/// Starts a token's workers and checks that it is the genesis's.
pub(super) async fn token(
    config: &Config,
    state: &AdminState,
    role: TokenRole,
) -> Result<(Arc<TokenSigner>, TokenSerial), RunError> {
    let settings = settings(config, role);
    let facts = state.genesis.tokens.iter().find(|facts| facts.role == role);
    let serial = facts.map_or("", |facts| facts.serial.as_str());
    let pool = tokens::start(role, settings, &state.genesis.instance, tokens::bindings(state, role)).await;
    let pool: Pool = pool.map_err(|error| advised(error, serial))?;
    let info = pool.token_info();
    let (Some(facts), Some(info)) = (facts, info) else {
        return Err(CeremonyError::Mismatch(format!("the {} token did not describe itself", role.word())).into());
    };
    if info.serial != facts.serial {
        let problem = format!(
            "the {} token has serial {}, the genesis names {}: configure the genesis's token",
            role.word(),
            info.serial,
            facts.serial
        );
        return Err(CeremonyError::Mismatch(problem).into());
    }
    let module = info.module_sha256.parse().unwrap_or(facts.module);
    let serial = TokenSerial { module, role, serial: info.serial };
    Ok((Arc::new(tokens::signer(&pool, state, role)), serial))
}

/// Adds what to do to an HSM's refusal at start. `serial` is that of the genesis's token.
fn advised(error: CeremonyError, serial: &str) -> CeremonyError {
    let CeremonyError::Hsm { error: ref hsm, .. } = error else { return error };
    let advice = match hsm.reason() {
        Reason::TokenMissing | Reason::TokenMismatch | Reason::KeyMissing | Reason::KeyMismatch => {
            format!("the genesis names the token with serial {serial}: configure that one, with its keys")
        }
        Reason::KeyExtractable | Reason::KeyAttributes | Reason::KeyAmbiguous => {
            "the token is not as the ceremony left it: nothing is signed with it; tell the administrators".to_owned()
        }
        Reason::MacKey => "put back the MAC key that init made, at mac_key_file".to_owned(),
        Reason::PinUnreadable => "check pin_file or pin_credential".to_owned(),
        Reason::PinLatched => "put the right PIN in place, then run `countersignd pin-clear`".to_owned(),
        _ => return error,
    };
    CeremonyError::Mismatch(format!("{error}; {advice}"))
}

fn settings(config: &Config, role: TokenRole) -> &Token {
    match role {
        TokenRole::Admin => &config.admin_token,
        TokenRole::Record => &config.record_token,
    }
}

/// The start itself, and a PIN that was cleared while the daemon was down.
async fn record_start(
    config: &Config,
    log: &AdminLog,
    config_hash: Hash,
    tokens: Vec<TokenSerial>,
) -> Result<(), CeremonyError> {
    for token in &tokens {
        let settings = settings(config, token.role);
        let hsm = |error| CeremonyError::Hsm { token: token.role.word(), error };
        if pin_cleared_marker(&settings.state_dir, &token.serial).map_err(hsm)? {
            log.pin(token.role, "cleared").await?;
            consume_pin_cleared_marker(&settings.state_dir, &token.serial).map_err(hsm)?;
        }
    }
    log.start(config_hash, tokens).await?;
    Ok(())
}
