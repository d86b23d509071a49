//! The folder of one appliance, from empty to sealed.

use std::fmt::Write as _;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::binaries::{Binaries, run};
use crate::pki::Authority;

/// The administrators of every stage.
pub const ADMINISTRATORS: [&str; 4] = ["alice", "bob", "carol", "dave"];
/// The trust domain of every stage.
pub const DOMAIN: &str = "demo.example";
/// The other members of every stage: id, role, serial number of the certificate.
pub const MEMBERS: [(&str, &str, u64); 4] = [
    ("gateway-1", "gateway", 101),
    ("gateway-2", "gateway", 102),
    ("auditor-1", "auditor", 103),
    ("operator-1", "operator", 104),
];

/// A trail of the stage.
#[derive(Clone, Debug)]
pub struct Trail {
    /// Its name.
    pub origin: String,
    /// `record` or `batch`.
    pub mode: &'static str,
    /// `ed25519` or `ecdsa-p256`: of the record key in record mode, else of the checkpoint key.
    pub algorithm: &'static str,
}

impl Trail {
    /// A trail that is named after what it is.
    pub fn new(mode: &'static str, algorithm: &'static str) -> Trail {
        Trail { origin: format!("{DOMAIN}/{mode}/{algorithm}"), mode, algorithm }
    }
}

/// What a stage is made of.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its trails.
    pub trails: Vec<Trail>,
    /// The PKCS#11 module of both tokens.
    pub module: PathBuf,
    /// Environment of the daemon and of its ceremony, beside SOFTHSM2_CONF.
    pub environment: Vec<(String, String)>,
    /// Worker processes of the record token.
    pub workers: u16,
    /// Further lines of the configuration (whole tables).
    pub configuration: String,
    /// Further lines of both tokens' tables.
    pub token_lines: String,
    /// Further lines of `[listen]`.
    pub listen_lines: String,
    /// What starts `countersignd`: a program and its arguments, which stand before the daemon's own
    /// command. Empty: nothing.
    pub launcher: Vec<String>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            trails: vec![Trail::new("batch", "ed25519"), Trail::new("record", "ecdsa-p256")],
            module: PathBuf::from("/usr/lib/softhsm/libsofthsm2.so"),
            environment: Vec::new(),
            workers: 2,
            configuration: String::new(),
            token_lines: String::new(),
            listen_lines: String::new(),
            launcher: Vec::new(),
        }
    }
}

/// A sealed appliance.
pub struct Stage {
    /// Its folder.
    pub folder: PathBuf,
    /// The genesis fingerprint.
    pub fingerprint: String,
    /// Port of the gRPC listener.
    pub port: u16,
    /// Port of the operations listener.
    pub operations_port: u16,
    /// The programs.
    pub binaries: Binaries,
    /// What it is made of.
    pub options: Options,
    /// The certification authority of its members.
    pub authority: Authority,
}

/// A loopback port that is free now.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

impl Stage {
    /// Sets the stage in `folder`, which is made anew: tokens, certificates, people, plan, init,
    /// signatures, seal. `say` hears what is being done.
    pub fn set(folder: &Path, binaries: Binaries, options: Options, say: &mut dyn FnMut(&str)) -> Result<Stage> {
        let mut stage = Stage::prepare(folder, binaries, options, say)?;
        stage.hold_ceremony(say)?;
        Ok(stage)
    }

    /// The stage up to the ceremony plan: tokens, certificates, people, configuration, plan.
    pub fn prepare(folder: &Path, binaries: Binaries, options: Options, say: &mut dyn FnMut(&str)) -> Result<Stage> {
        fs::create_dir_all(folder)?;
        let folder = folder.canonicalize()?;
        say("making two SoftHSM tokens with different PINs");
        let provision = concat!(env!("CARGO_MANIFEST_DIR"), "/../hsm-config/softhsm2/provision.sh");
        run(Command::new("sh").arg(provision).arg(folder.join("hsm")))?;
        say("making a private CA and certificates");
        let authority = certificates(&folder.join("tls"))?;
        say("making the administrators' SSH keys");
        for person in ADMINISTRATORS {
            let key = folder.join("people").join(person);
            fs::create_dir_all(folder.join("people"))?;
            run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", person, "-f"]).arg(&key))?;
        }
        let stage = Stage {
            fingerprint: String::new(),
            port: free_port()?,
            operations_port: free_port()?,
            folder,
            binaries,
            options,
            authority,
        };
        say("writing the ceremony plan");
        let at = |name: &str| stage.folder.join(name);
        fs::write(at("ceremony.toml"), stage.ceremony_file()?)?;
        stage.write_configuration()?;
        let mut plan = stage.binaries.command("countersign");
        plan.args(["ceremony", "plan", "--file"]).arg(at("ceremony.toml"));
        run(plan.arg("--out").arg(at("plan.json")))?;
        Ok(stage)
    }

    /// From the plan to the sealed appliance: init, signatures, seal, everybody's profile.
    pub fn hold_ceremony(&mut self, say: &mut dyn FnMut(&str)) -> Result<()> {
        let at = |name: &str| self.folder.join(name);
        say("countersignd init: the HSM makes the keys");
        run(self.countersignd(&["init"]).arg("--plan").arg(at("plan.json")).arg("--out").arg(at("genesis.json")))?;
        say("all four administrators sign the genesis document");
        let mut seal = self.countersignd(&["seal"]);
        seal.arg("--genesis").arg(at("genesis.json"));
        for person in ADMINISTRATORS {
            let signature = at(&format!("genesis.json.{person}.sig"));
            let mut sign = self.binaries.command("countersign");
            sign.args(["ceremony", "sign"]).arg(at("genesis.json")).arg("--plan").arg(at("plan.json"));
            run(sign
                .arg("--key")
                .arg(at("people").join(person))
                .arg("--out")
                .arg(&signature)
                .args(["--yes", "--force"]))?;
            seal.arg("--signature").arg(format!("{person}={}", signature.display()));
        }
        say("countersignd seal: the appliance is open");
        let sealed = run(&mut seal)?;
        self.fingerprint = String::from_utf8(sealed.stdout)?.trim().to_owned();
        fs::write(self.folder.join("genesis.fingerprint"), format!("{}\n", self.fingerprint))?;
        self.write_configuration()?;
        self.write_profiles()
    }

    /// The ceremony file, as people would write it.
    fn ceremony_file(&self) -> Result<String> {
        let mut text = format!(
            "instance = \"quickstart\"\nadmin_trail = \"{DOMAIN}/admin\"\nadmin_algorithm = \"ed25519\"\nevidence_algorithm = \"ed25519\"\napprovals = 2\nclient_roots = [\"tls/ca.pem\"]\n\n"
        );
        text += &fs::read_to_string(self.folder.join("hsm/serials.toml")).context("the tokens' serial numbers")?;
        for trail in &self.options.trails {
            let (mode, algorithm) = (trail.mode, trail.algorithm);
            write!(
                text,
                "[[trails]]\norigin = \"{}\"\nmode = \"{mode}\"\ncheckpoint_algorithm = \"{algorithm}\"\n",
                trail.origin
            )?;
            if mode == "record" {
                writeln!(text, "record_algorithm = \"{algorithm}\"")?;
            }
            text += "\n";
        }
        for person in ADMINISTRATORS {
            write!(
                text,
                "[[members]]\nid = \"{person}\"\nname = \"{person}\"\nrole = \"administrator\"\nspiffe_ids = [\"spiffe://{DOMAIN}/{person}\"]\nssh_key_files = [\"people/{person}.pub\"]\n\n"
            )?;
        }
        let grants: Vec<String> = self.options.trails.iter().map(|trail| format!("\"{}\"", trail.origin)).collect();
        for (id, role, _) in MEMBERS {
            write!(
                text,
                "[[members]]\nid = \"{id}\"\nname = \"{id}\"\nrole = \"{role}\"\nspiffe_ids = [\"spiffe://{DOMAIN}/{id}\"]\n"
            )?;
            if role == "gateway" {
                writeln!(text, "grants = [{}]", grants.join(", "))?;
            }
            text += "\n";
        }
        Ok(text)
    }

    /// Writes the daemon's configuration, as far as the ceremony has come.
    pub fn write_configuration(&self) -> Result<()> {
        fs::write(self.folder.join("countersignd.toml"), self.configuration()?).context("countersignd.toml")
    }

    /// The daemon's configuration.
    pub fn configuration(&self) -> Result<String> {
        let at = |name: &str| self.folder.join(name).display().to_string();
        let mut text = format!("data_dir = {:?}\nhead_dir = {:?}\n", at("data"), at("heads"));
        if !self.fingerprint.is_empty() {
            writeln!(text, "genesis = \"{}\"", self.fingerprint)?;
        }
        for (role, workers) in [("record", self.options.workers), ("admin", 1)] {
            let serial = self.serial(role)?;
            write!(
                text,
                "\n[{role}_token]\nmodule = {:?}\nlabel = \"countersign-{role}\"\nserial = \"{serial}\"\npin_file = {:?}\nmac_key_file = {:?}\nstate_dir = {:?}\nsync_dir = {:?}\nworkers = {workers}\n{}\n",
                self.options.module.display().to_string(),
                at(&format!("hsm/pins/{role}.pin")),
                at(&format!("hsm/pins/{role}.mac")),
                at("hsm/pin-state"),
                at("hsm/tokens"),
                self.options.token_lines,
            )?;
        }
        write!(
            text,
            "\n[listen]\ngrpc = \"127.0.0.1:{}\"\noperations = \"127.0.0.1:{}\"\n{}\n\n[tls]\ncertificate = {:?}\nkey = {:?}\ncrls = [{:?}]\nreload_seconds = 1\n\n{}",
            self.port,
            self.operations_port,
            self.options.listen_lines,
            at("tls/server.pem"),
            at("tls/server.key"),
            at("tls/revoked.crl"),
            self.options.configuration
        )?;
        Ok(text)
    }

    /// The serial number of a token.
    pub fn serial(&self, role: &str) -> Result<String> {
        let text = fs::read_to_string(self.folder.join("hsm/serials.toml"))?;
        let (_, table) = text.split_once(&format!("[tokens.{role}]")).context("serials.toml lacks a token")?;
        let line =
            table.lines().find_map(|line| line.strip_prefix("serial = ")).context("serials.toml lacks a serial")?;
        Ok(line.trim_matches('"').to_owned())
    }

    fn write_profiles(&self) -> Result<()> {
        let members = MEMBERS.iter().map(|(id, _, _)| *id).chain(ADMINISTRATORS);
        for id in members {
            let text = format!(
                "endpoint = \"https://localhost:{}\"\nca = \"tls/ca.pem\"\ncertificate = \"tls/{id}.pem\"\nkey = \"tls/{id}.key\"\ngenesis = \"{}\"\n",
                self.port, self.fingerprint
            );
            fs::write(self.profile(id), text)?;
        }
        Ok(())
    }

    /// The connection profile of a member.
    pub fn profile(&self, member: &str) -> PathBuf {
        self.folder.join(format!("{member}.profile.toml"))
    }

    /// A `countersignd` command with this stage's configuration and environment.
    pub fn countersignd(&self, arguments: &[&str]) -> Command {
        let program = self.binaries.path("countersignd");
        let mut command = match self.options.launcher.split_first() {
            None => Command::new(program),
            Some((launcher, arguments)) => {
                let mut command = Command::new(launcher);
                command.args(arguments).arg(program);
                command
            }
        };
        command.arg("--config").arg(self.folder.join("countersignd.toml")).args(arguments);
        command.env("SOFTHSM2_CONF", self.folder.join("hsm/softhsm2.conf"));
        command.envs(self.options.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// A `countersign` command as a member.
    pub fn countersign(&self, member: &str, arguments: &[&str]) -> Command {
        let mut command = self.binaries.command("countersign");
        command
            .env("COUNTERSIGN_PROFILE", self.profile(member))
            .env("XDG_STATE_HOME", self.folder.join("state"))
            .args(arguments);
        command
    }
}

/// The authority, the daemon's certificate, everybody else's, and an empty revocation list.
fn certificates(folder: &Path) -> Result<Authority> {
    let authority = Authority::create(folder, "quickstart CA")?;
    authority.server(folder, "server")?;
    for (id, _, serial) in MEMBERS {
        authority.client(folder, id, &format!("spiffe://{DOMAIN}/{id}"), serial)?;
    }
    for (person, serial) in ADMINISTRATORS.iter().zip(201..) {
        authority.client(folder, person, &format!("spiffe://{DOMAIN}/{person}"), serial)?;
    }
    authority.revocation_list(&folder.join("revoked.crl"), &[])?;
    Ok(authority)
}
