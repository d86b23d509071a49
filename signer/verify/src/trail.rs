//! One trail: its files, records, chain, tree, checkpoint.

use std::collections::BTreeSet;

use countersign_trail::admin::{AdminState, TrailEntry};
use countersign_trail::checkpoint::Checkpoint;
use countersign_trail::document::{Member, Mode, Role};
use countersign_trail::evidence::TrailFile;
use countersign_trail::hash::Hash;
use countersign_trail::id::PartName;
use countersign_trail::origin::Origin;
use countersign_trail::record::Link;
use countersign_trail::tiles::{TileKind, TilePath, parse_hashes};
use countersign_trail::time::Timestamp;

use crate::chain;
use crate::exit::Outcome;
use crate::input::{TrailInput, check_files, checkpoint_of};
use crate::known_tree::KnownTree;
use crate::locate;
use crate::parallel;
use crate::parts::PartCounts;
use crate::records::{Rules, TileFacts, check_tile};
use crate::report::{BrokenRecord, Checks, count};

/// The names of the checks that both kinds of trail have.
pub(crate) struct Names {
    pub(crate) files: &'static str,
    pub(crate) chain: &'static str,
    pub(crate) first: &'static str,
    pub(crate) tiles: &'static str,
    pub(crate) checkpoint: &'static str,
    pub(crate) gaps: &'static str,
}

pub(crate) const TRAIL: Names = Names {
    files: "files",
    chain: "chain",
    first: "first-record",
    tiles: "tiles",
    checkpoint: "checkpoint",
    gaps: "gaps",
};

pub(crate) const ADMIN: Names = Names {
    files: "admin-files",
    chain: "admin-chain",
    first: "admin-first-record",
    tiles: "admin-tiles",
    checkpoint: "admin-checkpoint",
    gaps: "admin-gaps",
};

/// What all trails are held against.
pub(crate) struct Context<'a> {
    pub(crate) state: &'a AdminState,
    pub(crate) withheld: &'a BTreeSet<PartName>,
    pub(crate) threads: usize,
    /// Told the number of records of each tile that is done.
    pub(crate) progress: &'a (dyn Fn(u64) + Sync),
}

/// What a trail comes to.
pub(crate) struct TrailFacts {
    pub(crate) origin: Origin,
    pub(crate) entry: TrailEntry,
    pub(crate) records: u64,
    pub(crate) last_time: Option<Timestamp>,
    /// The tree over the records; none where one is missing.
    pub(crate) tree: Option<KnownTree>,
    /// The checkpoint, if its signature holds.
    pub(crate) signed: Option<Checkpoint>,
    pub(crate) links: Vec<(u64, Link)>,
    pub(crate) broken: Option<BrokenRecord>,
    pub(crate) part_counts: PartCounts,
}

/// Checks a trail by itself. Heads and links, which speak of it from elsewhere, come later.
pub(crate) fn check(context: &Context<'_>, input: &TrailInput<'_>, checks: &mut Checks) -> TrailFacts {
    let state = context.state;
    let origin = &input.origin;
    let is_admin = *origin == state.plan.admin_trail;
    let names = if is_admin { &ADMIN } else { &TRAIL };
    check_files(names.files, input, checks);
    let rules = rules(context, input, is_admin);
    let tiles = input.tiles();
    let results = parallel::map(context.threads, tiles.len(), |at| {
        let facts = check_tile(&rules, &tiles[at]);
        (context.progress)(tiles[at].records.len() as u64);
        facts
    });
    let mut all = TileFacts::default();
    for facts in results {
        all.merge(facts);
    }
    let walk = chain::walk(&input.entry, &all);
    let detail = format!(
        "{}, each with its own place, the hash of the one before, and no time that goes back",
        count(all.records.len(), "record", "records")
    );
    walk.chain.report(names.chain, origin, detail, checks);
    let first = check_first(names, input, &all, checks);
    let leaves: Option<Vec<Hash>> = all.records.iter().map(|record| record.leaf).collect();
    let tree = leaves.map(KnownTree::new);
    check_tiles(names, input, tree.as_ref(), checks);
    let signed = check_checkpoint(names, context, input, tree.as_ref(), checks);
    let event_ids = chain::event_ids(&mut all.event_ids);
    let mut tallies = vec![(names.chain, &walk.chain), (names.gaps, &walk.silence)];
    if !is_admin {
        tallies.extend([("kids", &all.kids), ("control", &all.control), ("clients", &all.writers)]);
        tallies.extend([("event-ids", &event_ids), ("parts", &all.parts)]);
        all.kids.report("kids", origin, "every record names the key in force", checks);
        let detail = count(all.control.passed(), "control record of known form", "control records of known form");
        all.control.report("control", origin, detail, checks);
        let detail = format!("{}, each by a gateway with a grant", count(all.writers.passed(), "event", "events"));
        all.writers.report("clients", origin, detail, checks);
        event_ids.report("event-ids", origin, "no client used an event_id twice", checks);
        if rules.record_key.is_some() {
            tallies.push(("signatures", &all.signatures));
            let signatures = count(all.signatures.passed(), "record signature", "record signatures");
            let detail = format!("{signatures} by the record key");
            all.signatures.report("signatures", origin, detail, checks);
        }
        let counts = all.part_counts;
        let given = usize::try_from(counts.given).unwrap_or(usize::MAX);
        let given = count(given, "part fits its commitment", "parts fit their commitments");
        let detail = format!("{given}, {} withheld", counts.withheld);
        all.parts.report("parts", origin, detail, checks);
    }
    walk.report_gaps(names.gaps, origin, checks);
    let broken = first.or_else(|| locate::first_broken(input, &all, tree.as_ref(), signed.as_ref(), &tallies));
    TrailFacts {
        origin: origin.clone(),
        entry: input.entry.clone(),
        records: all.records.len() as u64,
        last_time: walk.last_time,
        tree,
        signed,
        links: all.links,
        broken,
        part_counts: all.part_counts,
    }
}

fn rules<'a>(context: &'a Context<'_>, input: &'a TrailInput<'_>, is_admin: bool) -> Rules<'a> {
    let state = context.state;
    let may_write = |member: &&Member| member.role == Role::Gateway && member.grants.contains(&input.origin);
    let record_key = input.entry.record_key.filter(|_| input.entry.mode == Mode::Record);
    Rules {
        origin: &input.origin,
        entry: &input.entry,
        admin_trail: &state.plan.admin_trail,
        is_admin,
        kids: input.entry.record_kids(),
        writers: state.plan.members.iter().filter(may_write).map(|member| &member.id).collect(),
        record_key: record_key.and_then(|kid| state.keys.get(&kid)).map(|entry| &entry.key),
        withheld: context.withheld,
    }
}

/// Record 0 is the one that the genesis names; gives it as broken where it is another.
fn check_first(names: &Names, input: &TrailInput<'_>, all: &TileFacts, checks: &mut Checks) -> Option<BrokenRecord> {
    let expected = input.entry.first_leaf;
    let leaf = all.records.first().map(|record| record.leaf);
    let problem = match leaf {
        None => (Outcome::Incomplete, "there is no record 0".to_owned()),
        Some(None) => (Outcome::Tampered, "record 0 cannot be read".to_owned()),
        Some(Some(leaf)) if leaf != expected => {
            let reason = format!("record 0 has leaf hash {leaf}, the genesis names {expected}");
            (Outcome::Tampered, reason)
        }
        Some(Some(_)) => {
            let detail = "record 0 is the one that the genesis names";
            checks.passed(names.first, Some(&input.origin), detail);
            return None;
        }
    };
    checks.failed(names.first, Some(&input.origin), problem.0, &problem.1);
    leaf.map(|actual| BrokenRecord {
        trail: input.origin.clone(),
        seq: 0,
        check: names.first,
        expected: Some(expected),
        actual,
        reason: problem.1,
    })
}

/// Every hash tile holds what follows from the records.
fn check_tiles(names: &Names, input: &TrailInput<'_>, tree: Option<&KnownTree>, checks: &mut Checks) {
    let Some(tree) = tree else {
        checks.not_checked(names.tiles, Some(&input.origin), "a record cannot be read, so the tree is not known");
        return;
    };
    let mut tiles = 0;
    let mut wrong = None;
    for (file, bytes) in input.files {
        let TrailFile::Hashes(path) = file else {
            continue;
        };
        tiles += 1;
        let problem = match (parse_hashes(bytes, path.width()), tree.tile(path)) {
            (Err(error), _) => Some((Outcome::Malformed, format!("{file}: {error}"))),
            (Ok(_), None) => Some((Outcome::Tampered, format!("{file} reaches beyond the records"))),
            (Ok(found), Some(expected)) => {
                differing(path, &found, expected).map(|problem| (Outcome::Tampered, problem))
            }
        };
        wrong = wrong.or(problem);
    }
    let tiles = count(tiles, "tile holds", "tiles hold");
    let detail = format!("{tiles} the hashes that follow from the records");
    checks.result(names.tiles, Some(&input.origin), wrong.map_or(Ok(detail), Err));
}

fn differing(path: &TilePath, found: &[Hash], expected: &[Hash]) -> Option<String> {
    let at = found.iter().zip(expected).position(|(found, expected)| found != expected)?;
    let place = match path.kind() {
        TileKind::Hashes(0) => format!("for record {}", path.first() + at as u64),
        _ => format!("at place {at}"),
    };
    Some(format!("{path} says {} {place}, from the records follows {}", found[at], expected[at]))
}

/// The checkpoint is signed by the key in force, and its root is that of the records.
fn check_checkpoint(
    names: &Names,
    context: &Context<'_>,
    input: &TrailInput<'_>,
    tree: Option<&KnownTree>,
    checks: &mut Checks,
) -> Option<Checkpoint> {
    let origin = Some(&input.origin);
    let signed = match verified_checkpoint(context.state, input) {
        Ok(signed) => signed,
        Err((outcome, problem)) => {
            checks.failed(names.checkpoint, origin, outcome, problem);
            return None;
        }
    };
    let (size, root, kid) = (signed.size, signed.root, input.entry.checkpoint_key);
    let result = match tree.map(|tree| (tree.size(), tree.root_at(size))) {
        None => {
            let why = "its signature holds; a record cannot be read, so the root is not known";
            checks.not_checked(names.checkpoint, origin, why);
            return Some(signed);
        }
        Some((_, Some(found))) if found != root => {
            Err((Outcome::Tampered, format!("the root at size {size} is {found}, signed is {root}")))
        }
        Some((found, _)) if found < size => {
            Err((Outcome::Incomplete, format!("signed at size {size}, the evidence holds {found} records")))
        }
        Some((found, _)) if found > size => {
            Err((Outcome::Tampered, format!("signed at size {size}, the evidence holds {found} records")))
        }
        Some(_) => Ok(format!("size {size}, root {root}, signed by key {kid}")),
    };
    checks.result(names.checkpoint, origin, result);
    Some(signed)
}

fn verified_checkpoint(state: &AdminState, input: &TrailInput<'_>) -> Result<Checkpoint, (Outcome, String)> {
    let signed = checkpoint_of(input.files)?;
    let tampered = |problem: String| (Outcome::Tampered, problem);
    let named = &signed.checkpoint().origin;
    if *named != input.origin {
        return Err(tampered(format!("it is of trail {named}")));
    }
    let kid = input.entry.checkpoint_key;
    let key = state.keys.get(&kid).ok_or_else(|| tampered(format!("the checkpoint key {kid} is not known")))?;
    signed.verify(&key.key).cloned().map_err(|error| tampered(error.to_string()))
}
