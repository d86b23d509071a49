use std::cell::Cell;

use super::*;
use crate::mac::create_mac_key;

const SERIAL: &str = "0a/1b c";

struct Token {
    dir: tempfile::TempDir,
    mac: MacKey,
    logins: Cell<u32>,
}

impl Token {
    fn new() -> Token {
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("mac.key");
        create_mac_key(&key).unwrap();
        let mac = MacKey::open(&key, SERIAL).unwrap();
        Token { dir, mac, logins: Cell::new(0) }
    }

    /// Presents `pin`; the token answers `outcome`.
    fn login(&self, pin: &str, outcome: LoginOutcome) -> Result<(), Halt> {
        let pin = pin.as_bytes().to_vec();
        login(
            self.dir.path(),
            SERIAL,
            &self.mac,
            || Ok(RawAuthPin::new(Box::new(pin))),
            |_| {
                self.logins.set(self.logins.get() + 1);
                outcome
            },
        )
    }

    fn state(&self) -> StateFile {
        Latch::lock(self.dir.path(), SERIAL).unwrap().load().unwrap()
    }
}

fn refused() -> LoginOutcome {
    LoginOutcome::PinRefused("CKR_PIN_INCORRECT".to_owned())
}

fn gone() -> LoginOutcome {
    LoginOutcome::Failed(Halt::replace(HsmError::new(Reason::HsmUnavailable, "gone")))
}

#[test]
fn a_refused_pin_is_never_presented_again() {
    let token = Token::new();
    let halt = token.login("1234", refused()).unwrap_err();
    assert!(halt.latched);
    assert_eq!(halt.error.reason(), Reason::PinLatched);
    // Not even another PIN: the operator must say that it was looked at.
    for pin in ["1234", "5678"] {
        let halt = token.login(pin, LoginOutcome::LoggedIn).unwrap_err();
        assert!(halt.latched);
    }
    assert_eq!(token.logins.get(), 1);
}

#[test]
fn an_attempt_that_never_returned_latches_an_unproven_pin() {
    let token = Token::new();
    let crash = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        login(
            token.dir.path(),
            SERIAL,
            &token.mac,
            || Ok(RawAuthPin::new(Box::new(b"1234".to_vec()))),
            |_| panic!("the module crashed"),
        )
    }));
    assert!(crash.is_err());
    assert_eq!(token.state().state, State::Pending);
    assert!(token.login("1234", LoginOutcome::LoggedIn).unwrap_err().latched);
    assert_eq!(token.logins.get(), 0);
}

#[test]
fn an_unproven_pin_is_presented_once_whatever_failed() {
    let token = Token::new();
    assert!(token.login("1234", gone()).unwrap_err().latched);
    assert!(token.login("1234", LoginOutcome::LoggedIn).unwrap_err().latched);
    assert_eq!(token.logins.get(), 1);
}

#[test]
fn a_proven_pin_survives_other_errors_and_latches_on_a_refusal() {
    let token = Token::new();
    token.login("1234", LoginOutcome::LoggedIn).unwrap();
    assert_eq!(token.state().state, State::Proven);
    for _ in 0..3 {
        assert!(!token.login("1234", gone()).unwrap_err().latched);
    }
    token.login("1234", LoginOutcome::LoggedIn).unwrap();
    assert!(token.login("1234", refused()).unwrap_err().latched);
    assert!(token.login("1234", LoginOutcome::LoggedIn).unwrap_err().latched);
    assert_eq!(token.logins.get(), 6);
}

#[test]
fn another_pin_than_the_proven_one_is_unproven() {
    let token = Token::new();
    token.login("1234", LoginOutcome::LoggedIn).unwrap();
    assert!(token.login("5678", gone()).unwrap_err().latched);
    assert!(token.login("1234", LoginOutcome::LoggedIn).unwrap_err().latched);
}

#[test]
fn the_file_holds_no_bare_hash_of_the_pin() {
    let token = Token::new();
    token.login("1234", LoginOutcome::LoggedIn).unwrap();
    let proof = token.state().proof.unwrap();
    assert_eq!(proof, hex(&token.mac.pin(b"1234").unwrap()));
    let bare = countersign_trail::hash::Hash::of(b"1234").to_string();
    let path = files::of_serial(token.dir.path(), SERIAL, "pin");
    let text = std::fs::read_to_string(path).unwrap();
    assert!(!text.contains(&bare) && !text.contains("1234\""));
}

#[test]
fn pin_clear_undoes_a_latch_once_and_leaves_a_mark() {
    let token = Token::new();
    let dir = token.dir.path();
    assert_eq!(pin_clear(dir, SERIAL).unwrap(), PinClear::NothingToClear);
    token.login("1234", refused()).unwrap_err();
    assert_eq!(pin_clear(dir, SERIAL).unwrap(), PinClear::Cleared);
    assert_eq!(pin_clear(dir, SERIAL).unwrap(), PinClear::NothingToClear);
    assert!(pin_cleared_marker(dir, SERIAL).unwrap());
    token.login("5678", LoginOutcome::LoggedIn).unwrap();
    assert!(pin_cleared_marker(dir, SERIAL).unwrap(), "a login keeps the mark");
    consume_pin_cleared_marker(dir, SERIAL).unwrap();
    assert!(!pin_cleared_marker(dir, SERIAL).unwrap());
    assert_eq!(token.state().state, State::Proven);
}

#[test]
fn a_damaged_state_latches_until_it_is_cleared() {
    let token = Token::new();
    let path = files::of_serial(token.dir.path(), SERIAL, "pin");
    for text in ["", "{", "{\"v\":1}", "[]"] {
        std::fs::write(&path, text).unwrap();
        let halt = token.login("1234", LoginOutcome::LoggedIn).unwrap_err();
        assert!(halt.latched);
        assert_eq!(halt.error.reason(), Reason::PinState);
    }
    assert_eq!(token.logins.get(), 0);
    assert_eq!(pin_clear(token.dir.path(), SERIAL).unwrap(), PinClear::Cleared);
    token.login("1234", LoginOutcome::LoggedIn).unwrap();
}

/// The folder may belong to workers with a user of their own, and pin-clear be run by root.
#[test]
fn nothing_in_the_folder_leads_elsewhere() {
    let token = Token::new();
    token.login("1234", refused()).unwrap_err();
    let elsewhere = token.dir.path().join("elsewhere");
    std::fs::write(&elsewhere, "as it was").unwrap();
    let at = |extension: &str| files::of_serial(token.dir.path(), SERIAL, extension);
    std::os::unix::fs::symlink(&elsewhere, at("pin.tmp")).unwrap();
    assert_eq!(pin_clear(token.dir.path(), SERIAL).unwrap(), PinClear::Cleared);
    for name in ["pin", "pin.lock"] {
        std::fs::remove_file(at(name)).unwrap();
        std::os::unix::fs::symlink(&elsewhere, at(name)).unwrap();
        assert_eq!(pin_cleared_marker(token.dir.path(), SERIAL).unwrap_err().reason(), Reason::PinState);
    }
    assert_eq!(std::fs::read_to_string(&elsewhere).unwrap(), "as it was");
}

#[test]
fn an_unreadable_pin_is_no_attempt() {
    let token = Token::new();
    let none = || Err(HsmError::new(Reason::PinUnreadable, "gone"));
    let halt = login(token.dir.path(), SERIAL, &token.mac, none, |_| LoginOutcome::LoggedIn);
    assert!(!halt.unwrap_err().latched);
    token.login("1234", LoginOutcome::LoggedIn).unwrap();
}
