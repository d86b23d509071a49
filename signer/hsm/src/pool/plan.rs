//! Splits a batch over the worker slots.

use std::collections::BTreeMap;

use countersign_trail::hash::Hash;
use countersign_trail::keys::Kid;
use countersign_trail::signing::{Position, Purpose, claimed_seq, position_of};

use crate::config::{KeyBinding, MAX_MESSAGE_BYTES, SignItem};
use crate::error::{HsmError, Reason};
use crate::protocol::{Blob, CHUNK_BYTES, MAX_CHUNK_ITEMS, WireItem};

/// Messages for one worker, and where their signatures belong.
#[derive(Default)]
pub(super) struct Chunk {
    pub(super) slot: usize,
    pub(super) items: Vec<WireItem>,
    /// Sum of the messages' lengths.
    pub(super) bytes: usize,
    /// Of each item, its index in the batch.
    pub(super) places: Vec<usize>,
}

/// Splits a batch by slot and into chunks.
pub(super) fn plan(
    keys: &BTreeMap<Kid, KeyBinding>,
    slots: usize,
    items: Vec<SignItem>,
) -> Result<Vec<Chunk>, HsmError> {
    let mut open: Vec<Chunk> = (0..slots).map(|slot| Chunk { slot, ..Chunk::default() }).collect();
    let mut chunks = Vec::new();
    for (place, item) in items.into_iter().enumerate() {
        let bytes = item.message.len();
        if bytes > MAX_MESSAGE_BYTES {
            let text = format!("a message of {bytes} bytes, at most {MAX_MESSAGE_BYTES}");
            return Err(HsmError::new(Reason::TooLarge, text));
        }
        let slot = route(keys, slots, &item)?;
        let chunk = &mut open[slot];
        let full = chunk.items.len() >= MAX_CHUNK_ITEMS || chunk.bytes + bytes > CHUNK_BYTES;
        if full && !chunk.items.is_empty() {
            chunks.push(std::mem::replace(chunk, Chunk { slot, ..Chunk::default() }));
        }
        chunk.bytes += bytes;
        chunk.places.push(place);
        chunk.items.push(WireItem { kid: item.kid, message: Blob(item.message), recovery: item.recovery });
    }
    chunks.extend(open.into_iter().filter(|chunk| !chunk.items.is_empty()));
    Ok(chunks)
}

/// The one slot of an item's position.
fn route(keys: &BTreeMap<Kid, KeyBinding>, slots: usize, item: &SignItem) -> Result<usize, HsmError> {
    let key = keys
        .get(&item.kid)
        .ok_or_else(|| HsmError::new(Reason::KeyUnknown, format!("no key {} is bound", item.kid)))?;
    // A record's worker reads the whole of it; here its place is enough.
    let number = match claimed_seq(&item.message).filter(|_| key.purpose == Purpose::Record) {
        Some(seq) => seq,
        None => position_of(key.purpose, key.trail.as_ref(), &item.kid, &item.message)
            .map(|position| position.number().unwrap_or_else(|| spread(&position)))
            .map_err(|error| HsmError::new(Reason::PurposeMismatch, error))?,
    };
    let slot = number % u64::try_from(slots).unwrap_or(1);
    Ok(usize::try_from(slot).unwrap_or(0))
}

/// A number for a position that has none.
fn spread(position: &Position) -> u64 {
    let hash = Hash::of(position.to_string().as_bytes()).to_bytes();
    hash.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}
