//! Public keys that verify at the speed of a batch.
//!
//! Accepts exactly what [`PublicKey::verify`] accepts, which the tests hold it to.

use aws_lc_rs::signature::{ED25519, ParsedPublicKey};
use countersign_trail::checkpoint::SignedCheckpoint;
use countersign_trail::keys::{Algorithm, ED25519_SIGNATURE_LEN, Kid, PublicKey, Signed};
use countersign_trail::note::KeyId;
use countersign_trail::receipt::{Receipt, ReceiptError};

/// The encoding of the neutral element of edwards25519 (y = 1): the only point of small order that
/// the verification equation can yield under a key of prime order.
const NEUTRAL: [u8; 32] = {
    let mut bytes = [0; 32];
    bytes[0] = 1;
    bytes
};

/// A key that is trusted to vouch for the records of one trail.
pub(crate) struct TrustedKey {
    key: PublicKey,
    /// Ed25519: the same key in the library that checks faster.
    fast: Option<ParsedPublicKey>,
}

impl TrustedKey {
    /// None where the second library does not take what the first one took.
    pub(crate) fn new(key: PublicKey) -> Option<TrustedKey> {
        let fast = match key.algorithm() {
            Algorithm::Ed25519 => Some(ParsedPublicKey::new(&ED25519, key.raw()).ok()?),
            Algorithm::EcdsaP256 => None,
        };
        Some(TrustedKey { key, fast })
    }

    pub(crate) fn kid(&self) -> Kid {
        self.key.kid()
    }

    /// Whether `signature` (wire form) is this key's over `message`.
    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        self.verifies_each(&[(message, signature)]) == [true]
    }

    /// Whether each signature (wire form) is this key's over its message.
    pub(crate) fn verifies_each(&self, signed: &[Signed<'_>]) -> Vec<bool> {
        let Some(fast) = &self.fast else {
            return self.key.verify_each(signed).iter().map(Result::is_ok).collect();
        };
        let holds = |(message, signature): &Signed<'_>| {
            signature.len() == ED25519_SIGNATURE_LEN
                && signature[..32] != NEUTRAL
                && fast.verify_sig(message, signature).is_ok()
        };
        signed.iter().map(holds).collect()
    }

    /// Whether a receipt that was kept holds under this key; by the reference, once a run.
    pub(crate) fn vouches_for(&self, receipt: &Receipt) -> Result<(), ReceiptError> {
        receipt.verify(&self.key)
    }

    /// Whether this key signed the checkpoint under its own origin.
    pub(crate) fn signed(&self, checkpoint: &SignedCheckpoint) -> bool {
        let name = checkpoint.checkpoint().origin.as_str();
        let id = KeyId::of(name, &self.key);
        let note = checkpoint.note();
        let line = note.signatures().iter().find(|line| line.key_id() == id && line.name() == name);
        line.is_some_and(|line| self.verifies(note.text().as_bytes(), line.signature()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED;
    use countersign_trail::ecdsa;
    use ed25519_dalek::Signer as _;

    fn ed25519() -> (ed25519_dalek::SigningKey, TrustedKey) {
        let signing = ed25519_dalek::SigningKey::from_bytes(&[3; 32]);
        let public = PublicKey::from_raw(Algorithm::Ed25519, signing.verifying_key().as_bytes()).unwrap();
        (signing, TrustedKey::new(public).unwrap())
    }

    fn agrees(key: &TrustedKey, message: &[u8], signature: &[u8]) -> bool {
        let ours = key.verifies(message, signature);
        assert_eq!(ours, key.key.verify(message, signature).is_ok(), "the two libraries disagree");
        ours
    }

    #[test]
    fn ed25519_agrees_with_the_reference() {
        let (signing, key) = ed25519();
        let signature = signing.sign(b"message").to_bytes();
        assert!(agrees(&key, b"message", &signature));
        assert!(!agrees(&key, b"Message", &signature));
        for at in 0..signature.len() {
            let mut changed = signature;
            changed[at] ^= 1;
            assert!(!agrees(&key, b"message", &changed));
        }
        assert!(!agrees(&key, b"message", &signature[..63]));
        assert!(!agrees(&key, b"message", &[]));
    }

    #[test]
    fn ed25519_with_a_neutral_r_is_refused() {
        // r = 0: R is the neutral element, S = k * a. A holder of the key can make it, and the
        // strict reference refuses it.
        use curve25519_dalek::scalar::{Scalar, clamp_integer};
        let sha512 = |input: &[u8]| {
            let mut wide = [0; 64];
            wide.copy_from_slice(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA512, input).as_ref());
            wide
        };
        let (signing, key) = ed25519();
        let mut low = [0; 32];
        low.copy_from_slice(&sha512(&signing.to_bytes())[..32]);
        let secret = Scalar::from_bytes_mod_order(clamp_integer(low));
        let k = Scalar::from_bytes_mod_order_wide(&sha512(
            &[&NEUTRAL[..], signing.verifying_key().as_bytes(), b"message"].concat(),
        ));
        let s = k * secret;
        let mut signature = NEUTRAL.to_vec();
        signature.extend_from_slice(s.as_bytes());
        assert!(key.fast.as_ref().unwrap().verify_sig(b"message", &signature).is_ok(), "the equation itself holds");
        assert!(!agrees(&key, b"message", &signature));
    }

    #[test]
    fn ecdsa_agrees_with_aws_lc_however_many_came_before() {
        let signing = p256::ecdsa::SigningKey::from_slice(&[7; 32]).unwrap();
        let point = signing.verifying_key().to_sec1_point(false);
        let public = PublicKey::from_raw(Algorithm::EcdsaP256, point.as_bytes()).unwrap();
        let theirs = ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, public.raw()).unwrap();
        let key = TrustedKey::new(public).unwrap();
        let holds = |message: &[u8], signature: &[u8]| {
            let ours = key.verifies(message, signature);
            let raw = ecdsa::der_to_raw(signature);
            assert_eq!(ours, raw.is_ok_and(|raw| theirs.verify_sig(message, &raw).is_ok()), "{signature:02x?}");
            ours
        };
        let sign = |message: &[u8]| {
            let signature: p256::ecdsa::Signature = signing.sign(message);
            ecdsa::raw_to_der_low_s(&signature.to_bytes()).unwrap()
        };
        for n in 0..300_u32 {
            let message = n.to_be_bytes();
            assert!(holds(&message, &sign(&message)), "signature {n}");
            assert!(!holds(b"message", &sign(&message)), "signature {n} over another message");
        }
        let low = sign(b"message");
        for at in 0..low.len() {
            for bit in 0..8 {
                let mut changed = low.clone();
                changed[at] ^= 1 << bit;
                assert!(!holds(b"message", &changed), "bit {bit} of byte {at}");
            }
        }
        let signature: p256::ecdsa::Signature = signing.sign(b"message");
        assert!(!holds(b"message", &signature.to_bytes()), "raw form");
        assert!(!holds(b"message", &[low.as_slice(), &[0]].concat()), "trailing byte");
    }
}
