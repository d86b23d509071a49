//! A token's keys, as the sequencers use them: the HSM signs, software verifies, and only then is
//! a signature believed.

use std::collections::HashMap;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, ED25519, ParsedPublicKey};
use bytes::Bytes;
use countersign_hsm::{HsmError, Pool, PoolState, RecoveryProof, SignItem};
use countersign_trail::ecdsa;
use countersign_trail::keys::{Algorithm, Kid, PublicKey};

use crate::fail;
use crate::reason::{Reason, Refusal};

/// Signatures that one thread verifies; more are spread over several.
const VERIFY_CHUNK: usize = 64;

/// A public key for fast checks of honest signatures. The strict checks of the verifier are
/// [`PublicKey::verify`]'s.
#[derive(Debug)]
struct FastKey {
    algorithm: Algorithm,
    parsed: ParsedPublicKey,
}

impl FastKey {
    fn new(key: &PublicKey) -> Option<FastKey> {
        let parsed = match key.algorithm() {
            Algorithm::Ed25519 => ParsedPublicKey::new(&ED25519, key.raw()),
            Algorithm::EcdsaP256 => ParsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key.raw()),
        };
        Some(FastKey { algorithm: key.algorithm(), parsed: parsed.ok()? })
    }

    fn holds(&self, message: &[u8], signature: &[u8]) -> bool {
        // aws-lc accepts high S; what we store must not have it.
        let strict = self.algorithm != Algorithm::EcdsaP256 || ecdsa::der_to_raw(signature).is_ok();
        strict && self.parsed.verify_sig(message, signature).is_ok()
    }
}

/// The keys of one token.
pub struct TokenSigner {
    pool: Pool,
    keys: std::sync::Arc<HashMap<Kid, FastKey>>,
}

impl TokenSigner {
    /// Over a pool that has these keys bound.
    pub fn new<'k>(pool: Pool, keys: impl Iterator<Item = &'k PublicKey>) -> TokenSigner {
        let keys = keys.filter_map(|key| Some((key.kid(), FastKey::new(key)?))).collect();
        TokenSigner { pool, keys: std::sync::Arc::new(keys) }
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
    pub async fn sign(
        &self,
        messages: Vec<(Kid, Vec<u8>)>,
        recovery: Option<RecoveryProof>,
    ) -> Result<Vec<Bytes>, Refusal> {
        let item = |(kid, message): &(Kid, Vec<u8>)| SignItem { kid: *kid, message: message.clone(), recovery };
        let signatures = self.pool.sign(messages.iter().map(item).collect()).await.map_err(refusal)?;
        fail::point("sign");
        self.verify(messages, signatures).await
    }

    async fn verify(&self, messages: Vec<(Kid, Vec<u8>)>, signatures: Vec<Vec<u8>>) -> Result<Vec<Bytes>, Refusal> {
        if signatures.len() != messages.len() {
            return Err(Refusal::new(
                Reason::HsmUnavailable,
                "the HSM gave another number of signatures than it was asked for",
            ));
        }
        let mut pairs: Vec<_> = messages.into_iter().zip(signatures).collect();
        let mut checks = Vec::new();
        while !pairs.is_empty() {
            let chunk = pairs.split_off(pairs.len().saturating_sub(VERIFY_CHUNK));
            let keys = self.keys.clone();
            checks.push(tokio::task::spawn_blocking(move || {
                let holds = |((kid, message), signature): &((Kid, Vec<u8>), Vec<u8>)| {
                    keys.get(kid).is_some_and(|key| key.holds(message, signature))
                };
                chunk
                    .iter()
                    .all(holds)
                    .then(|| chunk.into_iter().map(|(_, signature)| Bytes::from(signature)).collect())
            }));
        }
        let mut verified: Vec<Bytes> = Vec::new();
        for check in checks.into_iter().rev() {
            let chunk: Option<Vec<Bytes>> = check.await.unwrap_or_default();
            let chunk = chunk.ok_or_else(|| {
                tracing::error!("the HSM gave a signature that does not verify; it is dropped");
                Refusal::new(Reason::HsmUnavailable, "the HSM gave a signature that does not verify; it was dropped")
            })?;
            verified.extend(chunk);
        }
        Ok(verified)
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

/// What a client hears of a failure in the HSM.
pub fn refusal(error: HsmError) -> Refusal {
    use countersign_hsm::Reason as Hsm;
    let reason = match error.reason() {
        Hsm::HsmTimeout => Reason::HsmTimeout,
        Hsm::PinLatched => Reason::PinLatched,
        Hsm::Overloaded => Reason::Overloaded,
        Hsm::HsmLatched | Hsm::PositionConflict | Hsm::RecoveryRefused | Hsm::PurposeMismatch => Reason::HsmLatched,
        _ => Reason::HsmUnavailable,
    };
    Refusal::new(reason, format!("the HSM did not sign: {}", error.reason().as_str()))
}
