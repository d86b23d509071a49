//! A store that fails every step twice, under a sequencer that a real SoftHSM token signs for.
//!
//! The workers outlive every restart of the sequencer, so that their guards, which refuse a second
//! input for a position, watch the whole test.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use countersign_hsm::{
    KeyBinding, KeySpec, PinSource, Pool, PoolSpec, PoolState, TokenConfig, WorkerCommand, create_mac_key,
};
use countersign_trail::checkpoint::SignedCheckpoint;
use countersign_trail::document::Mode;
use countersign_trail::hash::Hash;
use countersign_trail::id::{EventId, InstanceId, MemberId, TypeName};
use countersign_trail::keys::{Algorithm, PublicKey};
use countersign_trail::origin::Origin;
use countersign_trail::record::{Category, Decision, Event, EventResult, Record};
use countersign_trail::signing::Purpose;
use countersign_trail::tree::{CompactRange, leaf_hash};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::gather::Gathering;
use super::recent::Recent;
use super::start::recover;
use super::task::{Fatal, Task, first_signature_time};
use super::{Bounds, Group, GroupAnswer, Place, Prepared, Published, TrailFacts, Work};
use crate::metrics::Metrics;
use crate::reason::{Reason, Refusal};
use crate::signer::TokenSigner;
use crate::store::files::HeadFile;
use crate::store::sqlite::SqliteStore;
use crate::store::tree::StoredTree;
use crate::store::{Append, AppendError, Head, Store, TrailNo, TrailRow};
use crate::timekeeper::Timekeeper;

const INSTANCE: &str = "acme-1";
const TRAIL: &str = "acme.example/a";
const NO: TrailNo = 1;
const EVENTS: u64 = 6;
const FAILURES: u32 = 2;
/// Set for the process that plays the worker.
const ENV_WORKER: &str = "COUNTERSIGN_TEST_WORKER";
/// Far beyond what any step takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Not a test: the process that [`Token::start`] starts as the HSM worker.
#[test]
fn worker_process() {
    if std::env::var_os(ENV_WORKER).is_some() {
        countersign_hsm::worker_main();
        std::process::exit(0);
    }
}

/// What happens to a step before it may succeed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    /// Not persisted, and known not to be.
    NotStored,
    /// Not persisted, and nobody knows.
    Lost,
    /// Persisted, and nobody knows.
    Persisted,
}

/// The store that fails each step [`FAILURES`] times; a step that was persisted does not come again.
#[derive(Clone)]
struct Failing {
    store: SqliteStore,
    fault: Fault,
    seen: Arc<Mutex<HashMap<String, u32>>>,
}

impl Store for Failing {
    async fn append(&self, step: Append) -> Result<(), AppendError> {
        let outcome = step.outcome.as_ref().map(|outcome| outcome.first_seq);
        let intent = step.intent.as_ref().map(|intent| intent.first_seq);
        let key = format!("outcome {outcome:?} intent {intent:?}");
        let failed = {
            let mut seen = self.seen.lock().unwrap();
            let count = seen.entry(key.clone()).or_default();
            *count += 1;
            *count <= FAILURES
        };
        match self.fault {
            _ if !failed => self.store.append(step).await,
            Fault::NotStored => Err(AppendError::NotStored(key)),
            Fault::Lost => Err(AppendError::Unknown(key)),
            Fault::Persisted => {
                self.store.append(step).await?;
                Err(AppendError::Unknown(key))
            }
        }
    }

    async fn latch(&self, trail: TrailNo, reason: String) -> Result<(), AppendError> {
        self.store.latch(trail, reason).await
    }

    async fn put_document(&self, document: Bytes) -> Result<Hash, AppendError> {
        self.store.put_document(document).await
    }

    async fn next_statement<F>(&self, kid: String, payload: F) -> Result<(u64, Bytes), AppendError>
    where
        F: FnOnce(u64) -> Bytes + Send + 'static,
    {
        self.store.next_statement(kid, payload).await
    }
}

/// A SoftHSM token in `dir`, with one checkpoint key, and its workers.
async fn token(dir: &Path) -> (Pool, PublicKey) {
    use std::os::unix::fs::PermissionsExt;
    let at = |name: &str| dir.join(name);
    std::fs::create_dir(at("tokens")).unwrap();
    std::fs::create_dir(at("state")).unwrap();
    let conf =
        format!("directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n", at("tokens").display());
    std::fs::write(at("softhsm2.conf"), conf).unwrap();
    let mut util = Command::new("softhsm2-util");
    util.env("SOFTHSM2_CONF", at("softhsm2.conf")).args(["--init-token", "--free", "--label", "record"]);
    let made = util.args(["--pin", "83641927", "--so-pin", "12345678"]).output().expect("install softhsm2");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    std::fs::write(at("pin"), "83641927\n").unwrap();
    std::fs::set_permissions(at("pin"), PermissionsExt::from_mode(0o600)).unwrap();
    create_mac_key(&at("mac.key")).unwrap();
    let test = concat!(module_path!(), "::worker_process").split_once("::").unwrap().1;
    let pool = Pool::start(PoolSpec {
        role: "record".to_owned(),
        instance: InstanceId::parse(INSTANCE).unwrap(),
        command: WorkerCommand {
            program: std::env::current_exe().unwrap(),
            args: ["--exact", test, "--nocapture", "--test-threads=1"].map(Into::into).to_vec(),
            envs: vec![("SOFTHSM2_CONF".into(), at("softhsm2.conf").into()), (ENV_WORKER.into(), "1".into())],
        },
        token: TokenConfig {
            module: "/usr/lib/softhsm/libsofthsm2.so".into(),
            token_label: "record".to_owned(),
            token_serial: None,
            pin: PinSource::File(at("pin")),
            mac_key_file: at("mac.key"),
            state_dir: at("state"),
            sync_dir: None,
            workers: 2,
            sessions_per_worker: 1,
            call_deadline: Duration::from_secs(5),
            user: None,
        },
        keys: Vec::new(),
    });
    let pool = pool.unwrap();
    let mut state = pool.state();
    let ready = tokio::time::timeout(PATIENCE, state.wait_for(|state| *state == PoolState::Ready)).await;
    ready.unwrap_or_else(|_| panic!("not ready: {:?}", *pool.state().borrow())).unwrap();
    let (name, time) = ("a/checkpoint".to_owned(), "2026-01-02T03:04:05.000006Z".to_owned());
    let spec = KeySpec { instance: INSTANCE.to_owned(), name: name.clone(), algorithm: Algorithm::Ed25519, time };
    let key = pool.generate(spec).await.unwrap();
    pool.finalize_key(&key.cka_id, INSTANCE, &name).await.unwrap();
    let binding = KeyBinding {
        kid: key.kid,
        public_key: key.public_key.clone(),
        purpose: Purpose::Checkpoint,
        trail: Some(Origin::parse(TRAIL).unwrap()),
        cka_id: key.cka_id.clone(),
    };
    pool.bind_keys(vec![binding]).await.unwrap();
    (pool, PublicKey::from_spki_der(&key.public_key).unwrap())
}

/// One trail on a failing store, started again whenever its sequencer gives up.
struct Bench {
    dir: tempfile::TempDir,
    store: Failing,
    signer: Arc<TokenSigner>,
    key: PublicKey,
    facts: Arc<TrailFacts>,
    clock: Arc<Timekeeper>,
    queue: mpsc::Sender<Work>,
    published: watch::Receiver<Published>,
    task: JoinHandle<Result<(), Fatal>>,
    restarts: u32,
}

fn row(store: &SqliteStore) -> TrailRow {
    store.reader().read(|snapshot| snapshot.trails()).unwrap().pop().unwrap()
}

impl Bench {
    async fn new(fault: Fault) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let (pool, key) = token(dir.path()).await;
        let store = SqliteStore::create(dir.path()).unwrap();
        let origin = Origin::parse(TRAIL).unwrap();
        let clock = Arc::new(Timekeeper::default());
        let head = Head { size: 0, leaf: Hash::of(b"plan"), time: clock.now() };
        store.add_trail(TrailRow { no: NO, origin: origin.clone(), head, signed: 0, latched: None }).await.unwrap();
        HeadFile::open(dir.path(), "a", true).unwrap();
        let facts = TrailFacts { no: NO, origin, mode: Mode::Batch, checkpoint_key: key.kid(), record_key: None };
        let store = Failing { store, fault, seen: Arc::default() };
        let signer = Arc::new(TokenSigner::new(pool, [&key].into_iter()));
        let (queue, _) = mpsc::channel(1);
        let published = watch::channel(published(head, 0)).1;
        let task = tokio::spawn(async { Ok(()) });
        let facts = Arc::new(facts);
        let mut bench = Bench { dir, store, signer, key, facts, clock, queue, published, task, restarts: 0 };
        bench.start().await;
        bench
    }

    /// As a start of the daemon: from what the store has, an open intent first.
    async fn start(&mut self) {
        let (store, row) = (&self.store.store, row(&self.store.store));
        let before: CompactRange =
            store.reader().read(|snapshot| Ok(StoredTree::new(snapshot, NO).frontier(row.signed).unwrap())).unwrap();
        let open = store.reader().read(|snapshot| snapshot.open_intent(NO)).unwrap();
        let instance = InstanceId::parse(INSTANCE).unwrap();
        let mut recovery = None;
        if let Some(intent) = &open {
            let records = store.reader().read(|snapshot| snapshot.records(NO, row.signed, row.head.size)).unwrap();
            recovery =
                Some(recover(&instance, &self.facts, &row, &before, intent, &records, &self.signer).await.unwrap());
        }
        let (queue, receiver) = mpsc::channel(16);
        let (sender, published) = watch::channel(published(row.head, row.signed));
        let mut task = Task {
            facts: self.facts.clone(),
            bounds: Bounds {
                max_records: 16,
                max_bytes: 1 << 20,
                signing: Duration::from_millis(50),
                checkpoint_every: Duration::from_secs(1),
                heartbeat_every: Duration::from_secs(3600),
            },
            instance,
            store: self.store.clone(),
            signer: self.signer.clone(),
            checkpoint_key: self.key.clone(),
            clock: self.clock.clone(),
            metrics: Arc::new(Metrics::new([], [self.facts.origin.clone()])),
            second: Arc::new(Mutex::new(HeadFile::open(self.dir.path(), "a", false).unwrap().0)),
            queue: receiver,
            published: sender,
            head: row.head,
            frontier: recovery.as_ref().map_or(before, |(batch, _)| batch.frontier.clone()),
            signed: row.signed,
            checkpoint: row.signed,
            latched: None,
            flight: None,
            gathering: Gathering::default(),
            held: None,
            recent: Recent::new(row.head.size),
            checkpoint_waiters: Vec::new(),
            last_checkpoint: Instant::now(),
            draining: None,
            signature_time: first_signature_time(),
        };
        if let Some((batch, proof)) = recovery {
            task.resume(batch, proof);
        }
        (self.queue, self.published, self.task) = (queue, published, tokio::spawn(task.run()));
        self.restarts += 1;
    }

    /// The sequencer gave up: its reason, and a new one.
    async fn restart(&mut self) {
        let ended = (&mut self.task).await.unwrap();
        assert!(
            matches!(self.store.fault, Fault::Lost | Fault::Persisted),
            "{:?} ended it: {ended:?}",
            self.store.fault
        );
        assert!(ended.unwrap_err().problem.contains("outcome"), "the store's unknown outcome");
        self.start().await;
    }

    /// As a client that repeats until it is answered: the place of its event.
    async fn sign(&mut self, n: u64) -> u64 {
        let begun = Instant::now();
        loop {
            assert!(begun.elapsed() < PATIENCE, "event {n} is not answered");
            let (client, id) = (client(), event_id(n));
            let checked_at = self.published.borrow().signed;
            let found = self.store.store.reader().read(|snapshot| snapshot.event(NO, &client, &id)).unwrap();
            let answer = match found {
                Some(seq) => self.signed(seq).await,
                None => self.offer(n, checked_at).await,
            };
            match answer {
                Some(Ok(seq)) => return seq,
                Some(Err(refusal)) => assert_eq!(refusal.reason(), Reason::StoreUnavailable, "{refusal}"),
                None => self.restart().await,
            }
        }
    }

    /// Waits until a record is signed; none when the sequencer ends first.
    async fn signed(&mut self, seq: u64) -> Option<Result<u64, Refusal>> {
        self.published.wait_for(|now| now.signed > seq).await.ok().map(|_| Ok(seq))
    }

    async fn offer(&mut self, n: u64, checked_at: u64) -> Option<Result<u64, Refusal>> {
        let (reply, answer) = oneshot::channel();
        let events = vec![prepared(n)];
        let group = Group { events, checked_at, deadline: None, offered: Instant::now(), reply, permit: Box::new(()) };
        self.queue.send(Work::Group(group)).await.ok()?;
        match answer.await.ok()? {
            Ok(GroupAnswer { places, batch }) => match (&places[..], batch) {
                ([Place::New(index)], Some(batch)) => {
                    let seq = batch.first_seq + *index as u64;
                    // Released is durable: a reader that looks now sees it.
                    assert!(row(&self.store.store).signed > seq, "released before it is durable");
                    Some(Ok(seq))
                }
                ([Place::Repeat(seq)], _) => self.signed(*seq).await,
                other => panic!("one event, answered by {other:?}"),
            },
            Err(refusal) => Some(Err(refusal)),
        }
    }
}

fn published(head: Head, signed: u64) -> Published {
    Published { head, root: Hash::of(b""), signed, checkpoint: signed, stopped: None }
}

fn client() -> MemberId {
    MemberId::parse("gateway-1").unwrap()
}

fn event_id(n: u64) -> EventId {
    EventId::parse(&format!("event-{n}")).unwrap()
}

fn prepared(n: u64) -> Prepared {
    let event = Event {
        type_name: TypeName::parse("llm.completion").unwrap(),
        category: Category::Normal,
        decision: Decision::Allow,
        result: EventResult::Delivered,
        event_id: event_id(n),
        client: client(),
        links: Vec::new(),
        parts: BTreeMap::new(),
    };
    Prepared { event, parts: Vec::new(), request_id: None, weight: 512 }
}

/// Signs events one after another and two at a time, and checks what the store has in the end.
async fn all_are_signed_once(fault: Fault) -> Bench {
    let mut bench = Bench::new(fault).await;
    let mut places = Vec::new();
    for n in 0..EVENTS {
        places.push(bench.sign(n).await);
    }
    for n in 0..EVENTS {
        assert_eq!(bench.sign(n).await, places[n as usize], "a repeat is the same record");
    }
    assert_eq!(places, (0..EVENTS).collect::<Vec<_>>(), "a failed step spends no number twice, and none in vain");
    let store = &bench.store.store;
    let row = row(store);
    assert_eq!((row.head.size, row.signed), (EVENTS, EVENTS));
    let mut range = CompactRange::empty();
    let (mut prev, mut notes) = (Hash::of(b"plan"), 0);
    for record in store.reader().read(|snapshot| snapshot.records(NO, 0, EVENTS)).unwrap() {
        assert_eq!(Record::parse(&record.bytes).unwrap().header.prev, prev);
        prev = leaf_hash(&record.bytes);
        range.push(prev).unwrap();
        let note = store.reader().read(|snapshot| snapshot.checkpoint_covering(NO, range.size())).unwrap().unwrap();
        let signed = SignedCheckpoint::parse(&note.note).unwrap();
        let checkpoint = signed.verify(&bench.key).unwrap();
        if checkpoint.size == range.size() {
            assert_eq!(checkpoint.root, range.root());
            notes += 1;
        }
    }
    assert!(notes > 0);
    assert!(bench.store.seen.lock().unwrap().values().all(|count| *count >= 1));
    bench
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_is_not_persisted_is_refused_and_can_be_repeated() {
    let bench = all_are_signed_once(Fault::NotStored).await;
    assert_eq!(bench.restarts, 1, "what is known not to be stored needs no restart");
    let seen = bench.store.seen.lock().unwrap();
    assert!(seen.values().all(|count| *count == FAILURES + 1), "every step failed twice: {seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_may_be_lost_is_recovered_by_a_restart() {
    let bench = all_are_signed_once(Fault::Lost).await;
    assert_eq!(bench.restarts, 1 + 2 * FAILURES * EVENTS as u32, "each intent and each outcome, twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_failed_but_is_persisted_is_recovered_by_a_restart() {
    let bench = all_are_signed_once(Fault::Persisted).await;
    assert_eq!(bench.restarts, 1 + 2 * EVENTS as u32, "each intent and each outcome, once: then it is there");
}
