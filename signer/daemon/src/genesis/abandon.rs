//! `countersignd init --abandon`: an `init` that is not sealed is undone.

use std::path::PathBuf;

use countersign_hsm::{ListedObject, Marked, Pool};
use countersign_trail::document::{Plan, TokenRole};
use serde::Serialize;

use super::CeremonyError;
use super::init::{check_config, refuse_sealed, remove, remove_store};
use super::progress::Progress;
use crate::config::Config;
use crate::store::files::{FolderLock, HeadFile};
use crate::store::sqlite::FILE_NAME;
use crate::tokens;

/// What [`abandon`] undid.
#[derive(Debug, Serialize)]
pub struct Abandoned {
    /// Keys that were destroyed, and whose absence was read back.
    pub destroyed: Vec<DestroyedKey>,
    /// Second heads and the store, which were removed.
    pub removed: Vec<PathBuf>,
}

/// A key that is no more.
#[derive(Debug, Serialize)]
pub struct DestroyedKey {
    /// Its label.
    pub label: String,
    /// `admin` or `record`: the token that had it.
    pub token: &'static str,
}

/// Destroys the keys, reads back their absence, removes store and second heads, and reports.
///
/// # Errors
/// [`CeremonyError::Used`] where the genesis is sealed, or nothing is there to abandon.
pub async fn abandon(config: &Config, plan_bytes: &[u8]) -> Result<Abandoned, CeremonyError> {
    let plan = Plan::parse(plan_bytes)?;
    check_config(config, &plan)?;
    let _lock = FolderLock::take(&config.data_dir)?;
    refuse_sealed(config)?;
    let admin = tokens::start(TokenRole::Admin, &config.admin_token, &plan.instance, Vec::new()).await?;
    let record = tokens::start(TokenRole::Record, &config.record_token, &plan.instance, Vec::new()).await?;
    let destroyed = destroy(&plan, &admin, &record).await;
    admin.shutdown().await;
    record.shutdown().await;
    let destroyed = destroyed?;
    let mut removed = remove_heads(config, &plan)?;
    if remove_store(&config.data_dir)? {
        removed.push(config.data_dir.join(FILE_NAME));
    }
    let begun = Progress::remove(&config.data_dir)?;
    if !begun && destroyed.is_empty() && removed.is_empty() {
        return Err(CeremonyError::Used("there is nothing to abandon".to_owned()));
    }
    Ok(Abandoned { destroyed, removed })
}

/// Removes the plan's second heads. One beyond record 0 is of an appliance that was sealed: it stays.
fn remove_heads(config: &Config, plan: &Plan) -> Result<Vec<PathBuf>, CeremonyError> {
    let mut removed = Vec::new();
    for origin in std::iter::once(&plan.admin_trail).chain(plan.trails.iter().map(|trail| &trail.origin)) {
        let name = origin.path_segment();
        let Ok((_, head)) = HeadFile::open(&config.head_dir, &name, false) else { continue };
        let path = HeadFile::path(&config.head_dir, &name);
        if head.is_none_or(|head| head.size <= 1) && remove(&path)? {
            removed.push(path);
        }
    }
    Ok(removed)
}

/// Destroys the keys of an instance that is not sealed, in both tokens.
async fn destroy(plan: &Plan, admin: &Pool, record: &Pool) -> Result<Vec<DestroyedKey>, CeremonyError> {
    let pools = [(TokenRole::Admin, admin), (TokenRole::Record, record)];
    for (role, pool) in pools {
        if !own_keys(plan, role, pool).await?.is_empty() {
            refuse_marked(plan, admin).await?;
        }
    }
    let mut destroyed = Vec::new();
    for (role, pool) in pools {
        let hsm = |error| CeremonyError::Hsm { token: role.word(), error };
        pool.sweep_pending(plan.instance.as_str()).await.map_err(hsm)?;
        for object in own_keys(plan, role, pool).await? {
            pool.destroy_key(&object.cka_id).await.map_err(hsm)?;
            destroyed.push(DestroyedKey { label: object.label, token: role.word() });
        }
    }
    Ok(destroyed)
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
