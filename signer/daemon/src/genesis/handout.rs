//! The file in which `init` hands out the genesis document.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::{CeremonyError, file_error};
use crate::store::files::sync_dir;

/// What may stand at the file's place already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nothing.
    Nothing,
    /// The same document, as an interrupted `init` left it.
    Same,
    /// Any file: it is replaced.
    Anything,
}

/// A place for the document, found writable before any key is made. The document is written aside;
/// the file is whole and durable, or not there.
#[derive(Debug)]
pub struct Handout {
    path: PathBuf,
    aside: PathBuf,
    file: File,
    standing: Standing,
}

impl Handout {
    /// Opens the file beside `path`.
    ///
    /// # Errors
    /// [`CeremonyError::Used`] where something stands at `path` that may not; [`CeremonyError::File`].
    pub fn prepare(path: &Path, standing: Standing) -> Result<Handout, CeremonyError> {
        match fs::metadata(path) {
            Ok(found) if !found.is_file() => return Err(refused(path, "is no regular file: name another")),
            Ok(_) if standing == Standing::Nothing => {
                return Err(refused(path, "exists: name another file, or replace it with --force"));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(file_error(path)(error)),
        }
        let mut aside = path.to_owned().into_os_string();
        aside.push(".new");
        let aside = PathBuf::from(aside);
        let opened = OpenOptions::new().write(true).create(true).truncate(true).open(&aside);
        Ok(Handout { file: opened.map_err(file_error(&aside))?, path: path.to_owned(), aside, standing })
    }

    /// Writes the document; durable on return.
    ///
    /// # Errors
    /// [`CeremonyError::Handout`]: the document is in the store, and can be written again.
    pub fn write(mut self, document: &[u8]) -> Result<(), CeremonyError> {
        if self.standing == Standing::Same && self.path.exists() {
            return match fs::read(&self.path) {
                Ok(found) if found == document => Ok(()),
                Ok(_) => Err(refused(&self.path, "exists and is another document: replace it with --force")),
                Err(error) => Err(CeremonyError::Handout { path: self.path.clone(), error }),
            };
        }
        self.replace(document).map_err(|error| CeremonyError::Handout { path: self.path.clone(), error })
    }

    fn replace(&mut self, document: &[u8]) -> io::Result<()> {
        self.file.write_all(document)?;
        self.file.sync_all()?;
        fs::rename(&self.aside, &self.path)?;
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        sync_dir(folder.unwrap_or(Path::new(".")))
    }
}

impl Drop for Handout {
    fn drop(&mut self) {
        // Gone already where the document was renamed to its place.
        let _ = fs::remove_file(&self.aside);
    }
}

fn refused(path: &Path, problem: &str) -> CeremonyError {
    CeremonyError::Used(format!("{} {problem}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = entries.collect();
        names.sort();
        names
    }

    #[test]
    fn what_stands_there_stays_unless_it_is_to_be_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("genesis.json");
        Handout::prepare(&path, Standing::Nothing).unwrap().write(b"first").unwrap();
        let error = Handout::prepare(&path, Standing::Nothing).unwrap_err().to_string();
        assert!(error.contains("genesis.json exists") && error.contains("--force"), "{error}");
        Handout::prepare(&path, Standing::Same).unwrap().write(b"first").unwrap();
        let error = Handout::prepare(&path, Standing::Same).unwrap().write(b"second").unwrap_err().to_string();
        assert!(error.contains("another document"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"first");
        Handout::prepare(&path, Standing::Anything).unwrap().write(b"second").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
        // Nothing is left beside it, by whatever way.
        drop(Handout::prepare(&path, Standing::Anything).unwrap());
        assert_eq!(names(dir.path()), ["genesis.json"]);
    }

    #[test]
    fn a_document_that_cannot_be_written_says_how_to_get_it_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("genesis.json");
        let mut handout = Handout::prepare(&path, Standing::Nothing).unwrap();
        handout.file = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let error = handout.write(b"document").unwrap_err().to_string();
        assert!(error.contains("genesis.json: No space left"), "{error}");
        assert!(error.contains("init --resume --out FILE"), "{error}");
        assert!(names(dir.path()).is_empty());
        let nowhere = dir.path().join("none/genesis.json");
        let error = Handout::prepare(&nowhere, Standing::Nothing).unwrap_err().to_string();
        assert!(error.contains("none/genesis.json.new: No such file"), "{error}");
        let error = Handout::prepare(dir.path(), Standing::Anything).unwrap_err().to_string();
        assert!(error.contains("is no regular file"), "{error}");
    }
}
