//! Keys in software, signing in wire form as the workers do.

use countersign_trail::ecdsa;
use countersign_trail::keys::{Algorithm, Kid, PublicKey};
use ed25519_dalek::Signer as _;

/// A private key whose 32 bytes are one value, repeated.
pub(crate) enum SoftKey {
    Ed25519(ed25519_dalek::SigningKey),
    EcdsaP256(p256::ecdsa::SigningKey),
}

impl SoftKey {
    pub(crate) fn new(algorithm: Algorithm, seed: u8) -> SoftKey {
        let private = [seed; 32];
        match algorithm {
            Algorithm::Ed25519 => SoftKey::Ed25519(private.into()),
            Algorithm::EcdsaP256 => SoftKey::EcdsaP256(p256::ecdsa::SigningKey::from_slice(&private).unwrap()),
        }
    }

    pub(crate) fn public(&self) -> PublicKey {
        match self {
            SoftKey::Ed25519(key) => PublicKey::from_raw(Algorithm::Ed25519, key.verifying_key().as_bytes()),
            SoftKey::EcdsaP256(key) => {
                let point = key.verifying_key().to_sec1_point(false);
                PublicKey::from_raw(Algorithm::EcdsaP256, point.as_bytes())
            }
        }
        .unwrap()
    }

    pub(crate) fn kid(&self) -> Kid {
        self.public().kid()
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Vec<u8> {
        match self {
            SoftKey::Ed25519(key) => key.sign(message).to_bytes().to_vec(),
            SoftKey::EcdsaP256(key) => {
                let signature: p256::ecdsa::Signature = key.sign(message);
                ecdsa::raw_to_der_low_s(&signature.to_bytes()).unwrap()
            }
        }
    }
}
