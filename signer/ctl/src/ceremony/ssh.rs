//! `ssh-keygen` as a child process: it knows key files with passphrases, ssh-agent and security
//! keys, and asks its person on the terminal itself.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::exit::{Failure, Outcome, failed};

/// The program; the first on PATH.
const SSH_KEYGEN: &str = "ssh-keygen";

/// The fingerprint (`SHA256:…`) of a key file, private or public. Asks for no passphrase.
pub(crate) fn fingerprint(key: &Path) -> Outcome<String> {
    let output = Command::new(SSH_KEYGEN).args(["-l", "-E", "sha256", "-f"]).arg(key).stdin(Stdio::null()).output();
    let output = output.map_err(|error| not_started(&error))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let fingerprint = text.split_whitespace().find(|word| word.starts_with("SHA256:"));
    match fingerprint {
        Some(fingerprint) if output.status.success() => Ok(fingerprint.to_owned()),
        _ => {
            let problem = String::from_utf8_lossy(&output.stderr);
            let problem = problem.trim().trim_start_matches("ssh-keygen: ");
            Err(failed(format!("ssh-keygen cannot read the key {}: {problem}", key.display()))
                .todo("Give a private key file, or the .pub file of a key that ssh-agent or a security key holds."))
        }
    }
}

/// The armored SSHSIG of `document` in `namespace`.
///
/// The document goes through a pipe, so that the signed bytes are those that were decoded, whatever
/// becomes of the file meanwhile.
pub(crate) fn sign(key: &Path, namespace: &str, document: &[u8]) -> Outcome<String> {
    let mut child = Command::new(SSH_KEYGEN)
        .args(["-Y", "sign", "-n", namespace, "-f"])
        .arg(key)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| not_started(&error))?;
    // ssh-keygen reads all of its input before it writes, and it may end without reading it.
    let written = child.stdin.take().map(|mut stdin| stdin.write_all(document));
    let output = child.wait_with_output().map_err(|error| failed(format!("ssh-keygen: {error}")))?;
    if !output.status.success() {
        return Err(failed(format!("ssh-keygen did not sign with {} ({})", key.display(), output.status))
            .todo("Its own message stands above. For a key in ssh-agent, `ssh-add -l` must list it."));
    }
    if let Some(Err(error)) = written {
        return Err(failed(format!("ssh-keygen did not take the whole document: {error}")));
    }
    String::from_utf8(output.stdout).map_err(|_| failed("ssh-keygen wrote something that is not text"))
}

fn not_started(error: &std::io::Error) -> Failure {
    failed(format!("cannot start ssh-keygen: {error}"))
        .todo("Install the OpenSSH client (Debian: openssh-client), version 8.2 or later.")
}
