//! A sealed appliance's store and second heads, made of software keys through the store's own API.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use countersign_trail::checkpoint::SignedCheckpoint;
use countersign_trail::control::{Body, HsmBody};
use countersign_trail::document::{Mode, TokenRole};
use countersign_trail::evidence::{Predicate, Statement};
use countersign_trail::hash::Hash;
use countersign_trail::id::{EventId, MemberId, PartName, TypeName};
use countersign_trail::keys::Kid;
use countersign_trail::part;
use countersign_trail::record::{Category, Decision, Event, EventResult};
use countersign_trail::signing::Purpose;
use countersign_trail::tree::{CompactRange, leaf_hash};
use countersignd::sequencer::batch::{Batch, Item};
use countersignd::sequencer::{Prepared, TrailFacts};
use countersignd::store::files::{HeadFile, SecondHead};
use countersignd::store::sqlite::{self, FILE_NAME, SqliteStore};
use countersignd::store::{Append, Head, NewRecord, Outcome, SignedNote, Store, StoredPart, TrailNo, TrailRow};

use crate::common::ceremony::{ADMIN_TRAIL, Ceremony, DECISIONS, METRICS, head, origin, time};

/// Records of the trail in batch mode: two full tiles and a part of a third.
pub(crate) const METRICS_SIZE: u64 = 601;
/// Signed records of the trail in record mode; two more are in an open intent.
pub(crate) const DECISIONS_SIGNED: u64 = 21;

/// The folders of a stopped daemon.
pub(crate) struct Folders {
    dir: tempfile::TempDir,
    pub(crate) genesis: Hash,
}

impl Folders {
    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub(crate) fn heads(&self) -> PathBuf {
        self.dir.path().join("heads")
    }

    /// A copy to be damaged.
    pub(crate) fn copy(&self) -> Folders {
        let copy = Folders { dir: tempfile::tempdir().unwrap(), genesis: self.genesis };
        std::fs::create_dir(copy.data()).unwrap();
        std::fs::create_dir(copy.heads()).unwrap();
        sqlite::backup(&self.data(), &copy.data(), |_| Ok(())).unwrap();
        for file in std::fs::read_dir(self.heads()).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), copy.heads().join(file.file_name())).unwrap();
        }
        copy
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.data().join(FILE_NAME)
    }

    /// Changes the database behind the daemon's back.
    pub(crate) fn sql(&self, statements: &str) {
        let connection = rusqlite::Connection::open(self.database()).unwrap();
        connection.execute_batch(statements).unwrap();
    }

    /// Moves the second head of a trail.
    pub(crate) fn second_head(&self, trail: &str, size: u64, leaf: Hash) {
        let (mut file, _) = HeadFile::open(&self.heads(), &origin(trail).path_segment(), false).unwrap();
        file.write(SecondHead::at(size, leaf)).unwrap();
    }
}

pub(crate) struct Trail {
    facts: TrailFacts,
    pub(crate) head: Head,
    frontier: CompactRange,
}

pub(crate) struct Maker {
    ceremony: Ceremony,
    store: SqliteStore,
    heads: PathBuf,
}

impl Maker {
    async fn trail(&self, no: TrailNo, name: &str, mode: Mode, prev: Hash) -> Trail {
        let purpose = if name == ADMIN_TRAIL { Purpose::AdminCheckpoint } else { Purpose::Checkpoint };
        let facts = TrailFacts {
            no,
            origin: origin(name),
            mode,
            checkpoint_key: self.ceremony.kid(purpose, Some(name)),
            record_key: (mode == Mode::Record).then(|| self.ceremony.kid(Purpose::Record, Some(name))),
        };
        let head = Head { size: 0, leaf: prev, time: time(60) };
        let row = TrailRow { no, origin: facts.origin.clone(), head, signed: 0, latched: None };
        self.store.add_trail(row).await.unwrap();
        let mut trail = Trail { facts, head, frontier: CompactRange::empty() };
        let first = self.ceremony.first_records[&origin(name)].clone();
        self.given(&mut trail, first, 60).await;
        trail
    }

    /// Appends a record whose bytes are there already.
    async fn given(&self, trail: &mut Trail, bytes: Vec<u8>, seconds: i64) {
        let leaf = leaf_hash(&bytes);
        let next = Head { size: trail.head.size + 1, leaf, time: time(seconds) };
        let record =
            NewRecord { bytes: bytes.into(), leaf, time: next.time, event: None, request_id: None, parts: Vec::new() };
        let batch = Batch::over(&trail.facts, trail.head, next, &trail.frontier, vec![record], &[leaf], true).unwrap();
        self.commit(trail, batch, true).await;
    }

    pub(crate) async fn events(&self, trail: &mut Trail, count: u64, with_checkpoint: bool, sign: bool) {
        let first = trail.head.size;
        let items =
            (first..first + count).map(|n| (Item::Event(Box::new(event(trail.facts.no, n))), time(1000 + n as i64)));
        let batch = Batch::build(&trail.facts, trail.head, &trail.frontier, items.collect(), with_checkpoint).unwrap();
        self.commit(trail, batch, sign).await;
    }

    /// The way of a batch: intent, signatures, second head, outcome; without the last two where it
    /// is to stay open.
    async fn commit(&self, trail: &mut Trail, batch: Batch, sign: bool) {
        let intent = Some(batch.intent([7; 32]));
        let no = trail.facts.no;
        self.store.append(Append { trail: no, outcome: None, intent, checkpoint: None }).await.unwrap();
        let first_seq = trail.head.size;
        trail.head = batch.next;
        trail.frontier = batch.frontier.clone();
        let (mut second, _) = HeadFile::open(&self.heads, &trail.facts.origin.path_segment(), true).unwrap();
        second.write(SecondHead::at(batch.next.size, batch.next.leaf)).unwrap();
        if !sign {
            return;
        }
        let messages = batch.messages(&trail.facts);
        let mut signatures: Vec<Bytes> = messages.iter().map(|(kid, message)| self.sign(kid, message).into()).collect();
        let checkpoint = batch.checkpoint.as_ref().map(|checkpoint| {
            let signature = signatures.pop().unwrap();
            let key = self.ceremony.keys[&trail.facts.checkpoint_key].public();
            let note = SignedCheckpoint::assemble(checkpoint, &key, &signature).unwrap().to_bytes();
            SignedNote { size: checkpoint.size, note: note.into() }
        });
        let outcome = Outcome { first_seq, count: batch.records.len() as u64, signatures, checkpoint };
        self.store.append(Append { trail: no, outcome: Some(outcome), intent: None, checkpoint: None }).await.unwrap();
    }

    fn sign(&self, kid: &Kid, message: &[u8]) -> Vec<u8> {
        self.ceremony.keys[kid].sign(message)
    }

    async fn statement(&self, admin: &Trail) {
        let kid = self.ceremony.kid(Purpose::Evidence, None);
        let (genesis, instance) = (self.ceremony.fingerprint, self.ceremony.plan.instance.clone());
        let created = admin.head.time;
        let payload = move |number| {
            let predicate =
                Predicate { created, genesis, instance, kid, number, trails: Vec::new(), v: 1, withheld: Vec::new() };
            Bytes::from(Statement::new(Vec::new(), predicate).to_bytes().unwrap())
        };
        self.store.next_statement(kid.to_string(), 0, payload).await.unwrap();
    }
}

/// Event `n` of a trail: facts with a request id, and a request that the client keeps itself.
fn event(no: TrailNo, n: u64) -> Prepared {
    let salt = [n as u8; 32];
    let facts = format!("{{\"request_id\":\"r-{}\"}}", n / 3).into_bytes();
    let (facts_name, request_name) = (PartName::parse("facts").unwrap(), PartName::parse("request").unwrap());
    let commitments = BTreeMap::from([
        (facts_name.clone(), part::commitment(&facts_name, "application/json", &salt, &facts)),
        (request_name.clone(), Hash::of(&n.to_be_bytes())),
    ]);
    let content = Some((salt, facts.into()));
    Prepared {
        event: Event {
            type_name: TypeName::parse("llm.call").unwrap(),
            category: Category::Normal,
            decision: Decision::Allow,
            result: EventResult::Delivered,
            event_id: EventId::parse(&format!("e-{no}-{n}")).unwrap(),
            client: MemberId::parse("gw-1").unwrap(),
            links: Vec::new(),
            parts: commitments,
        },
        parts: vec![
            StoredPart { name: facts_name, media_type: "application/json".to_owned(), content },
            StoredPart { name: request_name, media_type: String::new(), content: None },
        ],
        request_id: Some(format!("r-{}", n / 3)),
        weight: 1000,
    }
}

/// A store as a crash left it: everything in it is in order, and one intent is open.
pub(crate) async fn sound() -> Folders {
    made().await.0
}

/// The same, with what goes on writing to it, and the trail in batch mode.
pub(crate) async fn made() -> (Folders, Maker, Trail) {
    let dir = tempfile::tempdir().unwrap();
    let mut ceremony = Ceremony::new();
    let signatures = ceremony.signatures();
    let folders = Folders { dir, genesis: ceremony.fingerprint };
    std::fs::create_dir(folders.data()).unwrap();
    std::fs::create_dir(folders.heads()).unwrap();
    let store = SqliteStore::create(&folders.data()).unwrap();
    for bytes in ceremony.store.0.values() {
        store.put_document(bytes.clone().into()).await.unwrap();
    }
    let maker = Maker { ceremony, store, heads: folders.heads() };
    let plan_hash = maker.ceremony.genesis.plan;
    let mut admin = maker.trail(1, ADMIN_TRAIL, Mode::Batch, plan_hash).await;
    let admin_leaf = admin.head.leaf;
    let seal = maker.ceremony.admin_record(1, admin_leaf, &maker.ceremony.seal(signatures));
    maker.given(&mut admin, seal, 121).await;
    let mut decisions = maker.trail(2, DECISIONS, Mode::Record, admin_leaf).await;
    let mut metrics = maker.trail(3, METRICS, Mode::Batch, admin_leaf).await;
    for _ in 0..4 {
        maker.events(&mut decisions, 5, true, true).await;
    }
    for _ in 0..12 {
        maker.events(&mut metrics, 50, true, true).await;
    }
    let heads = vec![
        head(DECISIONS, decisions.head.size, decisions.frontier.root()),
        head(METRICS, metrics.head.size, metrics.frontier.root()),
    ];
    let ready =
        HsmBody { heads, reason: String::new(), state: "ready".to_owned(), time: time(122), token: TokenRole::Record };
    let record = maker.ceremony.admin_record(2, admin.head.leaf, &Body::Hsm(ready));
    maker.given(&mut admin, record, 122).await;
    maker.events(&mut decisions, 2, true, false).await;
    maker.statement(&admin).await;
    maker.statement(&admin).await;
    let last = (decisions.head.size, metrics.head.size);
    assert_eq!(last, (DECISIONS_SIGNED + 2, METRICS_SIZE));
    (folders, maker, metrics)
}

/// Runs `fsck` and gives its findings and its notes.
pub(crate) fn fsck(folders: &Folders) -> (Vec<String>, Vec<String>) {
    fsck_in(&folders.data(), &folders.heads(), folders.genesis)
}

pub(crate) fn fsck_in(data: &Path, heads: &Path, genesis: Hash) -> (Vec<String>, Vec<String>) {
    let mut out = Vec::new();
    let count = countersignd::fsck::fsck(data, heads, genesis, &mut out).unwrap();
    let out = String::from_utf8(out).unwrap();
    let mut lines: Vec<String> = out.lines().map(ToOwned::to_owned).collect();
    let last = lines.pop().unwrap();
    let (notes, findings): (Vec<String>, Vec<String>) = lines.into_iter().partition(|line| line.starts_with("note: "));
    assert_eq!(findings.len() as u64, count);
    assert_eq!(last, if count == 0 { "fsck: no findings".to_owned() } else { format!("fsck: {count} findings") });
    (findings, notes)
}
