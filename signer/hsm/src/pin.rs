//! Reads the user PIN. Only a worker process calls this.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use cryptoki::types::RawAuthPin;
use rustix::fs::OFlags;
use zeroize::Zeroizing;

use crate::config::PinSource;
use crate::error::{HsmError, Reason};
use crate::files;

/// Longest PIN, in bytes.
pub const MAX_PIN_BYTES: usize = 255;

/// Opens the source, checks who else could read it, and returns the PIN without one trailing
/// newline, in memory that is wiped.
pub(crate) fn read_pin(source: &PinSource) -> Result<RawAuthPin, HsmError> {
    let path = locate(source, std::env::var_os("CREDENTIALS_DIRECTORY").as_deref())?;
    let bad = |what: String| HsmError::new(Reason::PinUnreadable, format!("{}: {what}", path.display()));
    let file = OpenOptions::new()
        .read(true)
        .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed())
        .open(&path)
        .map_err(|error| bad(error.to_string()))?;
    match source {
        PinSource::File(_) => files::check_private(&file).map_err(bad)?,
        // The service manager chooses owner and mode, in a folder that only this service sees.
        PinSource::Credential(_) => {}
    }
    read(&file).map_err(bad)
}

fn locate(source: &PinSource, credentials: Option<&OsStr>) -> Result<PathBuf, HsmError> {
    let name = match source {
        PinSource::File(path) => return Ok(path.clone()),
        PinSource::Credential(name) => name,
    };
    let refuse = |what: &str| HsmError::new(Reason::PinUnreadable, format!("credential {name:?}: {what}"));
    if name.is_empty() || name.contains('/') || name.starts_with('.') {
        return Err(refuse("not a credential name"));
    }
    let Some(folder) = credentials else {
        return Err(refuse("$CREDENTIALS_DIRECTORY is not set; the service manager must pass it"));
    };
    Ok(PathBuf::from(folder).join(name))
}

fn read(file: &File) -> Result<RawAuthPin, String> {
    // One byte for the newline and one to see that there is more.
    let mut buffer = Zeroizing::new([0_u8; MAX_PIN_BYTES + 2]);
    let mut len = 0;
    let mut file = file;
    while len < buffer.len() {
        match file.read(&mut buffer[len..]).map_err(|error| error.to_string())? {
            0 => break,
            count => len += count,
        }
    }
    if len > 0 && buffer[len - 1] == b'\n' {
        len -= 1;
    }
    match len {
        0 => Err("empty".to_owned()),
        len if len > MAX_PIN_BYTES => Err(format!("longer than {MAX_PIN_BYTES} bytes")),
        len => Ok(RawAuthPin::new(Box::new(buffer[..len].to_vec()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;
    use std::os::unix::fs::PermissionsExt;

    fn file(content: &[u8], mode: u32) -> (tempfile::TempDir, PinSource) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pin");
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        (dir, PinSource::File(path))
    }

    #[test]
    fn one_newline_is_dropped() {
        for (content, pin) in [(&b"1234"[..], &b"1234"[..]), (b"1234\n", b"1234"), (b"12\n\n", b"12\n")] {
            let (_dir, source) = file(content, 0o600);
            assert_eq!(read_pin(&source).unwrap().expose_secret().as_slice(), pin);
        }
    }

    #[test]
    fn empty_long_and_open_files_are_refused() {
        let long = vec![b'1'; MAX_PIN_BYTES + 1];
        for (content, mode) in [(&b""[..], 0o600), (b"\n", 0o600), (&long, 0o600), (b"1", 0o640), (b"1", 0o604)] {
            let (_dir, source) = file(content, mode);
            assert_eq!(read_pin(&source).unwrap_err().reason(), Reason::PinUnreadable);
        }
        let (_dir, source) = file(&[&long[1..], b"\n"].concat(), 0o400);
        assert_eq!(read_pin(&source).unwrap().expose_secret().len(), MAX_PIN_BYTES);
    }

    #[test]
    fn credentials_are_plain_names_in_the_folder() {
        let credential = |name: &str| PinSource::Credential(name.to_owned());
        let folder = Some(OsStr::new("/run/credentials/x"));
        let path = locate(&credential("pin"), folder).unwrap();
        assert_eq!(path, PathBuf::from("/run/credentials/x/pin"));
        assert!(locate(&credential("pin"), None).is_err());
        for name in ["", "..", "a/b", "/etc/passwd"] {
            assert!(locate(&credential(name), folder).is_err(), "{name:?}");
        }
    }
}
