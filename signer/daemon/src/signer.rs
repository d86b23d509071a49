//! A token's keys, as the sequencers use them: the HSM signs, software verifies, and only then is
//! a signature believed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::signature::{ED25519, ParsedPublicKey};
use bytes::Bytes;
use countersign_hsm::{HsmError, Pool, PoolState, RecoveryProof, SignItem};
use countersign_trail::keys::{Algorithm, Kid, PublicKey, Signed};

use crate::fail;
use crate::reason::{Reason, Refusal};

/// What is to be signed, each message by its key. Shared, since an intent's are signed again, the
/// same bytes, until they have signatures.
pub type Messages = Arc<[(Kid, Bytes)]>;

/// A public key, by whichever library checks its honest signatures faster.
#[derive(Debug)]
enum FastKey {
    /// aws-lc. The strict checks of the verifier are [`PublicKey::verify`]'s.
    Ed25519(ParsedPublicKey),
    /// Ours, which remembers the multiples of a key that it uses often.
    EcdsaP256(PublicKey),
}

impl FastKey {
    fn new(key: &PublicKey) -> Option<FastKey> {
        Some(match key.algorithm() {
            Algorithm::Ed25519 => FastKey::Ed25519(ParsedPublicKey::new(&ED25519, key.raw()).ok()?),
            Algorithm::EcdsaP256 => FastKey::EcdsaP256(key.clone()),
        })
    }

    /// Whether all of them hold.
    fn holds(&self, signed: &[Signed<'_>]) -> bool {
        match self {
            FastKey::Ed25519(key) => {
                signed.iter().all(|(message, signature)| key.verify_sig(message, signature).is_ok())
            }
            FastKey::EcdsaP256(key) => key.verify_each(signed).iter().all(Result::is_ok),
        }
    }
}

/// The keys of one token.
pub struct TokenSigner {
    pool: Pool,
    keys: Arc<HashMap<Kid, FastKey>>,
}

impl TokenSigner {
    /// Over a pool that has these keys bound.
    pub fn new<'k>(pool: Pool, keys: impl Iterator<Item = &'k PublicKey>) -> TokenSigner {
        let keys = keys.filter_map(|key| Some((key.kid(), FastKey::new(key)?))).collect();
        TokenSigner { pool, keys: Arc::new(keys) }
    }

    /// The pool itself.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// The worker's MAC over an intent's digest.
    pub async fn mac(&self, digest: [u8; 32]) -> Result<[u8; 32], Refusal> {
        self.pool.mac(digest).await.map_err(refusal)
    }

    /// Whether a MAC read from the store is the worker's over `digest`.
    pub async fn check_mac(&self, digest: [u8; 32], mac: [u8; 32]) -> Result<bool, Refusal> {
        self.pool.check_mac(digest, mac).await.map_err(refusal)
    }

    /// Has `messages` signed, each by its key, and verifies every signature.
    ///
    /// While the HSM makes the signatures of one chunk, those of the chunks before are verified.
    pub async fn sign(&self, messages: Messages, recovery: Option<RecoveryProof>) -> Result<Vec<Bytes>, Refusal> {
        self.sign_timed(messages, recovery).await.map(|(signatures, _)| signatures)
    }

    /// The same, and how long it took from the last signature's arrival until all were verified.
    pub async fn sign_timed(
        &self,
        messages: Messages,
        recovery: Option<RecoveryProof>,
    ) -> Result<(Vec<Bytes>, Duration), Refusal> {
        let item = |(kid, message): &(Kid, Bytes)| SignItem { kid: *kid, message: message.clone(), recovery };
        let mut signing = self.pool.begin(messages.iter().map(item).collect()).map_err(refusal)?;
        let mut checks = Vec::new();
        while let Some(chunk) = signing.next().await {
            let chunk = chunk.map_err(refusal)?;
            let (keys, messages) = (self.keys.clone(), messages.clone());
            let check = move || verify(&keys, &messages, chunk);
            checks.push(tokio::task::spawn_blocking(check));
        }
        let arrived = Instant::now();
        fail::point("sign");
        let mut verified = vec![None; messages.len()];
        for check in checks {
            let chunk = check.await.unwrap_or_default().ok_or_else(|| {
                tracing::error!("the HSM gave a signature that does not verify; it is dropped");
                Refusal::new(Reason::HsmUnavailable, "the HSM gave a signature that does not verify; it was dropped")
            })?;
            for (place, signature) in chunk {
                verified[place] = Some(signature);
            }
        }
        let complete: Option<Vec<Bytes>> = verified.into_iter().collect();
        let complete = complete.ok_or_else(|| {
            Refusal::new(Reason::HsmUnavailable, "the HSM gave another number of signatures than it was asked for")
        })?;
        Ok((complete, arrived.elapsed()))
    }

    /// Why the token cannot sign now; none when it can.
    pub fn trouble(&self) -> Option<Reason> {
        match &*self.pool.state().borrow() {
            PoolState::Ready | PoolState::Degraded { .. } => None,
            PoolState::Starting => Some(Reason::HsmUnavailable),
            PoolState::Down { reason, .. } => Some(refusal(reason.clone()).reason()),
        }
    }
}

/// The signatures of a chunk, each with its message's place, if all of them verify.
fn verify(
    keys: &HashMap<Kid, FastKey>,
    messages: &Messages,
    chunk: Vec<(usize, Bytes)>,
) -> Option<Vec<(usize, Bytes)>> {
    let mut by_key: HashMap<Kid, Vec<Signed<'_>>> = HashMap::new();
    for (place, signature) in &chunk {
        let (kid, message) = messages.get(*place)?;
        by_key.entry(*kid).or_default().push((message, signature));
    }
    let holds = |(kid, signed): (&Kid, &Vec<_>)| keys.get(kid).is_some_and(|key| key.holds(signed));
    by_key.iter().all(holds).then_some(chunk)
}

/// What a client hears of a failure in the HSM. Never OVERLOADED, which says that nothing was stored:
/// the intent may be.
pub fn refusal(error: HsmError) -> Refusal {
    use countersign_hsm::Reason as Hsm;
    let reason = match error.reason() {
        Hsm::HsmTimeout => Reason::HsmTimeout,
        Hsm::PinLatched => Reason::PinLatched,
        Hsm::HsmLatched | Hsm::PositionConflict | Hsm::PositionStale | Hsm::RecoveryRefused | Hsm::PurposeMismatch => {
            Reason::HsmLatched
        }
        _ => Reason::HsmUnavailable,
    };
    Refusal::new(reason, format!("the HSM did not sign: {}", error.reason().as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_pool_is_no_promise_that_nothing_was_stored() {
        let busy = refusal(HsmError::new(countersign_hsm::Reason::Overloaded, "32 batches wait"));
        assert_eq!(busy.reason(), Reason::HsmUnavailable);
        assert!(busy.retry().is_some());
    }
}
