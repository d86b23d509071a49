//! The strict zip profile of evidence bundles.
//!
//! Any zip tool reads such an archive, yet every byte of it has exactly one reading: for given names
//! and contents in a given order there is one archive, and [`Archive::parse`] accepts no other. Two
//! readers of one bundle therefore cannot see two things, which plain zip allows in many ways (local
//! and central headers that differ, data between entries, prefixes, comments, duplicate names).
//!
//! The profile, in terms of APPNOTE.TXT 6.3.10:
//! - entries are stored (method 0), one after another from offset 0, nothing between them;
//! - every header field that is no name, size, offset or CRC-32 is a constant: needs version 1.0, made
//!   by version 2.0 on Unix, no flags, 1980-01-01 00:00:00, mode 0100644, no extra field, no comment,
//!   no data descriptor, one disk;
//! - the central directory mirrors the entries in their order and starts right after the last; the
//!   end record follows it and ends the file; there is no ZIP64;
//! - names are relative paths: segments of `[a-zA-Z0-9._~=-]` joined by `/`, no segment empty, `.` or
//!   `..`, at most 255 bytes; no name occurs twice or is a folder of another one.
//!
//! CRC-32 finds damage, not intent: what the contents are is proven by the bundle's signed manifest.

use std::collections::{BTreeMap, BTreeSet};

/// Most entries in an archive: one below the 65,535 that announces ZIP64.
pub const ENTRIES_MAX: usize = 65_534;

/// Longest archive in bytes: one below the 2^32 - 1 that announces ZIP64 in sizes and offsets.
pub const ARCHIVE_MAX: u64 = u32::MAX as u64 - 1;

/// Longest name in bytes.
pub const NAME_MAX: usize = 255;

/// Length in bytes of a local file header without the name (APPNOTE 4.3.7).
const LOCAL_LEN: usize = 30;

/// Length in bytes of a central directory header without the name (APPNOTE 4.3.12).
const CENTRAL_LEN: usize = 46;

/// Length in bytes of the end of central directory record (APPNOTE 4.3.16).
const END_LEN: usize = 22;

/// Signatures of the three structures.
const LOCAL_SIGNATURE: [u8; 4] = *b"PK\x03\x04";
const CENTRAL_SIGNATURE: [u8; 4] = *b"PK\x01\x02";
const END_SIGNATURE: [u8; 4] = *b"PK\x05\x06";

/// Version needed to extract a stored file: 1.0 (APPNOTE 4.4.3.2).
const VERSION_NEEDED: u16 = 10;

/// Made on Unix (3), by version 2.0 of the specification (APPNOTE 4.4.2).
const VERSION_MADE_BY: u16 = 3 << 8 | 20;

/// 1980-01-01 as an MS-DOS date, the earliest that exists; the time is 0.
const DATE: u16 = 1 << 5 | 1;

/// A regular file, readable by all and writable by its owner: the Unix mode in the upper half.
const EXTERNAL_ATTRIBUTES: u32 = 0o100_644 << 16;

/// Why an archive cannot take an entry, or bytes are not an archive of this profile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArchiveError {
    /// A name breaks the rule. It is not shown: it may hold anything.
    #[error(
        "a name in an archive is a relative path of segments [a-zA-Z0-9._~=-], none of them empty, \
         \".\" or \"..\", at most 255 bytes"
    )]
    Name,
    /// A name occurs twice.
    #[error("the name {0} occurs twice in an archive")]
    Duplicate(String),
    /// A name is also a folder of another name, so that it cannot be extracted.
    #[error("the name {0} is both a file and a folder in an archive")]
    FileAndFolder(String),
    /// The archive has its 65,534 entries.
    #[error("an archive has at most 65534 entries; export the range in several bundles")]
    TooManyEntries,
    /// The archive would pass 2^32 - 2 bytes.
    #[error("an archive has at most 4294967294 bytes; export the range in several bundles")]
    TooLarge,
    /// The archive ends within an entry or before its central directory is complete.
    #[error("the archive is cut off: it ends at byte {0}, within the part that starts at byte {1}")]
    CutOff(usize, usize),
    /// A local header has another value than the profile's.
    #[error("the entry header at byte {0} of the archive is not that of a plain stored file")]
    Header(usize),
    /// The content of an entry does not have the CRC-32 of its header.
    #[error("the archive is damaged: the content of {0} does not have its CRC-32")]
    Damaged(String),
    /// What follows the entries is not their central directory and the end of the archive.
    #[error("byte {0} of the archive differs from the central directory and end record of its entries")]
    CentralDirectory(usize),
    /// Bytes follow the end of the archive.
    #[error("{0} bytes follow the end of the archive")]
    Trailing(usize),
}

/// Writes an archive front to back. It does no I/O: the caller appends what each call returns.
#[derive(Debug, Default)]
pub struct ArchiveWriter {
    /// Bytes of all entries so far.
    offset: u32,
    /// The central directory so far: at most 65,534 times 46 + 255 bytes, about 20 MB.
    central: Vec<u8>,
    /// The names so far; its size is the number of entries.
    names: BTreeSet<String>,
}

impl ArchiveWriter {
    /// An archive without entries.
    pub fn new() -> ArchiveWriter {
        ArchiveWriter::default()
    }

    /// Adds an entry. Returns its header and its content, to be appended to the stream in this order.
    ///
    /// # Errors
    /// A name that breaks the rule or meets another one, or a bound reached. The archive is then as
    /// it was before, and can go on or be finished.
    pub fn push<'a>(&mut self, name: &str, content: &'a [u8]) -> Result<(Vec<u8>, &'a [u8]), ArchiveError> {
        check_name(name)?;
        self.check_new(name)?;
        if self.names.len() >= ENTRIES_MAX {
            return Err(ArchiveError::TooManyEntries);
        }
        let end = self.end_after(name, content).ok_or(ArchiveError::TooLarge)?;
        let entry = Entry {
            name,
            crc: crc32fast::hash(content),
            // Not above ARCHIVE_MAX, see `end_after`.
            size: content.len() as u32,
        };
        entry.write_central(self.offset, &mut self.central);
        self.offset = end;
        self.names.insert(name.to_owned());
        Ok((entry.local(), content))
    }

    /// Ends the archive. Returns the central directory and the end record, to be appended.
    pub fn finish(self) -> Vec<u8> {
        // At most ENTRIES_MAX, and the directory ends below ARCHIVE_MAX.
        let count = self.names.len() as u16;
        let central_len = self.central.len() as u32;
        let mut bytes = self.central;
        bytes.extend_from_slice(&END_SIGNATURE);
        put_u16(&mut bytes, &[0, 0, count, count]);
        put_u32(&mut bytes, &[central_len, self.offset]);
        put_u16(&mut bytes, &[0]);
        bytes
    }

    /// Where the entries end after one more, if the whole archive stays within its bound.
    fn end_after(&self, name: &str, content: &[u8]) -> Option<u32> {
        let local = u64::try_from(content.len()).ok()?.checked_add((LOCAL_LEN + name.len()) as u64)?;
        let end = u64::from(self.offset).checked_add(local)?;
        let central = (self.central.len() + CENTRAL_LEN + name.len() + END_LEN) as u64;
        (end.checked_add(central)? <= ARCHIVE_MAX).then(|| u32::try_from(end).ok())?
    }

    /// Refuses a name that is there, is a folder of one that is, or has one that is as a folder.
    fn check_new(&self, name: &str) -> Result<(), ArchiveError> {
        if self.names.contains(name) {
            return Err(ArchiveError::Duplicate(name.to_owned()));
        }
        let inside = format!("{name}/");
        if self.names.range(inside.clone()..).next().is_some_and(|next| next.starts_with(&inside)) {
            return Err(ArchiveError::FileAndFolder(name.to_owned()));
        }
        for (at, _) in name.match_indices('/') {
            if self.names.contains(&name[..at]) {
                return Err(ArchiveError::FileAndFolder(name[..at].to_owned()));
            }
        }
        Ok(())
    }
}

/// An archive in memory, checked whole; names and contents are borrowed from its bytes.
#[derive(Clone, Debug)]
pub struct Archive<'a> {
    entries: Vec<(&'a str, &'a [u8])>,
    by_name: BTreeMap<&'a str, usize>,
}

impl<'a> Archive<'a> {
    /// Reads an archive, of at most [`ARCHIVE_MAX`] bytes.
    ///
    /// Each entry's name and content are taken from the front, the archive of the profile is built
    /// from them as [`ArchiveWriter`] does, and every other byte must be the same.
    ///
    /// # Errors
    /// Everything that [`ArchiveWriter`] would not have written.
    pub fn parse(bytes: &'a [u8]) -> Result<Archive<'a>, ArchiveError> {
        if bytes.len() as u64 > ARCHIVE_MAX {
            return Err(ArchiveError::TooLarge);
        }
        let mut writer = ArchiveWriter::new();
        let mut entries = Vec::new();
        let mut at = 0;
        while bytes[at..].starts_with(&LOCAL_SIGNATURE) {
            let (name, content) = read_entry(bytes, at, &mut writer)?;
            entries.push((name, content));
            at += LOCAL_LEN + name.len() + content.len();
        }
        check_end(bytes, at, &writer.finish())?;
        let by_name = entries.iter().enumerate().map(|(i, (name, _))| (*name, i)).collect();
        Ok(Archive { entries, by_name })
    }

    /// The content of the entry with this name.
    pub fn get(&self, name: &str) -> Option<&'a [u8]> {
        self.by_name.get(name).map(|i| self.entries[*i].1)
    }

    /// Name and content of every entry, in the archive's order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&'a str, &'a [u8])> + '_ {
        self.entries.iter().copied()
    }

    /// The number of entries, at most [`ENTRIES_MAX`].
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// Reads the entry at an offset, having pushed it to `writer` and compared the headers.
fn read_entry<'a>(bytes: &'a [u8], at: usize, writer: &mut ArchiveWriter) -> Result<(&'a str, &'a [u8]), ArchiveError> {
    let cut_off = ArchiveError::CutOff(bytes.len(), at);
    let (header, rest) = bytes[at..].split_at_checked(LOCAL_LEN).ok_or(cut_off.clone())?;
    let size = u32::from_le_bytes([header[18], header[19], header[20], header[21]]);
    let name_len = u16::from_le_bytes([header[26], header[27]]);
    let (name, rest) = rest.split_at_checked(usize::from(name_len)).ok_or(cut_off.clone())?;
    let name = std::str::from_utf8(name).map_err(|_| ArchiveError::Name)?;
    // Before the content is trusted with a size: the header must be right in all but the CRC.
    check_name(name)?;
    let stated = u32::from_le_bytes([header[14], header[15], header[16], header[17]]);
    if (Entry { name, crc: stated, size }).local()[..LOCAL_LEN] != *header {
        return Err(ArchiveError::Header(at));
    }
    let size = usize::try_from(size).map_err(|_| ArchiveError::TooLarge)?;
    let content = rest.get(..size).ok_or(cut_off)?;
    let (expected, _) = writer.push(name, content)?;
    if expected[..LOCAL_LEN] != *header {
        return Err(ArchiveError::Damaged(name.to_owned()));
    }
    Ok((name, content))
}

/// Compares everything from `at` on with the end that the entries must have.
fn check_end(bytes: &[u8], at: usize, expected: &[u8]) -> Result<(), ArchiveError> {
    let found = &bytes[at..];
    let common = found.iter().zip(expected).take_while(|(a, b)| a == b).count();
    if common < found.len().min(expected.len()) {
        return Err(ArchiveError::CentralDirectory(at + common));
    }
    if found.len() < expected.len() {
        return Err(ArchiveError::CutOff(bytes.len(), at));
    }
    if found.len() > expected.len() {
        return Err(ArchiveError::Trailing(found.len() - expected.len()));
    }
    Ok(())
}

fn check_name(name: &str) -> Result<(), ArchiveError> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._~=-".contains(&b);
    let segment = |s: &str| !matches!(s, "" | "." | "..") && s.bytes().all(allowed);
    if name.len() > NAME_MAX || !name.split('/').all(segment) {
        return Err(ArchiveError::Name);
    }
    Ok(())
}

/// What the headers of an entry are made of.
struct Entry<'a> {
    name: &'a str,
    crc: u32,
    size: u32,
}

impl Entry<'_> {
    /// The local header (APPNOTE 4.3.7), name included.
    fn local(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(LOCAL_LEN + self.name.len());
        bytes.extend_from_slice(&LOCAL_SIGNATURE);
        self.write_common(&mut bytes);
        bytes.extend_from_slice(self.name.as_bytes());
        bytes
    }

    /// The central directory header (APPNOTE 4.3.12), name included.
    fn write_central(&self, offset: u32, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&CENTRAL_SIGNATURE);
        put_u16(bytes, &[VERSION_MADE_BY]);
        self.write_common(bytes);
        // Comment length, disk, internal attributes.
        put_u16(bytes, &[0, 0, 0]);
        put_u32(bytes, &[EXTERNAL_ATTRIBUTES, offset]);
        bytes.extend_from_slice(self.name.as_bytes());
    }

    /// The 26 bytes that both headers share, from the version needed to the extra field's length.
    fn write_common(&self, bytes: &mut Vec<u8>) {
        // Version needed, flags, method, time, date.
        put_u16(bytes, &[VERSION_NEEDED, 0, 0, 0, DATE]);
        put_u32(bytes, &[self.crc, self.size, self.size]);
        // A checked name has at most 255 bytes.
        put_u16(bytes, &[self.name.len() as u16, 0]);
    }
}

fn put_u16(bytes: &mut Vec<u8>, values: &[u16]) {
    for value in values {
        bytes.extend_from_slice(&value.to_le_bytes());
    }
}

fn put_u32(bytes: &mut Vec<u8>, values: &[u32]) {
    for value in values {
        bytes.extend_from_slice(&value.to_le_bytes());
    }
}

#[cfg(test)]
mod tests;
