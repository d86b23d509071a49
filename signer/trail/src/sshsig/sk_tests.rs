//! Security keys: a key in software follows PROTOCOL.u2f, and `ssh-keygen -Y verify` confirms that
//! it does so rightly.

use super::tests::{DOCUMENT, ssh_keygen, wire};
use super::*;
use ed25519_dalek::Signer as _;
use ssh_key::public::{Ed25519PublicKey, KeyData, SkEd25519};
use ssh_key::{HashAlg, LineEnding, Signature};

/// A security key in software: the algorithms that `ssh-keygen` can verify.
enum SoftwareSk {
    Ed25519(ed25519_dalek::SigningKey),
    P256(p256::ecdsa::SigningKey),
}

impl SoftwareSk {
    fn both() -> [SoftwareSk; 2] {
        [
            SoftwareSk::Ed25519(ed25519_dalek::SigningKey::from_bytes(&[5; 32])),
            SoftwareSk::P256(p256::ecdsa::SigningKey::from_slice(&[5; 32]).unwrap()),
        ]
    }

    fn key_data(&self, application: &str) -> KeyData {
        match self {
            SoftwareSk::Ed25519(key) => {
                let public = Ed25519PublicKey(key.verifying_key().to_bytes());
                KeyData::SkEd25519(SkEd25519::new(public, application))
            }
            SoftwareSk::P256(key) => {
                let point = key.verifying_key().to_sec1_point(false);
                let blob = wire(&[
                    b"sk-ecdsa-sha2-nistp256@openssh.com",
                    b"nistp256",
                    point.as_bytes(),
                    application.as_bytes(),
                ]);
                let data = KeyData::decode(&mut blob.as_slice()).unwrap();
                assert!(matches!(data, KeyData::SkEcdsaSha2NistP256(_)));
                data
            }
        }
    }

    /// PROTOCOL.u2f: signs SHA-256(application), flags, counter, SHA-256(message).
    fn sign(&self, application: &str, flags: u8) -> String {
        let data = SshSig::signed_data(Act::Approve.namespace(), HashAlg::Sha512, DOCUMENT).unwrap();
        let trailer = [flags, 0, 0, 1, 2];
        let message = [&Sha256::digest(application)[..], &trailer, &Sha256::digest(data)[..]].concat();
        let (algorithm, mut bytes) = match self {
            SoftwareSk::Ed25519(key) => (SshAlgorithm::SkEd25519, key.sign(&message).to_bytes().to_vec()),
            SoftwareSk::P256(key) => {
                let signature: p256::ecdsa::Signature = key.sign(&message);
                let bytes = Signature::try_from(signature).unwrap().as_bytes().to_vec();
                (SshAlgorithm::SkEcdsaSha2NistP256, bytes)
            }
        };
        bytes.extend(trailer);
        let signature = Signature::new(algorithm, bytes).unwrap();
        let namespace = Act::Approve.namespace();
        SshSig::new(self.key_data(application), namespace, HashAlg::Sha512, signature)
            .unwrap()
            .to_pem(LineEnding::LF)
            .unwrap()
    }
}

#[test]
fn security_keys() {
    for sk in SoftwareSk::both() {
        let key = SshPublicKey::new(sk.key_data("ssh:")).unwrap();
        assert_eq!(SshPublicKey::parse(&key.to_string()), Ok(key.clone()));
        assert!(key.is_security_key());
        for (flags, user_verified) in [(0x01, false), (0x05, true), (0x85, true)] {
            let armored = sk.sign("ssh:", flags);
            assert_eq!(
                verify_sshsig(&armored, &key, Act::Approve, DOCUMENT),
                Ok(Verified { security_key: Some(SecurityKeyUse { user_verified, counter: 0x0102 }) })
            );
            let other = verify_sshsig(&armored, &key, Act::Approve, b"other");
            assert_eq!(other, Err(SshSigError::Signature));
        }
        for flags in [0x00, 0x04, 0xfe] {
            let armored = sk.sign("ssh:", flags);
            assert_eq!(verify_sshsig(&armored, &key, Act::Approve, DOCUMENT), Err(SshSigError::SkNoPresence));
        }
        for application in ["", "ssh", "ssh:work", "https://example.com"] {
            let data = sk.key_data(application);
            assert_eq!(SshPublicKey::new(data), Err(SshSigError::SkApplication));
            let armored = sk.sign(application, 1);
            assert_eq!(SshSignature::parse(&armored).unwrap_err(), SshSigError::SkApplication);
        }
        let blob = unarmor(&sk.sign("ssh:", 1)).unwrap();
        for bit in 0..blob.len() * 8 {
            let mut other = blob.clone();
            other[bit / 8] ^= 1 << (bit % 8);
            let result = verify_sshsig(&armor(&other), &key, Act::Approve, DOCUMENT);
            assert!(result.is_err(), "{} bit {bit}", key.algorithm());
        }
    }
}

#[test]
fn the_software_security_key_is_one_for_openssh() {
    for sk in SoftwareSk::both() {
        let dir = tempfile::tempdir().unwrap();
        let key = SshPublicKey::new(sk.key_data("ssh:")).unwrap();
        std::fs::write(dir.path().join("allowed"), format!("alice {key}\n")).unwrap();
        std::fs::write(dir.path().join("sig"), sk.sign("ssh:", 1)).unwrap();
        let namespace = Act::Approve.namespace();
        let args = ["-Y", "verify", "-f", "allowed", "-I", "alice", "-n", namespace, "-s", "sig"];
        assert!(ssh_keygen(dir.path(), &args, DOCUMENT).status.success());
        assert!(!ssh_keygen(dir.path(), &args, b"other").status.success());
    }
}
