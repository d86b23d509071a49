//! Names of tiles and entry bundles.

use std::fmt;
use std::str::FromStr;

use crate::checkpoint::parse_decimal;
use crate::tree::MAX_SIZE;

use super::{MAX_LEVEL, TILE_HEIGHT, TILE_WIDTH, TileError};

/// The longest path, in bytes: the parts around the index, and 7 groups of at most 5 for an index
/// below 2^63 (19 digits).
const MAX_PATH_LEN: usize = "tile/entries/".len() + 7 * 5 + ".p/255".len();

/// What a tile holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TileKind {
    /// Hashes of this tile level (0 to 7): of the tree's level 8 * level.
    Hashes(u8),
    /// The entries themselves.
    Entries,
}

/// The name of a tile or an entry bundle. Text form (Display, FromStr): the path below the trail's
/// prefix, as the specification writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TilePath {
    kind: TileKind,
    index: u64,
    width: u16,
}

impl TilePath {
    /// The tile `index` of its kind, with `width` hashes or entries: 256 for a full one.
    ///
    /// # Errors
    /// [`TileError::Level`], [`TileError::Width`], [`TileError::Beyond`].
    pub fn new(kind: TileKind, index: u64, width: u16) -> Result<TilePath, TileError> {
        let path = TilePath { kind, index, width };
        let level = path.level();
        if level > MAX_LEVEL {
            return Err(TileError::Level(level));
        }
        if !(1..=TILE_WIDTH).contains(&width) {
            return Err(TileError::Width(width.into()));
        }
        // In hashes of this level; 128 bits, for index * 256 may pass 64.
        let end = u128::from(index) * u128::from(TILE_WIDTH) + u128::from(width);
        let hash_span = 1u128 << (TILE_HEIGHT * u32::from(level));
        if end * hash_span > u128::from(MAX_SIZE) {
            return Err(TileError::Beyond { level, index, width });
        }
        Ok(path)
    }

    /// What it holds.
    pub fn kind(&self) -> TileKind {
        self.kind
    }

    /// The tile level; entries stand beside level 0.
    pub fn level(&self) -> u8 {
        match self.kind {
            TileKind::Hashes(level) => level,
            TileKind::Entries => 0,
        }
    }

    /// The index within the level.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// The number of hashes or entries, 1 to 256.
    pub fn width(&self) -> u16 {
        self.width
    }

    /// Whether it can still grow.
    pub fn is_partial(&self) -> bool {
        self.width < TILE_WIDTH
    }

    /// The index of its first hash within the tree's level, or of its first entry in the trail.
    pub fn first(&self) -> u64 {
        self.index * u64::from(TILE_WIDTH)
    }
}

impl fmt::Display for TilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            TileKind::Hashes(level) => write!(f, "tile/{level}/")?,
            TileKind::Entries => f.write_str("tile/entries/")?,
        }
        if self.index >= 1000 {
            write_groups(f, self.index / 1000)?;
        }
        write!(f, "{:03}", self.index % 1000)?;
        if self.is_partial() {
            write!(f, ".p/{}", self.width)?;
        }
        Ok(())
    }
}

/// Writes all groups of three digits but the last, the most significant first, each marked with an
/// x. The depth is at most 6: a 64-bit number has 7 groups.
fn write_groups(f: &mut fmt::Formatter<'_>, groups: u64) -> fmt::Result {
    if groups >= 1000 {
        write_groups(f, groups / 1000)?;
    }
    write!(f, "x{:03}/", groups % 1000)
}

impl FromStr for TilePath {
    type Err = TileError;

    fn from_str(text: &str) -> Result<TilePath, TileError> {
        if text.len() > MAX_PATH_LEN {
            return Err(TileError::Path);
        }
        let path = parse(text).ok_or(TileError::Path)??;
        // One spelling: leading groups of zeros and the like come back different.
        if path.to_string() != text {
            return Err(TileError::Path);
        }
        Ok(path)
    }
}

/// Reads the parts of a path; None if one is missing or no number.
fn parse(text: &str) -> Option<Result<TilePath, TileError>> {
    let (kind, rest) = text.strip_prefix("tile/")?.split_once('/')?;
    let kind = match kind {
        "entries" => TileKind::Entries,
        level => TileKind::Hashes(u8::try_from(parse_decimal(level)?).ok()?),
    };
    let (groups, width) = match rest.split_once(".p/") {
        // A full width is never written.
        Some((groups, width)) => (groups, u16::try_from(parse_decimal(width)?).ok()?),
        None => (rest, TILE_WIDTH),
    };
    let mut index: u64 = 0;
    for group in groups.split('/') {
        let digits = group.strip_prefix('x').unwrap_or(group);
        if digits.len() != 3 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        index = index.checked_mul(1000)?.checked_add(digits.parse().ok()?)?;
    }
    Some(TilePath::new(kind, index, width))
}
