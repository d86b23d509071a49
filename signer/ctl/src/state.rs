//! What is remembered between runs, for each appliance by its genesis fingerprint:
//! `$XDG_STATE_HOME/countersign/<fingerprint>/` (XDG Base Directory Specification; by default
//! `~/.local/state`), with the folders `heads` ([`crate::audit::heads`]) and `receipts`
//! ([`crate::sign`]).

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use countersign_trail::hash::Hash;

use crate::exit::{Outcome, failed};
use crate::files;

/// One folder of the state, locked while it is open.
pub(crate) struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Opens the folder `name` of an appliance; makes it, and waits for other runs that hold it.
    pub(crate) fn open(fingerprint: Hash, name: &str) -> Outcome<Folder> {
        let path = home()?.join("countersign").join(fingerprint.to_string()).join(name);
        fs::create_dir_all(&path).map_err(|error| files::io("make the folder", &path, &error))?;
        let lock_path = path.join(".lock");
        let lock = File::options().create(true).truncate(false).write(true).open(&lock_path);
        let lock = lock.and_then(|lock| lock.lock().map(|()| lock));
        let lock = lock.map_err(|error| files::io("lock", &lock_path, &error))?;
        Ok(Folder { path, _lock: lock })
    }

    /// The path of a file in it.
    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }
}

fn home() -> Outcome<PathBuf> {
    let absolute = |path: PathBuf| Some(path).filter(|path| path.is_absolute());
    let given = env::var_os("XDG_STATE_HOME").map(PathBuf::from).and_then(absolute);
    let home = || env::var_os("HOME").map(|home| Path::new(&home).join(".local/state"));
    given.or_else(home).ok_or_else(|| {
        failed("neither XDG_STATE_HOME nor HOME is set")
            .todo("Set XDG_STATE_HOME to a folder for the heads and receipts that were seen.")
    })
}
