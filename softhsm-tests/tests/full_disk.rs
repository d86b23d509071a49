//! The daemon on a disk that really runs full: what was answered stays, what is in flight is answered,
//! new work is refused and costs nothing, and service returns by itself when there is room.
//!
//! The data folder is a small tmpfs in a mount namespace of its own (`unshare`; with a user namespace
//! where the test does not run as root), kept by a process whose /proc/PID/root leads to its files.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops at what it did not expect")]

mod support;
mod trouble;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use countersign_client::{Client, ClientError, Receipt};
use countersign_faulty_transcript::{Action, Function, Rule, Which, write_control};
use countersign_stage::Daemon;
use support::{done, sizes};
use tokio::runtime::Runtime;
use trouble::{Answered, GATEWAY, PATIENCE, Scene, assert_same, assert_whole, event, position, wait_for};

/// Set by whoever knows that the machine allows no mounts, and wants this test left out.
const ENV_NO_MOUNTS: &str = "COUNTERSIGN_NO_MOUNTS";
const DISK_BYTES: u64 = 32 << 20;
/// What something else on that disk takes, and gives back later.
const FILLER_BYTES: u64 = 10 << 20;
/// How long a signature takes, so that the disk can be filled meanwhile.
const SLOW: std::time::Duration = std::time::Duration::from_millis(1500);

/// A small file system in a mount namespace of its own; gone when dropped.
struct Disk {
    keeper: Child,
    at: PathBuf,
}

impl Disk {
    /// Mounts it over the folder `at`, whose files it gets.
    fn mount(at: &Path) -> Disk {
        let first = at.with_extension("first");
        fs::rename(at, &first).unwrap();
        fs::create_dir(at).unwrap();
        // Ends with this process, which holds the other end of its standard input.
        let script =
            "mount -t tmpfs -o size=$3,mode=0700 tmpfs \"$1\" && cp -a \"$2/.\" \"$1/\" && echo mounted && exec cat";
        let mut unshare = Command::new("unshare");
        if !rustix::process::geteuid().is_root() {
            unshare.arg("--map-root-user");
        }
        unshare.args(["--mount", "sh", "-c", script, "sh"]).arg(at).arg(&first).arg(DISK_BYTES.to_string());
        unshare.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut keeper = unshare.spawn().expect("unshare, of util-linux, is needed");
        let mut said = String::new();
        BufReader::new(keeper.stdout.as_mut().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(
            said, "mounted\n",
            "this machine lets no process mount a tmpfs in a namespace of its own (unshare --mount; with \
             --map-root-user for who is not root). Where it cannot be allowed, {ENV_NO_MOUNTS}=1 leaves this test out."
        );
        Disk { keeper, at: at.to_owned() }
    }

    /// The same command, with the disk in its place. Its process id is the command's own.
    fn with(&self, command: &Command) -> Command {
        let mut inside = Command::new("nsenter");
        inside.args(["--target", &self.keeper.id().to_string(), "--mount"]);
        if !rustix::process::geteuid().is_root() {
            inside.args(["--user", "--preserve-credentials"]);
        }
        inside.arg("--").arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            inside.env(name, value.unwrap_or_default());
        }
        inside
    }

    /// A file on it.
    fn path(&self, name: &str) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.keeper.id()));
        root.join(self.at.strip_prefix("/").unwrap()).join(name)
    }

    /// Something else takes `bytes`, or all that is left.
    fn fill(&self, bytes: Option<u64>) {
        let mut filler = File::options().create(true).append(true).open(self.path("filler")).unwrap();
        let page = [0x55; 4096];
        for _ in 0..bytes.map_or(u64::MAX, |bytes| bytes / 4096) {
            match (filler.write_all(&page), bytes) {
                (Ok(()), _) => {}
                (Err(error), None) if error.kind() == std::io::ErrorKind::StorageFull => return,
                (Err(error), _) => panic!("the filler: {error}"),
            }
        }
    }

    /// It gives everything back.
    fn make_room(&self) {
        fs::remove_file(self.path("filler")).unwrap();
    }

    /// Bytes that the store has set aside.
    fn reserve(&self) -> u64 {
        fs::metadata(self.path("store.reserve")).unwrap().len()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}

/// What one client of the load got.
struct Written {
    trail: String,
    answered: Vec<Answered>,
    refused: String,
}

/// Signs one event after another until one is refused, which must be for want of room.
async fn write_until_refused(client: Client, trail: String, name: usize) -> Written {
    let mut answered = Vec::new();
    loop {
        let event_id = format!("load-{name}-{}", answered.len());
        match client.sign(&trail, event(&event_id)).await {
            Ok(receipt) => answered.push(Answered { trail: trail.clone(), event_id, receipt }),
            Err(error) => {
                assert_store_full(&error);
                return Written { trail, answered, refused: event_id };
            }
        }
    }
}

fn assert_store_full(error: &ClientError) {
    assert_eq!(error.reason(), "STORE_FULL", "{error}");
    assert!(error.to_string().contains("nothing"), "it says what was not done: {error}");
}

/// Starts the daemon on the small disk.
fn spawn(scene: &Scene, disk: &Disk) -> Daemon {
    scene.stage.spawn_by(disk.with(&scene.stage.countersignd(&[]))).unwrap()
}

/// A call on its way.
type Signing = tokio::task::JoinHandle<Result<Receipt, ClientError>>;

/// The scene with its daemon on the small disk.
struct Full {
    disk: Disk,
    scene: Scene,
    runtime: Runtime,
    hasty: Client,
}

impl Full {
    fn sign(&self, trail: &str, event_id: &str) -> Result<Answered, ClientError> {
        let receipt = self.runtime.block_on(self.hasty.sign(trail, event(event_id)))?;
        Ok(Answered { trail: trail.to_owned(), event_id: event_id.to_owned(), receipt })
    }

    /// New work is refused with the reason, again and again, and no trail grows by it.
    fn assert_refuses(&self, name: &str) {
        let before = sizes(&self.scene.stage);
        for trail in self.scene.trails() {
            for n in 0..3 {
                let refused = self.sign(&trail, &format!("{name}-{n}")).err().expect("the disk is full");
                assert_store_full(&refused);
            }
        }
        assert_eq!(sizes(&self.scene.stage), before, "a refusal has no sequence number");
        let said = done(&mut self.scene.stage.countersign("operator-1", &["status"]));
        let told = said.matches("stopped: STORE_FULL").count();
        assert_eq!(told, self.scene.trails().len(), "{said}");
    }

    /// What still fits where many were refused: a single event is smaller than a batch.
    fn use_up(&self, trail: &str) -> Vec<Answered> {
        let (mut answered, mut refusals) = (Vec::new(), 0);
        while refusals < 3 {
            match self.sign(trail, &format!("last-{}", answered.len())) {
                Ok(answer) => answered.push(answer),
                Err(error) => {
                    assert_store_full(&error);
                    refusals += 1;
                }
            }
        }
        answered
    }

    /// Waits until an event is taken again.
    fn sign_when_there_is_room(&self, trail: &str, event_id: &str) -> Answered {
        let mut answered = None;
        wait_for("service", || match self.sign(trail, event_id) {
            Ok(answer) => answered.replace(answer).is_none(),
            Err(error) => {
                assert_store_full(&error);
                false
            }
        });
        answered.unwrap()
    }

    /// Lets `client` sign an event, and takes the last room while it is at the HSM. Gives its place.
    fn fill_while_signing(&self, client: &Client, trail: &str, event_id: &str) -> (u64, Signing) {
        let seq = sizes(&self.scene.stage)[trail];
        write_control(&self.scene.shared, &[Rule::new(Function::C_Sign, Which::Every, Action::Latency(SLOW))]).unwrap();
        let positions = [format!("record \"{trail}\" {seq}"), format!("checkpoint {trail} {}", seq + 1)];
        let (client, of, id) = (client.clone(), trail.to_owned(), event_id.to_owned());
        let signing = self.runtime.spawn(async move { client.sign(&of, event(&id)).await });
        // Its intent is durable: it was handed to the token.
        wait_for("the signature's begin", || {
            let transcript = self.scene.transcript();
            transcript.asked().any(|asked| positions.contains(&position(&asked.input)))
        });
        self.disk.fill(None);
        assert!(!signing.is_finished(), "the disk was filled too late: SLOW is too short for this machine");
        (seq, signing)
    }

    /// The answer to an event whose place is known.
    fn answer(&self, trail: &str, event_id: &str, (seq, signing): (u64, Signing)) -> Answered {
        let receipt = self.runtime.block_on(signing).unwrap().expect("what is in flight is answered");
        write_control(&self.scene.shared, &[]).unwrap();
        assert_eq!(receipt.seq, seq);
        Answered { trail: trail.to_owned(), event_id: event_id.to_owned(), receipt }
    }
}

/// Two clients a trail, until each was refused.
fn load_until_full(full: &Full) -> Vec<Written> {
    let trails = full.scene.trails();
    let all = trails.iter().chain(&trails).enumerate();
    let writers =
        all.map(|(name, trail)| full.runtime.spawn(write_until_refused(full.hasty.clone(), trail.clone(), name)));
    let writers: Vec<_> = writers.collect();
    wait_for("a full disk", || writers.iter().all(tokio::task::JoinHandle::is_finished));
    writers.into_iter().map(|writer| full.runtime.block_on(writer).unwrap()).collect()
}

#[test]
fn a_full_disk_refuses_new_work_and_finishes_what_is_in_flight() {
    if std::env::var_os(ENV_NO_MOUNTS).is_some() {
        return eprintln!("left out: {ENV_NO_MOUNTS} is set");
    }
    let scene = Scene::set();
    let disk = Disk::mount(&scene.stage.folder.join("data"));
    disk.fill(Some(FILLER_BYTES));
    let mut daemon = spawn(&scene, &disk);
    daemon.wait_ready().unwrap();
    let runtime = Runtime::new().unwrap();
    let hasty = runtime.block_on(scene.hasty(GATEWAY));
    let full = Full { disk, scene, runtime, hasty };
    let whole = full.disk.reserve();
    assert!(whole > 0);

    // Under load the disk fills.
    let written = load_until_full(&full);
    let signed: usize = written.iter().map(|one| one.answered.len()).sum();
    assert!(signed > 50, "{signed} events fitted: is the disk too small for the test?");
    let mut answered: Vec<Answered> = full.scene.trails().iter().flat_map(|trail| full.use_up(trail)).collect();
    full.assert_refuses("refused");
    // What was answered is answered again.
    for Written { trail, answered, .. } in &written {
        assert_same(&answered[0], &full.sign(trail, &answered[0].event_id).unwrap().receipt);
    }
    let before = sizes(&full.scene.stage);
    full.disk.make_room();
    // Service returns by itself; the refused events are new, and stand where the trails ended.
    for one in written {
        answered.extend(one.answered);
        answered.push(full.sign_when_there_is_room(&one.trail, &one.refused));
    }
    for trail in full.scene.trails() {
        assert_eq!(sizes(&full.scene.stage)[&trail], before[&trail] + 2, "two writers' refused events in {trail}");
    }
    wait_for("the reserve", || full.disk.reserve() == whole);

    // The last room goes while a record is at the HSM: it is answered, out of the reserve.
    for (round, trail) in full.scene.trails().into_iter().enumerate() {
        let signing = full.fill_while_signing(&full.hasty, &trail, "in-flight");
        answered.push(full.answer(&trail, "in-flight", signing));
        assert!(full.disk.reserve() < whole, "the outcome did not need the reserve");
        full.assert_refuses(&format!("meanwhile-{round}"));
        full.disk.make_room();
        answered.push(full.sign_when_there_is_room(&trail, &format!("meanwhile-{round}-0")));
        assert_eq!(full.disk.reserve(), whole, "new work is taken when the reserve is whole, not before");
    }

    // The daemon dies while a record is at the HSM, and the disk is full. A start is refused, by name;
    // one with room finishes what was in flight.
    let (trail, patient) = (full.scene.trail("record"), full.runtime.block_on(full.scene.patient(GATEWAY)));
    let signing = full.fill_while_signing(&patient, &trail, "killed");
    daemon.kill().unwrap();
    write_control(&full.scene.shared, &[]).unwrap();
    let mut refused = spawn(&full.scene, &full.disk);
    assert!(!refused.wait_exit(PATIENCE).unwrap().success());
    assert!(refused.log_end().contains("STORE_FULL"), "{}", refused.log_end());
    full.disk.make_room();
    let mut daemon = spawn(&full.scene, &full.disk);
    daemon.wait_ready().unwrap();
    answered.push(full.answer(&trail, "killed", signing));

    let Full { disk, scene, runtime, .. } = full;
    runtime.block_on(assert_whole(&scene, &answered));
    daemon.stop().unwrap();
    let checked = done(&mut disk.with(&scene.stage.countersignd(&["fsck"])));
    assert!(checked.ends_with("fsck: no findings\n"), "{checked}");
}
