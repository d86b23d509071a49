//! Durable and private files.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::error::{HsmError, Reason};

/// Most folders and files below a token folder that are fsynced: a file token has two files per
/// key object, and [`crate::config::MAX_KEYS`] keys are far below this.
const MAX_SYNCED_FILES: usize = 65_536;

/// An [`Reason::Io`] error that names the act and the path.
pub(crate) fn io_error(act: &str, path: &Path, error: &io::Error) -> HsmError {
    HsmError::new(Reason::Io, format!("cannot {act} {}: {error}", path.display()))
}

/// Makes the entry of `path` in its folder durable.
pub(crate) fn sync_parent(path: &Path) -> Result<(), HsmError> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    sync_one(parent)
}

fn sync_one(path: &Path) -> Result<(), HsmError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(|error| io_error("fsync", path, &error))
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
