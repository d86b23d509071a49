//! The store on a file system that has no room left: what is in flight is finished from the reserve,
//! new work is refused, and taken again when there is room.
//!
//! The file system is a small tmpfs in a mount namespace of its own, in which this program runs again
//! (`unshare`; with a user namespace where the test does not run as root).
#![cfg(test)]

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use bytes::Bytes;
use countersign_trail::hash::Hash;
use countersign_trail::origin::Origin;
use countersign_trail::time::Timestamp;
use countersignd::store::sqlite::SqliteStore;
use countersignd::store::sqlite::reserve::{RESERVE_NAME, RESERVE_PER_TRAIL};
use countersignd::store::{
    Append, AppendError, Head, Intent, NewRecord, Outcome, SignedNote, Store, TrailNo, TrailRow,
};

/// Set inside: the folder of the small file system.
const ENV_DISK: &str = "COUNTERSIGN_TEST_DISK";
/// Set by whoever knows that the machine allows no mounts, and wants these tests left out.
const ENV_NO_MOUNTS: &str = "COUNTERSIGN_NO_MOUNTS";
const DISK_BYTES: u64 = 48 << 20;
const TRAILS: TrailNo = 3;
/// The most records that a batch has.
const LARGEST: u64 = 8192;
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs `body` on a file system of [`DISK_BYTES`], in another process of the test named `test`.
fn on_a_small_disk(test: &str, body: impl AsyncFnOnce(&Path)) {
    if let Some(disk) = std::env::var_os(ENV_DISK) {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        return runtime.block_on(body(Path::new(&disk)));
    }
    if std::env::var_os(ENV_NO_MOUNTS).is_some() {
        return eprintln!("{test} was left out: {ENV_NO_MOUNTS} is set");
    }
    let dir = tempfile::tempdir().unwrap();
    let script = format!("mount -t tmpfs -o size={DISK_BYTES},mode=0700 tmpfs \"${ENV_DISK}\" && exec \"$@\"");
    let mut inside = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        inside.arg("--map-root-user");
    }
    inside.args(["--mount", "sh", "-c", &script, "sh"]).arg(std::env::current_exe().unwrap());
    inside.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(ENV_DISK, dir.path());
    let output = inside.output().expect("unshare, of util-linux, is needed");
    let printed = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(
        output.status.success() && printed.contains("1 passed"),
        "{test} failed, or this machine lets no process mount a tmpfs in a namespace of its own (unshare --mount; \
         with --map-root-user for who is not root). Where it cannot be allowed, {ENV_NO_MOUNTS}=1 leaves the \
         test out.\n{printed}"
    );
}

fn head(size: u64) -> Head {
    Head { size, leaf: Hash::of(&size.to_be_bytes()), time: Timestamp::EPOCH }
}

/// A batch of `count` records after `first`.
fn intent(trail: TrailNo, first: u64, count: u64) -> Append {
    let record = |seq: u64| NewRecord {
        bytes: Bytes::from(vec![b'r'; 200]),
        leaf: head(seq + 1).leaf,
        time: Timestamp::EPOCH,
        event: None,
        request_id: None,
        parts: Vec::new(),
    };
    let intent = Intent {
        first_seq: first,
        prev: head(first),
        next: head(first + count),
        records: (first..first + count).map(record).collect(),
        nodes: Vec::new(),
        checkpoint_text: None,
        mac: [7; 32],
    };
    Append { trail, outcome: None, intent: Some(intent), checkpoint: None }
}

fn outcome(trail: TrailNo, first_seq: u64, count: u64) -> Append {
    let signatures = vec![Bytes::from(vec![0x30; 72]); count as usize];
    let outcome = Outcome { first_seq, count, signatures, checkpoint: None };
    Append { trail, outcome: Some(outcome), intent: None, checkpoint: None }
}

fn checkpoint(trail: TrailNo, size: u64) -> Append {
    let note = SignedNote { size, note: Bytes::from(vec![b'n'; 300]) };
    Append { trail, outcome: None, intent: None, checkpoint: Some(note) }
}

/// Takes all the room that is left, or leaves `spare` bytes of it.
fn fill(disk: &Path, spare: u64) {
    let mut filler = File::options().create(true).append(true).open(disk.join("filler")).unwrap();
    let page = [0x55; 4096];
    let full = loop {
        if let Err(error) = filler.write_all(&page) {
            break error;
        }
    };
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull, "{full}");
    let length = filler.metadata().unwrap().len();
    filler.set_len(length - spare).unwrap();
}

/// What is set aside, in shares; each has its blocks.
fn shares(disk: &Path) -> u64 {
    let file = std::fs::metadata(disk.join(RESERVE_NAME)).unwrap();
    assert!(file.blocks() * 512 >= file.len(), "holes in the reserve");
    assert_eq!(file.len() % RESERVE_PER_TRAIL, 0);
    file.len() / RESERVE_PER_TRAIL
}

fn assert_full<T: std::fmt::Debug>(result: Result<T, AppendError>) {
    assert!(matches!(result, Err(AppendError::Full(_))), "{result:?}");
}

/// Every trail's head, signed size, and whether it is latched.
fn sizes(store: &SqliteStore) -> Vec<(u64, u64, bool)> {
    let rows = store.reader().read(|snapshot| snapshot.trails()).unwrap();
    rows.into_iter().map(|row| (row.head.size, row.signed, row.latched.is_some())).collect()
}

async fn store_of_three(disk: &Path) -> SqliteStore {
    let store = SqliteStore::create(disk).unwrap();
    for no in 1..=TRAILS {
        let origin = Origin::parse(&format!("acme.example/t{no}")).unwrap();
        store.add_trail(TrailRow { no, origin, head: head(0), signed: 0, latched: None }).await.unwrap();
    }
    assert_eq!(shares(disk), u64::from(TRAILS));
    store
}

#[test]
fn what_is_in_flight_is_finished_from_the_reserve() {
    on_a_small_disk("what_is_in_flight_is_finished_from_the_reserve", async |disk| {
        let store = store_of_three(disk).await;
        store.append(intent(1, 0, LARGEST)).await.unwrap();
        store.append(intent(2, 0, 10)).await.unwrap();
        fill(disk, 0);

        // New work needs room that is not there; the reserve is not for it.
        assert_full(store.append(intent(3, 0, 10)).await);
        assert_full(store.next_statement("kid".to_owned(), 0, |_| Bytes::from_static(b"payload")).await);
        assert_eq!(shares(disk), 3);

        // The largest outcome takes one share.
        store.append(outcome(1, 0, LARGEST)).await.unwrap();
        assert_eq!(shares(disk), 2);
        let mut both = outcome(2, 0, 10);
        both.intent = intent(2, 10, 10).intent;
        assert_full(store.append(both).await);
        store.append(outcome(2, 0, 10)).await.unwrap();
        store.append(checkpoint(1, LARGEST)).await.unwrap();
        store.latch(2, "HEAD_MISMATCH".to_owned()).await.unwrap();
        assert_eq!(sizes(&store), [(LARGEST, LARGEST, false), (10, 10, true), (0, 0, false)]);

        // Some room, enough for an intent: it is for the reserve first.
        let filler = File::options().write(true).open(disk.join("filler")).unwrap();
        filler.set_len(filler.metadata().unwrap().len() - (1 << 20)).unwrap();
        assert!(shares(disk) < 3);
        assert_full(store.append(intent(3, 0, 10)).await);
        assert_full(store.put_document(Bytes::from_static(b"document")).await);

        // All of it: new work is taken again, without a restart.
        std::fs::remove_file(disk.join("filler")).unwrap();
        let begun = Instant::now();
        while let Err(error) = store.append(intent(3, 0, 10)).await {
            assert!(matches!(error, AppendError::Full(_)) && begun.elapsed() < PATIENCE, "{error}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(shares(disk), 3);
        store.append(outcome(3, 0, 10)).await.unwrap();
        assert_eq!(sizes(&store)[2], (10, 10, false));
        assert_eq!(store.next_statement("kid".to_owned(), 0, |_| Bytes::new()).await.unwrap().0, 1);
    });
}

/// Waits until this process has no file of the disk open: a store's threads end after its handles.
fn wait_closed(disk: &Path) {
    let begun = Instant::now();
    let open = || {
        let files = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
        files.filter_map(|file| std::fs::read_link(file.path()).ok()).any(|file| file.starts_with(disk))
    };
    while open() {
        assert!(begun.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_store_opened_without_a_whole_reserve_finishes_and_takes_nothing_new() {
    on_a_small_disk("a_store_opened_without_a_whole_reserve_finishes_and_takes_nothing_new", async |disk| {
        let store = store_of_three(disk).await;
        for trail in 1..=TRAILS {
            store.append(intent(trail, 0, 100)).await.unwrap();
        }
        fill(disk, 0);
        store.append(outcome(1, 0, 100)).await.unwrap();
        assert_eq!(shares(disk), 2);
        drop(store);
        wait_closed(disk);

        // A start needs a little room; then the disk is as full as before.
        fill(disk, 1 << 20);
        let store = SqliteStore::open(disk).unwrap();
        assert_full(store.append(intent(1, 100, 1)).await);
        fill(disk, 0);
        for trail in 2..=TRAILS {
            store.append(outcome(trail, 0, 100)).await.unwrap();
        }
        assert_eq!(sizes(&store), [(100, 100, false); 3]);
        assert_full(store.append(intent(1, 100, 1)).await);
    });
}
