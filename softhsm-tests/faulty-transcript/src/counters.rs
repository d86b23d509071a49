//! The `counters` file: how many calls each function has had, over all processes that share the folder.
//!
//! One line of fixed width for each function, in the order of the 2.40 list: its name, padded with spaces to 28
//! bytes, and 20 decimal digits. A call is counted under an exclusive flock(2), before anything else is done for it,
//! so that a process killed later does not give its number to another call.
//!
//! A request for the size of a signature (a signing call without a buffer for it) signs nothing and is not counted:
//! call 3 of `C_Sign` is the third signature, however a client asks for the size first.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::{Error, Function};

/// File name in the shared folder.
pub const COUNTERS_FILE: &str = "counters";

const NAME_WIDTH: usize = 28;
const DIGITS: usize = 20; // of the largest u64
const LINE_BYTES: usize = NAME_WIDTH + DIGITS + 1;
/// 67 functions of 49 bytes: below one page, so that the file's first write is never torn by a kill.
const FILE_BYTES: usize = LINE_BYTES * Function::ALL.len();
const _: () = assert!(FILE_BYTES <= 4096);

/// The open counters of a folder.
#[derive(Debug)]
pub struct Counters {
    path: PathBuf,
    /// flock(2) excludes other processes, the mutex other threads of this one.
    file: Mutex<File>,
}

impl Counters {
    /// Opens the counters of a folder, and makes them at zero if there are none.
    ///
    /// # Errors
    /// The file cannot be opened or written, or has another size than counters have.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let path = dir.join(COUNTERS_FILE);
        let io = |source| Error::io(&path, source);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(io)?;
        file.lock().map_err(io)?;
        match file.metadata().map_err(io)?.len() {
            0 => file.write_all_at(zeros().as_bytes(), 0).map_err(io)?,
            length if length == FILE_BYTES as u64 => {}
            length => {
                return Err(Error::file(&path, format!("has {length} bytes instead of {FILE_BYTES}")));
            }
        }
        file.unlock().map_err(io)?;
        Ok(Self { path, file: Mutex::new(file) })
    }

    /// Counts a call and returns its number, from 1.
    ///
    /// # Errors
    /// The file cannot be read or written, or holds something else than a number.
    pub fn next(&self, function: Function) -> Result<u64, Error> {
        let io = |source| Error::io(&self.path, source);
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.lock().map_err(io)?;
        let n = read_number(&file, &self.path, function)?
            .checked_add(1)
            .ok_or_else(|| Error::file(&self.path, "a counter is exhausted"))?;
        file.write_all_at(format!("{n:020}").as_bytes(), digits_at(function)).map_err(io)?;
        file.unlock().map_err(io)?;
        Ok(n)
    }
}

/// How many calls of a function there were, over all processes.
///
/// # Errors
/// There are no counters (the module was never loaded with this folder), or they cannot be read.
pub fn calls(dir: &Path, function: Function) -> Result<u64, Error> {
    let path = dir.join(COUNTERS_FILE);
    let file = File::open(&path).map_err(|source| Error::io(&path, source))?;
    file.lock_shared().map_err(|source| Error::io(&path, source))?;
    read_number(&file, &path, function)
}

fn zeros() -> String {
    Function::ALL.iter().map(|function| format!("{:NAME_WIDTH$}{:020}\n", function.name(), 0)).collect()
}

const fn digits_at(function: Function) -> u64 {
    (function as usize * LINE_BYTES + NAME_WIDTH) as u64
}

fn read_number(file: &File, path: &Path, function: Function) -> Result<u64, Error> {
    let mut digits = [0; DIGITS];
    file.read_exact_at(&mut digits, digits_at(function)).map_err(|source| Error::io(path, source))?;
    let number = std::str::from_utf8(&digits).ok().and_then(|digits| digits.parse().ok());
    number.ok_or_else(|| Error::line(path, function as usize + 1, "does not end in 20 decimal digits"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_count_apart_and_go_on_when_opened_again() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(calls(dir.path(), Function::C_Sign), Err(Error::Io { .. })), "never loaded is not zero");
        let first = Counters::open(dir.path()).unwrap();
        let second = Counters::open(dir.path()).unwrap();
        assert_eq!(first.next(Function::C_Sign).unwrap(), 1);
        assert_eq!(second.next(Function::C_Sign).unwrap(), 2);
        assert_eq!(first.next(Function::C_WaitForSlotEvent).unwrap(), 1);
        drop((first, second));
        assert_eq!(Counters::open(dir.path()).unwrap().next(Function::C_Sign).unwrap(), 3);
        assert_eq!(calls(dir.path(), Function::C_Sign).unwrap(), 3);
        assert_eq!(calls(dir.path(), Function::C_Initialize).unwrap(), 0);
        let text = std::fs::read_to_string(dir.path().join(COUNTERS_FILE)).unwrap();
        assert!(text.lines().all(|line| line.len() + 1 == LINE_BYTES));
        let sign = text.lines().nth(Function::C_Sign as usize).unwrap();
        assert_eq!(sign.split_ascii_whitespace().collect::<Vec<_>>(), ["C_Sign", "00000000000000000003"]);
    }

    #[test]
    fn a_file_that_is_something_else_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(COUNTERS_FILE), "7").unwrap();
        assert!(matches!(Counters::open(dir.path()), Err(Error::File { .. })));
        std::fs::write(dir.path().join(COUNTERS_FILE), zeros().replace('0', "x")).unwrap();
        let counters = Counters::open(dir.path()).unwrap();
        assert!(matches!(counters.next(Function::C_Initialize), Err(Error::Line { line: 1, .. })));
        std::fs::write(dir.path().join(COUNTERS_FILE), zeros().replace('0', "9")).unwrap();
        assert!(counters.next(Function::C_Initialize).is_err(), "more than a u64");
    }
}
