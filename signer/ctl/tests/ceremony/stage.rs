//! A folder with a ceremony file, four people's SSH keys and a certification authority.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use countersign_trail::document::Plan;

use crate::common::Ceremony;

pub(crate) const PEOPLE: [&str; 4] = ["alice", "bob", "carol", "dan"];

/// Everything but the members.
const HEAD: &str = r#"
instance = "acme-1"
admin_trail = "acme.example/admin"
client_roots = ["ca.pem"]

[tokens.admin]
label = "countersign-admin"
serial = "0a"

[tokens.record]
label = "countersign-record"

[[trails]]
origin = "acme.example/metrics"
mode = "batch"

[[trails]]
origin = "acme.example/decisions"
mode = "record"
record_algorithm = "ecdsa-p256"

[[members]]
id = "gw-1"
name = "A gateway"
role = "gateway"
spiffe_ids = ["spiffe://acme.example/gw-1"]
grants = ["acme.example/metrics", "acme.example/decisions"]
"#;

pub(crate) struct Stage {
    dir: tempfile::TempDir,
}

impl Stage {
    /// The folder, with a ceremony file that holds every rule; `dan` comes before `alice` in it.
    pub(crate) fn new() -> Stage {
        let stage = Stage { dir: tempfile::tempdir().unwrap() };
        let kinds = ["ed25519", "ecdsa", "ed25519", "ed25519"];
        for (person, kind) in PEOPLE.iter().zip(kinds) {
            stage.tool("ssh-keygen", &["-q", "-t", kind, "-N", "", "-C", person, "-f", person]);
        }
        stage.write("ca.pem", certificate(true).as_bytes());
        stage.write("ceremony.toml", stage.ceremony_file(&["dan", "carol", "bob", "alice"]).as_bytes());
        stage
    }

    /// A ceremony file with these administrators.
    pub(crate) fn ceremony_file(&self, people: &[&str]) -> String {
        let mut text = HEAD.to_owned();
        for person in people {
            text.push_str(&format!(
                "\n[[members]]\nid = \"{person}\"\nname = \"The person {person}\"\nrole = \"administrator\"\n\
                 spiffe_ids = [\"spiffe://acme.example/{person}\"]\nssh_key_files = [\"{person}.pub\"]\n"
            ));
        }
        text
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.path(name), bytes).unwrap();
    }

    /// `countersign ARGS` in the folder.
    pub(crate) fn countersign(&self, args: &[&str]) -> Run {
        self.countersign_with(args, &[])
    }

    /// `countersign ARGS` in the folder, with these variables and no agent but theirs.
    pub(crate) fn countersign_with(&self, args: &[&str], variables: &[(&str, &Path)]) -> Run {
        let mut command = Command::new(env!("CARGO_BIN_EXE_countersign"));
        command.args(args).current_dir(self.dir.path()).env_remove("SSH_AUTH_SOCK");
        command.stdin(std::process::Stdio::null());
        for (name, value) in variables {
            command.env(name, value);
        }
        Run::of(command.output().unwrap())
    }

    /// Writes plan.json from ceremony.toml.
    pub(crate) fn plan(&self) -> Run {
        self.countersign(&[
            "ceremony",
            "plan",
            "--file",
            "ceremony.toml",
            "--out",
            "plan.json",
            "--record-serial",
            "0b",
        ])
    }

    /// Writes plan.json and the genesis.json that follows it, its keys made in software.
    pub(crate) fn genesis(&self) -> Ceremony {
        let run = self.plan();
        assert_eq!(run.code, 0, "{run:?}");
        let ceremony = Ceremony::of(Vec::new(), Plan::parse(&self.read("plan.json")).unwrap());
        self.write("genesis.json", &ceremony.genesis_bytes());
        ceremony
    }

    /// Runs another program in the folder; it must succeed.
    pub(crate) fn tool(&self, program: &str, args: &[&str]) -> Run {
        let output =
            Command::new(program).args(args).current_dir(self.dir.path()).stdin(std::process::Stdio::null()).output();
        let run = Run::of(output.unwrap_or_else(|error| panic!("these tests need {program}: {error}")));
        assert_eq!(run.code, 0, "{program} {args:?}: {run:?}");
        run
    }
}

/// A self-signed certificate in PEM.
pub(crate) fn certificate(authority: bool) -> String {
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    if authority {
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    }
    params.distinguished_name.push(rcgen::DnType::CommonName, "Clients of acme");
    params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem()
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    fn of(output: Output) -> Run {
        Run {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Standard output as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Checks that the command failed with `code`, and that its message holds every text.
    pub(crate) fn refused(&self, code: i32, texts: &[&str]) {
        assert_eq!(self.code, code, "{self:?}");
        for text in texts {
            assert!(self.stderr.contains(text), "{text:?} is not in {:?}", self.stderr);
        }
    }
}
