//! The token, the shared folder, the client process and the client in it.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use countersign_faulty_transcript::{ENV_DIR, ENV_MODULE, find_library, find_softhsm};
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::eddsa::{EddsaParams, EddsaSignatureScheme};
use cryptoki::object::{Attribute, AttributeType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::AuthPin;
use tempfile::TempDir;

/// Which part of its test a client process plays; unset in the test itself.
const ENV_ROLE: &str = "FAULTY_MODULE_TEST_ROLE";
pub(crate) const PIN: &str = "pin-9f3c1d";
const SO_PIN: &str = "so-pin-77a0";
const LABEL: &str = "faulty";
/// No wait of these tests takes longer on a busy machine; beyond it something is broken.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// DER of the OID 1.3.101.112, Ed25519 (RFC 8410), which SoftHSM 2.6.1 takes as EC parameters.
const ED25519: [u8; 5] = [0x06, 0x03, 0x2b, 0x65, 0x70];
/// DER of the OID 1.2.840.10045.3.1.7, P-256 (RFC 5480).
const P256: [u8; 10] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];

/// The role that this process plays, if it is a client.
pub(crate) fn role() -> Option<String> {
    std::env::var(ENV_ROLE).ok()
}

/// Runs a test whose client processes all play the same role: `client` in one process of its own, then `judge`.
pub(crate) fn in_client(name: &str, client: impl FnOnce(), judge: impl FnOnce(&Bench)) {
    if role().is_some() {
        return client();
    }
    let bench = Bench::new(name);
    bench.run("client");
    judge(&bench);
}

/// A fresh token and shared folder, and the means to run clients on them.
pub(crate) struct Bench {
    folder: TempDir,
    test: String,
}

impl Bench {
    /// `test` is the path of the calling test: `concat!(module_path!(), "::", name)`.
    pub(crate) fn new(test: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let tokens = folder.path().join("tokens");
        std::fs::create_dir(&tokens).unwrap();
        std::fs::create_dir(folder.path().join("shared")).unwrap();
        let configuration = format!("directories.tokendir = {}\nlog.level = ERROR\n", tokens.display());
        std::fs::write(folder.path().join("softhsm2.conf"), configuration).unwrap();
        let made = Command::new("softhsm2-util")
            .args(["--init-token", "--free", "--label", LABEL, "--so-pin", SO_PIN, "--pin", PIN])
            .env("SOFTHSM2_CONF", folder.path().join("softhsm2.conf"))
            .output()
            .expect("softhsm2-util runs; install the package softhsm2");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let (_, test) = test.split_once("::").expect("a path with the crate in front");
        Self { folder, test: test.to_owned() }
    }

    /// The folder shared with the faulty module.
    pub(crate) fn dir(&self) -> PathBuf {
        self.folder.path().join("shared")
    }

    /// The command that runs this test as a client process.
    pub(crate) fn client(&self, role: &str) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", &self.test, "--nocapture"])
            .env(ENV_ROLE, role)
            .env(ENV_DIR, self.dir())
            .env(ENV_MODULE, find_softhsm().expect("SoftHSM's module; install the package softhsm2"))
            .env("SOFTHSM2_CONF", self.folder.path().join("softhsm2.conf"))
            .stdin(Stdio::null());
        command
    }

    /// Runs a client that must succeed, and returns what it printed.
    pub(crate) fn run(&self, role: &str) -> String {
        let output = self.client(role).output().unwrap();
        let printed = printed(&output);
        assert!(output.status.success(), "the client `{role}` failed ({}):\n{printed}", output.status);
        assert!(printed.contains("1 passed"), "no test has the name {}:\n{printed}", self.test);
        printed
    }

    /// Runs a client that must not succeed, and returns how it ended and what it printed.
    pub(crate) fn run_to_failure(&self, role: &str) -> (ExitStatus, String) {
        let output = self.client(role).output().unwrap();
        assert!(!output.status.success(), "the client `{role}` succeeded:\n{}", printed(&output));
        (output.status, printed(&output))
    }
}

fn printed(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Asks again until `ready` gives something.
pub(crate) fn wait_for<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(began.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The folder shared with the test, in a client process.
pub(crate) fn shared() -> PathBuf {
    PathBuf::from(std::env::var_os(ENV_DIR).unwrap())
}

/// Loads and initialises the faulty module.
pub(crate) fn initialized() -> Pkcs11 {
    let library = find_library().expect("cargo builds the library for the tests of its package");
    let pkcs11 = Pkcs11::new(library).unwrap();
    pkcs11.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).unwrap();
    pkcs11
}

/// The slot of the token.
pub(crate) fn slot(pkcs11: &Pkcs11) -> Slot {
    let slots = pkcs11.get_slots_with_initialized_token().unwrap();
    slots.into_iter().find(|slot| pkcs11.get_token_info(*slot).unwrap().label() == LABEL).unwrap()
}

pub(crate) fn pin() -> AuthPin {
    AuthPin::new(PIN.to_owned().into())
}

/// A logged-in session.
pub(crate) fn session() -> Session {
    let pkcs11 = initialized();
    let session = pkcs11.open_rw_session(slot(&pkcs11)).unwrap();
    session.login(UserType::User, Some(&pin())).unwrap();
    session
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Algorithm {
    Ed25519,
    P256,
}

impl Algorithm {
    pub(crate) fn mechanism(self) -> Mechanism<'static> {
        match self {
            Self::Ed25519 => Mechanism::Eddsa(EddsaParams::new(EddsaSignatureScheme::Pure)),
            Self::P256 => Mechanism::Ecdsa,
        }
    }
}

/// A key pair in the token.
pub(crate) struct Key {
    pub(crate) algorithm: Algorithm,
    pub(crate) private: ObjectHandle,
    pub(crate) public: ObjectHandle,
}

impl Key {
    pub(crate) fn generate(session: &Session, algorithm: Algorithm, id: &[u8], label: &str) -> Self {
        let (mechanism, parameters) = match algorithm {
            Algorithm::Ed25519 => (Mechanism::EccEdwardsKeyPairGen, ED25519.to_vec()),
            Algorithm::P256 => (Mechanism::EccKeyPairGen, P256.to_vec()),
        };
        let name = [Attribute::Token(true), Attribute::Id(id.to_vec()), Attribute::Label(label.as_bytes().to_vec())];
        let mut public = name.to_vec();
        public.extend([Attribute::EcParams(parameters), Attribute::Verify(true)]);
        let mut private = name.to_vec();
        private.extend([Attribute::Private(true), Attribute::Sensitive(true), Attribute::Sign(true)]);
        let (public, private) = session.generate_key_pair(&mechanism, &public, &private).unwrap();
        Self { algorithm, private, public }
    }

    /// A key made by another process.
    pub(crate) fn find(session: &Session, algorithm: Algorithm, id: &[u8]) -> Self {
        let find = |class| {
            let found = session.find_objects(&[Attribute::Class(class), Attribute::Id(id.to_vec())]).unwrap();
            assert_eq!(found.len(), 1, "one object has the id");
            found[0]
        };
        Self { algorithm, private: find(ObjectClass::PRIVATE_KEY), public: find(ObjectClass::PUBLIC_KEY) }
    }

    pub(crate) fn sign(&self, session: &Session, input: &[u8]) -> Result<Vec<u8>, Error> {
        session.sign(&self.algorithm.mechanism(), self.private, input)
    }

    /// The public point, out of the OCTET STRING that SoftHSM wraps it in.
    pub(crate) fn point(&self, session: &Session) -> Vec<u8> {
        let attributes = session.get_attributes(self.public, &[AttributeType::EcPoint]).unwrap();
        let [Attribute::EcPoint(wrapped)] = attributes.as_slice() else { panic!("no point: {attributes:?}") };
        assert_eq!(wrapped[..2], [0x04, u8::try_from(wrapped.len() - 2).unwrap()], "a short OCTET STRING");
        wrapped[2..].to_vec()
    }
}

/// Whether a signature verifies, judged by software that has nothing to do with the token.
pub(crate) fn verifies(algorithm: Algorithm, point: &[u8], input: &[u8], signature: &[u8]) -> bool {
    match algorithm {
        Algorithm::Ed25519 => {
            let key = ed25519_dalek::VerifyingKey::from_bytes(point.try_into().unwrap()).unwrap();
            key.verify_strict(input, &ed25519_dalek::Signature::from_slice(signature).unwrap()).is_ok()
        }
        Algorithm::P256 => {
            use p256::ecdsa::signature::hazmat::PrehashVerifier;
            let key = p256::ecdsa::VerifyingKey::from_sec1_bytes(point).unwrap();
            p256::ecdsa::Signature::from_slice(signature).is_ok_and(|sig| key.verify_prehash(input, &sig).is_ok())
        }
    }
}

/// The return value of a refused call.
pub(crate) fn refusal<T: std::fmt::Debug>(result: Result<T, Error>) -> RvError {
    match result.unwrap_err() {
        Error::Pkcs11(rv, _) => rv,
        other => panic!("not a return value: {other}"),
    }
}

/// Whether any file of a folder holds these bytes.
pub(crate) fn any_file_holds(dir: &Path, needle: &[u8]) -> bool {
    let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    files.map(|path| std::fs::read(path).unwrap()).any(|bytes| bytes.windows(needle.len()).any(|w| w == needle))
}
