//! `countersignd init`: keys in both tokens, record 0 of every trail, the genesis document.

use std::path::Path;
use std::sync::Arc;

use countersign_hsm::{KeyBinding, KeySpec, ListedObject, Marked, Pool, WorkerUser, create_mac_key};
use countersign_trail::base64;
use countersign_trail::document::{FirstRecord, Genesis, GenesisKey, Plan, TokenFacts, TokenRole, planned_keys};
use countersign_trail::hash::Hash;
use countersign_trail::keys::{Algorithm, PublicKey};
use countersign_trail::origin::Origin;
use countersign_trail::signing::Purpose;

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

/// Makes everything that `plan` asks for and gives the genesis document's bytes. Until [`finish`] it
/// can be resumed, and then gives the same bytes.
pub async fn init(config: &Config, plan_bytes: &[u8], way: Way) -> Result<Vec<u8>, CeremonyError> {
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
    let mut progress = begin(config, &plan, plan_hash, way)?;
    for (token, role) in [(&config.record_token, TokenRole::Record), (&config.admin_token, TokenRole::Admin)] {
        if !token.mac_key_file.exists() {
            create_mac_key(&token.mac_key_file).map_err(|error| CeremonyError::Hsm { token: role.word(), error })?;
        }
        give(&token.mac_key_file, token)?;
    }
    let admin = tokens::start(TokenRole::Admin, &config.admin_token, &plan.instance, Vec::new()).await?;
    let record = tokens::start(TokenRole::Record, &config.record_token, &plan.instance, Vec::new()).await?;
    let made = make(config, &plan, plan_bytes, &mut progress, &admin, &record).await;
    admin.shutdown().await;
    record.shutdown().await;
    made
}

/// Ends an `init` whose genesis document is in safe hands: from then on there is nothing to resume.
pub fn finish(config: &Config) -> Result<(), CeremonyError> {
    Progress::remove(&config.data_dir)
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
    progress.tokens = pools.iter().map(|(role, pool)| token_facts(*role, pool)).collect::<Result<_, _>>()?;
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
fn check_config(config: &Config, plan: &Plan) -> Result<(), CeremonyError> {
    let pairs = [
        ("admin_token", &config.admin_token, &plan.admin_token),
        ("record_token", &config.record_token, &plan.record_token),
    ];
    for (name, token, planned) in pairs {
        if token.label != planned.label || token.serial.as_ref().is_some_and(|serial| *serial != planned.serial) {
            return Err(CeremonyError::Mismatch(format!(
                "[{name}] is token {:?}, the plan wants {:?} with serial {}",
                token.label, planned.label, planned.serial
            )));
        }
    }
    Ok(())
}

/// Refuses a used folder, or takes up an interrupted attempt at the same plan.
fn begin(config: &Config, plan: &Plan, plan_hash: Hash, way: Way) -> Result<Progress, CeremonyError> {
    let left = Progress::load(&config.data_dir)?;
    let store = config.data_dir.join(FILE_NAME);
    match (way, left) {
        (Way::Fresh, None) if store.exists() => Err(CeremonyError::Used(format!(
            "{} exists: a second genesis on a used folder is refused",
            store.display()
        ))),
        (Way::Fresh, None) => {
            let created = Timekeeper::default().now();
            let progress = Progress { plan: plan_hash, created, tokens: Vec::new(), keys: Vec::new() };
            progress.save(&config.data_dir)?;
            Ok(progress)
        }
        (Way::Fresh, Some(_)) => Err(CeremonyError::Used(
            "an earlier init was interrupted: go on with --resume, or undo it with --abandon".to_owned(),
        )),
        (Way::Resume, None) => Err(CeremonyError::Used("there is no interrupted init to resume".to_owned())),
        (Way::Resume, Some(progress)) if progress.plan != plan_hash => Err(CeremonyError::Mismatch(format!(
            "the interrupted init follows plan {}, not {plan_hash} of {}",
            progress.plan, plan.instance
        ))),
        (Way::Resume, Some(progress)) => {
            refuse_sealed(config)?;
            Ok(progress)
        }
    }
}

fn token_facts(role: TokenRole, pool: &Pool) -> Result<TokenFacts, CeremonyError> {
    let missing = || CeremonyError::Mismatch(format!("the {} token did not describe itself", role.word()));
    let info = pool.token_info().ok_or_else(missing)?;
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

/// A sealed store is neither made anew nor undone. One that an interrupted attempt left half made,
/// without its tables, is not sealed.
fn refuse_sealed(config: &Config) -> Result<(), CeremonyError> {
    if !config.data_dir.join(FILE_NAME).exists() {
        return Ok(());
    }
    let store = match SqliteStore::open(&config.data_dir) {
        Ok(store) => store,
        Err(SchemaError::Version { found: 0, .. } | SchemaError::Foreign(_, 0)) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let trails = store.reader().read(|snapshot| snapshot.trails())?;
    if trails.iter().any(|trail| trail.no == records::ADMIN_TRAIL_NO && trail.head.size > 1) {
        return Err(CeremonyError::Used("the genesis is sealed: its keys are not destroyed by one person".to_owned()));
    }
    Ok(())
}

fn remove_store(data_dir: &Path) -> Result<(), CeremonyError> {
    let [log, index] = ["-wal", "-shm"].map(|suffix| format!("{FILE_NAME}{suffix}"));
    for name in [FILE_NAME, &log, &index, RESERVE_NAME] {
        let path = data_dir.join(name);
        match std::fs::remove_file(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(file_error(&path)(error)),
        }
    }
    Ok(())
}

/// Undoes an `init` that is not sealed: destroys its keys, reads back their absence, and reports.
pub async fn abandon(config: &Config, plan_bytes: &[u8]) -> Result<Vec<String>, CeremonyError> {
    let plan = Plan::parse(plan_bytes)?;
    check_config(config, &plan)?;
    let _lock = FolderLock::take(&config.data_dir)?;
    refuse_sealed(config)?;
    let admin = tokens::start(TokenRole::Admin, &config.admin_token, &plan.instance, Vec::new()).await?;
    let record = tokens::start(TokenRole::Record, &config.record_token, &plan.instance, Vec::new()).await?;
    let destroyed = destroy(&plan, &admin, &record).await;
    admin.shutdown().await;
    record.shutdown().await;
    let mut report = destroyed?;
    remove_store(&config.data_dir)?;
    Progress::remove(&config.data_dir)?;
    report.push(format!("removed the unsealed store in {}", config.data_dir.display()));
    Ok(report)
}

/// Destroys the keys of an instance that is not sealed, in both tokens.
async fn destroy(plan: &Plan, admin: &Pool, record: &Pool) -> Result<Vec<String>, CeremonyError> {
    let pools = [(TokenRole::Admin, admin), (TokenRole::Record, record)];
    for (role, pool) in pools {
        if !own_keys(plan, role, pool).await?.is_empty() {
            refuse_marked(plan, admin).await?;
        }
    }
    let mut report = Vec::new();
    for (role, pool) in pools {
        let hsm = |error| CeremonyError::Hsm { token: role.word(), error };
        pool.sweep_pending(plan.instance.as_str()).await.map_err(hsm)?;
        for object in own_keys(plan, role, pool).await? {
            pool.destroy_key(&object.cka_id).await.map_err(hsm)?;
            report.push(format!("destroyed {:?} in the {} token, absence read back", object.label, role.word()));
        }
    }
    Ok(report)
}

/// The private keys of the plan's instance in a token.
async fn own_keys(plan: &Plan, role: TokenRole, pool: &Pool) -> Result<Vec<ListedObject>, CeremonyError> {
    let own = format!(":{}:", plan.instance);
    let mut objects = pool.list_objects().await.map_err(|error| CeremonyError::Hsm { token: role.word(), error })?;
    objects.retain(|object| object.private && object.label.contains(&own));
    Ok(objects)
}

/// The store may be elsewhere, or lost: the worker's mark, made before the first key, says whether the
/// sealing record was begun.
async fn refuse_marked(plan: &Plan, admin: &Pool) -> Result<(), CeremonyError> {
    let hsm = |error| CeremonyError::Hsm { token: TokenRole::Admin.word(), error };
    match admin.mark(&Marked::checkpoints(&plan.admin_trail)).await.map_err(hsm)? {
        Some(mark) if mark.size > 1 => Err(CeremonyError::Used(format!(
            "the genesis is sealed: the admin trail was at size {} at least; its keys are not destroyed by one person. Check data_dir",
            mark.size
        ))),
        _ => Ok(()),
    }
}
