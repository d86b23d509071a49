//! `countersignd init`: keys in both tokens, record 0 of every trail, the genesis document.

use std::path::Path;
use std::sync::Arc;

use countersign_hsm::{KeyBinding, KeySpec, Pool, WorkerUser, create_mac_key};
use countersign_trail::base64;
use countersign_trail::document::{FirstRecord, Genesis, GenesisKey, Plan, TokenFacts, TokenRole, planned_keys};
use countersign_trail::hash::Hash;
use countersign_trail::keys::{Algorithm, PublicKey};
use countersign_trail::origin::Origin;
use countersign_trail::signing::Purpose;

use super::handout::{Handout, Standing};
use super::progress::Progress;
use super::records::{self, FirstBatch};
use super::{CeremonyError, file_error};
use crate::config::{Config, Token};
use crate::signer::TokenSigner;
use crate::store::Store;
use crate::store::files::FolderLock;
use crate::store::sqlite::reserve::RESERVE_NAME;
use crate::store::sqlite::schema::SchemaError;
use crate::store::sqlite::{FILE_NAME, SqliteStore};
use crate::timekeeper::Timekeeper;
use crate::tokens;

/// What `init` was asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Begin; refuse anything that was used.
    Fresh,
    /// Go on where an interrupted `init` stopped.
    Resume,
}

/// Makes everything that `plan` asks for, writes the genesis document to `out`, if one is given, and
/// gives its bytes. Until the seal it can be resumed, and then gives the same bytes.
pub async fn init(
    config: &Config,
    plan_bytes: &[u8],
    way: Way,
    out: Option<(&Path, Standing)>,
) -> Result<Vec<u8>, CeremonyError> {
    let plan = Plan::parse(plan_bytes)?;
    check_config(config, &plan)?;
    for dir in [&config.data_dir, &config.head_dir] {
        make_folder(dir)?;
    }
    for token in [&config.admin_token, &config.record_token] {
        make_folder(&token.state_dir)?;
        give(&token.state_dir, token)?;
    }
    let _lock = FolderLock::take(&config.data_dir)?;
    let plan_hash = Hash::of(plan_bytes);
    let begun = begin(config, &plan, plan_hash, way)?;
    // Before any key: a document without a place to go to is found out while nothing is made.
    let out = out.map(|(path, standing)| Handout::prepare(path, standing)).transpose()?;
    let made = match begun {
        Begun::Made(document) => document,
        Begun::Open(mut progress) => {
            progress.save(&config.data_dir)?;
            with_tokens(config, &plan, plan_bytes, &mut progress).await?
        }
    };
    if let Some(out) = out {
        out.write(&made)?;
    }
    Ok(made)
}

/// [`make`] between the start and the end of both tokens' workers.
async fn with_tokens(
    config: &Config,
    plan: &Plan,
    plan_bytes: &[u8],
    progress: &mut Progress,
) -> Result<Vec<u8>, CeremonyError> {
    for (token, role) in [(&config.record_token, TokenRole::Record), (&config.admin_token, TokenRole::Admin)] {
        if !token.mac_key_file.exists() {
            create_mac_key(&token.mac_key_file).map_err(|error| CeremonyError::Hsm { token: role.word(), error })?;
        }
        give(&token.mac_key_file, token)?;
    }
    let admin = tokens::start(TokenRole::Admin, &config.admin_token, &plan.instance, Vec::new()).await?;
    let record = tokens::start(TokenRole::Record, &config.record_token, &plan.instance, Vec::new()).await?;
    let made = make(config, plan, plan_bytes, progress, &admin, &record).await;
    admin.shutdown().await;
    record.shutdown().await;
    made
}

/// Ends an `init` whose genesis document is handed out: from then on `--resume` writes that out again and
/// makes nothing.
pub fn finish(config: &Config) -> Result<(), CeremonyError> {
    Progress::remove(&config.data_dir).map(|_| ())
}

async fn make(
    config: &Config,
    plan: &Plan,
    plan_bytes: &[u8],
    progress: &mut Progress,
    admin: &Pool,
    record: &Pool,
) -> Result<Vec<u8>, CeremonyError> {
    let pools = [(TokenRole::Admin, admin), (TokenRole::Record, record)];
    // Saved only after both tokens were found unused.
    let ours = !progress.tokens.is_empty();
    progress.tokens = pools.iter().map(|(role, pool)| token_facts(plan, *role, pool)).collect::<Result<_, _>>()?;
    for (role, pool) in pools {
        sweep(plan, progress, ours, role, pool).await?;
    }
    progress.save(&config.data_dir)?;
    if progress.keys.is_empty() {
        // Before the first key: later it is never made anew.
        for (role, pool) in pools {
            pool.create_mark().await.map_err(|error| CeremonyError::Hsm { token: role.word(), error })?;
        }
    }
    for (purpose, trail, algorithm, role) in planned_keys(plan) {
        if !progress.keys.iter().any(|key| key.purpose == purpose && key.trail == trail) {
            let pool = if role == TokenRole::Admin { admin } else { record };
            make_key(config, plan, progress, pool, (purpose, trail, algorithm, role)).await?;
        }
    }
    progress.keys.sort_by_key(|key| key.kid);
    let signers = [bind(progress, TokenRole::Admin, admin).await?, bind(progress, TokenRole::Record, record).await?];
    let batches = records::first_batches(plan, progress.created, &progress.keys)?;
    let genesis = document(plan, Hash::of(plan_bytes), progress, &batches);
    let keys = genesis.check(plan, &Hash::of(plan_bytes))?;
    let bytes = genesis.to_bytes()?;
    // A store that an interrupted attempt left is made anew: what it signed, it signs again alike.
    remove_store(&config.data_dir)?;
    let store = SqliteStore::create(&config.data_dir)?;
    for document in [plan_bytes, &bytes] {
        store.put_document(document.to_vec().into()).await?;
    }
    records::write(&store, config, plan, &batches, &signers, &keys).await?;
    Ok(bytes)
}

/// A folder for the daemon's user alone.
fn make_folder(dir: &Path) -> Result<(), CeremonyError> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(file_error(dir))
}

/// Makes a file or folder that of the user whom the token's workers run as, if they have their own.
fn give(path: &Path, token: &Token) -> Result<(), CeremonyError> {
    let Some(WorkerUser { uid, gid }) = token.worker_user() else { return Ok(()) };
    std::os::unix::fs::chown(path, Some(uid), Some(gid)).map_err(file_error(path))
}

/// The configuration must speak of the tokens that people review in the plan.
pub(super) fn check_config(config: &Config, plan: &Plan) -> Result<(), CeremonyError> {
    let pairs = [
        ("admin_token", &config.admin_token, &plan.admin_token),
        ("record_token", &config.record_token, &plan.record_token),
    ];
    for (name, token, planned) in pairs {
        if token.label != planned.label || token.serial.as_ref().is_some_and(|serial| *serial != planned.serial) {
            let serial = token.serial.as_ref().map_or(String::new(), |serial| format!(" with serial {serial}"));
            return Err(CeremonyError::Mismatch(format!(
                "[{name}] is token {:?}{serial}, the plan wants {:?} with serial {}",
                token.label, planned.label, planned.serial
            )));
        }
    }
    Ok(())
}

/// Where an `init` begins.
enum Begun {
    /// Something is left to be made.
    Open(Progress),
    /// Everything is made, and not sealed: the document.
    Made(Vec<u8>),
}

/// Refuses a used folder, or takes up an interrupted attempt at the same plan.
fn begin(config: &Config, plan: &Plan, plan_hash: Hash, way: Way) -> Result<Begun, CeremonyError> {
    let left = Progress::load(&config.data_dir)?;
    let store = config.data_dir.join(FILE_NAME);
    match (way, left) {
        (Way::Fresh, None) if store.exists() => {
            let mut problem = format!("{} exists: a second genesis on a used folder is refused", store.display());
            if !sealed(config)? {
                problem += "; the first is not sealed yet: go on with `seal`, or undo it with `init --abandon`";
            }
            Err(CeremonyError::Used(problem))
        }
        (Way::Fresh, None) => {
            let created = Timekeeper::default().now();
            Ok(Begun::Open(Progress { plan: plan_hash, created, tokens: Vec::new(), keys: Vec::new() }))
        }
        (Way::Fresh, Some(_)) => Err(CeremonyError::Used(
            "an earlier init was interrupted: go on with --resume, or undo it with --abandon".to_owned(),
        )),
        (Way::Resume, None) if store.exists() => stored_genesis(config, plan_hash).map(Begun::Made),
        (Way::Resume, None) => Err(CeremonyError::Used("there is no interrupted init to resume".to_owned())),
        (Way::Resume, Some(progress)) if progress.plan != plan_hash => Err(CeremonyError::Mismatch(format!(
            "the interrupted init follows plan {}, not {plan_hash} of {}",
            progress.plan, plan.instance
        ))),
        (Way::Resume, Some(progress)) => {
            refuse_sealed(config)?;
            Ok(Begun::Open(progress))
        }
    }
}

/// The document that a finished `init` made from this plan, while it is not sealed.
fn stored_genesis(config: &Config, plan_hash: Hash) -> Result<Vec<u8>, CeremonyError> {
    refuse_sealed(config)?;
    let documents = SqliteStore::open(&config.data_dir)?.reader().read(|snapshot| snapshot.documents())?;
    let of_plan = |bytes: &Vec<u8>| Genesis::parse(bytes).is_ok_and(|genesis| genesis.plan == plan_hash);
    documents.into_iter().find(of_plan).ok_or_else(|| {
        let problem = format!("the init that was finished here followed another plan than {plan_hash}");
        CeremonyError::Mismatch(problem)
    })
}

/// The token as its module describes it: the one that people review in the plan.
fn token_facts(plan: &Plan, role: TokenRole, pool: &Pool) -> Result<TokenFacts, CeremonyError> {
    let missing = || CeremonyError::Mismatch(format!("the {} token did not describe itself", role.word()));
    let info = pool.token_info().ok_or_else(missing)?;
    let planned = match role {
        TokenRole::Admin => &plan.admin_token,
        TokenRole::Record => &plan.record_token,
    };
    if info.serial != planned.serial {
        let (found, wanted) = (&info.serial, &planned.serial);
        let problem = format!("the {} token has serial {found}, the plan wants {wanted}", role.word());
        return Err(CeremonyError::Mismatch(problem));
    }
    Ok(TokenFacts {
        firmware: info.firmware,
        label: info.label,
        manufacturer: info.manufacturer,
        model: info.model,
        module: info.module_sha256.parse().map_err(|_| missing())?,
        role,
        serial: info.serial,
    })
}

/// A fresh token has no key of ours; the left-overs of an interrupted attempt, which found it fresh
/// (`ours`), are destroyed.
async fn sweep(
    plan: &Plan,
    progress: &Progress,
    ours: bool,
    role: TokenRole,
    pool: &Pool,
) -> Result<(), CeremonyError> {
    let hsm = |error| CeremonyError::Hsm { token: role.word(), error };
    let known = |id: &[u8]| progress.keys.iter().any(|key| key.cka_id == hex::encode(id));
    let own = format!(":{}:", plan.instance);
    pool.sweep_pending(plan.instance.as_str()).await.map_err(hsm)?;
    for object in pool.list_objects().await.map_err(hsm)? {
        if known(&object.cka_id) {
            continue;
        }
        if !object.label.contains(&own) || !ours {
            return Err(CeremonyError::Used(format!(
                "the {} token holds {:?}: a second genesis on a used token is refused",
                role.word(),
                object.label
            )));
        }
        pool.destroy_key(&object.cka_id).await.map_err(hsm)?;
    }
    Ok(())
}

async fn make_key(
    config: &Config,
    plan: &Plan,
    progress: &mut Progress,
    pool: &Pool,
    (purpose, trail, algorithm, role): (Purpose, Option<Origin>, Algorithm, TokenRole),
) -> Result<(), CeremonyError> {
    let hsm = |error| CeremonyError::Hsm { token: role.word(), error };
    let name = match &trail {
        Some(origin) => format!("{purpose}/{origin}"),
        None => purpose.to_string(),
    };
    let instance = plan.instance.to_string();
    let time = Timekeeper::default().now().to_string();
    let spec = KeySpec { instance: instance.clone(), name: name.clone(), algorithm, time };
    let made = pool.generate(spec).await.map_err(hsm)?;
    pool.finalize_key(&made.cka_id, &instance, &name).await.map_err(hsm)?;
    progress.keys.push(GenesisKey {
        algorithm,
        attributes: made.attributes.into_iter().map(|(name, value)| (attribute_name(&name), value)).collect(),
        cka_id: hex::encode(&made.cka_id),
        kid: made.kid,
        origin: "generated".to_owned(),
        probe: base64::std_encode(&made.probe_payload),
        probe_signature: base64::std_encode(&made.probe_signature),
        purpose,
        spki: base64::std_encode(&made.public_key),
        token: role,
        trail,
    });
    progress.save(&config.data_dir)?;
    tracing::info!(kid = %made.kid, %name, token = role.word(), "key made");
    Ok(())
}

/// A PKCS#11 attribute's name as documents write it: `CKA_ALWAYS_SENSITIVE` is `always_sensitive`.
fn attribute_name(cka: &str) -> String {
    cka.strip_prefix("CKA_").unwrap_or(cka).to_ascii_lowercase()
}

/// Lets the keys of a token be used for what the plan says.
async fn bind(progress: &Progress, role: TokenRole, pool: &Pool) -> Result<Arc<TokenSigner>, CeremonyError> {
    let mut bindings = Vec::new();
    let mut keys = Vec::new();
    for key in progress.keys.iter().filter(|key| key.token == role) {
        let broken = || CeremonyError::Mismatch(format!("key {} in init.json is damaged", key.kid));
        let spki = base64::std_decode(&key.spki).map_err(|_| broken())?;
        keys.push(PublicKey::from_spki_der(&spki).map_err(|_| broken())?);
        bindings.push(KeyBinding {
            kid: key.kid,
            public_key: spki,
            purpose: key.purpose,
            trail: key.trail.clone(),
            cka_id: hex::decode(&key.cka_id).map_err(|_| broken())?,
        });
    }
    pool.bind_keys(bindings).await.map_err(|error| CeremonyError::Hsm { token: role.word(), error })?;
    Ok(Arc::new(TokenSigner::new(pool.clone(), keys.iter())))
}

fn document(plan: &Plan, plan_hash: Hash, progress: &Progress, batches: &[FirstBatch]) -> Genesis {
    let mut records: Vec<FirstRecord> = batches
        .iter()
        .map(|first| FirstRecord { leaf_hash: first.leaf(), trail: first.facts.origin.clone() })
        .collect();
    records.sort_by(|a, b| a.trail.cmp(&b.trail));
    Genesis {
        created: progress.created,
        document: "countersign.genesis".to_owned(),
        instance: plan.instance.clone(),
        keys: progress.keys.clone(),
        plan: plan_hash,
        records,
        tokens: progress.tokens.clone(),
        v: 1,
    }
}

/// A sealed store is neither made anew nor undone.
pub(super) fn refuse_sealed(config: &Config) -> Result<(), CeremonyError> {
    match sealed(config)? {
        true => Err(CeremonyError::Used("the genesis is sealed: its keys are not destroyed by one person".to_owned())),
        false => Ok(()),
    }
}

/// Whether the store has more than the admin trail's record 0. One that an interrupted attempt left half
/// made, without its tables, has not.
fn sealed(config: &Config) -> Result<bool, CeremonyError> {
    if !config.data_dir.join(FILE_NAME).exists() {
        return Ok(false);
    }
    let store = match SqliteStore::open(&config.data_dir) {
        Ok(store) => store,
        Err(SchemaError::Version { found: 0, .. } | SchemaError::Foreign(_, 0)) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    let trails = store.reader().read(|snapshot| snapshot.trails())?;
    Ok(trails.iter().any(|trail| trail.no == records::ADMIN_TRAIL_NO && trail.head.size > 1))
}

/// Removes the store of `data_dir`; whether there was one.
pub(super) fn remove_store(data_dir: &Path) -> Result<bool, CeremonyError> {
    let [log, index] = ["-wal", "-shm"].map(|suffix| format!("{FILE_NAME}{suffix}"));
    let mut any = false;
    for name in [FILE_NAME, &log, &index, RESERVE_NAME] {
        any |= remove(&data_dir.join(name))?;
    }
    Ok(any)
}

/// Removes a file; whether it was there.
pub(super) fn remove(path: &Path) -> Result<bool, CeremonyError> {
    match std::fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(file_error(path)(error)),
    }
}
