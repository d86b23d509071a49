//! Durable and private files.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};

use crate::error::{HsmError, Reason};

/// Most folders and files below a token folder that are fsynced: a file token has two files per
/// key object, and [`crate::config::MAX_KEYS`] keys are far below this.
const MAX_SYNCED_FILES: usize = 65_536;

/// An [`Reason::Io`] error that names the act and the path.
pub(crate) fn io_error(act: &str, path: &Path, error: &io::Error) -> HsmError {
    HsmError::new(Reason::Io, format!("cannot {act} {}: {error}", path.display()))
}

/// `<dir>/<serial>.<extension>`: bytes of the serial outside `A-Za-z0-9-` become `_` and two hex digits.
pub(crate) fn of_serial(dir: &Path, serial: &str, extension: &str) -> PathBuf {
    let mut name = String::with_capacity(serial.len() + 1 + extension.len());
    for byte in serial.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'-' {
            name.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(name, "_{byte:02x}");
        }
    }
    name.push('.');
    name.push_str(extension);
    dir.join(name)
}

/// `path` with a further extension.
fn beside(path: &Path, extension: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(extension);
    name.into()
}

/// An exclusive lock on `<path>.lock`, among threads and processes, until the file is dropped.
///
/// # Errors
/// The file that cannot be locked, and why.
pub(crate) fn lock_beside(path: &Path) -> Result<File, (PathBuf, io::Error)> {
    let path = beside(path, ".lock");
    let lock = match open_lock(&path) {
        Ok(lock) => lock,
        Err(error) => return Err((path, error)),
    };
    while let Err(error) = flock(&lock, FlockOperation::LockExclusive) {
        if error != rustix::io::Errno::INTR {
            return Err((path, error.into()));
        }
    }
    Ok(lock)
}

/// Opens a lock file, or makes it. The folder may be that of workers with a user of their own while
/// this process is root: nothing in it is followed elsewhere, and what is made is made theirs.
fn open_lock(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true);
    match options.clone().create_new(true).mode(0o600).open(path) {
        Ok(file) if rustix::process::geteuid().is_root() => {
            let owner = std::fs::metadata(parent(path))?;
            fchown(&file, Some(owner.uid()), Some(owner.gid()))?;
            Ok(file)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => options.custom_flags(plain_file()).open(path),
        made => made,
    }
}

/// Opens a file to be read, and follows no symbolic link.
pub(crate) fn open_plain(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(plain_file()).open(path)
}

/// Flags with which an open neither follows a symbolic link nor waits at a pipe.
fn plain_file() -> i32 {
    (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed()
}

/// Replaces a file by rename, for its owner alone; durable on return. The caller holds its lock.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = beside(path, ".tmp");
    // What an interrupted replacement left behind.
    match std::fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    if let Ok(old) = std::fs::metadata(path) {
        let new = file.metadata()?;
        if (old.uid(), old.gid()) != (new.uid(), new.gid()) {
            // An operator's command may run as another user than the workers; the file stays theirs.
            fchown(&file, Some(old.uid()), Some(old.gid()))?;
        }
    }
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    sync(parent(path))
}

/// Makes the entry of `path` in its folder durable.
pub(crate) fn sync_parent(path: &Path) -> Result<(), HsmError> {
    sync_one(parent(path))
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn sync_one(path: &Path) -> Result<(), HsmError> {
    sync(path).map_err(|error| io_error("fsync", path, &error))
}

/// fsyncs every file and folder below `dir`, and `dir` itself, children first.
///
/// A file that another process removed meanwhile is passed over; symbolic links are not followed.
pub(crate) fn sync_tree(dir: &Path) -> Result<(), HsmError> {
    let mut left = MAX_SYNCED_FILES;
    sync_below(dir, &mut left)
}

fn sync_below(dir: &Path, left: &mut usize) -> Result<(), HsmError> {
    let entries = std::fs::read_dir(dir).map_err(|error| io_error("list", dir, &error))?;
    for entry in entries {
        let entry = entry.map_err(|error| io_error("list", dir, &error))?;
        *left = left.checked_sub(1).ok_or_else(|| {
            let text = format!("more than {MAX_SYNCED_FILES} files below {}", dir.display());
            HsmError::new(Reason::TooLarge, text)
        })?;
        let path = entry.path();
        let kind = entry.file_type().map_err(|error| io_error("stat", &path, &error))?;
        let done = if kind.is_dir() {
            sync_below(&path, left)
        } else if kind.is_file() {
            sync_one(&path)
        } else {
            Ok(())
        };
        match done {
            Err(error) if path.exists() => return Err(error),
            _ => {}
        }
    }
    sync_one(dir)
}

/// Refuses anything but a regular file of this user (or root) that nobody else can open.
pub(crate) fn check_private(file: &File) -> Result<(), String> {
    let meta = file.metadata().map_err(|error| error.to_string())?;
    if !meta.is_file() {
        return Err("not a regular file".to_owned());
    }
    let owner = meta.uid();
    let user = rustix::process::geteuid().as_raw();
    if owner != user && owner != 0 {
        return Err(format!("owned by uid {owner}, not by uid {user} or root"));
    }
    if meta.mode() & 0o077 != 0 {
        return Err(format!("mode {:04o} lets others read it; chmod it to 0600 or 0400", meta.mode() & 0o7777));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serials_become_plain_file_names() {
        let name = |serial| of_serial(Path::new("dir"), serial, "pin");
        assert_eq!(name("0a/1b c"), Path::new("dir/0a_2f1b_20c.pin"));
        assert_eq!(name(".."), Path::new("dir/_2e_2e.pin"));
        assert_ne!(name("_2e"), name("."));
    }

    #[test]
    fn a_tree_is_synced_and_what_cannot_be_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("a/b")).unwrap();
        std::fs::write(dir.path().join("a/b/object"), "x").unwrap();
        std::os::unix::fs::symlink("/nowhere", dir.path().join("a/link")).unwrap();
        sync_tree(dir.path()).unwrap();
        let error = sync_tree(&dir.path().join("missing")).unwrap_err();
        assert_eq!(error.reason(), Reason::Io);
        sync_below(dir.path(), &mut 3).unwrap_err();
        sync_below(dir.path(), &mut 4).unwrap();
    }
}
