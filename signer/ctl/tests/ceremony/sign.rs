//! `ceremony sign` and `ceremony fingerprint`.

use std::path::Path;

use countersign_trail::document::Genesis;
use countersign_trail::hash::Hash;
use countersign_trail::sshsig::{Act, SshPublicKey, verify_sshsig};

use crate::stage::{PEOPLE, Run, Stage};

fn sign(stage: &Stage, more: &[&str]) -> Run {
    let args = [&["ceremony", "sign", "genesis.json", "--yes"], more].concat();
    stage.countersign(&args)
}

fn public_key(stage: &Stage, person: &str) -> SshPublicKey {
    let line = String::from_utf8(stage.read(&format!("{person}.pub"))).unwrap();
    SshPublicKey::parse(line.trim_end()).unwrap()
}

#[test]
fn everyone_signs_and_stock_openssh_verifies() {
    let stage = Stage::new();
    stage.genesis();
    let genesis = stage.read("genesis.json");
    let mut allowed = String::new();
    for person in PEOPLE {
        let run = sign(&stage, &["--plan", "plan.json", "--key", person]);
        assert_eq!(run.code, 0, "{run:?}");
        assert!(run.stderr.contains(&Hash::of(&genesis).to_string()), "{run:?}");
        assert!(run.stderr.contains(&format!("as {person} with the SSH key SHA256:")), "{run:?}");
        let armor = String::from_utf8(stage.read(&format!("genesis.json.{person}.sig"))).unwrap();
        verify_sshsig(&armor, &public_key(&stage, person), Act::Genesis, &genesis).unwrap();
        allowed.push_str(&format!("{person} {}\n", public_key(&stage, person)));
    }
    stage.write("allowed", allowed.as_bytes());
    for person in PEOPLE {
        let command = format!(
            "ssh-keygen -Y verify -f allowed -I {person} -n genesis@countersign -s genesis.json.{person}.sig < genesis.json"
        );
        stage.tool("sh", &["-c", &command]);
    }
}

#[test]
fn a_key_in_the_agent_signs() {
    let stage = Stage::new();
    stage.genesis();
    let socket = stage.path("agent.sock");
    let mut agent = std::process::Command::new("ssh-agent")
        .args(["-D", "-a"])
        .arg(&socket)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // It prints the socket's name once it listens there.
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(agent.stdout.take().unwrap()), &mut line).unwrap();
    let add = format!("SSH_AUTH_SOCK='{}' ssh-add -q carol", socket.display());
    stage.tool("sh", &["-c", &add]);
    std::fs::remove_file(stage.path("carol")).unwrap();
    let args = ["ceremony", "sign", "genesis.json", "--yes", "--plan", "plan.json", "--key", "carol.pub"];
    let without = stage.countersign(&args);
    without.refused(1, &["ssh-keygen did not sign with carol.pub", "ssh-add -l"]);
    let run = stage.countersign_with(&args, &[("SSH_AUTH_SOCK", &socket)]);
    agent.kill().unwrap();
    agent.wait().unwrap();
    assert_eq!(run.code, 0, "{run:?}");
    let armor = String::from_utf8(stage.read("genesis.json.carol.sig")).unwrap();
    verify_sshsig(&armor, &public_key(&stage, "carol"), Act::Genesis, &stage.read("genesis.json")).unwrap();
}

#[test]
fn the_person_is_found_by_the_key() {
    let stage = Stage::new();
    stage.genesis();
    stage.tool("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", "mallory"]);
    sign(&stage, &["--plan", "plan.json", "--key", "mallory"])
        .refused(1, &["no administrator", "alice, bob, carol, dan"]);
    sign(&stage, &["--plan", "plan.json", "--key", "alice", "--member", "bob"]).refused(64, &["is alice's, not bob's"]);
    sign(&stage, &["--key", "alice"]).refused(64, &["--plan", "--member"]);
    let run = sign(&stage, &["--key", "alice", "--member", "alice", "--out", "a.sig"]);
    assert_eq!(run.code, 0, "{run:?}");
    assert!(stage.path("a.sig").exists());
}

#[test]
fn a_signature_is_not_overwritten_and_nobody_signs_unasked() {
    let stage = Stage::new();
    stage.genesis();
    let args = ["ceremony", "sign", "genesis.json", "--plan", "plan.json", "--key", "alice"];
    stage.countersign(&args).refused(64, &["not a terminal", "--yes"]);
    assert!(!stage.path("genesis.json.alice.sig").exists());
    assert_eq!(sign(&stage, &["--plan", "plan.json", "--key", "alice"]).code, 0);
    sign(&stage, &["--plan", "plan.json", "--key", "alice"]).refused(1, &["genesis.json.alice.sig exists", "--force"]);
}

#[test]
fn a_genesis_that_is_not_the_plans_is_not_signed() {
    let stage = Stage::new();
    let ceremony = stage.genesis();
    let refused = |genesis: &Genesis, code, texts: &[&str]| {
        stage.write("genesis.json", &genesis.to_bytes().unwrap());
        sign(&stage, &["--plan", "plan.json", "--key", "alice"]).refused(code, texts);
        assert!(!Path::new(&stage.path("genesis.json.alice.sig")).exists());
    };
    let mut other = ceremony.genesis.clone();
    other.plan = Hash::of(b"another plan");
    refused(&other, 50, &["names plan", "Do not sign it"]);
    let mut fewer = ceremony.genesis.clone();
    fewer.keys.pop();
    refused(&fewer, 50, &["keys", "Do not sign it"]);
    let mut extractable = ceremony.genesis.clone();
    extractable.keys[0].attributes.insert("extractable".to_owned(), true);
    refused(&extractable, 50, &["extractable"]);
    let mut foreign = ceremony.genesis.clone();
    foreign.tokens[0].serial = "ff".to_owned();
    refused(&foreign, 50, &["token"]);
}

#[test]
fn the_fingerprint_is_the_hash_of_the_bytes() {
    let stage = Stage::new();
    let ceremony = stage.genesis();
    let run = stage.countersign(&["ceremony", "fingerprint", "genesis.json", "--plan", "plan.json"]);
    assert_eq!((run.code, run.stdout.as_str()), (0, format!("{}\n", ceremony.fingerprint).as_str()));
    let json = stage.countersign(&["ceremony", "fingerprint", "genesis.json", "--json"]).json();
    assert_eq!(json["fingerprint"], ceremony.fingerprint.to_string());
    let mut spaced = stage.read("genesis.json");
    spaced.push(b'\n');
    stage.write("genesis.json", &spaced);
    stage.countersign(&["ceremony", "fingerprint", "genesis.json"]).refused(50, &["canonical", "byte for byte"]);
}

#[test]
fn the_genesis_is_shown_with_every_key() {
    let stage = Stage::new();
    let ceremony = stage.genesis();
    let shown = stage.countersign(&["ceremony", "show", "genesis.json", "--plan", "plan.json"]);
    assert_eq!(shown.code, 0, "{shown:?}");
    for key in &ceremony.genesis.keys {
        assert!(shown.stdout.contains(&key.kid.to_string()), "{}", shown.stdout);
    }
    assert!(shown.stdout.contains("exactly what it asks for"), "{}", shown.stdout);
    let without = stage.countersign(&["ceremony", "show", "genesis.json"]);
    assert!(without.stdout.contains("not checked"), "{}", without.stdout);
}
