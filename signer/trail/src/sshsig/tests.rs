//! Signatures and keys are made by the real `ssh-keygen`.

use super::key::RSA_EXPONENT;
use super::*;
use ssh_key::LineEnding;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

pub(super) const DOCUMENT: &[u8] = b"{\"action\":\"rotate\"}";

/// Runs `ssh-keygen` in a folder and gives its output.
pub(super) fn ssh_keygen(dir: &Path, args: &[&str], input: &[u8]) -> std::process::Output {
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

fn stdout(output: std::process::Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A key in a folder of its own.
struct Person {
    dir: tempfile::TempDir,
    line: String,
}

impl Person {
    fn new(kind: &str, bits: &str) -> Person {
        let dir = tempfile::tempdir().unwrap();
        let args = ["-q", "-t", kind, "-b", bits, "-N", "", "-C", "alice@host", "-f", "key"];
        stdout(ssh_keygen(dir.path(), &args, b""));
        let file = std::fs::read_to_string(dir.path().join("key.pub")).unwrap();
        Person { line: file.strip_suffix('\n').unwrap().to_owned(), dir }
    }

    fn key(&self) -> SshPublicKey {
        SshPublicKey::parse(&self.line).unwrap()
    }

    fn sign(&self, namespace: &str, hash: &str) -> String {
        let hash = format!("hashalg={hash}");
        let args = ["-q", "-Y", "sign", "-f", "key", "-n", namespace, "-O", &hash];
        stdout(ssh_keygen(self.dir.path(), &args, DOCUMENT))
    }
}

fn accepted_people() -> [Person; 3] {
    [Person::new("ed25519", "256"), Person::new("ecdsa", "256"), Person::new("rsa", "3072")]
}

#[test]
fn signatures_of_ssh_keygen_hold() {
    for person in accepted_people() {
        let key = person.key();
        for hash in ["sha256", "sha512"] {
            let armored = person.sign(Act::Approve.namespace(), hash);
            let verify = |act, document| verify_sshsig(&armored, &key, act, document);
            assert_eq!(verify(Act::Approve, DOCUMENT), Ok(Verified { security_key: None }));
            assert_eq!(verify(Act::Approve, b"other"), Err(SshSigError::Signature));
            assert_eq!(
                verify(Act::Reject, DOCUMENT),
                Err(SshSigError::OtherNamespace { expected: Act::Reject, found: Act::Approve })
            );
        }
    }
}

#[test]
fn a_signature_of_another_person_is_refused() {
    for kind in ["ed25519", "ecdsa"] {
        let (alice, bob) = (Person::new(kind, "256"), Person::new(kind, "256"));
        let armored = alice.sign(Act::Genesis.namespace(), "sha512");
        let signature = SshSignature::parse(&armored).unwrap();
        assert_eq!(signature.key(), &alice.key());
        assert_eq!(signature.act(), Act::Genesis);
        assert_eq!(signature.verify(&bob.key(), Act::Genesis, DOCUMENT), Err(SshSigError::OtherKey));
        // Bob's key written over Alice's: well-formed, and false.
        let mut blob = unarmor(&armored).unwrap();
        let at = blob.windows(32).position(|w| w == &alice.key().blob[alice.key().blob.len() - 32..]);
        let (at, bobs) = (at.unwrap() + 32, bob.key().blob);
        let start = at - bobs.len();
        blob[start..at].copy_from_slice(&bobs);
        assert_eq!(verify_sshsig(&armor(&blob), &bob.key(), Act::Genesis, DOCUMENT), Err(SshSigError::Signature));
    }
}

#[test]
fn other_namespaces_are_refused() {
    let person = Person::new("ed25519", "256");
    for namespace in ["file", "approve@countersign.example", "approve", "Approve@countersign"] {
        let armored = person.sign(namespace, "sha512");
        assert_eq!(SshSignature::parse(&armored).unwrap_err(), SshSigError::UnknownNamespace(namespace.to_owned()));
    }
    for act in Act::ALL {
        assert_eq!(Act::from_namespace(act.namespace()), Some(act));
    }
}

#[test]
fn fingerprint_and_text_are_those_of_openssh() {
    for person in accepted_people() {
        let key = person.key();
        let listed = stdout(ssh_keygen(person.dir.path(), &["-l", "-f", "key.pub"], b""));
        assert_eq!(listed.split(' ').nth(1), Some(key.fingerprint().as_str()));
        assert_eq!(format!("{key} alice@host"), person.line);
        assert_eq!(SshPublicKey::parse(&key.to_string()), Ok(key.clone()));
        let json = serde_json::to_string(&key).unwrap();
        assert_eq!(serde_json::from_str::<SshPublicKey>(&json).unwrap(), key);
        let commented = serde_json::to_string(&person.line).unwrap();
        assert!(serde_json::from_str::<SshPublicKey>(&commented).is_err());
    }
}

#[test]
fn weak_and_unknown_keys_are_refused() {
    let refused = |kind, bits| SshPublicKey::parse(&Person::new(kind, bits).line).unwrap_err();
    assert_eq!(refused("rsa", "2048"), SshSigError::RsaBits(2_048));
    assert_eq!(refused("ecdsa", "384"), SshSigError::KeyKind);
    assert_eq!(refused("ecdsa", "521"), SshSigError::KeyKind);
    // A signature brings its key along, and that is checked as well.
    let short = Person::new("rsa", "2048").sign("head@countersign", "sha512");
    assert_eq!(SshSignature::parse(&short).unwrap_err(), SshSigError::RsaBits(2_048));
    let dsa = wire(&[b"ssh-dss", &[0x11; 128], &[0x11; 20], &[0x11; 128], &[0x11; 128]]);
    let line = format!("ssh-dss {}", base64::std_encode(&dsa));
    assert_eq!(SshPublicKey::parse(&line), Err(SshSigError::KeyKind));
    for (len, first, bits) in [(384, 0x7f, 3_071), (1_025, 0x01, 8_193)] {
        let mut modulus = vec![0xff; len];
        modulus[0] = first;
        let line = base64::std_encode(&wire(&[b"ssh-rsa", &RSA_EXPONENT, &modulus]));
        let result = SshPublicKey::parse(&format!("ssh-rsa {line}"));
        assert_eq!(result, Err(SshSigError::RsaBits(bits)));
    }
    let mut modulus = vec![0; 385];
    modulus[1..].fill(0xff);
    for exponent in [&[3][..], &[1], &[1, 0, 3], &[0x01, 0, 0, 0, 1]] {
        let rsa = wire(&[b"ssh-rsa", exponent, &modulus]);
        let line = format!("ssh-rsa {}", base64::std_encode(&rsa));
        assert_eq!(SshPublicKey::parse(&line), Err(SshSigError::RsaExponent));
    }
    let weak = wire(&[b"ssh-ed25519", &[&[1][..], &[0; 31]].concat()]);
    let line = format!("ssh-ed25519 {}", base64::std_encode(&weak));
    assert_eq!(SshPublicKey::parse(&line), Err(SshSigError::KeyPoint(KeyError::Order)));
    let mut compressed = Person::new("ecdsa", "256").key().blob;
    compressed.truncate(compressed.len() - 32);
    let point = compressed.len() - 33;
    compressed[point] = 2;
    compressed[point - 1] = 33;
    let line = format!("ecdsa-sha2-nistp256 {}", base64::std_encode(&compressed));
    assert!(matches!(SshPublicKey::parse(&line), Err(SshSigError::KeyPoint(KeyError::RawLength { len: 33, .. }))));
}

/// Fields in SSH wire format, each with its length.
pub(super) fn wire(fields: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for field in fields {
        bytes.extend((field.len() as u32).to_be_bytes());
        bytes.extend_from_slice(field);
    }
    bytes
}

#[test]
fn other_key_lines_are_refused() {
    let person = Person::new("ed25519", "256");
    let key = person.key().to_string();
    let text = key.strip_prefix("ssh-ed25519 ").unwrap();
    let refused = [
        String::new(),
        "ssh-ed25519".to_owned(),
        "ssh-ed25519 ".to_owned(),
        format!("ssh-rsa {text}"),
        format!("ssh-ed25519  {text}"),
        format!(" {key}"),
        format!("restrict {key}"),
        format!("{key}\n"),
        format!("{key}\r"),
        format!("{key} comment\nsecond line"),
        format!("{key} \u{7f}"),
        format!("ssh-ed25519 {text}AAAA"),
        format!("ssh-ed25519 {}", &text[..text.len() - 4]),
        format!("{key} {}", "c".repeat(LINE_MAX)),
    ];
    for line in refused {
        assert_eq!(SshPublicKey::parse(&line), Err(SshSigError::KeyLine), "{line}");
    }
    assert_eq!(SshPublicKey::parse(&format!("{key} Ada L. ü")), Ok(person.key()));
}

#[test]
fn armor_has_one_spelling() {
    let person = Person::new("ed25519", "256");
    let armored = person.sign(Act::Head.namespace(), "sha512");
    let key = person.key();
    assert!(verify_sshsig(&armored, &key, Act::Head, DOCUMENT).is_ok());
    let body = armored.strip_prefix(BEGIN).unwrap().strip_suffix(END).unwrap();
    let text = body.replace('\n', "");
    let wrapped = |columns: usize| {
        let lines: Vec<&str> = text.as_bytes().chunks(columns).map(|c| std::str::from_utf8(c).unwrap()).collect();
        format!("{BEGIN}{}\n{END}", lines.join("\n"))
    };
    assert_eq!(wrapped(70), armored);
    let refused = [
        wrapped(64),
        wrapped(76),
        wrapped(text.len()),
        armored.replace('\n', "\r\n"),
        armored.trim_end().to_owned(),
        format!("{armored}\n"),
        format!("\n{armored}"),
        format!("{armored}{armored}"),
        format!("Comment: x\n{armored}"),
        armored.replacen(BEGIN, &format!("{BEGIN}\n"), 1),
        armored.replacen(END, &format!("\n{END}"), 1),
        armored.replacen("SSH SIGNATURE", "SSH  SIGNATURE", 2),
        format!("{BEGIN}{END}{}", " ".repeat(ARMOR_MAX)),
    ];
    for other in refused {
        let result = SshSignature::parse(&other).map(|_| ());
        assert_eq!(result, Err(SshSigError::Armor), "{other}");
    }
    assert_eq!(SshSignature::parse(&armor(b"")).unwrap_err(), SshSigError::Encoding);
}

/// A full last line is where implementations differ; the namespace's length moves the end there.
#[test]
fn armor_of_every_length_is_that_of_ssh_keygen() {
    let person = Person::new("ed25519", "256");
    let with_one = unarmor(&person.sign("n", "sha512")).unwrap().len();
    let mut full_lines = 0;
    for len in 1..=120 {
        let characters = (with_one - 1 + len).div_ceil(3) * 4;
        if characters.is_multiple_of(70) || len.is_multiple_of(40) {
            let armored = person.sign(&"n".repeat(len), "sha512");
            let blob = unarmor(&armored).unwrap();
            assert_eq!(blob.len(), with_one - 1 + len);
            let sig = SshSig::decode(&mut blob.as_slice()).unwrap();
            assert_eq!(sig.to_pem(LineEnding::LF).unwrap(), armored);
            full_lines += usize::from(characters.is_multiple_of(70));
        }
    }
    assert!(full_lines > 0);
}

#[test]
fn every_changed_bit_is_refused() {
    for person in accepted_people() {
        let key = person.key();
        let blob = unarmor(&person.sign(Act::Revoke.namespace(), "sha256")).unwrap();
        assert!(verify_sshsig(&armor(&blob), &key, Act::Revoke, DOCUMENT).is_ok());
        // One bit a byte for RSA, whose verification is slow when unoptimised.
        let bits = if key.algorithm() == "ssh-rsa" { 1 } else { 8 };
        for bit in 0..blob.len() * bits {
            let mut other = blob.clone();
            other[bit / bits] ^= 1 << (bit % bits);
            let result = verify_sshsig(&armor(&other), &key, Act::Revoke, DOCUMENT);
            assert!(result.is_err(), "{} bit {bit}", key.algorithm());
        }
        for len in 0..blob.len() {
            assert!(SshSignature::parse(&armor(&blob[..len])).is_err(), "length {len}");
        }
        let longer = [&blob[..], &[0]].concat();
        assert_eq!(SshSignature::parse(&armor(&longer)).unwrap_err(), SshSigError::Encoding);
    }
}

/// An SSHSIG made field by field, with every length right.
fn assemble(version: u32, key: &[u8], reserved: &[u8], hash: &str, signature: &[&[u8]]) -> String {
    let mut blob = b"SSHSIG".to_vec();
    blob.extend(version.to_be_bytes());
    let namespace = Act::Head.namespace().as_bytes();
    blob.extend(wire(&[key, namespace, reserved, hash.as_bytes(), &wire(signature)]));
    armor(&blob)
}

#[test]
fn fields_are_checked_one_by_one() {
    let person = Person::new("rsa", "3072");
    let key = person.key();
    let real = SshSignature::parse(&person.sign(Act::Head.namespace(), "sha512")).unwrap();
    let bytes = real.sig.signature_bytes();
    let make = |version, reserved: &[u8], hash: &str, signature: &[&[u8]]| {
        let armored = assemble(version, &key.blob, reserved, hash, signature);
        verify_sshsig(&armored, &key, Act::Head, DOCUMENT).map(|_| ())
    };
    let sha512: &[u8] = b"rsa-sha2-512";
    assert_eq!(make(1, b"", "sha512", &[sha512, bytes]), Ok(()));
    assert_eq!(make(0, b"", "sha512", &[sha512, bytes]), Err(SshSigError::Encoding));
    assert_eq!(make(2, b"", "sha512", &[sha512, bytes]), Err(SshSigError::Encoding));
    assert_eq!(make(1, b"x", "sha512", &[sha512, bytes]), Err(SshSigError::Encoding));
    assert_eq!(make(1, b"", "sha1", &[sha512, bytes]), Err(SshSigError::Encoding));
    assert_eq!(make(1, b"", "sha256", &[sha512, bytes]), Err(SshSigError::Signature));
    assert_eq!(make(1, b"", "sha512", &[b"rsa-sha2-256", bytes]), Err(SshSigError::Signature));
    for (other, error) in [
        (&b"ssh-rsa"[..], SshSigError::SignatureAlgorithm),
        (b"ssh-rsa-cert-v01@openssh.com", SshSigError::SignatureAlgorithm),
        (b"ecdsa-sha2-nistp256", SshSigError::Encoding),
        (b"rsa-sha2-1024", SshSigError::Encoding),
    ] {
        let result = make(1, b"", "sha512", &[other, bytes]);
        assert_eq!(result, Err(error), "{}", String::from_utf8_lossy(other));
    }
    let padded = [&[0][..], bytes].concat();
    assert_eq!(make(1, b"", "sha512", &[sha512, &padded]), Err(SshSigError::Signature));
    assert_eq!(make(1, b"", "sha512", &[sha512, bytes, b""]), Err(SshSigError::Encoding));
}

/// A signature whose number is small enough to lose its first byte: OpenSSH pads such a one, and it
/// would be a second spelling. Made once with ssh-keygen, since one in 256 is like that.
#[test]
fn an_rsa_signature_has_the_length_of_its_modulus() {
    let line = include_str!("testdata/rsa-leading-zero.pub");
    let armored = include_str!("testdata/rsa-leading-zero.sig");
    let document = include_bytes!("testdata/rsa-leading-zero.document");
    let key = SshPublicKey::parse(line).unwrap();
    let verify = |armored: &str| verify_sshsig(armored, &key, Act::Head, document).map(|_| ());
    assert_eq!(verify(armored), Ok(()));
    let real = SshSignature::parse(armored).unwrap();
    let (zero, short) = real.sig.signature_bytes().split_first().unwrap();
    assert_eq!(*zero, 0);
    let short = assemble(1, &key.blob, b"", "sha512", &[b"rsa-sha2-512", short]);
    assert_eq!(verify(&short), Err(SshSigError::Signature));
}

/// The module's documentation warns of this: both S hold, as they do for OpenSSH.
#[test]
fn an_ecdsa_signature_has_a_twin() {
    let person = Person::new("ecdsa", "256");
    let key = person.key();
    let real = SshSignature::parse(&person.sign(Act::Head.namespace(), "sha512")).unwrap();
    let signature = p256::ecdsa::Signature::try_from(real.sig.signature()).unwrap();
    let (r, s) = signature.split_scalars();
    let twin = p256::ecdsa::Signature::from_scalars(r, -s).unwrap();
    let twin = ssh_key::Signature::try_from(twin).unwrap();
    assert_ne!(twin.as_bytes(), real.sig.signature_bytes());
    let algorithm = b"ecdsa-sha2-nistp256";
    let armored = assemble(1, &key.blob, b"", "sha512", &[algorithm, twin.as_bytes()]);
    assert!(verify_sshsig(&armored, &key, Act::Head, DOCUMENT).is_ok());
}
