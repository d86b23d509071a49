//! An appliance with software keys: it appends records, signs, and exports through the writer that
//! the daemon uses.

use std::collections::BTreeMap;

use countersign_trail::admin::AdminState;
use countersign_trail::checkpoint::{Checkpoint, SignedCheckpoint};
use countersign_trail::control::{Body, GapBody, HeartbeatBody, StartBody};
use countersign_trail::document::Mode;
use countersign_trail::dsse;
use countersign_trail::evidence::{BundleWriter, PartLine, RecordSignature, tile_rows};
use countersign_trail::hash::Hash;
use countersign_trail::id::{EventId, MemberId, PartName, TypeName};
use countersign_trail::keys::{Algorithm, Kid};
use countersign_trail::origin::Origin;
use countersign_trail::part::commitment;
use countersign_trail::receipt::{Receipt, ReceiptProof};
use countersign_trail::record::{Category, Content, Decision, Event, EventResult, Header, Link, Record};
use countersign_trail::signing::RECORD_PAYLOAD_TYPE;
use countersign_trail::time::Timestamp;
use countersign_trail::tlog_proof::TlogProof;
use countersign_trail::tree::{CompactRange, leaf_hash};

use super::files::Files;
use super::trail::ceremony::{self, ADMIN_TRAIL, DECISIONS, METRICS};
use super::trail::{Ceremony, SoftKey, origin, time};

/// A stored record with its parts.
#[derive(Clone)]
pub(crate) struct Stored {
    pub(crate) bytes: Vec<u8>,
    pub(crate) parts: Vec<PartLine>,
}

/// What an export takes.
#[derive(Clone, Default)]
pub(crate) struct Export {
    /// Size of each trail; the whole where not named.
    pub(crate) sizes: BTreeMap<Origin, u64>,
    /// Trails that are left out.
    pub(crate) without: Vec<Origin>,
    /// Names of parts to withhold, sorted.
    pub(crate) withheld: Vec<PartName>,
}

pub(crate) struct Appliance {
    pub(crate) ceremony: Ceremony,
    pub(crate) trails: BTreeMap<Origin, Vec<Stored>>,
    pub(crate) clock: i64,
}

impl Appliance {
    /// Sealed, with the algorithms of the ceremony in [`ceremony::plan`].
    pub(crate) fn new() -> Appliance {
        Appliance::of(Ceremony::new())
    }

    /// Sealed, with every key of one algorithm.
    pub(crate) fn with_algorithm(algorithm: Algorithm) -> Appliance {
        let made = Ceremony::new();
        let mut plan = made.plan.clone();
        plan.admin_algorithm = algorithm;
        plan.evidence_algorithm = algorithm;
        for trail in &mut plan.trails {
            trail.checkpoint_algorithm = algorithm;
            trail.record_algorithm = trail.record_algorithm.map(|_| algorithm);
        }
        Appliance::of(Ceremony::of(made.people, plan))
    }

    /// Sealed with every signature.
    fn of(mut ceremony: Ceremony) -> Appliance {
        let signatures = ceremony.signatures();
        let seal = ceremony.seal(signatures);
        Appliance::sealed_by(ceremony, &seal)
    }

    /// With this body in admin record 1.
    pub(crate) fn sealed_by(ceremony: Ceremony, seal: &Body) -> Appliance {
        let stored = |bytes: &Vec<u8>| Stored { bytes: bytes.clone(), parts: Vec::new() };
        let first = ceremony.first_records.iter();
        let trails = first.map(|(trail, bytes)| (trail.clone(), vec![stored(bytes)])).collect();
        let mut appliance = Appliance { ceremony, trails, clock: 200 };
        appliance.control(ADMIN_TRAIL, seal);
        appliance
    }

    /// One trail in each mode with `count` records in each, record 0 included.
    pub(crate) fn with_records(algorithm: Algorithm, count: u64) -> Appliance {
        let mut appliance = Appliance::with_algorithm(algorithm);
        for n in 1..count {
            appliance.event(DECISIONS, n);
            appliance.event(METRICS, n);
        }
        appliance
    }

    pub(crate) fn fingerprint(&self) -> Hash {
        self.ceremony.fingerprint
    }

    pub(crate) fn state(&self) -> AdminState {
        let store = &self.ceremony.store;
        let mut state = AdminState::begin(self.fingerprint(), store).unwrap();
        for record in &self.trails[&origin(ADMIN_TRAIL)] {
            state.apply(&record.bytes, store).unwrap();
        }
        state
    }

    pub(crate) fn records(&self, trail: &str) -> &[Stored] {
        &self.trails[&origin(trail)]
    }

    pub(crate) fn key(&self, kid: Kid) -> &SoftKey {
        &self.ceremony.keys[&kid]
    }

    fn mode(&self, trail: &Origin) -> Mode {
        let plan = self.ceremony.plan.trails.iter().find(|plan| plan.origin == *trail);
        plan.map_or(Mode::Batch, |plan| plan.mode)
    }

    /// The key that records of a trail name.
    pub(crate) fn record_kid(&self, trail: &str) -> Kid {
        use countersign_trail::signing::Purpose;
        match (trail, self.mode(&origin(trail))) {
            (ADMIN_TRAIL, _) => self.ceremony.admin_kid(),
            (_, Mode::Record) => self.ceremony.kid(Purpose::Record, Some(trail)),
            (_, Mode::Batch) => self.checkpoint_kid(trail),
        }
    }

    pub(crate) fn checkpoint_kid(&self, trail: &str) -> Kid {
        use countersign_trail::signing::Purpose;
        match trail {
            ADMIN_TRAIL => self.ceremony.admin_kid(),
            _ => self.ceremony.kid(Purpose::Checkpoint, Some(trail)),
        }
    }

    pub(crate) fn evidence_key(&self) -> &SoftKey {
        use countersign_trail::signing::Purpose;
        self.key(self.ceremony.kid(Purpose::Evidence, None))
    }

    /// The header of the next record.
    fn header(&mut self, trail: &str) -> Header {
        let records = self.records(trail);
        let (seq, prev) = (records.len() as u64, leaf_hash(&records[records.len() - 1].bytes));
        self.clock += 1;
        let kids = vec![self.record_kid(trail)];
        Header { trail: origin(trail), seq, time: time(self.clock), prev, kids }
    }

    pub(crate) fn push(&mut self, trail: &str, record: &Record, parts: Vec<PartLine>) {
        let bytes = record.to_bytes().unwrap();
        self.trails.get_mut(&origin(trail)).unwrap().push(Stored { bytes, parts });
    }

    /// Appends a control record.
    pub(crate) fn control(&mut self, trail: &str, body: &Body) {
        let header = self.header(trail);
        let record = Record { header, content: Content::Control(body.to_control().unwrap()) };
        self.push(trail, &record, Vec::new());
    }

    pub(crate) fn last_time(&self, trail: &str) -> Timestamp {
        let records = self.records(trail);
        Record::parse(&records[records.len() - 1].bytes).unwrap().header.time
    }

    pub(crate) fn heartbeat(&mut self, trail: &str) {
        let since = self.last_time(trail);
        self.control(trail, &Body::Heartbeat(HeartbeatBody { since }));
    }

    pub(crate) fn gap(&mut self, trail: &str) {
        let from = self.last_time(trail);
        self.clock += 3600;
        let body = GapBody { from, reason: "stopped".to_owned(), to: time(self.clock) };
        self.control(trail, &Body::Gap(body));
    }

    /// Appends `countersign.start` to the admin trail, with the heads of all trails.
    pub(crate) fn start(&mut self) {
        let others = self.trails.iter().filter(|(trail, _)| trail.as_str() != ADMIN_TRAIL);
        let heads = others
            .map(|(trail, records)| ceremony::head(trail.as_str(), records.len() as u64, root(records, records.len())));
        let body = Body::Start(StartBody {
            binary: Hash::of(b"binary"),
            config: Hash::of(b"config"),
            heads: heads.collect(),
            tokens: Vec::new(),
            version: "0.1.0".to_owned(),
        });
        self.control(ADMIN_TRAIL, &body);
    }

    /// An event with two given parts and one that the client keeps.
    pub(crate) fn event(&mut self, trail: &str, n: u64) {
        self.event_with(trail, n, Vec::new());
    }

    pub(crate) fn event_with(&mut self, trail: &str, n: u64, links: Vec<Link>) {
        let header = self.header(trail);
        let seq = header.seq;
        let name = |text: &str| PartName::parse(text).unwrap();
        let salt = |text: &str| Hash::of(format!("{trail} {seq} {text}").as_bytes()).to_bytes();
        let given = |text: &str, media_type: &str, data: Vec<u8>| PartLine::Given {
            seq,
            name: name(text),
            media_type: media_type.to_owned(),
            salt: salt(text),
            data,
        };
        let lines = vec![
            given("facts", "application/json", format!("{{\"n\":\"{n}\"}}").into_bytes()),
            given("request", "text/plain", format!("grüße {n}").into_bytes()),
            PartLine::Withheld { seq, name: name("response"), media_type: None },
        ];
        let kept = commitment(&name("response"), "text/plain", &salt("response"), b"kept by the client");
        let parts = lines.iter().map(|line| (line.name().clone(), line.commitment().unwrap_or(kept)));
        let event = Event {
            type_name: TypeName::parse("llm.completion").unwrap(),
            category: Category::Normal,
            decision: Decision::Allow,
            result: EventResult::Delivered,
            event_id: EventId::parse(&format!("event-{n}")).unwrap(),
            client: MemberId::parse("gw-1").unwrap(),
            links,
            parts: parts.collect(),
        };
        let record = Record { header, content: Content::Event(event) };
        self.push(trail, &record, lines);
    }

    pub(crate) fn sign_checkpoint(&self, trail: &str, size: u64, root: Hash) -> SignedCheckpoint {
        let checkpoint = Checkpoint { origin: origin(trail), size, root };
        let key = self.key(self.checkpoint_kid(trail));
        let signature = key.sign(checkpoint.text().as_bytes());
        SignedCheckpoint::assemble(&checkpoint, &key.public(), &signature).unwrap()
    }

    /// The genuine checkpoint of a trail at a size.
    pub(crate) fn checkpoint(&self, trail: &str, size: u64) -> SignedCheckpoint {
        self.sign_checkpoint(trail, size, root(self.records(trail), size as usize))
    }

    /// The receipt that the gateway got of a record.
    pub(crate) fn receipt(&self, trail: &str, seq: u64) -> Receipt {
        let records = self.records(trail);
        let bytes = records[seq as usize].bytes.clone();
        if self.mode(&origin(trail)) == Mode::Record {
            let kid = self.record_kid(trail);
            let signature = self.key(kid).sign(&dsse::pae(RECORD_PAYLOAD_TYPE, &bytes));
            return Receipt::new(bytes, kid, ReceiptProof::Signature(signature)).unwrap();
        }
        let leaves: Vec<Hash> = records.iter().map(|record| leaf_hash(&record.bytes)).collect();
        let path = path_of(&leaves, seq as usize);
        let checkpoint = self.checkpoint(trail, records.len() as u64);
        let proof = TlogProof::new(None, seq, path, checkpoint).unwrap();
        Receipt::new(bytes, self.checkpoint_kid(trail), ReceiptProof::Inclusion(Box::new(proof))).unwrap()
    }

    /// The evidence, whole.
    pub(crate) fn bundle(&self) -> Vec<u8> {
        self.export(&Export::default())
    }

    /// The evidence's files, to be tampered with.
    pub(crate) fn files(&self) -> Files {
        Files::of(&self.bundle())
    }

    pub(crate) fn export(&self, export: &Export) -> Vec<u8> {
        let state = self.state();
        let mut writer = BundleWriter::new(&state).unwrap();
        let mut bundle = Vec::new();
        let documents: Vec<Hash> = writer.documents().copied().collect();
        for hash in documents {
            bundle.extend(writer.document(&self.ceremony.store.0[&hash]).unwrap());
        }
        bundle.extend(writer.keys().unwrap());
        let admin = origin(ADMIN_TRAIL);
        let others = self.trails.keys().filter(|trail| **trail != admin);
        for trail in std::iter::once(&admin).chain(others) {
            if !export.without.contains(trail) {
                self.export_trail(&mut writer, trail, export, &mut bundle);
            }
        }
        let payload = writer.manifest_statement(time(90_000), 1, export.withheld.clone()).unwrap();
        let signature = self.evidence_key().sign(&dsse::pae(dsse::STATEMENT, &payload));
        bundle.extend(writer.finish(&signature).unwrap());
        bundle
    }

    fn export_trail(&self, writer: &mut BundleWriter, trail: &Origin, export: &Export, bundle: &mut Vec<u8>) {
        let all = &self.trails[trail];
        let size = export.sizes.get(trail).copied().unwrap_or(all.len() as u64);
        let records = &all[..size as usize];
        bundle.extend(writer.begin_trail(&self.checkpoint(trail.as_str(), size)).unwrap());
        let bytes: Vec<&[u8]> = records.iter().map(|record| record.bytes.as_slice()).collect();
        for (n, tile) in (0..).zip(bytes.chunks(256)) {
            bundle.extend(writer.entries_tile(n, tile).unwrap());
        }
        let leaves = bytes.iter().map(|bytes| leaf_hash(bytes)).collect();
        for (level, row) in (0..).zip(tile_rows(leaves)) {
            for (n, tile) in (0..).zip(row.chunks(256)) {
                bundle.extend(writer.hash_tile(level, n, tile).unwrap());
            }
        }
        if self.mode(trail) == Mode::Record {
            let kid = self.record_kid(trail.as_str());
            let sign = |record: &&[u8]| self.key(kid).sign(&dsse::pae(RECORD_PAYLOAD_TYPE, record));
            for (n, tile) in (0..).zip(bytes.chunks(256)) {
                let made: Vec<Vec<u8>> = tile.iter().map(sign).collect();
                let lines = tile.iter().zip(&made);
                let lines = lines.map(|(record, signature)| RecordSignature { record, kid, signature });
                bundle.extend(writer.signatures_tile(n, &lines.collect::<Vec<_>>()).unwrap());
            }
        }
        for (n, tile) in (0..).zip(records.chunks(256)) {
            let parts = tile.iter().flat_map(|record| &record.parts);
            let parts: Vec<PartLine> = parts.map(|part| withhold(part, &export.withheld)).collect();
            bundle.extend(writer.parts_tile(n, &parts).unwrap());
        }
    }
}

fn withhold(part: &PartLine, names: &[PartName]) -> PartLine {
    match part {
        PartLine::Given { seq, name, media_type, .. } if names.contains(name) => {
            PartLine::Withheld { seq: *seq, name: name.clone(), media_type: Some(media_type.clone()) }
        }
        other => other.clone(),
    }
}

/// RFC 6962 root over the first `size` records.
pub(crate) fn root(records: &[Stored], size: usize) -> Hash {
    let mut range = CompactRange::empty();
    for record in &records[..size] {
        range.push(leaf_hash(&record.bytes)).unwrap();
    }
    range.root()
}

/// The inclusion path, by the definition in RFC 6962, 2.1.1.
fn path_of(leaves: &[Hash], index: usize) -> Vec<Hash> {
    if leaves.len() <= 1 {
        return Vec::new();
    }
    let split = leaves.len().next_power_of_two() / 2;
    let (left, right) = leaves.split_at(split);
    let (mut path, sibling) =
        if index < split { (path_of(left, index), right) } else { (path_of(right, index - split), left) };
    let mut range = CompactRange::empty();
    for leaf in sibling {
        range.push(*leaf).unwrap();
    }
    path.push(range.root());
    path
}
