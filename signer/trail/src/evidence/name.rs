//! The names of a bundle's files.

use std::fmt;
use std::str::FromStr;

use crate::document::Mode;
use crate::hash::Hash;
use crate::keys::Kid;
use crate::origin::Origin;
use crate::tiles::{TileError, TileKind, TilePath, entry_bundles, hash_tiles};

use super::{JWKS_FILE, KEY_FILE, MANIFEST_FILE, VKEYS_FILE};

const ENTRIES: &str = "tile/entries/";

/// A text that names no file of a bundle.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not the name of a file in a bundle")]
pub struct NameError {
    text: String,
}

/// A file in the folder of a trail. Ascends in the order of the bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TrailFile {
    /// `checkpoint`.
    Checkpoint,
    /// `tile/entries/<n>`: the path is of kind entries.
    Entries(TilePath),
    /// `tile/<level>/<n>`: the path is of kind hashes.
    Hashes(TilePath),
    /// `signatures/<n>`: the path is that of the records' own tile.
    Signatures(TilePath),
    /// `parts/<n>`: the path is that of the records' own tile.
    Parts(TilePath),
}

/// A file of a bundle. Ascends in the order of the bundle, but for the admin trail, which comes
/// before the other trails.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileName {
    /// `documents/<sha256>`.
    Document(Hash),
    /// `keys.json`.
    KeyFile,
    /// `jwks.json`.
    Jwks,
    /// `keys/<kid>.pem`.
    Pem(Kid),
    /// `vkeys.txt`.
    Vkeys,
    /// `trails/<origin>/<file>`.
    Trail(Origin, TrailFile),
    /// `manifest.dsse.json`.
    Manifest,
}

impl fmt::Display for TrailFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let beside = |f: &mut fmt::Formatter<'_>, folder: &str, path: &TilePath| {
            let path = path.to_string();
            write!(f, "{folder}/{}", path.strip_prefix(ENTRIES).unwrap_or(&path))
        };
        match self {
            TrailFile::Checkpoint => f.write_str("checkpoint"),
            TrailFile::Entries(path) | TrailFile::Hashes(path) => write!(f, "{path}"),
            TrailFile::Signatures(path) => beside(f, "signatures", path),
            TrailFile::Parts(path) => beside(f, "parts", path),
        }
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FileName::Document(hash) => write!(f, "documents/{hash}"),
            FileName::KeyFile => f.write_str(KEY_FILE),
            FileName::Jwks => f.write_str(JWKS_FILE),
            FileName::Pem(kid) => write!(f, "keys/{kid}.pem"),
            FileName::Vkeys => f.write_str(VKEYS_FILE),
            FileName::Trail(origin, file) => write!(f, "trails/{}/{file}", origin.path_segment()),
            FileName::Manifest => f.write_str(MANIFEST_FILE),
        }
    }
}

impl FromStr for FileName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<FileName, NameError> {
        let refused = || NameError { text: text.chars().take(80).collect() };
        let name = parse(text).ok_or_else(refused)?;
        // One spelling, whatever the parsers of the pieces accept.
        if name.to_string() == text { Ok(name) } else { Err(refused()) }
    }
}

fn parse(text: &str) -> Option<FileName> {
    match text {
        KEY_FILE => return Some(FileName::KeyFile),
        JWKS_FILE => return Some(FileName::Jwks),
        VKEYS_FILE => return Some(FileName::Vkeys),
        MANIFEST_FILE => return Some(FileName::Manifest),
        _ => {}
    }
    if let Some(hash) = text.strip_prefix("documents/") {
        return Some(FileName::Document(hash.parse().ok()?));
    }
    if let Some(kid) = text.strip_prefix("keys/") {
        return Some(FileName::Pem(kid.strip_suffix(".pem")?.parse().ok()?));
    }
    let (segment, file) = text.strip_prefix("trails/")?.split_once('/')?;
    let origin = Origin::parse(&segment.replace('~', "/")).ok()?;
    Some(FileName::Trail(origin, parse_trail_file(file)?))
}

fn parse_trail_file(text: &str) -> Option<TrailFile> {
    if text == "checkpoint" {
        return Some(TrailFile::Checkpoint);
    }
    let beside = |folder: &str| -> Option<TilePath> { format!("{ENTRIES}{}", text.strip_prefix(folder)?).parse().ok() };
    if let Some(path) = beside("signatures/") {
        return Some(TrailFile::Signatures(path));
    }
    if let Some(path) = beside("parts/") {
        return Some(TrailFile::Parts(path));
    }
    let path: TilePath = text.parse().ok()?;
    Some(match path.kind() {
        TileKind::Entries => TrailFile::Entries(path),
        TileKind::Hashes(_) => TrailFile::Hashes(path),
    })
}

/// Every file that the folder of a trail of `size` records must hold, in order; files of parts may
/// follow, one for each tile at most.
///
/// # Errors
/// A size beyond what a tree may have.
pub fn trail_files(size: u64, mode: Mode) -> Result<impl Iterator<Item = TrailFile> + Send + use<>, TileError> {
    let signed = if mode == Mode::Record { size } else { 0 };
    Ok(std::iter::once(TrailFile::Checkpoint)
        .chain(entry_bundles(size)?.map(TrailFile::Entries))
        .chain(hash_tiles(size)?.map(TrailFile::Hashes))
        .chain(entry_bundles(signed)?.map(TrailFile::Signatures)))
}
