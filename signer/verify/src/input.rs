//! A trail's files: are they those of its size, and which records do they hold?

use std::collections::BTreeMap;

use countersign_trail::admin::TrailEntry;
use countersign_trail::checkpoint::SignedCheckpoint;
use countersign_trail::evidence::{TrailFile, trail_files};
use countersign_trail::origin::Origin;
use countersign_trail::tiles::{TILE_WIDTH, parse_bundle};

use crate::exit::Outcome;
use crate::records::TileInput;
use crate::report::{Checks, count};

type Files<'a> = BTreeMap<TrailFile, &'a [u8]>;

/// Signatures and parts of one tile.
type Beside<'a> = (Option<&'a [u8]>, Option<&'a [u8]>);

/// A trail's files, with its records cut out of them.
pub(crate) struct TrailInput<'a> {
    pub(crate) origin: Origin,
    pub(crate) entry: TrailEntry,
    pub(crate) files: &'a Files<'a>,
    /// By sequence number; none where a bundle of entries is damaged.
    pub(crate) records: Vec<Option<&'a [u8]>>,
}

/// Fewer bytes than any record takes in a bundle: its names, kid, `prev` and time alone are more.
const MIN_ENTRY_LEN: usize = 128;

impl<'a> TrailInput<'a> {
    /// Cuts the records out of the entry bundles, as far as those follow one another from tile 0.
    pub(crate) fn new(origin: Origin, entry: TrailEntry, files: &'a Files<'a>) -> TrailInput<'a> {
        let mut records = Vec::new();
        let mut next = 0;
        for (file, bytes) in files {
            if let TrailFile::Entries(path) = file
                && path.index() == next
            {
                let whole = cut(bytes, usize::from(path.width()), &mut records);
                next = if path.is_partial() || !whole { u64::MAX } else { next + 1 };
            }
        }
        TrailInput { origin, entry, files, records }
    }

    /// The records tile by tile, with what stands beside each.
    pub(crate) fn tiles(&self) -> Vec<TileInput<'_>> {
        let mut beside: BTreeMap<u64, Beside<'_>> = BTreeMap::new();
        for (file, bytes) in self.files {
            match file {
                TrailFile::Signatures(path) => beside.entry(path.index()).or_default().0 = Some(bytes),
                TrailFile::Parts(path) => beside.entry(path.index()).or_default().1 = Some(bytes),
                _ => {}
            }
        }
        let mut tiles = Vec::new();
        for (index, records) in (0u64..).zip(self.records.chunks(usize::from(TILE_WIDTH))) {
            let (signatures, parts) = beside.get(&index).copied().unwrap_or_default();
            tiles.push(TileInput { first: index * u64::from(TILE_WIDTH), records, signatures, parts });
        }
        tiles
    }
}

/// Cuts a bundle of `width` entries as far as it goes, and fills up with none: where one length is
/// damaged, the entries before it are still worth reading. False for a bundle too short for so many
/// records: it gives one place for each that could be in it and one for the end, so that the memory
/// for records stays below a few times the bundle's size.
fn cut<'a>(bytes: &'a [u8], width: usize, records: &mut Vec<Option<&'a [u8]>>) -> bool {
    let places = width.min(bytes.len() / MIN_ENTRY_LEN + 1);
    let mut rest = Some(bytes);
    for _ in 0..places {
        let taken = rest.and_then(|rest| rest.split_first_chunk::<2>());
        let taken = taken.and_then(|(length, rest)| rest.split_at_checked(usize::from(u16::from_be_bytes(*length))));
        records.push(taken.map(|(entry, _)| entry));
        rest = taken.map(|(_, after)| after);
    }
    places == width
}

/// The trail's checkpoint as it parses; its signature is not verified.
pub(crate) fn checkpoint_of(files: &Files<'_>) -> Result<SignedCheckpoint, (Outcome, String)> {
    let bytes = files.get(&TrailFile::Checkpoint).ok_or((Outcome::Malformed, "there is no checkpoint".to_owned()))?;
    SignedCheckpoint::parse(bytes).map_err(|error| (Outcome::Malformed, error.to_string()))
}

/// The trail has the files of its checkpoint's size, and none beyond.
pub(crate) fn check_files(name: &'static str, input: &TrailInput<'_>, checks: &mut Checks) {
    let origin = Some(&input.origin);
    let size = match checkpoint_of(input.files) {
        Ok(signed) => signed.checkpoint().size,
        Err(_) => {
            checks.not_checked(name, origin, "without a checkpoint the size is not known");
            return;
        }
    };
    let required = match trail_files(size, input.entry.mode) {
        Ok(required) => required,
        Err(error) => {
            checks.failed(name, origin, Outcome::Malformed, error);
            return;
        }
    };
    let mut required = required.peekable();
    let mut present = input.files.keys().filter(|file| !matches!(file, TrailFile::Parts(_))).peekable();
    // As long as both agree: no more steps than there are files, whatever size is claimed.
    while required.peek().is_some() && required.peek() == present.peek().copied() {
        required.next();
        present.next();
    }
    let result = match (required.next(), present.next()) {
        (None, None) => input.check_bundles(size),
        (Some(missing), found) if found.is_none_or(|found| lacks(&missing, found)) => {
            Err((Outcome::Incomplete, format!("{missing} is missing")))
        }
        (_, found) => {
            let found = found.map(ToString::to_string).unwrap_or_default();
            let problem = format!("{found} does not belong to a trail of {size} records");
            Err((Outcome::Tampered, problem))
        }
    };
    let files = count(input.files.len(), "file", "files");
    let detail = || format!("{files}, those of size {size}");
    checks.result(name, origin, result.map(|()| detail()));
}

/// Whether a trail that has `found` where `missing` should be lacks something: the tile is shorter,
/// or a later file comes next. A longer tile holds more than it should.
fn lacks(missing: &TrailFile, found: &TrailFile) -> bool {
    match (missing, found) {
        (TrailFile::Entries(missing), TrailFile::Entries(found))
        | (TrailFile::Hashes(missing), TrailFile::Hashes(found))
        | (TrailFile::Signatures(missing), TrailFile::Signatures(found))
            if (missing.kind(), missing.index()) == (found.kind(), found.index()) =>
        {
            found.width() < missing.width()
        }
        _ => missing < found,
    }
}

impl TrailInput<'_> {
    /// Each entry bundle holds its entries and nothing else; parts stand beside tiles of the trail.
    fn check_bundles(&self, size: u64) -> Result<(), (Outcome, String)> {
        let width = u64::from(TILE_WIDTH);
        for (file, bytes) in self.files {
            match file {
                TrailFile::Entries(path) => {
                    parse_bundle(bytes, path.width())
                        .map_err(|error| (Outcome::Malformed, format!("{file}: {error}")))?;
                }
                TrailFile::Parts(path) if path.first() + u64::from(path.width()) != size.min(path.first() + width) => {
                    return Err((Outcome::Tampered, format!("{file} stands beside no tile of {size} records")));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_gives_no_more_places_than_records_that_could_be_in_it() {
        let cut = |bytes: &[u8], width| {
            let mut records = Vec::new();
            let whole = cut(bytes, width, &mut records);
            (whole, records.iter().map(|record| record.map(<[u8]>::len)).collect::<Vec<_>>())
        };
        assert_eq!(cut(b"", 256), (false, vec![None]));
        assert_eq!(cut(&[0; 512], 256), (false, vec![Some(0); 5]), "entries of no bytes");
        let entry = |len: u16| [&len.to_be_bytes()[..], &vec![b'x'; usize::from(len)]].concat();
        let three = [entry(300), entry(301), entry(302)].concat();
        assert_eq!(cut(&three, 3), (true, vec![Some(300), Some(301), Some(302)]));
        // One length is damaged, and places are kept for those behind it.
        let damaged = [entry(300), vec![0xff, 0xff], entry(301)].concat();
        assert_eq!(cut(&damaged, 3), (true, vec![Some(300), None, None]));
    }
}
