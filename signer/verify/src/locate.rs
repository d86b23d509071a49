//! Which record was changed? The first whose leaf hash is not the one under the signed checkpoint.

use countersign_trail::checkpoint::Checkpoint;
use countersign_trail::evidence::TrailFile;
use countersign_trail::hash::Hash;
use countersign_trail::tiles::{TileKind, parse_hashes};

use crate::input::TrailInput;
use crate::known_tree::KnownTree;
use crate::records::TileFacts;
use crate::report::BrokenRecord;
use crate::tally::Tally;

/// The first broken record of a trail, if it has one.
///
/// Where the level-0 tiles have the signed root, they say which leaf belongs at each place, and the
/// first record with another leaf is the broken one. Otherwise it is the first that a check refuses,
/// where a `prev` that does not fit speaks of the record before if that record's tile agrees with
/// the `prev`.
pub(crate) fn first_broken(
    input: &TrailInput<'_>,
    facts: &TileFacts,
    tree: Option<&KnownTree>,
    signed: Option<&Checkpoint>,
    tallies: &[(&'static str, &Tally)],
) -> Option<BrokenRecord> {
    let stated = stated_leaves(input);
    let tree_holds = signed.zip(tree).is_some_and(|(signed, tree)| tree.root_at(signed.size) == Some(signed.root));
    let by_tally =
        tallies.iter().filter_map(|(name, tally)| tally.broken(name, &input.origin)).min_by_key(|broken| broken.seq);
    if tree_holds || (tree.is_some() && by_tally.is_none() && signed.is_none()) {
        return by_tally;
    }
    let proven = signed.is_some_and(|signed| {
        stated.len() as u64 == signed.size && KnownTree::new(stated.clone()).root() == signed.root
    });
    let differs = first_difference(&stated, facts);
    let by_tree = |seq: u64, reason: &str| BrokenRecord {
        trail: input.origin.clone(),
        seq,
        check: "tiles",
        expected: usize::try_from(seq).ok().and_then(|seq| stated.get(seq)).copied(),
        actual: usize::try_from(seq).ok().and_then(|seq| facts.records.get(seq)).and_then(|record| record.leaf),
        reason: reason.to_owned(),
    };
    if let Some(seq) = differs.filter(|_| proven) {
        let what = by_tally.filter(|broken| broken.seq == seq).map(|broken| format!("; {}", broken.reason));
        let reason = format!("does not have the leaf hash under the signed checkpoint{}", what.unwrap_or_default());
        return Some(by_tree(seq, &reason));
    }
    match (by_tally, differs) {
        // The record before the one whose prev does not fit was changed, if its tile says so too.
        (Some(broken), Some(seq)) if seq + 1 == broken.seq && broken.check == "chain" => {
            Some(by_tree(seq, "has neither the leaf hash of its tile nor the prev of the record after it"))
        }
        (broken, _) => broken,
    }
}

/// The leaf hashes of the level-0 tiles as far as they follow one another.
fn stated_leaves(input: &TrailInput<'_>) -> Vec<Hash> {
    let mut leaves = Vec::new();
    for (file, bytes) in input.files {
        if let TrailFile::Hashes(path) = file
            && path.kind() == TileKind::Hashes(0)
            && path.first() == leaves.len() as u64
        {
            leaves.extend(parse_hashes(bytes, path.width()).unwrap_or_default());
        }
    }
    leaves
}

fn first_difference(stated: &[Hash], facts: &TileFacts) -> Option<u64> {
    let same = |(stated, record): (&Hash, &crate::records::RecordFacts)| record.leaf == Some(*stated);
    let common = stated.iter().zip(&facts.records).take_while(|pair| same(*pair)).count();
    (common < stated.len().max(facts.records.len())).then_some(common as u64)
}
