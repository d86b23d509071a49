//! Starting the two tokens' pools, and waiting until they can be used.

use std::time::Duration;

use countersign_hsm::{HsmError, KeyBinding, Pool, PoolSpec, PoolState, Reason, WorkerCommand};
use countersign_trail::admin::AdminState;
use countersign_trail::document::TokenRole;
use countersign_trail::id::InstanceId;

use crate::config::Token;
use crate::genesis::CeremonyError;
use crate::signer::TokenSigner;

/// How long a token may take to come up at a start.
const START_LIMIT: Duration = Duration::from_secs(60);

/// What the worker process is called with.
pub const WORKER_COMMAND: &str = "hsm-worker";

/// The keys of one token, as the admin trail authorised them.
pub fn bindings(state: &AdminState, role: TokenRole) -> Vec<KeyBinding> {
    let of_token = state.keys.values().filter(|entry| entry.token == role);
    of_token
        .map(|entry| KeyBinding {
            kid: entry.key.kid(),
            public_key: entry.key.spki_der(),
            purpose: entry.purpose,
            trail: entry.trail.clone(),
            cka_id: entry.cka_id.clone(),
        })
        .collect()
}

/// A signer over the keys of one token.
pub fn signer(pool: &Pool, state: &AdminState, role: TokenRole) -> TokenSigner {
    TokenSigner::new(pool.clone(), state.keys.values().filter(|entry| entry.token == role).map(|entry| &entry.key))
}

/// Starts a token's workers and waits until every one of them has signed a probe with every key.
pub async fn start(
    role: TokenRole,
    token: &Token,
    instance: &InstanceId,
    keys: Vec<KeyBinding>,
) -> Result<Pool, CeremonyError> {
    let failed = |error| CeremonyError::Hsm { token: role.word(), error };
    let program = std::env::current_exe()
        .map_err(|error| failed(HsmError::new(Reason::Io, format!("the daemon's own executable: {error}"))))?;
    let spec = PoolSpec {
        role: role.word().to_owned(),
        instance: instance.clone(),
        command: WorkerCommand { program, args: vec![WORKER_COMMAND.into()], envs: Vec::new() },
        token: token.to_hsm(),
        keys,
    };
    let pool = Pool::start(spec).map_err(failed)?;
    match tokio::time::timeout(START_LIMIT, ready(&pool)).await {
        Ok(Ok(())) => Ok(pool),
        Ok(Err(error)) => {
            pool.shutdown().await;
            Err(failed(error))
        }
        Err(_) => {
            let error = trouble(&pool).unwrap_or_else(|| HsmError::new(Reason::HsmTimeout, "no worker came up"));
            pool.shutdown().await;
            Err(failed(error))
        }
    }
}

/// Waits until the pool is ready; an error that waiting does not mend ends the wait.
async fn ready(pool: &Pool) -> Result<(), HsmError> {
    let mut state = pool.state();
    loop {
        let now = state.borrow_and_update().clone();
        match now {
            PoolState::Ready => return Ok(()),
            PoolState::Down { reason, latched } if latched || !mends(reason.reason()) => return Err(reason),
            PoolState::Degraded { reason, .. } if !mends(reason.reason()) => return Err(reason),
            _ => {}
        }
        if state.changed().await.is_err() {
            return Err(HsmError::new(Reason::HsmUnavailable, "the pool ended"));
        }
    }
}

/// Whether waiting may help.
fn mends(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::HsmUnavailable | Reason::HsmTimeout | Reason::TokenMissing | Reason::WorkerDied | Reason::Overloaded
    )
}

fn trouble(pool: &Pool) -> Option<HsmError> {
    match &*pool.state().borrow() {
        PoolState::Down { reason, .. } | PoolState::Degraded { reason, .. } => Some(reason.clone()),
        PoolState::Ready | PoolState::Starting => None,
    }
}
