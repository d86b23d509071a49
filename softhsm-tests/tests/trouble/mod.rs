//! What the tests of crashes, faults and restores share: a stage on the faulty module, clients that
//! keep it busy and remember every answer, and what must hold of the answers afterwards.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use countersign_client::{Client, ClientConfig, ClientError, Connection, Proof, Receipt, Trust, v1};
use countersign_faulty_transcript::{ENV_DIR, ENV_MODULE, Transcript, find_library, find_softhsm};
use countersign_stage::binaries::run;
use countersign_stage::{Binaries, Daemon, Options, Stage, Trail};
use countersign_trail::archive::Archive;
use countersign_trail::record::Record;
use tempfile::TempDir;

/// No wait of these tests takes longer on a busy machine; beyond it something is broken.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);
/// How often a wait looks.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// The gateway of the load.
pub(crate) const GATEWAY: &str = "gateway-1";

/// Numbers that look random and are the same for the same seed (SplitMix64).
pub(crate) struct Chance(u64);

impl Chance {
    /// From COUNTERSIGN_SEED, or the same as ever; prints it, so that a failure can be had again.
    pub(crate) fn new(test: &str) -> Chance {
        let seed = std::env::var("COUNTERSIGN_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(20_261_120);
        eprintln!("{test}: COUNTERSIGN_SEED={seed}");
        Chance(seed)
    }

    /// From 0 to `bound` - 1.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    /// A pause of less than `milliseconds`.
    pub(crate) fn pause(&mut self, milliseconds: u64) {
        std::thread::sleep(Duration::from_millis(self.below(milliseconds)));
    }
}

/// Waits until `done`; panics beyond [`PATIENCE`].
pub(crate) fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(LOOK_EVERY);
    }
}

/// A sealed appliance whose tokens stand behind the faulty module.
pub(crate) struct Scene {
    pub(crate) stage: Stage,
    /// The folder that is shared with the faulty module.
    pub(crate) shared: PathBuf,
    folder: TempDir,
}

impl Scene {
    /// With one trail per mode. Ed25519 throughout: CKM_EDDSA takes whole messages, so that the
    /// transcript tells their positions.
    pub(crate) fn set() -> Scene {
        Scene::with_token_lines("")
    }

    /// With further lines in both tokens' tables of the configuration.
    pub(crate) fn with_token_lines(lines: &str) -> Scene {
        let folder = tempfile::tempdir().unwrap();
        let shared = folder.path().join("faulty");
        std::fs::create_dir(&shared).unwrap();
        let module = find_library().expect("run `cargo build -p countersign-faulty-module` first");
        let softhsm = find_softhsm().expect("install softhsm2");
        let options = Options {
            trails: vec![Trail::new("batch", "ed25519"), Trail::new("record", "ed25519")],
            module,
            environment: vec![
                (ENV_MODULE.to_owned(), softhsm.display().to_string()),
                (ENV_DIR.to_owned(), shared.display().to_string()),
            ],
            ..Options::default()
        };
        let binaries = Binaries::beside_this().unwrap();
        let stage = Stage::set(&folder.path().join("stage"), binaries, options, &mut |_| ()).unwrap();
        if !lines.is_empty() {
            let path = stage.folder.join("countersignd.toml");
            let mut text = std::fs::read_to_string(&path).unwrap();
            for table in ["[record_token]\n", "[admin_token]\n"] {
                text = text.replace(table, &format!("{table}{lines}\n"));
            }
            std::fs::write(path, text).unwrap();
        }
        Scene { stage, shared, folder }
    }

    /// The trails' names.
    pub(crate) fn trails(&self) -> Vec<String> {
        self.stage.options.trails.iter().map(|trail| trail.origin.clone()).collect()
    }

    /// The trail of a mode.
    pub(crate) fn trail(&self, mode: &str) -> String {
        let trail = self.stage.options.trails.iter().find(|trail| trail.mode == mode);
        trail.expect("a trail of this mode").origin.clone()
    }

    /// The client's configuration as a member.
    pub(crate) fn client_config(&self, member: &str) -> ClientConfig {
        let read = |name: &str| std::fs::read(self.stage.folder.join("tls").join(name)).unwrap();
        let endpoint = format!("https://localhost:{}", self.stage.port);
        let (cert, key) = (read(&format!("{member}.pem")), read(&format!("{member}.key")));
        let connection = Connection::new(&endpoint, read("ca.pem"), cert, key);
        ClientConfig::new(connection, Trust::Genesis(self.stage.fingerprint.parse().unwrap()))
    }

    /// A client that goes on for as long as a test waits.
    pub(crate) async fn patient(&self, member: &str) -> Client {
        let config = ClientConfig {
            deadline: PATIENCE,
            attempts: 10_000,
            backoff: Duration::from_millis(20),
            backoff_max: Duration::from_millis(100),
            ..self.client_config(member)
        };
        Client::connect(config).await.unwrap()
    }

    /// A client that tries once.
    pub(crate) async fn hasty(&self, member: &str) -> Client {
        let config = ClientConfig { attempts: 1, ..self.client_config(member) };
        Client::connect(config).await.unwrap()
    }

    /// What the HSM was asked to sign so far.
    pub(crate) fn transcript(&self) -> Transcript {
        Transcript::read(&self.shared).unwrap()
    }

    /// Exports everything, has it verified offline against the pinned genesis, and gives each
    /// trail's records.
    pub(crate) fn verified_records(&self) -> HashMap<String, Vec<Vec<u8>>> {
        let evidence = self.stage.folder.join("evidence.zip");
        run(self.stage.countersign("auditor-1", &["export", "--force", "--out"]).arg(&evidence)).unwrap();
        let mut verify = self.stage.binaries.command("countersign-verify");
        run(verify.arg(&evidence).args(["--genesis", &self.stage.fingerprint])).unwrap();
        records_of(&evidence)
    }

    /// Records of the admin trail, as JSON.
    pub(crate) fn admin_records(&self) -> Vec<serde_json::Value> {
        let records = self.verified_records().remove("demo.example/admin").unwrap_or_default();
        records.iter().map(|record| serde_json::from_slice(record).unwrap()).collect()
    }

    /// A program of the stage, as if `countersignd` were `program`.
    pub(crate) fn as_daemon(&self, program: &Path) -> Command {
        let model = self.stage.countersignd(&[]);
        let mut command = Command::new(program);
        command.args(model.get_args());
        for (name, value) in model.get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        command
    }
}

/// The records of an evidence bundle, by trail: its entry bundles hold each with a 16-bit length in
/// front (C2SP tlog-tiles).
fn records_of(evidence: &Path) -> HashMap<String, Vec<Vec<u8>>> {
    let bytes = std::fs::read(evidence).unwrap();
    let archive = Archive::parse(&bytes).unwrap();
    let mut trails: HashMap<String, Vec<Vec<u8>>> = HashMap::new();
    for (name, mut content) in archive.iter() {
        let Some((folder, _)) = name.strip_prefix("trails/").and_then(|name| name.split_once("/tile/entries/")) else {
            continue;
        };
        let records = trails.entry(folder.replace('~', "/")).or_default();
        while let Some((length, rest)) = content.split_first_chunk::<2>() {
            let (record, rest) = rest.split_at(usize::from(u16::from_be_bytes(*length)));
            records.push(record.to_vec());
            content = rest;
        }
    }
    trails
}

/// Process ids of a daemon's HSM workers.
pub(crate) fn workers(daemon: &Daemon) -> Vec<i32> {
    let parent = daemon.pid().to_string();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        // proc(5): after the name in brackets come the state and the parent.
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let after = stat.rsplit_once(") ").map_or("", |(_, after)| after);
        if after.split(' ').nth(1) == Some(&parent) && !after.starts_with('Z') {
            found.push(pid);
        }
    }
    found.sort_unstable();
    found
}

/// SIGKILL to a worker; one that has just ended by itself is fine too.
pub(crate) fn kill_process(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).expect("a process id");
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
}

/// An event with two parts.
pub(crate) fn event(id: &str) -> v1::Event {
    v1::Event {
        event_id: id.to_owned(),
        r#type: "llm.completion".to_owned(),
        category: v1::Category::Normal.into(),
        decision: v1::Decision::Allow.into(),
        result: v1::Result::Delivered.into(),
        facts: Some(v1::Facts { request_id: format!("request-{id}"), team: "blue".to_owned(), ..v1::Facts::default() }),
        request: Some(v1::Content {
            media_type: "text/plain".to_owned(),
            body: Some(v1::content::Body::Data(format!("what {id} asked").into_bytes().into())),
            ..v1::Content::default()
        }),
        ..v1::Event::default()
    }
}

/// An event that was answered.
pub(crate) struct Answered {
    pub(crate) trail: String,
    pub(crate) event_id: String,
    pub(crate) receipt: Receipt,
}

/// Clients that sign all the time, whatever happens.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    tasks: Vec<tokio::task::JoinHandle<Vec<Answered>>>,
}

impl Load {
    /// Starts two writers for each trail.
    pub(crate) async fn start(scene: &Scene) -> Load {
        let mut load = Load { stop: Arc::default(), answered: Arc::default(), tasks: Vec::new() };
        let client = scene.patient(GATEWAY).await;
        for (number, trail) in scene.trails().iter().chain(&scene.trails()).enumerate() {
            let (stop, answered) = (load.stop.clone(), load.answered.clone());
            let (client, trail) = (client.clone(), trail.clone());
            load.tasks.push(tokio::spawn(async move {
                let mut mine = Vec::new();
                let mut round = 0;
                while !stop.load(Ordering::SeqCst) {
                    mine.extend(sign(&client, &trail, &format!("w{number}-{round}"), 1 + round % 7).await);
                    answered.fetch_add(1, Ordering::SeqCst);
                    round += 1;
                }
                mine
            }));
        }
        load
    }

    /// Waits until each writer could have had an answer that was asked for after now.
    pub(crate) fn wait_progress(&self) {
        let writers = self.tasks.len() as u64;
        let before = self.answered.load(Ordering::SeqCst);
        // All but one of the answers may have been on their way, and each writer has one call open.
        wait_for("answers", || {
            assert!(self.tasks.iter().all(|task| !task.is_finished()), "a writer met what it must not meet");
            self.answered.load(Ordering::SeqCst) > before + writers
        });
    }

    /// Stops, and gives every answer.
    pub(crate) async fn finish(self) -> Vec<Answered> {
        self.stop.store(true, Ordering::SeqCst);
        let mut all = Vec::new();
        for task in self.tasks {
            all.extend(task.await.unwrap());
        }
        all
    }
}

/// Signs `count` new events until each is answered. An alarm, or a refusal that would stay, fails.
async fn sign(client: &Client, trail: &str, name: &str, count: u64) -> Vec<Answered> {
    let ids: Vec<String> = (0..count).map(|n| format!("{name}-{n}")).collect();
    let mut results = Vec::new();
    if let [id] = &ids[..] {
        results.push(client.sign(trail, event(id)).await);
    } else {
        results = client.sign_batch(trail, ids.iter().map(|id| event(id)).collect()).await.expect("an answered batch");
    }
    let answered = |(event_id, result): (String, Result<Receipt, ClientError>)| Answered {
        trail: trail.to_owned(),
        receipt: result.unwrap_or_else(|error| panic!("{event_id}: {error}")),
        event_id,
    };
    ids.into_iter().zip(results).map(answered).collect()
}

/// What must hold after whatever happened: a repeat gives the identical answer, every answer is in
/// the trail once and where it said, the evidence verifies, and no two inputs met for one position.
pub(crate) async fn assert_whole(scene: &Scene, answered: &[Answered]) {
    assert_repeats(scene, answered).await;
    let records = scene.verified_records();
    for Answered { trail, event_id, receipt } in answered {
        let stored = records[trail].get(usize::try_from(receipt.seq).unwrap());
        assert_eq!(stored.map(Vec::as_slice), Some(&receipt.record[..]), "{trail}: {event_id} at {}", receipt.seq);
    }
    for (trail, records) in &records {
        let mut seen = HashSet::new();
        for (seq, bytes) in records.iter().enumerate() {
            Record::parse(bytes).unwrap_or_else(|error| panic!("{trail} {seq}: {error}"));
            let record: serde_json::Value = serde_json::from_slice(bytes).unwrap();
            if let Some(id) = record.get("event_id") {
                assert!(seen.insert((record["client"].clone(), id.clone())), "{trail}: {id} is there twice");
            }
        }
    }
    let positions = assert_positions(&scene.transcript());
    eprintln!("{} answers, {positions} positions signed, all of it verified", answered.len());
}

/// Repeats every answered event from a client that holds nothing.
async fn assert_repeats(scene: &Scene, answered: &[Answered]) {
    let fresh = scene.patient(GATEWAY).await;
    for trail in scene.trails() {
        let of_trail: Vec<&Answered> = answered.iter().filter(|answer| answer.trail == trail).collect();
        for some in of_trail.chunks(500) {
            let events = some.iter().map(|answer| event(&answer.event_id)).collect();
            let again = fresh.sign_batch(&trail, events).await.unwrap();
            for (first, again) in some.iter().zip(again) {
                let again = again.unwrap_or_else(|error| panic!("{}: {error}", first.event_id));
                assert_same(first, &again);
            }
        }
    }
}

/// The same answer, to the byte.
pub(crate) fn assert_same(first: &Answered, again: &Receipt) {
    let (what, first) = (format!("{} in {}", first.event_id, first.trail), &first.receipt);
    assert_eq!(first.record, again.record, "{what}");
    assert_eq!((first.seq, first.salts.clone(), first.kid), (again.seq, again.salts.clone(), again.kid), "{what}");
    match (&first.proof, &again.proof) {
        (Proof::Signature(a), Proof::Signature(b)) => assert_eq!(a, b, "{what}"),
        (Proof::Inclusion { checkpoint: a, path }, Proof::Inclusion { checkpoint: b, path: other }) => {
            assert_eq!((a.to_bytes(), path), (b.to_bytes(), other), "{what}");
        }
        _ => panic!("{what}: another kind of proof"),
    }
}

/// No two inputs for one position, over the whole transcript. Gives the number of positions.
pub(crate) fn assert_positions(transcript: &Transcript) -> usize {
    let mut inputs: HashMap<String, &[u8]> = HashMap::new();
    for asked in transcript.asked() {
        let position = position(&asked.input);
        let first = inputs.entry(position.clone()).or_insert(&asked.input);
        assert!(*first == asked.input, "two inputs for {position}:\n{first:?}\n{:?}", asked.input);
    }
    inputs.len()
}

/// The position of an input, as the table "What the HSM signs" of the formats has it.
pub(crate) fn position(input: &[u8]) -> String {
    if input.starts_with(b"DSSEv1 ") {
        let payload = input.iter().position(|byte| *byte == b'{').map(|at| &input[at..]).expect("a JSON payload");
        let payload: serde_json::Value = serde_json::from_slice(payload).expect("a JSON payload");
        return match (&payload["seq"], &payload["nonce"], &payload["predicate"]) {
            (serde_json::Value::String(seq), ..) => format!("record {} {seq}", payload["trail"]),
            (_, serde_json::Value::String(nonce), _) => format!("probe {nonce}"),
            (_, _, predicate) => format!("statement {} {}", predicate["kid"], predicate["number"]),
        };
    }
    let text = std::str::from_utf8(input).expect("a checkpoint's text");
    let mut lines = text.lines();
    let (origin, size) = (lines.next().expect("an origin"), lines.next().expect("a size"));
    format!("checkpoint {origin} {}", size.parse::<u64>().expect("a size"))
}
