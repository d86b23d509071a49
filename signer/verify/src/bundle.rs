//! The bundle as an archive: its files by name, in their one order.

use std::borrow::Cow;
use std::collections::BTreeMap;

use countersign_trail::admin::Documents;
use countersign_trail::archive::{Archive, ArchiveError, ArchiveWriter};
use countersign_trail::evidence::{FileName, TrailFile};
use countersign_trail::hash::Hash;
use countersign_trail::origin::Origin;

use crate::exit::Outcome;
use crate::report::{Checks, count};

/// Lengths in bytes of the two zip headers without the name, and where a CRC-32 stands in each
/// (APPNOTE 4.3.7, 4.3.12).
const LOCAL_LEN: usize = 30;
const LOCAL_CRC: usize = 14;
const CENTRAL_LEN: usize = 46;
const CENTRAL_CRC: usize = 16;

/// Opens an archive, or says why not. An archive that is whole but for checksums is opened too, with
/// the names of the files whose checksums are wrong: which record was changed is worth more than
/// that something was.
pub(crate) fn open(bytes: &[u8]) -> Result<(Cow<'_, [u8]>, Vec<String>), ArchiveError> {
    match Archive::parse(bytes) {
        Ok(_) => Ok((Cow::Borrowed(bytes), Vec::new())),
        Err(ArchiveError::Damaged(name)) => {
            let (repaired, damaged) = with_right_checksums(bytes).ok_or(ArchiveError::Damaged(name))?;
            Archive::parse(&repaired)?;
            Ok((Cow::Owned(repaired), damaged))
        }
        Err(error) => Err(error),
    }
}

/// The archive with every CRC-32 recomputed, and the names of the entries where one was wrong; none
/// where more than checksums would have to change.
fn with_right_checksums(bytes: &[u8]) -> Option<(Vec<u8>, Vec<String>)> {
    let mut writer = ArchiveWriter::new();
    let mut repaired = bytes.to_vec();
    let mut entries: Vec<(String, usize)> = Vec::new();
    let mut at = 0;
    while bytes.get(at..)?.starts_with(b"PK\x03\x04") {
        let header = bytes.get(at..at + LOCAL_LEN)?;
        let size = u32::from_le_bytes(header[18..22].try_into().ok()?);
        let name_len = u16::from_le_bytes(header[26..28].try_into().ok()?);
        let content_at = at + LOCAL_LEN + usize::from(name_len);
        let name = std::str::from_utf8(bytes.get(at + LOCAL_LEN..content_at)?).ok()?;
        let end = content_at.checked_add(usize::try_from(size).ok()?)?;
        let (local, _) = writer.push(name, bytes.get(content_at..end)?).ok()?;
        repaired.get_mut(at..content_at)?.copy_from_slice(&local);
        entries.push((name.to_owned(), at));
        at = end;
    }
    let directory = writer.finish();
    if bytes.len() != at + directory.len() {
        return None;
    }
    repaired.get_mut(at..)?.copy_from_slice(&directory);
    let mut damaged = Vec::new();
    let mut allowed = Vec::new();
    let mut central = at;
    for (name, local) in entries {
        let fields = [local + LOCAL_CRC, central + CENTRAL_CRC];
        if fields.iter().any(|field| bytes[*field..*field + 4] != repaired[*field..*field + 4]) {
            damaged.push(name.clone());
        }
        allowed.extend(fields);
        central += CENTRAL_LEN + name.len();
    }
    // Nothing but checksums may differ.
    let mut compared = bytes.to_vec();
    for field in allowed {
        compared[field..field + 4].copy_from_slice(&repaired[field..field + 4]);
    }
    (compared == repaired).then_some((repaired, damaged))
}

/// The files of a bundle.
pub(crate) struct Bundle<'a> {
    archive: Archive<'a>,
    /// Every name that is one of a bundle, in the archive's order.
    names: Vec<FileName>,
    /// The files of each trail.
    trails: BTreeMap<Origin, BTreeMap<TrailFile, &'a [u8]>>,
    /// Documents by the hash in their name.
    documents: BTreeMap<Hash, &'a [u8]>,
    foreign: Vec<String>,
}

impl<'a> Bundle<'a> {
    /// Sorts an archive's files by their names.
    pub(crate) fn new(archive: Archive<'a>) -> Bundle<'a> {
        let mut names = Vec::with_capacity(archive.len());
        let mut foreign = Vec::new();
        let mut trails: BTreeMap<Origin, BTreeMap<TrailFile, &'a [u8]>> = BTreeMap::new();
        let mut documents = BTreeMap::new();
        for (text, content) in archive.iter() {
            let Ok(name) = text.parse::<FileName>() else {
                foreign.push(text.to_owned());
                continue;
            };
            match &name {
                FileName::Trail(origin, file) => {
                    trails.entry(origin.clone()).or_default().insert(*file, content);
                }
                FileName::Document(hash) => {
                    documents.insert(*hash, content);
                }
                _ => {}
            }
            names.push(name);
        }
        Bundle { archive, names, trails, documents, foreign }
    }

    /// The archive itself.
    pub(crate) fn archive(&self) -> &Archive<'a> {
        &self.archive
    }

    /// A file's content.
    pub(crate) fn get(&self, name: &FileName) -> Option<&'a [u8]> {
        self.archive.get(&name.to_string())
    }

    /// The kids of the PEM files, in the archive's order.
    pub(crate) fn names(&self) -> &[FileName] {
        &self.names
    }

    /// Documents by the hash in their name; whether their bytes have it is not checked here.
    pub(crate) fn documents(&self) -> &BTreeMap<Hash, &'a [u8]> {
        &self.documents
    }

    /// The trails that have files here.
    pub(crate) fn origins(&self) -> impl Iterator<Item = &Origin> {
        self.trails.keys()
    }

    /// The files of a trail; none for one without files.
    pub(crate) fn trail(&self, origin: &Origin) -> Option<&BTreeMap<TrailFile, &'a [u8]>> {
        self.trails.get(origin)
    }

    /// Checks `layout`: only names of a bundle, in the bundle's order. Without the admin trail's
    /// origin the trails' order among themselves is not checked.
    pub(crate) fn check_layout(&self, admin: Option<&Origin>, checks: &mut Checks) {
        if let Some(name) = self.foreign.first() {
            let files = count(self.foreign.len(), "file is none of a bundle", "files are none of a bundle");
            let problem = format!("{files}, the first is {name}");
            checks.failed("layout", None, Outcome::Malformed, problem);
            return;
        }
        let rank = |name: &FileName| match name {
            FileName::Trail(origin, _) => admin.is_some_and(|admin| admin != origin),
            // After every trail.
            FileName::Manifest => true,
            _ => false,
        };
        let ordered = |pair: &&[FileName]| (rank(&pair[0]), &pair[0]) < (rank(&pair[1]), &pair[1]);
        match self.names.windows(2).find(|pair| !ordered(pair)) {
            Some(pair) => {
                let problem = format!("{} stands before {}, which is not the order of a bundle", pair[0], pair[1]);
                checks.failed("layout", None, Outcome::Malformed, problem);
            }
            None => checks.passed("layout", None, format!("{} files, named and ordered as a bundle", self.names.len())),
        }
    }
}

impl Documents for Bundle<'_> {
    fn document(&self, hash: &Hash) -> Option<Vec<u8>> {
        self.documents.get(hash).map(|bytes| bytes.to_vec())
    }
}
