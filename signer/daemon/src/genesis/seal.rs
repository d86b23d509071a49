//! `countersignd seal`: every administrator's signature, then admin record 1.

use std::sync::Arc;

use countersign_trail::admin::{AdminState, check_genesis_signature};
use countersign_trail::control::{Body, GenesisBody, PersonSignature};
use countersign_trail::document::TokenRole;
use countersign_trail::hash::Hash;
use countersign_trail::id::MemberId;

use super::CeremonyError;
use super::records::ADMIN_TRAIL_NO;
use crate::config::Config;
use crate::documents::StoredDocuments;
use crate::metrics::Metrics;
use crate::run::bounds;
use crate::sequencer::start::{self, Context};
use crate::store::Store;
use crate::store::files::FolderLock;
use crate::store::sqlite::SqliteStore;
use crate::timekeeper::Timekeeper;
use crate::tokens;

/// One administrator's signature as it was handed in.
#[derive(Clone, Debug)]
pub struct HandedIn {
    /// Whose it is said to be.
    pub member: MemberId,
    /// The SSHSIG armour.
    pub armor: Vec<u8>,
}

/// Verifies every signature over the genesis document, writes admin record 1, and gives the genesis
/// fingerprint. Where an interrupted seal left the record unsigned, that record is signed.
pub async fn seal(config: &Config, genesis_bytes: &[u8], handed_in: Vec<HandedIn>) -> Result<Hash, CeremonyError> {
    let _lock = FolderLock::take(&config.data_dir)?;
    let store = SqliteStore::open(&config.data_dir)?;
    let fingerprint = Hash::of(genesis_bytes);
    let known = store.reader().read(|snapshot| snapshot.document(&fingerprint))?;
    if known.is_none() {
        return Err(CeremonyError::Mismatch(format!(
            "the genesis document has SHA-256 {fingerprint}, which is not the one that init made here: it was changed, or is of another appliance"
        )));
    }
    let documents = StoredDocuments::new(store.reader());
    let mut state = AdminState::begin(fingerprint, &documents)?;
    let signatures = check(&state, genesis_bytes, &handed_in)?;
    let body = match replay_first(&store, &mut state, &documents, fingerprint)? {
        Found::Unsealed => {
            for signature in handed_in {
                store.put_document(signature.armor.into()).await?;
            }
            let heads = crate::admin_log::stored_heads(&store, &state)?;
            Some(GenesisBody { genesis: fingerprint, heads, signatures })
        }
        Found::Interrupted => None,
    };
    write(config, store, state, body).await?;
    Ok(fingerprint)
}

/// Every administrator of the plan, nobody else, each once, each by an enrolled key.
fn check(state: &AdminState, genesis: &[u8], handed_in: &[HandedIn]) -> Result<Vec<PersonSignature>, CeremonyError> {
    let plan = &state.plan;
    let mut signatures = Vec::new();
    for one in handed_in {
        let refused = |problem: &str| CeremonyError::Mismatch(format!("signature of {}: {problem}", one.member));
        let member = plan.administrators().find(|member| member.id == one.member);
        let member =
            member.ok_or_else(|| CeremonyError::Mismatch(format!("{} is no administrator of the plan", one.member)))?;
        let key = check_genesis_signature(member, &one.armor, genesis).map_err(|problem| refused(&problem))?;
        signatures.push(PersonSignature { document: Hash::of(&one.armor), key, member: one.member.clone() });
    }
    signatures.sort_by(|a, b| a.member.cmp(&b.member));
    if let Some(pair) = signatures.windows(2).find(|pair| pair[0].member == pair[1].member) {
        return Err(CeremonyError::Mismatch(format!("{} signed twice: hand in one signature each", pair[0].member)));
    }
    let missing: Vec<String> = plan
        .administrators()
        .filter(|member| !signatures.iter().any(|signature| signature.member == member.id))
        .map(|member| member.id.to_string())
        .collect();
    if missing.is_empty() {
        Ok(signatures)
    } else {
        Err(CeremonyError::Mismatch(format!(
            "signatures are missing of: {}; every administrator signs the genesis",
            missing.join(", ")
        )))
    }
}

/// What an earlier seal left.
enum Found {
    /// Nothing.
    Unsealed,
    /// Record 1 in a durable intent, without its signature.
    Interrupted,
}

/// Applies record 0, and sees that record 1, where it stands in an open intent, can follow it.
fn replay_first(
    store: &SqliteStore,
    state: &mut AdminState,
    documents: &StoredDocuments<'_>,
    fingerprint: Hash,
) -> Result<Found, CeremonyError> {
    let (records, open) = store.reader().read(|snapshot| {
        Ok((snapshot.records(ADMIN_TRAIL_NO, 0, 2)?, snapshot.open_intent(ADMIN_TRAIL_NO)?.is_some()))
    })?;
    match (&records[..], open) {
        ([first], false) => {
            state.apply(&first.bytes, documents)?;
            Ok(Found::Unsealed)
        }
        ([first, second], true) => {
            state.apply(&first.bytes, documents)?;
            state.clone().apply(&second.bytes, documents)?;
            Ok(Found::Interrupted)
        }
        ([] | [_], _) => {
            let problem = "the store has no signed admin record 0: run init again with --resume";
            Err(CeremonyError::Mismatch(problem.to_owned()))
        }
        _ => Err(CeremonyError::Used(format!("the genesis is sealed already; its fingerprint is {fingerprint}"))),
    }
}

/// Writes admin record 1 through the sequencer, as every admin record; without a body, the sequencer
/// finds it in an open intent, whose MAC it checks, and signs it.
async fn write(
    config: &Config,
    store: SqliteStore,
    state: AdminState,
    body: Option<GenesisBody>,
) -> Result<(), CeremonyError> {
    let bindings = tokens::bindings(&state, TokenRole::Admin);
    let pool = tokens::start(TokenRole::Admin, &config.admin_token, &state.genesis.instance, bindings).await?;
    let signer = Arc::new(tokens::signer(&pool, &state, TokenRole::Admin));
    let rows = store.reader().read(|snapshot| snapshot.trails())?;
    let row = rows.into_iter().find(|row| row.no == ADMIN_TRAIL_NO);
    let row = row.ok_or_else(|| CeremonyError::Mismatch("the store has no admin trail".to_owned()))?;
    let metrics = Arc::new(Metrics::new([], [row.origin.clone()]));
    let clock = Arc::new(Timekeeper::starting_at(row.head.time));
    let context = Context { admin: Arc::new(state), store, clock, metrics, bounds: bounds::admin(config) };
    let (handle, task) = start::open(&context, row, signer, &config.head_dir).await?;
    let running = tokio::spawn(task);
    let written = match body {
        Some(body) => handle.control(Body::Genesis(body)).await.map(|_| ()),
        None => handle.wait_signed(1).await,
    };
    let drained = handle.drain().await;
    pool.shutdown().await;
    written?;
    drained?;
    let _ = running.await;
    Ok(())
}
