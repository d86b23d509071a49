//! One trail on a token and a store of its own, started again whenever its sequencer gives up.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use countersign_hsm::{
    KeyBinding, KeySpec, PinSource, Pool, PoolSpec, PoolState, TokenConfig, WorkerCommand, create_mac_key,
};
use countersign_trail::document::Mode;
use countersign_trail::hash::Hash;
use countersign_trail::id::{EventId, InstanceId, MemberId, TypeName};
use countersign_trail::keys::{Algorithm, PublicKey};
use countersign_trail::origin::Origin;
use countersign_trail::record::{Category, Decision, Event, EventResult, Record};
use countersign_trail::signing::Purpose;
use countersign_trail::tree::CompactRange;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::super::batch::{Batch, Item, intent_digest};
use super::super::gather::Gathering;
use super::super::recent::Recent;
use super::super::start::recover;
use super::super::task::{Fatal, Task, first_signature_time};
use super::super::{Bounds, Group, GroupAnswer, Place, Prepared, Published, TrailFacts, TrailHandle};
use super::ENV_WORKER;
use super::told_store::{Fault, Told};
use crate::metrics::Metrics;
use crate::reason::{Reason, Refusal};
use crate::signer::TokenSigner;
use crate::store::files::HeadFile;
use crate::store::sqlite::SqliteStore;
use crate::store::tree::StoredTree;
use crate::store::{Append, Head, Store, TrailNo, TrailRow};
use crate::timekeeper::Timekeeper;

const INSTANCE: &str = "acme-1";
const TRAIL: &str = "acme.example/a";
pub(super) const NO: TrailNo = 1;
/// Far beyond what any step takes.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// Between attempts of a client that was refused.
const AGAIN: Duration = Duration::from_millis(5);

/// What `work` gives, which takes no longer than [`PATIENCE`].
pub(super) async fn in_time<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}"))
}

/// Starts the workers of a new SoftHSM token in `dir`.
async fn start_token(dir: &Path) -> Pool {
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
    // Without the crate's name, as the test harness calls it.
    let test = module_path!().split_once("::").unwrap().1.replace("::bench", "::worker_process");
    let pool = Pool::start(PoolSpec {
        role: "record".to_owned(),
        instance: InstanceId::parse(INSTANCE).unwrap(),
        command: WorkerCommand {
            program: std::env::current_exe().unwrap(),
            args: ["--exact", &test, "--nocapture", "--test-threads=1"].map(Into::into).to_vec(),
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
    until(&pool, |state| *state == PoolState::Ready).await;
    pool
}

/// Waits for a state of the pool.
async fn until(pool: &Pool, wanted: impl FnMut(&PoolState) -> bool) {
    let mut state = pool.state();
    let reached = tokio::time::timeout(PATIENCE, state.wait_for(wanted)).await;
    reached.unwrap_or_else(|_| panic!("the pool stays {:?}", *pool.state().borrow())).unwrap();
}

async fn make_key(pool: &Pool, name: &str, algorithm: Algorithm) -> (Vec<u8>, PublicKey) {
    let time = "2026-01-02T03:04:05.000006Z".to_owned();
    let spec = KeySpec { instance: INSTANCE.to_owned(), name: name.to_owned(), algorithm, time };
    let key = pool.generate(spec).await.unwrap();
    pool.finalize_key(&key.cka_id, INSTANCE, name).await.unwrap();
    (key.cka_id, PublicKey::from_spki_der(&key.public_key).unwrap())
}

/// The trail, whatever it runs on, and the way to its sequencer.
pub(super) struct Bench {
    pub(super) dir: tempfile::TempDir,
    pool: Pool,
    pub(super) store: Told,
    signer: Arc<TokenSigner>,
    /// Of checkpoints.
    pub(super) key: PublicKey,
    /// Of records, in record mode.
    pub(super) record_key: Option<PublicKey>,
    facts: Arc<TrailFacts>,
    pub(super) clock: Arc<Timekeeper>,
    bounds: Bounds,
    pub(super) handle: TrailHandle,
    pub(super) task: JoinHandle<Result<(), Fatal>>,
    pub(super) restarts: usize,
}

impl Bench {
    /// A trail that is never idle long enough for a heartbeat.
    pub(super) async fn new(mode: Mode, fault: Fault) -> Bench {
        Bench::with_heartbeat(mode, fault, Duration::from_secs(3600)).await
    }

    pub(super) async fn with_heartbeat(mode: Mode, fault: Fault, heartbeat_every: Duration) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let pool = start_token(dir.path()).await;
        let origin = Origin::parse(TRAIL).unwrap();
        let mut keys = vec![(Purpose::Checkpoint, make_key(&pool, "a/checkpoint", Algorithm::Ed25519).await)];
        if mode == Mode::Record {
            keys.push((Purpose::Record, make_key(&pool, "a/record", Algorithm::EcdsaP256).await));
        }
        let bindings = keys.iter().map(|(purpose, (cka_id, key))| KeyBinding {
            kid: key.kid(),
            public_key: key.spki_der(),
            purpose: *purpose,
            trail: Some(origin.clone()),
            cka_id: cka_id.clone(),
        });
        pool.bind_keys(bindings.collect()).await.unwrap();
        let signer = Arc::new(TokenSigner::new(pool.clone(), keys.iter().map(|(_, (_, key))| key)));
        let store = SqliteStore::create(dir.path()).unwrap();
        let clock = Arc::new(Timekeeper::default());
        let head = Head { size: 0, leaf: Hash::of(b"plan"), time: clock.now() };
        store.add_trail(TrailRow { no: NO, origin: origin.clone(), head, signed: 0, latched: None }).await.unwrap();
        HeadFile::open(dir.path(), "a", true).unwrap();
        let mut keys = keys.into_iter().map(|(_, (_, key))| key);
        let (key, record_key) = (keys.next().unwrap(), keys.next());
        let facts = TrailFacts {
            no: NO,
            origin,
            mode,
            checkpoint_key: key.kid(),
            record_key: record_key.as_ref().map(PublicKey::kid),
        };
        let facts = Arc::new(facts);
        let bounds = Bounds {
            max_records: 16,
            max_bytes: 1 << 20,
            signing: Duration::from_millis(50),
            checkpoint_every: Duration::from_millis(100),
            heartbeat_every,
        };
        let store = Told::new(store, fault);
        let published = watch::channel(published(head, 0, 0)).1;
        let handle = TrailHandle { facts: facts.clone(), bounds, queue: mpsc::channel(1).0, published };
        let task = tokio::spawn(async { Ok(()) });
        let mut bench =
            Bench { dir, pool, store, signer, key, record_key, facts, clock, bounds, handle, task, restarts: 0 };
        bench.start().await;
        bench
    }

    pub(super) fn row(&self) -> TrailRow {
        row(&self.store.store)
    }

    /// The stored records from `from` on.
    pub(super) fn records(&self, from: u64) -> Vec<Record> {
        let to = self.row().head.size;
        let stored = self.store.store.reader().read(|snapshot| snapshot.records(NO, from, to)).unwrap();
        stored.iter().map(|record| Record::parse(&record.bytes).unwrap()).collect()
    }

    fn frontier(&self, size: u64) -> CompactRange {
        let read = self.store.store.reader().read(|snapshot| Ok(StoredTree::new(snapshot, NO).frontier(size).unwrap()));
        read.unwrap()
    }

    /// As a start of the daemon: from what the store has, an open intent first.
    pub(super) async fn start(&mut self) {
        let (reader, row) = (self.store.store.reader(), self.row());
        let before = self.frontier(row.signed);
        let open = reader.read(|snapshot| snapshot.open_intent(NO)).unwrap();
        let newest = reader.read(|snapshot| snapshot.newest_checkpoint(NO)).unwrap();
        let checkpoint = newest.map_or(0, |note| note.size);
        let instance = InstanceId::parse(INSTANCE).unwrap();
        let mut recovery = None;
        if let Some(intent) = &open {
            let records = reader.read(|snapshot| snapshot.records(NO, row.signed, row.head.size)).unwrap();
            recovery =
                Some(recover(&instance, &self.facts, &row, &before, intent, &records, &self.signer).await.unwrap());
        }
        let (queue, receiver) = mpsc::channel(16);
        let (sender, published) = watch::channel(published(row.head, row.signed, checkpoint));
        let mut task = Task {
            facts: self.facts.clone(),
            bounds: self.bounds,
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
            checkpoint,
            latched: None,
            flight: None,
            gathering: Gathering::default(),
            held: None,
            recent: Recent::new(row.head.size),
            checkpoint_waiters: Vec::new(),
            last_checkpoint: Instant::now(),
            draining: None,
            signature_time: first_signature_time(),
            heartbeat_at: Instant::now(),
            said_at: None,
        };
        if let Some((batch, proof)) = recovery {
            task.resume(batch, proof);
        }
        self.handle = TrailHandle { facts: self.facts.clone(), bounds: self.bounds, queue, published };
        self.task = tokio::spawn(task.run());
        self.restarts += 1;
    }

    /// The sequencer gave up: its reason, and a new one.
    async fn restart(&mut self) {
        let ended = in_time("its end", &mut self.task).await.unwrap();
        let fault = self.store.fault;
        assert!(matches!(fault, Fault::Lost | Fault::Persisted), "{fault:?} ended it: {ended:?}");
        assert!(ended.unwrap_err().problem.contains("outcome is unknown"), "the store's unknown outcome");
        self.start().await;
    }

    /// As a client that repeats until it is answered: the place of its event.
    pub(super) async fn sign(&mut self, n: u64) -> u64 {
        let begun = Instant::now();
        loop {
            assert!(begun.elapsed() < PATIENCE, "event {n} is not answered");
            let (checked_at, found) = (self.handle.now().signed, self.stored(n));
            let answer = match found {
                Some(seq) => self.signed(seq).await,
                None => self.offer(n, checked_at, None).answer(self).await,
            };
            match answer {
                Some(Ok(seq)) => return seq,
                Some(Err(_)) if self.task.is_finished() => self.restart().await,
                Some(Err(refusal)) => {
                    let unavailable = matches!(self.store.fault, Fault::NotStored);
                    let reason = if unavailable { Reason::StoreUnavailable } else { Reason::StoreFull };
                    assert_eq!(refusal.reason(), reason, "{refusal}");
                    tokio::time::sleep(AGAIN).await;
                }
                None => self.restart().await,
            }
        }
    }

    /// Where the store has an event.
    pub(super) fn stored(&self, n: u64) -> Option<u64> {
        self.store.store.reader().read(|snapshot| snapshot.event(NO, &client(), &event_id(n))).unwrap()
    }

    /// Waits until a record is signed; none when the sequencer ends first.
    pub(super) async fn signed(&self, seq: u64) -> Option<Result<u64, Refusal>> {
        let mut published = self.handle.published.clone();
        in_time("a signature", published.wait_for(|now| now.signed > seq)).await.ok().map(|_| Ok(seq))
    }

    /// Asks for a checkpoint over everything, as often as it takes.
    pub(super) async fn checkpoint(&mut self) -> u64 {
        let begun = Instant::now();
        loop {
            assert!(begun.elapsed() < PATIENCE, "no checkpoint");
            match in_time("a checkpoint", self.handle.checkpoint()).await {
                Ok(size) => return size,
                Err(refusal) if refusal.reason() == Reason::Draining => self.restart().await,
                Err(_) => tokio::time::sleep(AGAIN).await,
            }
        }
    }

    /// Hands an event to the sequencer.
    pub(super) fn offer(&self, n: u64, checked_at: u64, deadline: Option<Instant>) -> Offered {
        let (reply, answer) = oneshot::channel();
        let events = vec![prepared(n)];
        let group = Group { events, checked_at, deadline, offered: Instant::now(), reply, permit: Arc::new(()) };
        Offered(self.handle.offer(group).map(|()| answer))
    }

    /// Another writer's event in the place of the next record: its intent is durable, and not signed.
    pub(super) async fn rival(&self, n: u64) {
        let row = self.row();
        let items = vec![(Item::Event(Box::new(prepared(n))), self.clock.now())];
        let batch = Batch::build(&self.facts, row.head, &self.frontier(row.head.size), items, true).unwrap();
        let leaves = batch.records.iter().map(|record| record.leaf);
        let instance = InstanceId::parse(INSTANCE).unwrap();
        let digest = intent_digest(&instance, &self.facts, &batch.prev, leaves, &batch.messages(&self.facts));
        let intent = Some(batch.intent(self.signer.mac(digest).await.unwrap()));
        self.store.store.append(Append { trail: NO, outcome: None, intent, checkpoint: None }).await.unwrap();
    }

    /// Takes the token away until [`Bench::token_back`].
    pub(super) async fn token_away(&self) {
        use rustix::process::{Pid, Signal, kill_process};
        let (tokens, away) = self.token_folders();
        std::fs::rename(tokens, away).unwrap();
        for pid in self.pool.worker_pids().into_iter().flatten() {
            kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), Signal::KILL).unwrap();
        }
        until(&self.pool, |state| matches!(state, PoolState::Down { .. })).await;
    }

    /// Waits until the workers sign again.
    pub(super) async fn token_back(&self) {
        let (tokens, away) = self.token_folders();
        std::fs::rename(away, tokens).unwrap();
        until(&self.pool, |state| *state == PoolState::Ready).await;
    }

    fn token_folders(&self) -> (PathBuf, PathBuf) {
        (self.dir.path().join("tokens"), self.dir.path().join("tokens.away"))
    }
}

/// An event on its way.
pub(super) struct Offered(Result<oneshot::Receiver<Result<GroupAnswer, Refusal>>, Refusal>);

impl Offered {
    /// Its place or its refusal; none when the sequencer ended.
    pub(super) async fn answer(self, bench: &Bench) -> Option<Result<u64, Refusal>> {
        let answer = match self.0 {
            Ok(answer) => in_time("an answer", answer).await.ok()?,
            // A queue without its sequencer refuses as a full one does.
            Err(refusal) if refusal.reason() == Reason::Overloaded => return None,
            Err(refusal) => return Some(Err(refusal)),
        };
        match answer {
            Ok(GroupAnswer { places, batch }) => match (&places[..], batch) {
                ([Place::New(index)], Some(batch)) => {
                    let seq = batch.first_seq + *index as u64;
                    // Released is durable: a reader that looks now sees it.
                    assert!(bench.row().signed > seq, "released before it is durable");
                    Some(Ok(seq))
                }
                ([Place::Repeat(seq)], _) => bench.signed(*seq).await,
                other => panic!("one event, answered by {other:?}"),
            },
            Err(refusal) => Some(Err(refusal)),
        }
    }
}

fn row(store: &SqliteStore) -> TrailRow {
    store.reader().read(|snapshot| snapshot.trails()).unwrap().pop().unwrap()
}

fn published(head: Head, signed: u64, checkpoint: u64) -> Published {
    Published { head, root: Hash::of(b""), signed, checkpoint, stopped: None, store: None }
}

pub(super) fn client() -> MemberId {
    MemberId::parse("gateway-1").unwrap()
}

pub(super) fn event_id(n: u64) -> EventId {
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
