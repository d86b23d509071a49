//! Loads the module, finds the token, opens sessions, logs in.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use sha2::{Digest, Sha256};

use crate::config::{TokenConfig, TokenInfo};
use crate::error::{Halt, HsmError, Reason};
use crate::ladder::{self, Remedy};
use crate::latch::{self, LoginOutcome};
use crate::mac::MacKey;
use crate::pin::read_pin;

/// Most slots of a module that are looked at.
const MAX_SLOTS: usize = 4096;

/// One token of one loaded module.
pub(super) struct Token {
    module: Pkcs11,
    slot: Slot,
    pub(super) info: TokenInfo,
}

/// The end of a worker that follows from a failed call.
pub(super) fn halt(error: &Error) -> Halt {
    let (remedy, text) = ladder::judge(error);
    let error = ladder::failure(remedy, &text);
    Halt { error, latched: remedy == Remedy::LatchedDown }
}

impl Token {
    /// Loads and initialises the module and finds the token by label and serial.
    pub(super) fn open(config: &TokenConfig) -> Result<Token, Halt> {
        let load = |what: String| {
            let text = format!("module {}: {what}", config.module.display());
            Halt::replace(HsmError::new(Reason::ModuleLoad, text))
        };
        if !config.module.is_absolute() {
            return Err(load("not an absolute path".to_owned()));
        }
        let module_sha256 = sha256_of(&config.module).map_err(|error| load(error.to_string()))?;
        let module = Pkcs11::new(&config.module).map_err(|error| load(error.to_string()))?;
        if let Err(error) = module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
            let halt = halt(&error);
            let text = format!("module {}: {}", config.module.display(), halt.error.detail());
            return Err(Halt { error: HsmError::new(Reason::ModuleLoad, text), latched: halt.latched });
        }
        let (slot, mut info) = find(&module, config)?;
        info.module_sha256 = module_sha256;
        Ok(Token { module, slot, info })
    }

    /// A new read-write session.
    pub(super) fn open_session(&self) -> Result<Session, Halt> {
        self.try_open_session().map_err(|error| halt(&error))
    }

    /// As [`Token::open_session`], with the module's own error.
    pub(super) fn try_open_session(&self) -> Result<Session, Error> {
        self.module.open_rw_session(self.slot)
    }

    /// Logs the process in, through the PIN latch.
    pub(super) fn login(&self, session: &Session, config: &TokenConfig, mac: &MacKey) -> Result<(), Halt> {
        latch::login(
            &config.state_dir,
            &self.info.serial,
            mac,
            || read_pin(&config.pin),
            |pin| match session.login_with_raw(UserType::User, pin) {
                Ok(()) => LoginOutcome::LoggedIn,
                Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => LoginOutcome::Already,
                Err(Error::Pkcs11(rv, _)) if ladder::is_pin_error(rv) => LoginOutcome::PinRefused(format!("{rv:?}")),
                Err(error) => LoginOutcome::Failed(halt(&error)),
            },
        )
    }
}

fn find(module: &Pkcs11, config: &TokenConfig) -> Result<(Slot, TokenInfo), Halt> {
    let label = &config.token_label;
    let slots = module.get_slots_with_token().map_err(|error| halt(&error))?;
    // A slot that does not answer is another token's trouble.
    let labelled: Vec<(Slot, TokenInfo)> = slots
        .into_iter()
        .take(MAX_SLOTS)
        .filter_map(|slot| Some((slot, describe(module, slot)?)))
        .filter(|(_, info)| info.label == *label)
        .collect();
    if labelled.is_empty() {
        let text = format!("no token is labelled {label:?}");
        return Err(Halt::replace(HsmError::new(Reason::TokenMissing, text)));
    }
    let mismatch = |text: String| Halt::replace(HsmError::new(Reason::TokenMismatch, text));
    let found: Vec<String> = labelled.iter().map(|(_, info)| info.serial.clone()).collect();
    let mut wanted = labelled
        .into_iter()
        .filter(|(_, info)| config.token_serial.as_ref().is_none_or(|serial| info.serial == *serial));
    match (wanted.next(), wanted.next()) {
        (Some(token), None) => Ok(token),
        (None, _) => {
            let want = config.token_serial.as_deref().unwrap_or_default();
            Err(mismatch(format!("token {label:?} has serial {found:?}, configured is {want:?}")))
        }
        (Some(_), Some(_)) => {
            Err(mismatch(format!("several tokens are labelled {label:?}, serials {found:?}; configure the serial")))
        }
    }
}

fn describe(module: &Pkcs11, slot: Slot) -> Option<TokenInfo> {
    let info = module.get_token_info(slot).ok()?;
    let firmware = info.firmware_version();
    info.token_initialized().then(|| TokenInfo {
        serial: info.serial_number().to_owned(),
        label: info.label().to_owned(),
        model: info.model().to_owned(),
        manufacturer: info.manufacturer_id().to_owned(),
        firmware: format!("{}.{}", firmware.major(), firmware.minor()),
        module_sha256: String::new(),
    })
}

fn sha256_of(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(latch::hex(&hasher.finalize())),
            count => hasher.update(&buffer[..count]),
        }
    }
}
