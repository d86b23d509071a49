//! A SoftHSM token in a folder of its own, and a pool on it.
#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use countersign_hsm::{
    GeneratedKey, KeyBinding, KeySpec, PinSource, Pool, PoolSpec, PoolState, SignItem, TokenConfig, WorkerCommand,
    create_mac_key,
};
use countersign_trail::checkpoint::Checkpoint;
use countersign_trail::hash::Hash;
use countersign_trail::id::InstanceId;
use countersign_trail::keys::{Algorithm, Kid, PublicKey};
use countersign_trail::origin::Origin;
use countersign_trail::signing::Purpose;
use tempfile::TempDir;
use tokio::time::timeout;

pub(crate) const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";
pub(crate) const LABEL: &str = "record";
pub(crate) const PIN: &str = "83641927";
pub(crate) const INSTANCE: &str = "acme-1";
/// Far beyond what any step takes; only a hang reaches it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// A fresh token, with its PIN file and MAC key.
pub(crate) struct Token {
    pub(crate) dir: TempDir,
    pub(crate) serial: String,
}

impl Token {
    pub(crate) fn new() -> Token {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("tokens")).unwrap();
        std::fs::create_dir(dir.path().join("state")).unwrap();
        let conf = format!(
            "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
            dir.path().join("tokens").display()
        );
        std::fs::write(dir.path().join("softhsm2.conf"), conf).unwrap();
        let mut token = Token { dir, serial: String::new() };
        token.util(&["--init-token", "--free", "--label", LABEL, "--pin", PIN, "--so-pin", "12345678"]);
        let shown = token.util(&["--show-slots"]);
        let serials = shown.lines().filter_map(|line| line.trim().strip_prefix("Serial number:"));
        token.serial = serials.map(str::trim).find(|serial| !serial.is_empty()).unwrap().to_owned();
        token.write_pin(PIN);
        create_mac_key(&token.path("mac.key")).unwrap();
        token
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write_pin(&self, pin: &str) {
        use std::os::unix::fs::PermissionsExt;
        std::fs::write(self.path("pin"), format!("{pin}\n")).unwrap();
        std::fs::set_permissions(self.path("pin"), PermissionsExt::from_mode(0o600)).unwrap();
    }

    pub(crate) fn util(&self, args: &[&str]) -> String {
        let output =
            Command::new("softhsm2-util").env("SOFTHSM2_CONF", self.path("softhsm2.conf")).args(args).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn config(&self) -> TokenConfig {
        TokenConfig {
            module: MODULE.into(),
            token_label: LABEL.to_owned(),
            token_serial: Some(self.serial.clone()),
            pin: PinSource::File(self.path("pin")),
            mac_key_file: self.path("mac.key"),
            state_dir: self.path("state"),
            sync_dir: Some(self.path("tokens")),
            workers: 2,
            sessions_per_worker: 2,
            call_deadline: Duration::from_secs(5),
            user: None,
        }
    }

    pub(crate) fn spec(&self, keys: Vec<KeyBinding>) -> PoolSpec {
        let conf = self.path("softhsm2.conf");
        PoolSpec {
            role: LABEL.to_owned(),
            instance: InstanceId::parse(INSTANCE).unwrap(),
            command: WorkerCommand {
                program: worker_program(),
                args: Vec::new(),
                envs: vec![("SOFTHSM2_CONF".into(), conf.into())],
            },
            token: self.config(),
            keys,
        }
    }

    pub(crate) fn start(&self, keys: Vec<KeyBinding>) -> Pool {
        Pool::start(self.spec(keys)).unwrap()
    }
}

/// An example that `cargo test` builds beside the tests.
pub(crate) fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let target = test.parent().and_then(Path::parent).unwrap();
    let program = target.join("examples").join(name);
    assert!(program.exists(), "build it: cargo build -p countersign-hsm --examples");
    program
}

pub(crate) fn worker_program() -> PathBuf {
    example("hsm_worker")
}

/// Waits for a state.
pub(crate) async fn until(pool: &Pool, what: &str, wanted: impl Fn(&PoolState) -> bool) -> PoolState {
    let mut state = pool.state();
    let reached = timeout(PATIENCE, state.wait_for(|state| wanted(state))).await;
    match reached {
        Ok(state) => state.unwrap().clone(),
        Err(_) => panic!("never {what}: {:?}", *pool.state().borrow()),
    }
}

pub(crate) async fn ready(pool: &Pool) {
    until(pool, "ready", |state| *state == PoolState::Ready).await;
}

pub(crate) async fn down(pool: &Pool) -> (countersign_hsm::Reason, bool) {
    match until(pool, "down", |state| matches!(state, PoolState::Down { .. })).await {
        PoolState::Down { reason, latched } => (reason.reason(), latched),
        other => panic!("{other:?}"),
    }
}

pub(crate) async fn generate(pool: &Pool, name: &str, algorithm: Algorithm) -> GeneratedKey {
    let time = "2026-01-02T03:04:05.000006Z".to_owned();
    let spec = KeySpec { instance: INSTANCE.to_owned(), name: name.to_owned(), algorithm, time };
    pool.generate(spec).await.unwrap()
}

pub(crate) fn trail() -> Origin {
    Origin::parse("acme.example/a").unwrap()
}

pub(crate) fn binding(key: &GeneratedKey) -> KeyBinding {
    KeyBinding {
        kid: key.kid,
        public_key: key.public_key.clone(),
        purpose: Purpose::Checkpoint,
        trail: Some(trail()),
        cka_id: key.cka_id.clone(),
    }
}

/// A token with one final checkpoint key.
pub(crate) async fn token_with_key(algorithm: Algorithm) -> (Token, KeyBinding) {
    let token = Token::new();
    let pool = token.start(Vec::new());
    ready(&pool).await;
    let key = generate(&pool, "acme.example/a/checkpoint", algorithm).await;
    pool.finalize_key(&key.cka_id, INSTANCE, "acme.example/a/checkpoint").await.unwrap();
    pool.shutdown().await;
    (token, binding(&key))
}

/// A checkpoint text of `size` whose root depends on `variant`.
pub(crate) fn checkpoint(size: u64, variant: u8) -> Vec<u8> {
    Checkpoint { origin: trail(), size, root: Hash::of(&[variant]) }.text().into()
}

pub(crate) fn item(kid: Kid, message: Vec<u8>) -> SignItem {
    SignItem { kid, message: message.into(), recovery: None }
}

pub(crate) fn verify(key: &KeyBinding, message: &[u8], signature: &[u8]) {
    PublicKey::from_spki_der(&key.public_key).unwrap().verify(message, signature).unwrap();
}
