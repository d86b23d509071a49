//! Files that must survive a power cut, and the lock that keeps a second daemon out.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use countersign_trail::hash::Hash;

/// Makes a folder's entries durable.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Replaces a file: written aside, synced, renamed, folder synced.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let aside = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&aside, path)?;
    sync_dir(path.parent().unwrap_or(Path::new(".")))
}

/// Gives a file blocks on the disk for its first `len` bytes, 1 at least, so that writing there needs
/// no more. What it holds stays, and it is at least `len` bytes long afterwards.
///
/// # Errors
/// There is no room, or the system failed; the file may then have some of the blocks.
pub fn allocate(file: &File, len: u64) -> io::Result<()> {
    use rustix::fs::{FallocateFlags, fallocate};
    use rustix::io::{Errno, retry_on_intr};
    match retry_on_intr(|| fallocate(file, FallocateFlags::empty(), 0, len)) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => fill(file, len),
        result => Ok(result?),
    }
}

/// Writes zeros behind a file's end until it has `len` bytes: where blocks cannot be asked for.
fn fill(file: &File, len: u64) -> io::Result<()> {
    let zeros = [0; 1 << 16];
    let mut at = file.metadata()?.len();
    while at < len {
        let piece = usize::try_from(len - at).unwrap_or(zeros.len()).min(zeros.len());
        file.write_all_at(&zeros[..piece], at)?;
        at += piece as u64;
    }
    Ok(())
}

/// Why a folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error("{0} is in use by another countersignd: stop that one first")]
    InUse(PathBuf),
    /// The lock file cannot be opened.
    #[error("cannot open {0}: {1}")]
    Io(PathBuf, io::Error),
}

/// An exclusive lock on a data folder, held until dropped. The kernel releases it when the process
/// ends, however it ends.
#[derive(Debug)]
pub struct FolderLock {
    _file: File,
}

impl FolderLock {
    /// Takes the lock without waiting.
    pub fn take(dir: &Path) -> Result<FolderLock, LockError> {
        let path = dir.join("lock");
        let opened = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = opened.map_err(|error| LockError::Io(path.clone(), error))?;
        match file.try_lock() {
            Ok(()) => Ok(FolderLock { _file: file }),
            Err(fs::TryLockError::WouldBlock) => Err(LockError::InUse(dir.to_owned())),
            Err(fs::TryLockError::Error(error)) => Err(LockError::Io(path, error)),
        }
    }
}

const MAGIC: &[u8; 16] = b"countersign/hd/1";
/// Magic, counter, size, leaf hash, whether latched, checksum; numbers are little-endian.
const SLOT_LEN: usize = 16 + 8 + 8 + 32 + 8 + 32;
/// Slots stand in different sectors, so that a torn write spoils one of them.
const SLOT_STRIDE: u64 = 4096;

/// The second head: one trail's newest (size, leaf hash), and whether it is latched, kept at a second
/// configured place.
///
/// Two slots are written in turn; the one with the higher counter whose checksum holds counts. After
/// a crash the file may lag the store; it never leads it.
#[derive(Debug)]
pub struct HeadFile {
    file: File,
    counter: u64,
    latched: bool,
}

/// What the second head says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SecondHead {
    /// Number of records.
    pub size: u64,
    /// Leaf hash of the last one.
    pub leaf: Hash,
    /// Nothing is signed in the trail any more. Once written it stays.
    pub latched: bool,
}

impl SecondHead {
    /// That of a trail in service.
    pub fn at(size: u64, leaf: Hash) -> SecondHead {
        SecondHead { size, leaf, latched: false }
    }
}

impl HeadFile {
    /// Where a trail's file stands.
    pub fn path(dir: &Path, trail: &str) -> PathBuf {
        dir.join(format!("{trail}.head"))
    }

    /// Opens a trail's file; with `create`, makes it where it is missing.
    pub fn open(dir: &Path, trail: &str, create: bool) -> io::Result<(HeadFile, Option<SecondHead>)> {
        let path = HeadFile::path(dir, trail);
        let file = OpenOptions::new().read(true).write(true).create(create).truncate(false).mode(0o600).open(path)?;
        if create {
            // A full disk must not keep a head from being written.
            allocate(&file, 2 * SLOT_STRIDE)?;
            sync_dir(dir)?;
        }
        let slots = [0, 1].map(|slot| read_slot(&file, slot));
        let newest = slots.into_iter().flatten().max_by_key(|(counter, _)| *counter);
        let counter = newest.map_or(0, |(counter, _)| counter);
        let head = newest.map(|(_, head)| head);
        let latched = head.is_some_and(|head| head.latched);
        Ok((HeadFile { file, counter, latched }, head))
    }

    /// Whether it says that the trail is latched.
    pub fn latched(&self) -> bool {
        self.latched
    }

    /// Writes a newer head; durable on return.
    pub fn write(&mut self, head: SecondHead) -> io::Result<()> {
        let counter = self.counter + 1;
        // A head that was on its way when the trail was latched does not open it again.
        self.latched |= head.latched;
        let mut slot = Vec::with_capacity(SLOT_LEN);
        slot.extend_from_slice(MAGIC);
        slot.extend_from_slice(&counter.to_le_bytes());
        slot.extend_from_slice(&head.size.to_le_bytes());
        slot.extend_from_slice(head.leaf.as_bytes());
        slot.extend_from_slice(&u64::from(self.latched).to_le_bytes());
        let checksum = Hash::of(&slot);
        slot.extend_from_slice(checksum.as_bytes());
        self.file.write_all_at(&slot, (counter % 2) * SLOT_STRIDE)?;
        self.file.sync_data()?;
        self.counter = counter;
        Ok(())
    }
}

fn read_slot(file: &File, slot: u64) -> Option<(u64, SecondHead)> {
    let mut bytes = [0u8; SLOT_LEN];
    file.read_exact_at(&mut bytes, slot * SLOT_STRIDE).ok()?;
    let (body, checksum) = bytes.split_at(SLOT_LEN - 32);
    if !body.starts_with(MAGIC) || Hash::of(body).as_bytes() != checksum {
        return None;
    }
    let number = |at: usize| body[at..at + 8].try_into().map(u64::from_le_bytes).ok();
    let leaf: [u8; 32] = body[32..64].try_into().ok()?;
    let latched = number(64)? != 0;
    Some((number(16)?, SecondHead { size: number(24)?, leaf: Hash::from(leaf), latched }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_head_survives_a_torn_write() {
        let dir = tempfile::tempdir().unwrap();
        let (mut file, none) = HeadFile::open(dir.path(), "t", true).unwrap();
        assert_eq!(none, None);
        let head = |size| SecondHead::at(size, Hash::of(&[size as u8]));
        for size in 1..=5 {
            file.write(head(size)).unwrap();
        }
        let (_, newest) = HeadFile::open(dir.path(), "t", false).unwrap();
        assert_eq!(newest, Some(head(5)));
        // Counter 5 stands in slot 1: tear it.
        file.file.write_all_at(b"torn", SLOT_STRIDE + 30).unwrap();
        let (_, older) = HeadFile::open(dir.path(), "t", false).unwrap();
        assert_eq!(older, Some(head(4)));
        // A latch stays, whatever was on its way.
        file.write(SecondHead { latched: true, ..head(6) }).unwrap();
        file.write(head(7)).unwrap();
        let (mut file, latched) = HeadFile::open(dir.path(), "t", false).unwrap();
        assert_eq!(latched, Some(SecondHead { latched: true, ..head(7) }));
        file.write(head(8)).unwrap();
        assert!(HeadFile::open(dir.path(), "t", false).unwrap().1.unwrap().latched);
    }

    #[test]
    fn an_allocated_file_has_its_blocks_and_its_content() {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir().unwrap();
        for (name, allocate) in [("asked", allocate as fn(&File, u64) -> io::Result<()>), ("filled", fill)] {
            let path = dir.path().join(name);
            fs::write(&path, b"content").unwrap();
            let file = OpenOptions::new().write(true).open(&path).unwrap();
            allocate(&file, 200_000).unwrap();
            file.sync_all().unwrap();
            let metadata = file.metadata().unwrap();
            assert!(metadata.len() == 200_000 && metadata.blocks() * 512 >= 200_000, "{name}: {metadata:?}");
            assert!(fs::read(&path).unwrap().starts_with(b"content\0"), "{name}");
        }
    }

    #[test]
    fn the_second_lock_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let first = FolderLock::take(dir.path()).unwrap();
        assert!(matches!(FolderLock::take(dir.path()), Err(LockError::InUse(_))));
        drop(first);
        assert!(FolderLock::take(dir.path()).is_ok());
    }
}
