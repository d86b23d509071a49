//! The bytes of tiles and entry bundles.

use crate::hash::{HASH_LEN, Hash};

use super::{MAX_ENTRY_LEN, TILE_WIDTH, TileError};

/// Refuses widths other than 1 to 256.
fn check_width(width: usize) -> Result<(), TileError> {
    if !(1..=usize::from(TILE_WIDTH)).contains(&width) {
        return Err(TileError::Width(width as u64));
    }
    Ok(())
}

/// The bytes of a tile: 1 to 256 hashes of 32 bytes, one after the other.
///
/// # Errors
/// [`TileError::Width`].
pub fn encode_hashes(hashes: &[Hash]) -> Result<Vec<u8>, TileError> {
    check_width(hashes.len())?;
    let mut bytes = Vec::with_capacity(hashes.len() * HASH_LEN);
    for hash in hashes {
        bytes.extend_from_slice(hash.as_bytes());
    }
    Ok(bytes)
}

/// Parses a tile of `width` hashes.
///
/// # Errors
/// [`TileError::Width`], [`TileError::TileLength`].
pub fn parse_hashes(bytes: &[u8], width: u16) -> Result<Vec<Hash>, TileError> {
    let width = usize::from(width);
    check_width(width)?;
    let (chunks, rest) = bytes.as_chunks::<HASH_LEN>();
    if chunks.len() != width || !rest.is_empty() {
        return Err(TileError::TileLength { expected: width * HASH_LEN, actual: bytes.len() });
    }
    Ok(chunks.iter().copied().map(Hash::from_bytes).collect())
}

/// The bytes of an entry bundle: 1 to 256 entries, each after its length as a big-endian 16-bit
/// number.
///
/// # Errors
/// [`TileError::Width`], [`TileError::EntryTooLong`].
pub fn encode_bundle<E: AsRef<[u8]>>(entries: &[E]) -> Result<Vec<u8>, TileError> {
    check_width(entries.len())?;
    let length = entries.iter().map(|entry| 2 + entry.as_ref().len()).sum();
    let mut bytes = Vec::with_capacity(length);
    for (place, entry) in entries.iter().enumerate() {
        let entry = entry.as_ref();
        let length =
            u16::try_from(entry.len()).map_err(|_| TileError::EntryTooLong { entry: place, length: entry.len() })?;
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(entry);
    }
    Ok(bytes)
}

/// Parses an entry bundle of `width` entries, each at most [`MAX_ENTRY_LEN`] bytes. Nothing is
/// copied: the entries borrow from `bytes`.
///
/// # Errors
/// [`TileError::Width`], [`TileError::BundleTooShort`], [`TileError::BundleTooLong`].
pub fn parse_bundle(bytes: &[u8], width: u16) -> Result<Vec<&[u8]>, TileError> {
    const { assert!(MAX_ENTRY_LEN == u16::MAX as usize) };
    check_width(usize::from(width))?;
    let mut entries = Vec::with_capacity(usize::from(width));
    let mut rest = bytes;
    for place in 0..usize::from(width) {
        let taken = rest
            .split_first_chunk::<2>()
            .and_then(|(length, rest)| rest.split_at_checked(usize::from(u16::from_be_bytes(*length))));
        let (entry, after) = taken.ok_or(TileError::BundleTooShort(place))?;
        entries.push(entry);
        rest = after;
    }
    if !rest.is_empty() {
        return Err(TileError::BundleTooLong(rest.len()));
    }
    Ok(entries)
}
