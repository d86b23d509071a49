//! Asserts the vectors in `vectors/` (described in its README): roots, proofs, notes, checkpoints
//! and tiles, the same for every implementation of the formats.

#[cfg(test)]
mod log_vectors {
    use countersign_trail::checkpoint::{Checkpoint, SignedCheckpoint};
    use countersign_trail::hash::Hash;
    use countersign_trail::keys::PublicKey;
    use countersign_trail::multiproof::{self, BatchTree};
    use countersign_trail::note::{KeyId, SignedNote, VerifierKey};
    use countersign_trail::tiles::{
        TileError, TileKind, TilePath, TileReader, encode_bundle, hash_tiles, parse_bundle, parse_hashes,
    };
    use countersign_trail::tlog_proof::TlogProof;
    use countersign_trail::tree::{
        CompactRange, consistency_path, inclusion_path, leaf_hash, root_at, verify_consistency, verify_inclusion,
    };
    use serde::Deserialize;
    use serde::de::DeserializeOwned;

    fn read<T: DeserializeOwned>(json: &str) -> T {
        serde_json::from_str(json).unwrap()
    }

    fn bytes(text: &str) -> Vec<u8> {
        hex::decode(text).unwrap()
    }

    #[derive(Deserialize)]
    struct Tree {
        leaves: Vec<Leaf>,
        roots: Vec<Root>,
        inclusion: Vec<Inclusion>,
        consistency: Vec<Consistency>,
        multiproof: Vec<Multi>,
    }

    #[derive(Deserialize)]
    struct Leaf {
        data: String,
        leaf_hash: Hash,
    }

    #[derive(Deserialize)]
    struct Root {
        size: u64,
        root: Hash,
    }

    #[derive(Deserialize)]
    struct Inclusion {
        index: u64,
        size: u64,
        path: Vec<Hash>,
    }

    #[derive(Deserialize)]
    struct Consistency {
        old_size: u64,
        new_size: u64,
        path: Vec<Hash>,
    }

    #[derive(Deserialize)]
    struct Multi {
        size: u64,
        wanted: Vec<u64>,
        proof: Vec<Hash>,
    }

    fn tree() -> Tree {
        read(include_str!("vectors/tree.json"))
    }

    fn hashes(tree: &Tree) -> Vec<Hash> {
        tree.leaves.iter().map(|leaf| leaf.leaf_hash).collect()
    }

    fn whole(leaves: &[Hash]) -> BatchTree {
        BatchTree::new(&CompactRange::empty(), leaves).unwrap()
    }

    #[test]
    fn leaves_and_roots() {
        let vectors = tree();
        for leaf in &vectors.leaves {
            assert_eq!(leaf_hash(&bytes(&leaf.data)), leaf.leaf_hash);
        }
        let all = hashes(&vectors);
        for Root { size, root } in vectors.roots {
            assert_eq!(root_at(&whole(&all), size).unwrap(), root);
            assert_eq!(whole(&all[..size as usize]).root(), root);
        }
    }

    #[test]
    fn inclusion_and_consistency() {
        let vectors = tree();
        let all = hashes(&vectors);
        let root = |size: u64| root_at(&whole(&all), size).unwrap();
        for Inclusion { index, size, path } in vectors.inclusion {
            assert_eq!(inclusion_path(&whole(&all), index, size).unwrap(), path);
            verify_inclusion(all[index as usize], index, size, &path, root(size)).unwrap();
        }
        for case in vectors.consistency {
            let (old, new) = (case.old_size, case.new_size);
            let path = consistency_path(&whole(&all), old, new).unwrap();
            assert_eq!(path, case.path);
            verify_consistency(old, new, &path, root(old), root(new)).unwrap();
        }
    }

    #[test]
    fn proofs_for_many_leaves() {
        let vectors = tree();
        let all = hashes(&vectors);
        for case in vectors.multiproof {
            let tree = whole(&all[..case.size as usize]);
            assert_eq!(tree.multiproof(&case.wanted).unwrap(), case.proof);
            let leaf = |&index: &u64| (index, all[index as usize]);
            let wanted: Vec<(u64, Hash)> = case.wanted.iter().map(leaf).collect();
            let (root, _) = multiproof::verify(&wanted, case.size, &case.proof).unwrap();
            assert_eq!(root, tree.root());
        }
    }

    #[derive(Deserialize)]
    struct Notes {
        keys: Vec<Key>,
        notes: Vec<Note>,
        refused: Vec<RefusedNote>,
    }

    #[derive(Deserialize)]
    struct Key {
        name: String,
        algorithm: String,
        spki: String,
        key_id: String,
        vkey: String,
    }

    #[derive(Deserialize)]
    struct Note {
        text: String,
        signed_by: Vec<String>,
        note: String,
    }

    #[derive(Deserialize)]
    struct RefusedNote {
        why: String,
        note: String,
    }

    #[test]
    fn notes_and_their_keys() {
        let vectors: Notes = read(include_str!("vectors/note.json"));
        for key in vectors.keys {
            let public = PublicKey::from_spki_der(&bytes(&key.spki)).unwrap();
            assert_eq!(public.algorithm().name(), key.algorithm);
            assert_eq!(KeyId::of(&key.name, &public).to_string(), key.key_id);
            let built = VerifierKey::new(&key.name, public).unwrap();
            assert_eq!(built.to_string(), key.vkey);
            key.vkey.parse::<VerifierKey>().unwrap();
        }
        for case in vectors.notes {
            let note = SignedNote::parse(case.note.as_bytes()).unwrap();
            assert_eq!(note.text(), case.text);
            assert_eq!(note.signatures().len(), case.signed_by.len());
            assert_eq!(note.to_bytes(), case.note.as_bytes());
            for vkey in case.signed_by {
                let key: VerifierKey = vkey.parse().unwrap();
                note.verify(key.name(), key.key()).unwrap();
            }
        }
        for RefusedNote { why, note } in vectors.refused {
            assert!(SignedNote::parse(note.as_bytes()).is_err(), "{why}");
        }
    }

    #[derive(Deserialize)]
    struct Checkpoints {
        checkpoints: Vec<Head>,
        signed: Vec<SignedHead>,
        refused: Vec<RefusedText>,
    }

    #[derive(Deserialize)]
    struct Head {
        origin: String,
        size: String,
        root: Hash,
        text: String,
    }

    #[derive(Deserialize)]
    struct SignedHead {
        vkey: String,
        checkpoint: String,
    }

    #[derive(Deserialize)]
    struct RefusedText {
        why: String,
        text: String,
    }

    #[test]
    fn checkpoints() {
        let vectors: Checkpoints = read(include_str!("vectors/checkpoint.json"));
        for case in vectors.checkpoints {
            let checkpoint =
                Checkpoint { origin: case.origin.parse().unwrap(), size: case.size.parse().unwrap(), root: case.root };
            assert_eq!(checkpoint.text(), case.text);
            let parsed = Checkpoint::parse_text(case.text.as_bytes()).unwrap();
            assert_eq!(parsed, checkpoint);
        }
        for case in vectors.signed {
            let key: VerifierKey = case.vkey.parse().unwrap();
            let signed = SignedCheckpoint::parse(case.checkpoint.as_bytes()).unwrap();
            let checkpoint = signed.verify(key.key()).unwrap();
            assert_eq!(checkpoint.origin.as_str(), key.name());
            assert_eq!(signed.to_bytes(), case.checkpoint.as_bytes());
        }
        for RefusedText { why, text } in vectors.refused {
            assert!(Checkpoint::parse_text(text.as_bytes()).is_err(), "{why}");
        }
    }

    #[derive(Deserialize)]
    struct Proofs {
        proofs: Vec<Proof>,
        refused: Vec<RefusedProof>,
        not_verified: Vec<Unproven>,
    }

    #[derive(Deserialize)]
    struct Proof {
        leaf: String,
        leaf_hash: Hash,
        index: String,
        extra: Option<String>,
        vkey: String,
        proof: String,
    }

    #[derive(Deserialize)]
    struct RefusedProof {
        why: String,
        proof: String,
    }

    #[derive(Deserialize)]
    struct Unproven {
        why: String,
        leaf_hash: Hash,
        vkey: String,
        proof: String,
    }

    #[test]
    fn proofs_of_one_record() {
        let vectors: Proofs = read(include_str!("vectors/tlog_proof.json"));
        for case in vectors.proofs {
            let key: VerifierKey = case.vkey.parse().unwrap();
            let proof = TlogProof::parse(case.proof.as_bytes()).unwrap();
            assert_eq!(leaf_hash(&bytes(&case.leaf)), case.leaf_hash);
            assert_eq!(proof.index().to_string(), case.index);
            assert_eq!(proof.extra().map(hex::encode), case.extra);
            assert_eq!(proof.to_bytes(), case.proof.as_bytes());
            proof.verify(case.leaf_hash, key.key()).unwrap();
        }
        for RefusedProof { why, proof } in vectors.refused {
            assert!(TlogProof::parse(proof.as_bytes()).is_err(), "{why}");
        }
        for case in vectors.not_verified {
            let key: VerifierKey = case.vkey.parse().unwrap();
            let proof = TlogProof::parse(case.proof.as_bytes()).unwrap();
            let verdict = proof.verify(case.leaf_hash, key.key());
            assert!(verdict.is_err(), "{}", case.why);
        }
    }

    #[derive(Deserialize)]
    struct Tiles {
        paths: Vec<Path>,
        refused_paths: Vec<String>,
        trees: Vec<TilesOfTree>,
        tile: Tile,
        bundle: Bundle,
    }

    #[derive(Deserialize)]
    struct Path {
        kind: String,
        level: u8,
        index: String,
        width: u16,
        path: String,
    }

    #[derive(Deserialize)]
    struct TilesOfTree {
        size: u64,
        tiles: Vec<String>,
    }

    #[derive(Deserialize)]
    struct Tile {
        size: u64,
        path: String,
        bytes: String,
    }

    #[derive(Deserialize)]
    struct Bundle {
        entries: Vec<String>,
        bytes: String,
    }

    fn tiles() -> Tiles {
        read(include_str!("vectors/tiles.json"))
    }

    #[test]
    fn tile_paths() {
        let vectors = tiles();
        for case in vectors.paths {
            let kind = match case.kind.as_str() {
                "hashes" => TileKind::Hashes(case.level),
                "entries" => TileKind::Entries,
                other => panic!("unknown kind {other}"),
            };
            let path = TilePath::new(kind, case.index.parse().unwrap(), case.width).unwrap();
            assert_eq!(path.to_string(), case.path);
            assert_eq!(case.path.parse(), Ok(path));
        }
        for text in vectors.refused_paths {
            assert!(text.parse::<TilePath>().is_err(), "{text}");
        }
        for TilesOfTree { size, tiles } in vectors.trees {
            let names: Vec<String> = hash_tiles(size).unwrap().map(|t| t.to_string()).collect();
            assert_eq!(names, tiles);
        }
    }

    #[test]
    fn tile_and_bundle_bytes() {
        let vectors = tiles();
        let size = vectors.tile.size;
        let all = hashes(&tree());
        let content = bytes(&vectors.tile.bytes);
        let fetch = |path: &TilePath| -> Result<Vec<Hash>, TileError> {
            assert_eq!(path.to_string(), vectors.tile.path);
            parse_hashes(&content, path.width())
        };
        let reader = TileReader::new(size, fetch).unwrap();
        assert_eq!(root_at(&reader, size).unwrap(), whole(&all).root());

        let entries: Vec<Vec<u8>> = vectors.bundle.entries.iter().map(|e| bytes(e)).collect();
        let bundle = encode_bundle(&entries).unwrap();
        assert_eq!(bundle, bytes(&vectors.bundle.bytes));
        assert_eq!(parse_bundle(&bundle, 4).unwrap(), entries);
    }
}
