//! Room on the disk that is set aside for what is in flight when the disk is full.
//!
//! A file beside the database holds disk blocks and nothing else. When a step that ends something
//! (an outcome, a checkpoint over what is signed, a latch) finds no room, the writer gives a share of
//! these blocks back to the file system and tries again at once. From then on new work is refused,
//! until the file has all its blocks again: what is given up is for what is in flight alone.
//!
//! A trail has one intent open at most, and without new work at most one checkpoint to come and one
//! latch. So one share for each trail is enough, whatever the trails are doing.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use countersign_hsm::MAX_BATCH_ITEMS;

use crate::store::{AppendError, files};

/// The reserve's file name in the data folder.
pub const RESERVE_NAME: &str = "store.reserve";

/// A page in the write-ahead log, in bytes: 16 KiB and its frame's header.
const FRAME_BYTES: u64 = 16_384 + 24;
/// A row of `signatures`, in bytes: cell pointer 2, length 1, row id 7, header 4, DER signature 72.
const SIGNATURE_ROW_BYTES: u64 = 2 + 1 + 7 + 4 + 72;
/// Pages of the largest outcome's signatures, each page half full, as a split leaves it.
const SIGNATURE_PAGES: u64 = (MAX_BATCH_ITEMS as u64 * SIGNATURE_ROW_BYTES).div_ceil(16_384 / 2);
/// Other pages that an outcome, a checkpoint alone and a latch write: the ways down to their rows in
/// `signatures`, `checkpoints`, `intents` and `trails`, the neighbours that a split or a merge
/// touches, the list of free pages, the first page; and two pieces of the log's index (32 KiB each).
const OTHER_PAGES: u64 = 72;

/// What is set aside for each trail of a store, in bytes: its largest outcome, a checkpoint alone and
/// a latch, as the write-ahead log takes them.
pub const RESERVE_PER_TRAIL: u64 = (SIGNATURE_PAGES + OTHER_PAGES) * FRAME_BYTES;

/// How often the file is given its blocks again while it lacks some.
const RESTORE_EVERY: Duration = Duration::from_millis(500);

/// The file and what it holds.
#[derive(Debug)]
pub(super) struct Reserve {
    file: File,
    /// Bytes that are set aside now.
    held: u64,
    /// Bytes that must be set aside before new work is taken.
    wanted: u64,
    tried: Instant,
    log_moves: LogMoves,
}

/// Whether the write-ahead log may be moved into the database file. That takes room, too, which must
/// not be what was given up for outcomes.
#[derive(Clone, Debug, Default)]
pub(super) struct LogMoves(Arc<Mutex<bool>>);

impl LogMoves {
    /// Locked, no room is given up meanwhile.
    pub(super) fn allowed(&self) -> MutexGuard<'_, bool> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reserve {
    /// Opens the file in `data_dir`, or makes it, for a store of so many trails. A disk without room
    /// for it is no error: then it is not whole.
    ///
    /// # Errors
    /// The file cannot be made, or the system cannot set room aside.
    pub(super) fn open(data_dir: &Path, trails: u64) -> io::Result<Reserve> {
        let path = data_dir.join(RESERVE_NAME);
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
        files::sync_dir(data_dir)?;
        // A copy may have the length and no blocks.
        let found = file.metadata()?;
        let held = found.len().min(found.blocks() * 512);
        file.set_len(held)?;
        let log_moves = LogMoves::default();
        let mut reserve = Reserve { file, held, wanted: trails * RESERVE_PER_TRAIL, tried: Instant::now(), log_moves };
        reserve.restore()?;
        if !reserve.is_whole() {
            tracing::error!(held, wanted = reserve.wanted, "the disk is full: new work is refused until there is room");
        }
        Ok(reserve)
    }

    /// The store has a trail more.
    pub(super) fn add_trail(&mut self) {
        self.wanted += RESERVE_PER_TRAIL;
        *self.log_moves.allowed() = false;
        self.try_restore();
    }

    /// For whoever moves the log.
    pub(super) fn log_moves(&self) -> LogMoves {
        self.log_moves.clone()
    }

    pub(super) fn is_whole(&self) -> bool {
        self.held >= self.wanted
    }

    /// Why new work is refused at present.
    pub(super) fn refusal(&self) -> Option<AppendError> {
        let text = || {
            let (held, wanted) = (self.held, self.wanted);
            format!("of {wanted} bytes that are set aside for what is in flight, {held} are left")
        };
        (!self.is_whole()).then(|| AppendError::Full(text()))
    }

    /// How long the writer may wait for work; none: as long as it likes.
    pub(super) fn patience(&self) -> Option<Duration> {
        (!self.is_whole()).then(|| RESTORE_EVERY.saturating_sub(self.tried.elapsed()))
    }

    /// Gives one share back to the file system. False when there is none left, or it cannot be.
    pub(super) fn give_up(&mut self) -> bool {
        if self.held == 0 {
            return false;
        }
        // A move that is under way ends first: it, too, takes what is free.
        *self.log_moves.allowed() = false;
        self.held = self.held.saturating_sub(RESERVE_PER_TRAIL);
        // Blocks are free for others only when the file system has written down that they are.
        let given = self.file.set_len(self.held).and_then(|()| self.file.sync_all());
        match given {
            Ok(()) => {
                tracing::error!(
                    left = self.held,
                    "the disk is full: what is in flight gets room from the reserve, new work is refused"
                );
            }
            Err(ref error) => tracing::error!(%error, "the reserve cannot be given up"),
        }
        given.is_ok()
    }

    /// Sets the room aside again, from time to time, where some was given up.
    pub(super) fn tend(&mut self) {
        if !self.is_whole() && self.tried.elapsed() >= RESTORE_EVERY {
            self.try_restore();
            if self.is_whole() {
                tracing::info!("there is room again, and the reserve is whole: new work is taken");
            }
        }
    }

    fn try_restore(&mut self) {
        if let Err(error) = self.restore() {
            tracing::error!(%error, "no room can be set aside");
        }
    }

    fn restore(&mut self) -> io::Result<()> {
        self.tried = Instant::now();
        if !self.is_whole() {
            let disk = rustix::fs::fstatvfs(&self.file)?;
            if disk.f_bfree.saturating_mul(disk.f_frsize) < self.wanted - self.held {
                return Ok(());
            }
            let allocated = files::allocate(&self.file, self.wanted).and_then(|()| self.file.sync_all());
            if let Err(error) = allocated {
                // What was allocated so far is not kept from others.
                self.file.set_len(self.held)?;
                let full = matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded);
                return if full { Ok(()) } else { Err(error) };
            }
            self.held = self.wanted;
        }
        *self.log_moves.allowed() = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
