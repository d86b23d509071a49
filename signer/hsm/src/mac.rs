//! The MAC key of a token: made once at init, read by workers alone.
//!
//! ```text
//! intent  HMAC-SHA-256(key, "countersign/intent/v1\0" || token serial || intent digest (32 bytes))
//! pin     HMAC-SHA-256(key, "countersign/pin/v1\0" || u32 LE length of serial || serial || PIN)
//! mark    HMAC-SHA-256(key, "countersign/mark/v1\0" || u32 LE length of serial || serial || content)
//! ```

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use hmac::{Hmac, KeyInit, Mac};
use rustix::fs::OFlags;
use rustix::rand::{GetRandomFlags, getrandom};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::config::RecoveryProof;
use crate::error::{HsmError, Reason};
use crate::files;

/// Length of the key and of every MAC, in bytes.
pub const MAC_BYTES: usize = 32;
const INTENT_DOMAIN: &[u8] = b"countersign/intent/v1\0";
const PIN_DOMAIN: &[u8] = b"countersign/pin/v1\0";
const MARK_DOMAIN: &[u8] = b"countersign/mark/v1\0";

/// Makes the MAC key file: 32 random bytes, readable by the owner alone, durable on return.
///
/// # Errors
/// [`Reason::MacKey`] when the file exists already; it is never replaced, since every open intent
/// and the proven PIN hang on it. [`Reason::Io`] when it cannot be written.
pub fn create_mac_key(path: &Path) -> Result<(), HsmError> {
    let mut key = Zeroizing::new([0_u8; MAC_BYTES]);
    random(key.as_mut_slice())?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(|error| {
        let reason = match error.kind() {
            std::io::ErrorKind::AlreadyExists => Reason::MacKey,
            _ => Reason::Io,
        };
        HsmError::new(reason, format!("cannot make {}: {error}", path.display()))
    })?;
    file.write_all(key.as_slice())
        .and_then(|()| file.sync_all())
        .map_err(|error| files::io_error("write", path, &error))?;
    files::sync_parent(path)
}

/// Fills `bytes` from the system's random source.
pub(crate) fn random(bytes: &mut [u8]) -> Result<(), HsmError> {
    let mut filled = 0;
    while filled < bytes.len() {
        match getrandom(&mut bytes[filled..], GetRandomFlags::empty()) {
            Ok(count) => filled += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => {
                return Err(HsmError::new(Reason::Io, format!("no randomness: {error}")));
            }
        }
    }
    Ok(())
}

/// The MAC key of one token, in memory that is wiped.
pub(crate) struct MacKey {
    key: Zeroizing<[u8; MAC_BYTES]>,
    serial: String,
}

impl MacKey {
    /// Reads the key for the token `serial`.
    pub(crate) fn open(path: &Path, serial: &str) -> Result<MacKey, HsmError> {
        let bad = |what: String| HsmError::new(Reason::MacKey, format!("{}: {what}", path.display()));
        let file = OpenOptions::new()
            .read(true)
            .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed())
            .open(path)
            .map_err(|error| bad(error.to_string()))?;
        files::check_private(&file).map_err(bad)?;
        let key = read_key(&file).map_err(bad)?;
        Ok(MacKey { key, serial: serial.to_owned() })
    }

    fn hmac(&self, parts: &[&[u8]]) -> Result<[u8; MAC_BYTES], HsmError> {
        let mut hmac = Hmac::<Sha256>::new_from_slice(self.key.as_slice())
            .map_err(|error| HsmError::new(Reason::MacKey, error))?;
        for part in parts {
            hmac.update(part);
        }
        Ok(hmac.finalize().into_bytes().into())
    }

    /// The MAC over an intent's digest.
    pub(crate) fn intent(&self, digest: &[u8; 32]) -> Result<[u8; MAC_BYTES], HsmError> {
        self.hmac(&[INTENT_DOMAIN, self.serial.as_bytes(), digest])
    }

    /// Whether a proof holds, in constant time.
    pub(crate) fn check(&self, proof: &RecoveryProof) -> Result<bool, HsmError> {
        let expected = self.intent(&proof.digest)?;
        Ok(bool::from(expected.ct_eq(&proof.mac)))
    }

    /// What stands for a proven PIN in the state file.
    pub(crate) fn pin(&self, pin: &[u8]) -> Result<[u8; MAC_BYTES], HsmError> {
        self.of_serial(PIN_DOMAIN, pin)
    }

    /// What authenticates the content of the mark file.
    pub(crate) fn mark(&self, content: &[u8]) -> Result<[u8; MAC_BYTES], HsmError> {
        self.of_serial(MARK_DOMAIN, content)
    }

    /// The token's serial number.
    pub(crate) fn serial(&self) -> &str {
        &self.serial
    }

    fn of_serial(&self, domain: &[u8], bytes: &[u8]) -> Result<[u8; MAC_BYTES], HsmError> {
        let len = u32::try_from(self.serial.len()).unwrap_or(u32::MAX);
        self.hmac(&[domain, &len.to_le_bytes(), self.serial.as_bytes(), bytes])
    }
}

fn read_key(file: &File) -> Result<Zeroizing<[u8; MAC_BYTES]>, String> {
    let mut key = Zeroizing::new([0; MAC_BYTES]);
    let mut file = file;
    file.read_exact(key.as_mut_slice()).map_err(|_| format!("shorter than {MAC_BYTES} bytes"))?;
    match file.read(&mut [0]) {
        Ok(0) => Ok(key),
        Ok(_) => Err(format!("longer than {MAC_BYTES} bytes")),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_key_is_made_once_and_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mac.key");
        create_mac_key(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let before = std::fs::read(&path).unwrap();
        assert_eq!(before.len(), MAC_BYTES);
        assert_eq!(create_mac_key(&path).unwrap_err().reason(), Reason::MacKey);
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }

    #[test]
    fn macs_hang_on_key_serial_and_digest() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("1"), dir.path().join("2"));
        create_mac_key(&one).unwrap();
        create_mac_key(&two).unwrap();
        let key = MacKey::open(&one, "s1").unwrap();
        let mac = key.intent(&[1; 32]).unwrap();
        let proof = |digest, mac| RecoveryProof { digest, mac };
        assert!(key.check(&proof([1; 32], mac)).unwrap());
        assert!(!key.check(&proof([2; 32], mac)).unwrap());
        assert!(!MacKey::open(&one, "s2").unwrap().check(&proof([1; 32], mac)).unwrap());
        assert!(!MacKey::open(&two, "s1").unwrap().check(&proof([1; 32], mac)).unwrap());
        let again = MacKey::open(&one, "s1").unwrap();
        assert!(again.check(&proof([1; 32], mac)).unwrap());
        assert_ne!(key.pin(b"1234").unwrap(), key.pin(b"1235").unwrap());
        assert_ne!(key.pin(b"1234").unwrap(), key.mark(b"1234").unwrap(), "each use has its own domain");
        let other = MacKey::open(&one, "s2").unwrap();
        assert_ne!(key.mark(b"1234").unwrap(), other.mark(b"1234").unwrap(), "a MAC is of one token");
    }

    #[test]
    fn open_damaged_and_wide_open_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mac.key");
        assert!(MacKey::open(&path, "s").is_err());
        for len in [0, MAC_BYTES - 1, MAC_BYTES + 1] {
            std::fs::write(&path, vec![1; len]).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
            assert!(MacKey::open(&path, "s").is_err(), "{len} bytes");
        }
        std::fs::write(&path, [1; MAC_BYTES]).unwrap();
        assert!(MacKey::open(&path, "s").is_ok());
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
        assert!(MacKey::open(&path, "s").is_err());
    }
}
