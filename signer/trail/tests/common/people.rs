//! People who sign with the real `ssh-keygen`.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use countersign_trail::id::MemberId;
use countersign_trail::sshsig::{Act, SshPublicKey};

/// A person with one SSH key in a folder of its own.
pub(crate) struct Person {
    pub(crate) id: MemberId,
    pub(crate) key: SshPublicKey,
    dir: tempfile::TempDir,
}

impl Person {
    /// A new person with a new key of `kind` (`ed25519` or `ecdsa`).
    pub(crate) fn new(id: &str, kind: &str) -> Person {
        let dir = tempfile::tempdir().unwrap();
        let args = ["-q", "-t", kind, "-N", "", "-C", id, "-f", "key"];
        ssh_keygen(dir.path(), &args, b"");
        let line = std::fs::read_to_string(dir.path().join("key.pub")).unwrap();
        Person { id: MemberId::parse(id).unwrap(), key: SshPublicKey::parse(line.trim_end_matches('\n')).unwrap(), dir }
    }

    /// The armored signature over `document` for `act`.
    pub(crate) fn sign(&self, act: Act, document: &[u8]) -> Vec<u8> {
        let args = ["-q", "-Y", "sign", "-f", "key", "-n", act.namespace()];
        ssh_keygen(self.dir.path(), &args, document)
    }
}

fn ssh_keygen(dir: &Path, args: &[&str], input: &[u8]) -> Vec<u8> {
    let output = run(dir, args, input);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Whether `ssh-keygen -Y verify` believes that `member` signed the genesis `document`; `dir` holds
/// `allowed_signers` and the signature in `armor`.
pub(crate) fn ssh_keygen_verify(dir: &Path, member: &str, document: &str) -> bool {
    let namespace = Act::Genesis.namespace();
    let args = ["-Y", "verify", "-f", "allowed_signers", "-I", member, "-n", namespace, "-s", "armor"];
    run(dir, &args, document.as_bytes()).status.success()
}

fn run(dir: &Path, args: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new("ssh-keygen")
        .args(args)
        .current_dir(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("these tests need ssh-keygen (package openssh-client)");
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}
