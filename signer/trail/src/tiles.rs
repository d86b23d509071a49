//! C2SP tlog-tiles: a published trail as static files (c2sp.org/tlog-tiles).
//!
//! A tile is up to 256 consecutive hashes of one of the tree's levels 0, 8, 16, ...; an entry
//! bundle holds the records under a level-0 tile. Both are named by level (or `entries`), index
//! and, if partial, width: `tile/0/x001/x234/067.p/8`.
//!
//! Stricter than the specification: nothing beyond a tree of 2^63 - 1 leaves has a name.

mod bundle;
mod path;
mod reader;

use crate::hash::HASH_LEN;
use crate::tree::{MAX_SIZE, TreeError, check_size};

pub use bundle::{encode_bundle, encode_hashes, parse_bundle, parse_hashes};
pub use path::{TileKind, TilePath};
pub use reader::TileReader;

/// The height of a tile in levels of the tree.
pub const TILE_HEIGHT: u32 = 8;

/// The width of a full tile in hashes, and of a full bundle in entries: 2^8.
pub const TILE_WIDTH: u16 = 1 << TILE_HEIGHT;

/// The size of a full tile in bytes: 256 * 32.
pub const FULL_TILE_LEN: usize = TILE_WIDTH as usize * HASH_LEN;

/// The longest entry in bytes: what its 16-bit length prefix holds.
pub const MAX_ENTRY_LEN: usize = u16::MAX as usize;

/// The longest entry bundle in bytes: 256 entries, each with its prefix.
pub const MAX_BUNDLE_LEN: usize = TILE_WIDTH as usize * (2 + MAX_ENTRY_LEN);

/// The highest tile level in use: one hash of level 8 would span 2^64 leaves.
pub const MAX_LEVEL: u8 = 7;

/// Why a tile, a bundle or its name is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TileError {
    /// A path in another spelling than the specification's.
    #[error("the text is no tile path such as tile/0/x001/234.p/5")]
    Path,
    /// A level above [`MAX_LEVEL`].
    #[error("tile level {0} is beyond the highest, {MAX_LEVEL}")]
    Level(u8),
    /// A width of 0, or above [`TILE_WIDTH`].
    #[error("a tile has 1 to {TILE_WIDTH} hashes or entries, not {0}")]
    Width(u64),
    /// A tile that reaches beyond the largest tree.
    #[error("tile {index} of width {width} on level {level} reaches beyond {MAX_SIZE} leaves")]
    Beyond {
        /// The tile's level; 0 for entries.
        level: u8,
        /// The tile's index within its level.
        index: u64,
        /// The tile's width.
        width: u16,
    },
    /// A tile's bytes are not one hash for each place.
    #[error("the tile has {actual} bytes; its width demands {expected}")]
    TileLength {
        /// 32 bytes for each hash of its width.
        expected: usize,
        /// The number of bytes given.
        actual: usize,
    },
    /// An entry longer than [`MAX_ENTRY_LEN`].
    #[error("entry {entry} of the bundle has {length} bytes, more than {MAX_ENTRY_LEN}")]
    EntryTooLong {
        /// The entry's place in the bundle, from 0.
        entry: usize,
        /// Its length in bytes.
        length: usize,
    },
    /// A bundle that ends within this entry (counted from 0).
    #[error("the bundle ends within entry {0}")]
    BundleTooShort(usize),
    /// A bundle that goes on beyond its last entry.
    #[error("the bundle has {0} bytes beyond its last entry")]
    BundleTooLong(usize),
    /// A size beyond the largest.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

/// The number of hashes that a tree of `size` leaves has on a tile level: floor(size / 256^level).
fn hashes_on(level: u8, size: u64) -> u64 {
    size.checked_shr(TILE_HEIGHT * u32::from(level)).unwrap_or(0)
}

/// All tiles of hashes of a tree of `size` leaves, level by level: on each level the full ones,
/// then the partial one if there is one.
///
/// # Errors
/// [`TreeError::TooLarge`] in [`TileError::Tree`].
pub fn hash_tiles(size: u64) -> Result<impl Iterator<Item = TilePath>, TileError> {
    check_size(size)?;
    let levels = 0..=MAX_LEVEL;
    Ok(levels.flat_map(move |level| tiles_of(TileKind::Hashes(level), hashes_on(level, size))))
}

/// All entry bundles of a trail of `size` records: the full ones, then the partial one if any.
///
/// # Errors
/// [`TreeError::TooLarge`] in [`TileError::Tree`].
pub fn entry_bundles(size: u64) -> Result<impl Iterator<Item = TilePath>, TileError> {
    check_size(size)?;
    Ok(tiles_of(TileKind::Entries, size))
}

/// The tiles that hold `count` hashes or entries.
fn tiles_of(kind: TileKind, count: u64) -> impl Iterator<Item = TilePath> {
    let width = u64::from(TILE_WIDTH);
    (0..count.div_ceil(width)).filter_map(move |index| {
        let here = (count - index * width).min(width);
        TilePath::new(kind, index, u16::try_from(here).ok()?).ok()
    })
}

#[cfg(test)]
mod tests;
