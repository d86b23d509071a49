//! The files of one trail, up to the size of its checkpoint.

use countersign_trail::checkpoint::{Checkpoint, SignedCheckpoint};
use countersign_trail::evidence::{BundleWriter, PartLine, RecordSignature};
use countersign_trail::hash::Hash;
use countersign_trail::id::PartName;
use countersign_trail::tiles::{self, TILE_WIDTH, TileError, TileKind, TilePath};
use countersign_trail::tree::{self, CompactRange, node_hash};

use super::{ExportError, Job};
use crate::sequencer::TrailHandle;
use crate::store::{StoredPart, StoredRecord, TrailNo};

/// Records of a tile.
const WIDTH: u64 = TILE_WIDTH as u64;

/// Writes the checkpoint, then entries, hashes, signatures and parts, a tile at a time.
pub(super) fn write(
    job: &Job,
    handle: &TrailHandle,
    checkpoint: &SignedCheckpoint,
    writer: &mut BundleWriter,
) -> Result<(), ExportError> {
    job.sink.put(writer.begin_trail(checkpoint)?)?;
    let pass = Pass { job, handle, head: checkpoint.checkpoint() };
    pass.entries(writer)?;
    pass.hashes(writer)?;
    pass.signatures(writer)?;
    pass.parts(writer)
}

/// A trail whose store does not lead to its head.
pub(super) fn damaged(handle: &TrailHandle, problem: String) -> ExportError {
    ExportError::Damaged { trail: handle.facts().origin.clone(), problem }
}

struct Pass<'j> {
    job: &'j Job,
    handle: &'j TrailHandle,
    head: &'j Checkpoint,
}

impl Pass<'_> {
    fn no(&self) -> TrailNo {
        self.handle.facts().no
    }

    fn damaged(&self, problem: String) -> ExportError {
        damaged(self.handle, problem)
    }

    /// The tiles of records: index, first record, the one after the last.
    fn tiles(&self) -> impl Iterator<Item = (u64, u64, u64)> + use<> {
        let size = self.head.size;
        (0..size.div_ceil(WIDTH)).map(move |n| (n, n * WIDTH, size.min((n + 1) * WIDTH)))
    }

    fn records(&self, from: u64, to: u64) -> Result<Vec<StoredRecord>, ExportError> {
        let records = self.job.reader().read(|snapshot| snapshot.records(self.no(), from, to))?;
        if records.len() as u64 == to - from {
            return Ok(records);
        }
        Err(self.damaged(format!("of records {from} to {} only {} are stored", to - 1, records.len())))
    }

    /// Every record, checked: its bytes against its leaf hash, all leaf hashes against the root.
    fn entries(&self, writer: &mut BundleWriter) -> Result<(), ExportError> {
        let mut range = CompactRange::empty();
        for (n, from, to) in self.tiles() {
            let records = self.records(from, to)?;
            for record in &records {
                let leaf = tree::leaf_hash(&record.bytes);
                if leaf != record.leaf {
                    return Err(self.damaged(format!("record {} hashes to {leaf}, not to {}", record.seq, record.leaf)));
                }
                range.push(leaf).map_err(TileError::from).map_err(|error| self.damaged(error.to_string()))?;
            }
            let bytes: Vec<_> = records.iter().map(|record| &record.bytes[..]).collect();
            self.job.sink.put(writer.entries_tile(n, &bytes)?)?;
        }
        let (size, root) = (self.head.size, range.root());
        if root == self.head.root {
            return Ok(());
        }
        Err(self.damaged(format!("its {size} records have root {root}, its checkpoint signs {}", self.head.root)))
    }

    /// Every tile of hashes; a full one is checked against the node above it.
    fn hashes(&self, writer: &mut BundleWriter) -> Result<(), ExportError> {
        let tiles = tiles::hash_tiles(self.head.size).map_err(|error| self.damaged(error.to_string()))?;
        for path in tiles {
            let TileKind::Hashes(level) = path.kind() else { continue };
            let hashes = self.hash_tile(level, &path)?;
            self.job.sink.put(writer.hash_tile(level, path.index(), &hashes)?)?;
        }
        Ok(())
    }

    fn hash_tile(&self, level: u8, path: &TilePath) -> Result<Vec<Hash>, ExportError> {
        let from = path.index() * WIDTH;
        let to = from + u64::from(path.width());
        let (hashes, above) = self.job.reader().read(|snapshot| {
            let hashes: Vec<Hash> = match level {
                0 => snapshot.leaves(self.no(), from, to)?,
                _ => (from..to)
                    .filter_map(|at| snapshot.node(self.no(), level, at).transpose())
                    .collect::<Result<_, _>>()?,
            };
            let full = to - from == WIDTH;
            Ok((hashes, if full { Some(snapshot.node(self.no(), level + 1, path.index())?) } else { None }))
        })?;
        if hashes.len() as u64 != to - from {
            return Err(self.damaged(format!("of the hashes of {path} only {} are stored", hashes.len())));
        }
        match above {
            Some(node) if node != root_of_full(&hashes) => {
                Err(self.damaged(format!("the hashes of {path} do not lead to the stored node above them")))
            }
            _ => Ok(hashes),
        }
    }

    /// Record mode: every record's signature.
    fn signatures(&self, writer: &mut BundleWriter) -> Result<(), ExportError> {
        let Some(kid) = self.handle.facts().record_key else { return Ok(()) };
        for (n, from, to) in self.tiles() {
            let records = self.records(from, to)?;
            let signed = records.iter().map(|record| {
                let signature = record.signature.as_deref();
                let signature =
                    signature.ok_or_else(|| self.damaged(format!("record {} has no signature", record.seq)))?;
                Ok(RecordSignature { record: &record.bytes, kid, signature })
            });
            let signed: Vec<_> = signed.collect::<Result<_, ExportError>>()?;
            self.job.sink.put(writer.signatures_tile(n, &signed)?)?;
        }
        Ok(())
    }

    /// Every stored part, or the note that it is withheld.
    fn parts(&self, writer: &mut BundleWriter) -> Result<(), ExportError> {
        for (n, from, to) in self.tiles() {
            let lines = self.job.reader().read(|snapshot| {
                let mut lines = Vec::new();
                for seq in from..to {
                    let parts = snapshot.parts(self.no(), seq)?.into_iter();
                    lines.extend(parts.map(|part| line(seq, part, |name| self.job.selection.withhold.contains(name))));
                }
                Ok(lines)
            })?;
            self.job.sink.put(writer.parts_tile(n, &lines)?)?;
        }
        Ok(())
    }
}

fn line(seq: u64, part: StoredPart, withheld: impl Fn(&PartName) -> bool) -> PartLine {
    let StoredPart { name, media_type, content } = part;
    match content {
        Some((salt, data)) if !withheld(&name) => PartLine::Given { seq, name, media_type, salt, data: data.into() },
        _ => PartLine::Withheld { seq, name, media_type: Some(media_type).filter(|text| !text.is_empty()) },
    }
}

/// The root over 256 hashes.
fn root_of_full(hashes: &[Hash]) -> Option<Hash> {
    let mut row = hashes.to_vec();
    while row.len() > 1 {
        row = row.chunks_exact(2).map(|pair| node_hash(pair[0], pair[1])).collect();
    }
    row.pop()
}
