//! What checks the signatures of one P-256 key.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use p256::ecdsa::signature::hazmat::PrehashVerifier as _;
use p256::ecdsa::{Signature, VerifyingKey};

use super::Digest;
use super::multiples::Multiples;

/// Signatures of one key after which its multiples pay: they cost as much as some 20 checks without
/// them, and later checks a sixth.
const MANY: u32 = 32;

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

    /// Whether each signature is one by this key over its digest, the SHA-256 of the message.
    pub(crate) fn verify(&self, signed: &[(Digest, Signature)]) -> Vec<bool> {
        if let Some(multiples) = self.multiples.get() {
            return multiples.verify(signed);
        }
        let more = u32::try_from(signed.len()).unwrap_or(u32::MAX);
        if self.checked.fetch_add(more, Ordering::Relaxed) >= MANY {
            let multiples = self.multiples.get_or_init(|| Multiples::of((*self.key.as_affine()).into()));
            return multiples.verify(signed);
        }
        let holds = |(digest, signature): &(Digest, Signature)| self.key.verify_prehash(digest, signature).is_ok();
        signed.iter().map(holds).collect()
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
            let verdicts = checker.verify(&[(digest, signature), ([0xaa; 32], signature)]);
            assert_eq!(verdicts, [true, false], "signature {n}, and over another message");
        }
        assert!(checker.multiples.get().is_some());
    }
}
