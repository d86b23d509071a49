//! `countersignd backup`: a consistent copy of the store, beside a running daemon.
//!
//! A backup is a folder: `store.db`, `countersignd.toml`, and `heads/` with the second heads. The
//! heads are copied before the store, so that in the copy, too, they may lag it and never lead it.
//! What it never holds: PINs, the keys of intents' MACs, the tokens. Those are kept apart, because
//! whoever has the store and them together can do what the daemon can. Nor the mark: it is what notices
//! that store and second heads were restored from one older copy. Nor `store.reserve`, which is room and
//! no data: the daemon makes it anew beside a restored store.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use countersign_trail::origin::Origin;
use rusqlite::Connection;
use serde::Serialize;

use crate::config::Config;
use crate::store::files::sync_dir;
use crate::store::sqlite::schema::{self, SchemaError};
use crate::store::sqlite::{self, FILE_NAME};

/// Folder of the second heads in a backup.
pub const HEADS: &str = "heads";
/// The configuration's file name in a backup.
pub const CONFIG: &str = "countersignd.toml";
/// Longest file of a second head, in bytes: two slots, 4,096 bytes apart.
const MAX_HEAD_BYTES: u64 = 8192;

/// Why there is no backup.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The store cannot be read or copied.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// The folder is there already.
    #[error("{0} exists: a backup goes into a new folder")]
    Exists(PathBuf),
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A second head has another length than this daemon writes.
    #[error("{0} has more than {MAX_HEAD_BYTES} bytes: it is no second head")]
    Head(PathBuf),
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> BackupError {
    let path = path.to_owned();
    |source| BackupError::File { path, source }
}

/// A trail of a copy.
#[derive(Debug, Serialize)]
pub struct CopiedTrail {
    /// Its name.
    pub origin: Origin,
    /// Its records.
    pub size: u64,
}

/// Copies what `config`, read from `config_file`, names into the new folder `to`; durable on
/// return. Gives the trails of the copy.
///
/// # Errors
/// [`BackupError`]; what was copied so far stays there, for a look.
pub fn backup(config: &Config, config_file: &Path, to: &Path) -> Result<Vec<CopiedTrail>, BackupError> {
    let source = schema::open_read_only(&config.data_dir.join(FILE_NAME))?;
    let heads = to.join(HEADS);
    match DirBuilder::new().mode(0o700).create(to) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(BackupError::Exists(to.to_owned())),
        made => made.map_err(at(to))?,
    }
    DirBuilder::new().mode(0o700).create(&heads).map_err(at(&heads))?;
    for CopiedTrail { origin, .. } in trails(&source)? {
        let name = format!("{}.head", origin.path_segment());
        copy(&config.head_dir.join(&name), &heads.join(&name))?;
    }
    sync_dir(&heads).map_err(at(&heads))?;
    copy(config_file, &to.join(CONFIG))?;
    let copied = sqlite::backup(&config.data_dir, to, trails)?;
    if let Some(parent) = to.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        sync_dir(parent).map_err(at(parent))?;
    }
    Ok(copied)
}

/// Every trail with its size.
fn trails(connection: &Connection) -> Result<Vec<CopiedTrail>, SchemaError> {
    let mut query = connection.prepare("SELECT origin, size FROM trails ORDER BY origin")?;
    let rows = query.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?)))?;
    let mut trails = Vec::new();
    for row in rows {
        let (name, size) = row?;
        // What is no origin has no second head; `fsck` names it.
        trails.extend(Origin::parse(&name).ok().map(|origin| CopiedTrail { origin, size: size.unsigned_abs() }));
    }
    Ok(trails)
}

/// Copies a small file; durable once its folder is synced.
fn copy(from: &Path, to: &Path) -> Result<(), BackupError> {
    let is_head = to.extension().is_some_and(|extension| extension == "head");
    if is_head && fs::metadata(from).map_err(at(from))?.len() > MAX_HEAD_BYTES {
        return Err(BackupError::Head(from.to_owned()));
    }
    let mut source = File::open(from).map_err(at(from))?;
    let mut target = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to).map_err(at(to))?;
    io::copy(&mut source, &mut target).map_err(at(to))?;
    target.sync_all().map_err(at(to))
}

/// Says what the copy in `to` holds, what is to be kept apart from it, and what a restore means.
///
/// # Errors
/// `out` cannot be written.
pub fn report(config: &Config, to: &Path, trails: &[CopiedTrail], out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "Backup in {}:", to.display())?;
    for CopiedTrail { origin, size } in trails {
        writeln!(out, "  {origin}: {size} records")?;
    }
    writeln!(out, "Not in it, to be kept apart from it:")?;
    for token in [&config.record_token, &config.admin_token] {
        writeln!(out, "  the token {:?}, its PIN, and {}", token.label, token.mac_key_file.display())?;
    }
    writeln!(
        out,
        "Nor the admin trail's mark in {}, which is never moved back.",
        config.admin_token.state_dir.display()
    )?;
    out.write_all(MEANING.as_bytes())
}

/// What a restore means.
const MEANING: &str = "\
A restore goes back in time. Records that were signed after this backup are lost to the restored
store, but not to those who hold them:
  - With the second head still there, the daemon refuses to start on an older store. Restore a newer
    copy. It is right to refuse: a trail that lost its end is never continued.
  - With the second head lost as well, restore heads/ into head_dir. The mark still refuses a store
    whose admin trail lost its end: every start of the daemon adds to it. Where it did not, the first
    client that shows a newer answer latches its trail (HEAD_MISMATCH), and nothing more is signed in it.
  - Nothing was signed since the backup: the restored store continues where it was.
Check a copy with `countersignd fsck --backup FOLDER`.
";
