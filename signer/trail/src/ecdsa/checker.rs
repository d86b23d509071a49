//! What checks the signatures of one P-256 key.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use p256::ecdsa::signature::hazmat::PrehashVerifier as _;
use p256::ecdsa::{Signature, VerifyingKey};

use super::multiples::Multiples;

/// Signatures of one key after which its multiples pay: they cost as much as some 50 checks without
/// them, and later checks a fifth.
const MANY: u32 = 128;

/// Checks signatures: the first ones by the p256 crate, later ones by the key's multiples. Both give
/// the same verdicts.
pub(crate) struct Checker {
    key: VerifyingKey,
    checked: AtomicU32,
    multiples: OnceLock<Multiples>,
}

impl Checker {
    pub(crate) fn new(key: VerifyingKey) -> Checker {
        Checker { key, checked: AtomicU32::new(0), multiples: OnceLock::new() }
    }

    /// Whether `signature` is one over `digest`, the SHA-256 of the message, by this key.
    pub(crate) fn verify(&self, digest: [u8; 32], signature: &Signature) -> bool {
        if let Some(multiples) = self.multiples.get() {
            return multiples.verify(digest, signature);
        }
        if self.checked.fetch_add(1, Ordering::Relaxed) >= MANY {
            let multiples = self.multiples.get_or_init(|| Multiples::of((*self.key.as_affine()).into()));
            return multiples.verify(digest, signature);
        }
        self.key.verify_prehash(&digest, signature).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use p256::ecdsa::SigningKey;
    use p256::ecdsa::signature::hazmat::PrehashSigner as _;

    #[test]
    fn the_verdict_does_not_depend_on_how_many_came_before() {
        let private = SigningKey::from_slice(&[7; 32]).unwrap();
        let checker = Checker::new(*private.verifying_key());
        for n in 0..2 * MANY {
            let digest: [u8; 32] = std::array::from_fn(|at| (n as usize * 31 + at) as u8);
            let signature: Signature = private.sign_prehash(&digest).unwrap();
            assert!(checker.verify(digest, &signature), "signature {n}");
            assert!(!checker.verify([0xaa; 32], &signature), "signature {n} over another message");
        }
        assert!(checker.multiples.get().is_some());
    }
}
