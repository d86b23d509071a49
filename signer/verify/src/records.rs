//! The records of one tile, each by itself: form, place, keys, content, signature, parts. Tiles are
//! independent of each other, so this is what runs on all cores.

use std::collections::{BTreeMap, BTreeSet};

use countersign_trail::admin::TrailEntry;
use countersign_trail::control::Body;
use countersign_trail::hash::Hash;
use countersign_trail::id::{MemberId, PartName};
use countersign_trail::keys::{Kid, PublicKey};
use countersign_trail::origin::Origin;
use countersign_trail::record::{Content, Event, Link, Record};
use countersign_trail::time::Timestamp;
use countersign_trail::tree::leaf_hash;

use crate::exit::Outcome;
use crate::parts::{self, PartCounts};
use crate::signatures;
use crate::tally::{Failure, Tally};

/// What every record of a trail is held against.
pub(crate) struct Rules<'a> {
    pub(crate) origin: &'a Origin,
    pub(crate) entry: &'a TrailEntry,
    pub(crate) admin_trail: &'a Origin,
    /// Whether the admin trail's replay checks keys and content.
    pub(crate) is_admin: bool,
    /// The kids that its records name.
    pub(crate) kids: Vec<Kid>,
    /// The gateways that may write here.
    pub(crate) writers: BTreeSet<&'a MemberId>,
    /// The record key in record mode.
    pub(crate) record_key: Option<&'a PublicKey>,
    /// Names of parts that the manifest says are withheld.
    pub(crate) withheld: &'a BTreeSet<PartName>,
}

/// One tile's records with what stands beside them.
pub(crate) struct TileInput<'a> {
    /// Sequence number of the first.
    pub(crate) first: u64,
    /// Their bytes; none where the bundle of entries does not hold them.
    pub(crate) records: &'a [Option<&'a [u8]>],
    /// `signatures/<n>`.
    pub(crate) signatures: Option<&'a [u8]>,
    /// `parts/<n>`.
    pub(crate) parts: Option<&'a [u8]>,
}

/// What is kept of a record: about 100 bytes.
pub(crate) struct RecordFacts {
    /// Its leaf hash; none where its bytes are missing.
    pub(crate) leaf: Option<Hash>,
    /// What the chain needs; none where the record is refused.
    pub(crate) header: Option<(Hash, Timestamp)>,
}

/// What a tile comes to.
#[derive(Default)]
pub(crate) struct TileFacts {
    pub(crate) records: Vec<RecordFacts>,
    pub(crate) form: Tally,
    pub(crate) kids: Tally,
    pub(crate) control: Tally,
    pub(crate) writers: Tally,
    pub(crate) signatures: Tally,
    pub(crate) parts: Tally,
    pub(crate) part_counts: PartCounts,
    /// SHA-256 over client and event_id, and where.
    pub(crate) event_ids: Vec<(Hash, u64)>,
    pub(crate) links: Vec<(u64, Link)>,
    /// Heartbeats and gaps.
    pub(crate) silences: Vec<(u64, Body)>,
}

impl TileFacts {
    /// Adds the next tile's.
    pub(crate) fn merge(&mut self, next: TileFacts) {
        self.records.extend(next.records);
        self.form.merge(next.form);
        self.kids.merge(next.kids);
        self.control.merge(next.control);
        self.writers.merge(next.writers);
        self.signatures.merge(next.signatures);
        self.parts.merge(next.parts);
        self.part_counts.given += next.part_counts.given;
        self.part_counts.withheld += next.part_counts.withheld;
        self.event_ids.extend(next.event_ids);
        self.links.extend(next.links);
        self.silences.extend(next.silences);
    }
}

/// Checks the records of a tile.
pub(crate) fn check_tile(rules: &Rules<'_>, tile: &TileInput<'_>) -> TileFacts {
    let mut facts = TileFacts::default();
    let mut commitments: Vec<Option<BTreeMap<PartName, Hash>>> = Vec::with_capacity(tile.records.len());
    for (seq, bytes) in (tile.first..).zip(tile.records) {
        let record = parse(rules, seq, *bytes, &mut facts);
        if let Some(record) = &record {
            check_content(rules, seq, record, &mut facts);
        }
        commitments.push(record.map(|record| match record.content {
            Content::Event(event) => event.parts,
            Content::Control(_) => BTreeMap::new(),
        }));
    }
    if let Some(key) = rules.record_key {
        signatures::check(rules, key, tile, &mut facts.signatures);
    }
    facts.part_counts = parts::check(rules.withheld, tile, &commitments, &mut facts.parts);
    facts
}

/// Parses a record and checks that it names its own place.
fn parse(rules: &Rules<'_>, seq: u64, bytes: Option<&[u8]>, facts: &mut TileFacts) -> Option<Record> {
    let mut refuse = |leaf: Option<Hash>, reason: String| {
        facts.form.fail(Outcome::Tampered, Failure { seq, expected: None, actual: leaf, reason });
        facts.records.push(RecordFacts { leaf, header: None });
        None
    };
    let Some(bytes) = bytes else {
        return refuse(None, "its bytes are missing: the bundle of entries is damaged".to_owned());
    };
    let leaf = leaf_hash(bytes);
    let record = match Record::parse(bytes) {
        Ok(record) => record,
        Err(error) => return refuse(Some(leaf), error.to_string()),
    };
    let header = &record.header;
    if header.seq != seq || header.trail != *rules.origin {
        return refuse(Some(leaf), format!("says that it is record {} of {}", header.seq, header.trail));
    }
    facts.form.pass();
    facts.records.push(RecordFacts { leaf: Some(leaf), header: Some((header.prev, header.time)) });
    Some(record)
}

fn check_content(rules: &Rules<'_>, seq: u64, record: &Record, facts: &mut TileFacts) {
    if record.header.kids == rules.kids {
        facts.kids.pass();
    } else {
        let named: Vec<String> = record.header.kids.iter().map(Kid::to_string).collect();
        let reason = format!("names the keys {named:?}, in force is {}", rules.kids[0]);
        facts.kids.fail(Outcome::Tampered, Failure::new(seq, reason));
    }
    match &record.content {
        Content::Event(event) => check_event(rules, seq, event, facts),
        Content::Control(control) => match Body::parse(control) {
            Ok(body) => check_body(rules, seq, body, facts),
            Err(error) => facts.control.fail(Outcome::Tampered, Failure::new(seq, error)),
        },
    }
}

fn check_event(rules: &Rules<'_>, seq: u64, event: &Event, facts: &mut TileFacts) {
    if seq == 0 {
        facts.control.fail(Outcome::Tampered, Failure::new(seq, "is an event; a trail begins with a control record"));
    }
    if rules.writers.contains(&event.client) {
        facts.writers.pass();
    } else {
        let reason = format!("client {} is no gateway with a grant for this trail", event.client);
        facts.writers.fail(Outcome::Tampered, Failure::new(seq, reason));
    }
    // No client id holds a line feed.
    let name = Hash::of_parts(&[event.client.as_str().as_bytes(), b"\n", event.event_id.as_str().as_bytes()]);
    facts.event_ids.push((name, seq));
    facts.links.extend(event.links.iter().map(|link| (seq, link.clone())));
}

fn check_body(rules: &Rules<'_>, seq: u64, body: Body, facts: &mut TileFacts) {
    let allowed = match &body {
        // The replay of the admin trail knows where each stands.
        _ if rules.is_admin => Ok(()),
        Body::Trail(trail) if seq == 0 => {
            let as_approved =
                trail.mode == rules.entry.mode && trail.admin_trail == *rules.admin_trail && trail.admin_seq == 0;
            if as_approved { Ok(()) } else { Err("does not begin the trail as the genesis has it".to_owned()) }
        }
        Body::Heartbeat(_) | Body::Gap(_) if seq > 0 => Ok(()),
        other => Err(format!("{} may not stand here", other.type_name())),
    };
    match allowed {
        Ok(()) => facts.control.pass(),
        Err(reason) => facts.control.fail(Outcome::Tampered, Failure::new(seq, reason)),
    }
    if matches!(body, Body::Heartbeat(_) | Body::Gap(_)) {
        facts.silences.push((seq, body));
    }
}
