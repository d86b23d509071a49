//! SSH public keys and armored signatures, beside the ssh-key crate.
#![no_main]

use std::sync::OnceLock;

use countersign_fuzz::{genuine, root, seed, text, texts, vectors};
use countersign_trail::sshsig::{Act, SshPublicKey, SshSignature};
use libfuzzer_sys::fuzz_target;
use ssh_key::{HashAlg, LineEnding, PublicKey, SshSig};

/// The genesis document of the vectors, and the keys that signed it.
fn signers() -> &'static (String, Vec<SshPublicKey>) {
    static SIGNERS: OnceLock<(String, Vec<SshPublicKey>)> = OnceLock::new();
    SIGNERS.get_or_init(|| {
        let vectors = vectors("documents");
        let lines = texts(&vectors, "signatures", "ssh_key");
        (text(&vectors["genesis"]).to_owned(), lines.iter().map(|line| line.parse().unwrap()).collect())
    })
}

fn is_signature(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|text| SshSignature::parse(text).is_ok())
}

fn is_key(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|text| SshPublicKey::parse(text).is_ok())
}

fn seeds() {
    let vectors = vectors("documents");
    genuine(texts(&vectors, "signatures", "armor"), is_signature);
    let lines = texts(&vectors, "signatures", "ssh_key");
    genuine(lines.iter().map(|line| format!("{line} a comment")), is_key);
    genuine(lines, is_key);
    let rsa = root().join("signer/trail/src/sshsig/testdata");
    let read = |name: &str| std::fs::read(rsa.join(name)).unwrap();
    seed(["rsa-leading-zero.pub", "rsa-leading-zero.sig"].map(read));
}

fuzz_target!(init: seeds(), |text: &str| {
    if let Ok(key) = SshPublicKey::parse(text) {
        let line = key.to_string();
        assert_eq!(line.parse::<SshPublicKey>().as_ref(), Ok(&key));
        let comment = text.strip_prefix(&line).expect("the line begins with its one spelling");
        assert!(comment.is_empty() || comment.starts_with(' '));
        let theirs = PublicKey::from_openssh(&line).expect("the ssh-key crate takes what we take");
        assert_eq!(theirs.fingerprint(HashAlg::Sha256).to_string(), key.fingerprint());
        assert_eq!(theirs.algorithm().as_str(), key.algorithm());
    }
    if let Ok(signature) = SshSignature::parse(text) {
        let theirs = SshSig::from_pem(text).expect("the ssh-key crate takes what we take");
        assert_eq!(theirs.to_pem(LineEnding::LF).unwrap(), text);
        assert_eq!(Act::from_namespace(theirs.namespace()), Some(signature.act()));
        let (genesis, keys) = signers();
        for key in keys {
            if signature.verify(key, Act::Genesis, genesis.as_bytes()).is_ok() {
                assert_eq!((signature.key(), signature.act()), (key, Act::Genesis));
            }
            let forged = Act::ALL.into_iter().find(|act| signature.verify(key, *act, b"another document").is_ok());
            assert_eq!(forged, None);
        }
    }
});
