//! Parts: what is given must fit the record's commitment; what is withheld is counted; what is
//! neither given nor withheld is missing.

use std::collections::{BTreeMap, BTreeSet};

use countersign_trail::evidence::{PartLine, parse_parts};
use countersign_trail::hash::Hash;
use countersign_trail::id::PartName;

use crate::exit::Outcome;
use crate::records::TileInput;
use crate::tally::{Failure, Tally};

/// How many parts are there.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PartCounts {
    pub(crate) given: u64,
    pub(crate) withheld: u64,
}

/// Checks the parts of a tile. `commitments` are those of each record, none where a record is
/// refused.
pub(crate) fn check(
    withheld: &BTreeSet<PartName>,
    tile: &TileInput<'_>,
    commitments: &[Option<BTreeMap<PartName, Hash>>],
    tally: &mut Tally,
) -> PartCounts {
    let mut counts = PartCounts::default();
    let lines = match tile.parts.map(parse_parts).transpose() {
        Ok(lines) => lines.unwrap_or_default(),
        Err(error) => {
            tally.fail_file(Outcome::Malformed, tile.first, error);
            return counts;
        }
    };
    let mut seen: BTreeSet<(u64, &PartName)> = BTreeSet::new();
    for line in &lines {
        let at = line.seq().checked_sub(tile.first).and_then(|at| usize::try_from(at).ok());
        match at.and_then(|at| commitments.get(at)) {
            None => {
                let reason = format!("part {} stands among the parts of another tile", line.name());
                tally.fail(Outcome::Tampered, Failure::new(line.seq(), reason));
            }
            // A record that is refused commits to nothing.
            Some(None) => {}
            Some(Some(committed)) => match check_line(withheld, line, committed) {
                Ok(()) => tally.pass(),
                Err(failure) => tally.fail(Outcome::Tampered, failure),
            },
        }
        match line {
            PartLine::Given { .. } => counts.given += 1,
            PartLine::Withheld { .. } => counts.withheld += 1,
        }
        seen.insert((line.seq(), line.name()));
    }
    for (seq, committed) in (tile.first..).zip(commitments) {
        for name in committed.iter().flat_map(BTreeMap::keys) {
            if !seen.contains(&(seq, name)) {
                let reason = format!("part {name} is neither in the evidence nor noted as withheld");
                tally.fail(Outcome::Incomplete, Failure::new(seq, reason));
            }
        }
    }
    counts
}

fn check_line(
    withheld: &BTreeSet<PartName>,
    line: &PartLine,
    committed: &BTreeMap<PartName, Hash>,
) -> Result<(), Failure> {
    let (seq, name) = (line.seq(), line.name());
    let Some(expected) = committed.get(name) else {
        return Err(Failure::new(seq, format!("part {name} is in the evidence, and the record has none of that name")));
    };
    match line.commitment() {
        Some(_) if withheld.contains(name) => Err(Failure::new(
            seq,
            format!("part {name} is in the evidence, though the manifest says that it is withheld"),
        )),
        Some(actual) if actual != *expected => {
            let reason = format!("part {name} does not fit the record's commitment");
            Err(Failure::hashes(seq, *expected, actual, reason))
        }
        _ => Ok(()),
    }
}
