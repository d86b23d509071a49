use std::cell::RefCell;
use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::hash::Hash;
use crate::tree::tests::{leaves, mth};
use crate::tree::{
    HashReader, ReadError, consistency_path, inclusion_path, root_at, verify_consistency, verify_inclusion,
};

fn tile(level: u8, index: u64, width: u16) -> TilePath {
    TilePath::new(TileKind::Hashes(level), index, width).unwrap()
}

fn entries(index: u64, width: u16) -> TilePath {
    TilePath::new(TileKind::Entries, index, width).unwrap()
}

#[test]
fn paths_are_those_of_the_specification() {
    for (path, text) in [
        (tile(0, 1_234_067, 256), "tile/0/x001/x234/067"),
        (tile(0, 1_234_067, 8), "tile/0/x001/x234/067.p/8"),
        (tile(0, 0, 1), "tile/0/000.p/1"),
        (tile(1, 999, 255), "tile/1/999.p/255"),
        (tile(2, 1_000, 256), "tile/2/x001/000"),
        (tile(7, 0, 127), "tile/7/000.p/127"),
        (tile(0, 1_000_000, 256), "tile/0/x001/x000/000"),
        (entries(1_234, 5), "tile/entries/x001/234.p/5"),
        (entries(0, 256), "tile/entries/000"),
        (tile(0, MAX_SIZE / 256, 255), "tile/0/x036/x028/x797/x018/x963/967.p/255"),
    ] {
        assert_eq!(path.to_string(), text);
        assert_eq!(text.parse(), Ok(path));
    }
}

#[test]
fn other_spellings_are_refused() {
    for text in [
        "",
        "tile",
        "tile/0",
        "tile/0/",
        "/tile/0/000",
        "tile/00/000",
        "tile/0/0",
        "tile/0/00",
        "tile/0/0000",
        "tile/0/x000/001",
        "tile/0/x001",
        "tile/0/001/002",
        "tile/0/x001/x002",
        "tile/0/x001//002",
        "tile/0/xx01/002",
        "tile/0/+01",
        "tile/0/000/",
        "tile/0/000.p",
        "tile/0/000.p/",
        "tile/0/000.p/01",
        "tile/0/000.p/256",
        "tile/0/000.p/1/",
        "tile/0/000.p/1.p/1",
        "tile/-1/000",
        "tile/256/000",
        "tile/Entries/000",
        "tile/entries/000\n",
        "tile/data/000",
        "tile/0/x999/x999/x999/x999/x999/x999/999",
        "tile/0/x001/x000/x000/x000/x000/x000/x000/000",
    ] {
        assert_eq!(text.parse::<TilePath>(), Err(TileError::Path), "{text}");
    }
    assert_eq!("tile/8/000.p/1".parse::<TilePath>(), Err(TileError::Level(8)));
    assert_eq!("tile/0/000.p/0".parse::<TilePath>(), Err(TileError::Width(0)));
    assert_eq!("tile/7/000.p/128".parse::<TilePath>(), Err(TileError::Beyond { level: 7, index: 0, width: 128 }));
    assert!(TilePath::new(TileKind::Entries, MAX_SIZE / 256, 256).is_err());
    assert!(TilePath::new(TileKind::Hashes(3), u64::MAX, 256).is_err());
    assert!(TilePath::new(TileKind::Hashes(0), 0, 257).is_err());
}

#[test]
fn a_tree_of_70_000_leaves_has_the_tiles_of_the_specifications_example() {
    let tiles: Vec<TilePath> = hash_tiles(70_000).unwrap().collect();
    let on = |level: u8| {
        let widths = tiles.iter().filter(move |tile| tile.level() == level);
        widths.map(TilePath::width).collect::<Vec<_>>()
    };
    let mut level_0 = vec![256; 273];
    level_0.push(112);
    assert_eq!(on(0), level_0);
    assert_eq!(on(1), [256, 17]);
    assert_eq!(on(2), [1]);
    assert_eq!(tiles.len(), 274 + 2 + 1);
    assert_eq!(entry_bundles(70_000).unwrap().count(), 274);
    assert_eq!(hash_tiles(256).unwrap().collect::<Vec<_>>(), [tile(0, 0, 256), tile(1, 0, 1)]);
    assert_eq!(hash_tiles(0).unwrap().count(), 0);
    assert!(hash_tiles(MAX_SIZE + 1).is_err());
    assert!(entry_bundles(MAX_SIZE + 1).is_err());
    // On the level of a full-size tree that can be walked: 127 hashes of 2^56 leaves.
    let last = hashes_on(MAX_LEVEL, MAX_SIZE);
    assert_eq!(tiles_of(TileKind::Hashes(MAX_LEVEL), last).collect::<Vec<_>>(), [tile(7, 0, 127)]);
}

#[test]
fn tiles_have_32_bytes_for_each_hash() {
    let hashes = leaves(3);
    let bytes = encode_hashes(&hashes).unwrap();
    assert_eq!(bytes.len(), 96);
    assert_eq!(parse_hashes(&bytes, 3).unwrap(), hashes);
    for (len, width) in [(96, 2), (96, 4), (95, 3), (0, 1)] {
        assert_eq!(
            parse_hashes(&bytes[..len], width),
            Err(TileError::TileLength { expected: usize::from(width) * 32, actual: len })
        );
    }
    assert_eq!(parse_hashes(&[], 0), Err(TileError::Width(0)));
    assert_eq!(encode_hashes(&leaves(257)), Err(TileError::Width(257)));
    assert_eq!(encode_hashes(&leaves(256)).unwrap().len(), FULL_TILE_LEN);
}

#[test]
fn bundles_are_entries_with_their_lengths() {
    let longest = vec![7; MAX_ENTRY_LEN];
    let entries: [&[u8]; 3] = [b"", b"abc", &longest];
    let bytes = encode_bundle(&entries).unwrap();
    assert_eq!(bytes[..7], [0, 0, 0, 3, b'a', b'b', b'c']);
    assert_eq!(bytes[7..9], [0xff, 0xff]);
    assert_eq!(parse_bundle(&bytes, 3).unwrap(), entries);
    assert_eq!(parse_bundle(&bytes, 4), Err(TileError::BundleTooShort(3)));
    assert_eq!(parse_bundle(&bytes, 2), Err(TileError::BundleTooLong(2 + MAX_ENTRY_LEN)));
    assert_eq!(parse_bundle(&bytes[..bytes.len() - 1], 3), Err(TileError::BundleTooShort(2)));
    assert_eq!(parse_bundle(&bytes[..3], 2), Err(TileError::BundleTooShort(1)));
    assert_eq!(parse_bundle(&[], 0), Err(TileError::Width(0)));
    assert_eq!(parse_bundle(&[], 257), Err(TileError::Width(257)));
    assert_eq!(
        encode_bundle(&[vec![0; MAX_ENTRY_LEN + 1]]),
        Err(TileError::EntryTooLong { entry: 0, length: MAX_ENTRY_LEN + 1 })
    );
    assert_eq!(encode_bundle::<&[u8]>(&[]), Err(TileError::Width(0)));
}

/// The tiles of a tree, by name, as bytes: what a publisher writes.
fn publish(leaves: &[Hash]) -> BTreeMap<String, Vec<u8>> {
    let size = leaves.len() as u64;
    let mut files = BTreeMap::new();
    for path in hash_tiles(size).unwrap() {
        let span = 256usize.pow(u32::from(path.level()));
        let hashes: Vec<Hash> = (0..usize::from(path.width()))
            .map(|i| {
                let lo = (path.first() as usize + i) * span;
                mth(&leaves[lo..lo + span])
            })
            .collect();
        files.insert(path.to_string(), encode_hashes(&hashes).unwrap());
    }
    files
}

#[test]
fn proofs_from_tiles_verify_and_ask_for_published_tiles_only() {
    let all = leaves(66_000);
    for size in [1u64, 2, 255, 256, 257, 511, 513, 65_535, 65_536, 65_537, 66_000] {
        let tree = &all[..size as usize];
        let files = publish(tree);
        let asked = RefCell::new(0);
        let fetch = |path: &TilePath| {
            *asked.borrow_mut() += 1;
            parse_hashes(&files[&path.to_string()], path.width())
        };
        let reader = TileReader::new(size, fetch).unwrap();
        let root = mth(tree);
        assert_eq!(root_at(&reader, size).unwrap(), root);
        for index in [0, size / 3, size / 2, size - 1] {
            let path = inclusion_path(&reader, index, size).unwrap();
            verify_inclusion(tree[index as usize], index, size, &path, root).unwrap();
            let old = index + 1;
            let path = consistency_path(&reader, old, size).unwrap();
            let old_root = mth(&tree[..old as usize]);
            verify_consistency(old, size, &path, old_root, root).unwrap();
        }
        assert!(*asked.borrow() > 0);
    }
}

#[test]
fn a_reader_refuses_nodes_outside_and_tiles_of_another_width() {
    let all = leaves(300);
    let files = publish(&all);
    let honest = |path: &TilePath| parse_hashes(&files[&path.to_string()], path.width());
    let reader = TileReader::new(300, honest).unwrap();
    for (level, index) in [(0, 300), (1, 150), (8, 1), (9, 0), (63, 0), (255, 0), (0, u64::MAX)] {
        assert!(reader.node(level, index).is_err(), "{level} {index}");
    }
    assert!(inclusion_path(&reader, 0, 301).is_err());
    let short = |path: &TilePath| honest(path).map(|hashes| hashes[1..].to_vec());
    let reader = TileReader::new(300, short).unwrap();
    assert!(matches!(reader.node(0, 7), Err(TileError::Width(255))));
    assert!(matches!(root_at(&reader, 300), Err(ReadError::Node { .. })));
}

proptest! {
    #[test]
    fn paths_round_trip(level in 0u8..=9, index: u64, shift in 0u32..64, width in 0u16..300, is_entries: bool) {
        let kind = if is_entries { TileKind::Entries } else { TileKind::Hashes(level) };
        if let Ok(path) = TilePath::new(kind, index >> shift, width) {
            prop_assert_eq!(path.to_string().parse(), Ok(path));
        }
    }

    #[test]
    fn what_parses_has_that_very_name(text in "tile/([0-8]|entries)/(x[0-9]{3}/){0,3}[0-9]{3}(\\.p/[0-9]{1,3})?") {
        if let Ok(path) = text.parse::<TilePath>() {
            prop_assert_eq!(path.to_string(), text);
        }
    }

    #[test]
    fn bundles_round_trip(entries in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..=256)) {
        let bytes = encode_bundle(&entries).unwrap();
        prop_assert_eq!(parse_bundle(&bytes, entries.len() as u16).unwrap(), entries);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes: Vec<u8>, width: u16, text in "\\PC{0,40}") {
        let _ = parse_bundle(&bytes, width);
        let _ = parse_hashes(&bytes, width);
        let _ = text.parse::<TilePath>();
    }
}
