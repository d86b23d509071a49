//! Proofs out of published tiles.

use crate::hash::Hash;
use crate::tree::{HashReader, TreeError, check_size, node_hash};

use super::{TILE_HEIGHT, TILE_WIDTH, TileError, TileKind, TilePath, hashes_on};

/// A tree of a fixed size in the form of tiles, as a [`HashReader`].
///
/// `fetch` answers for one tile with exactly its width of hashes; it is asked once for each node
/// that is read, so let it keep the tiles that it loaded. Tiles need not be trusted: a proof made
/// of wrong ones does not verify.
pub struct TileReader<F> {
    size: u64,
    fetch: F,
}

impl<E, F> TileReader<F>
where
    E: std::error::Error + From<TileError> + 'static,
    F: Fn(&TilePath) -> Result<Vec<Hash>, E>,
{
    /// The tiles of the tree of `size` leaves.
    ///
    /// # Errors
    /// [`TreeError::TooLarge`].
    pub fn new(size: u64, fetch: F) -> Result<TileReader<F>, TreeError> {
        check_size(size)?;
        Ok(TileReader { size, fetch })
    }
}

impl<E, F> HashReader for TileReader<F>
where
    E: std::error::Error + From<TileError> + 'static,
    F: Fn(&TilePath) -> Result<Vec<Hash>, E>,
{
    type Error = E;

    /// The node, from 1 to 128 hashes of one tile: at most 127 node hashes. A node that is not in
    /// the tree is [`TileError::Tree`].
    fn node(&self, level: u8, index: u64) -> Result<Hash, E> {
        let outside = TileError::Tree(TreeError::OutsideTree {
            index: index.checked_shl(u32::from(level)).unwrap_or(u64::MAX),
            size: self.size,
        });
        let nodes = self.size.checked_shr(u32::from(level)).unwrap_or(0);
        if index >= nodes {
            return Err(outside.into());
        }
        let tile_level = level / TILE_HEIGHT as u8;
        let within = u32::from(level) % TILE_HEIGHT;
        // The first of the 2^within hashes of the tile that are below the node.
        let first = index << within;
        let tile_index = first / u64::from(TILE_WIDTH);
        let on_level = hashes_on(tile_level, self.size);
        let width = (on_level - tile_index * u64::from(TILE_WIDTH)).min(TILE_WIDTH.into()) as u16;
        let path = TilePath::new(TileKind::Hashes(tile_level), tile_index, width)?;
        let hashes = (self.fetch)(&path)?;
        if hashes.len() != usize::from(width) {
            return Err(TileError::Width(hashes.len() as u64).into());
        }
        let start = (first % u64::from(TILE_WIDTH)) as usize;
        let below = hashes.get(start..start + (1 << within));
        Ok(complete_root(below.ok_or(outside)?))
    }
}

/// The root of a complete subtree over these hashes, whose number is a power of two.
fn complete_root(hashes: &[Hash]) -> Hash {
    let mut row = hashes.to_vec();
    while row.len() > 1 {
        row = row.chunks_exact(2).map(|pair| node_hash(pair[0], pair[1])).collect();
    }
    row.first().copied().unwrap_or(Hash::OF_EMPTY)
}
