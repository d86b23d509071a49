//! What the daemon refuses to start on, each by name with what to do; and that it starts again once
//! that is put right.
#![cfg(test)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use countersign_stage::{Options, Stage, Trail};
use countersign_trail::checkpoint::Checkpoint;
use countersign_trail::hash::Hash;
use countersign_trail::record::Record;
use countersign_trail::tree::{CompactRange, leaf_hash};
use rusqlite::{Connection, params};
use support::{copy, done, events, printed, refused, says, sealed, sign, sizes};
use tempfile::TempDir;

/// How long a refusal may take: both tokens' workers start before some of them.
const REFUSAL_LIMIT: Duration = Duration::from_secs(60);
/// The first trail after the admin trail, in the order of the store.
const TRAIL_NO: i64 = 2;
/// Bits of a sequence number in a record's row id.
const SEQ_BITS: u32 = 40;

/// An appliance that has signed ten events in each trail and is stopped.
struct Stopped {
    _folder: TempDir,
    stage: Stage,
}

impl Stopped {
    fn new() -> Stopped {
        let trails = vec![Trail::new("batch", "ed25519"), Trail::new("record", "ecdsa-p256")];
        let (folder, stage) = sealed(Options { trails, workers: 1, ..Options::default() });
        let daemon = stage.start().unwrap();
        let ten = events(&stage, 0, 10);
        for trail in &stage.options.trails {
            sign(&stage, &trail.origin, &ten, "receipts.jsonl");
        }
        daemon.stop().unwrap();
        Stopped { _folder: folder, stage }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.stage.folder.join(name)
    }

    fn store(&self) -> Connection {
        Connection::open(self.at("data/store.db")).unwrap()
    }

    /// Does `harm`, sees the start refused with all of `said`, puts everything back, and sees the
    /// daemon start and sign.
    fn refuses(&self, said: &[&str], harm: impl FnOnce(&Stopped)) {
        let kept = tempfile::tempdir().unwrap();
        const STATE: [&str; 3] = ["data", "heads", "hsm"];
        for name in STATE {
            copy(&self.at(name), &kept.path().join(name));
        }
        let configuration = fs::read(self.at("countersignd.toml")).unwrap();
        harm(self);
        self.refused(said);
        for name in STATE {
            fs::remove_dir_all(self.at(name)).unwrap();
            copy(&kept.path().join(name), &self.at(name));
        }
        fs::write(self.at("countersignd.toml"), configuration).unwrap();
        let daemon = self.stage.start().unwrap();
        daemon.stop().unwrap();
    }

    /// The daemon ends by itself, with exit code 1 and all of `said` in its last words.
    fn refused(&self, said: &[&str]) {
        let log = self.at("countersignd.log");
        let before = fs::read_to_string(&log).unwrap().len();
        let mut daemon = self.stage.spawn().unwrap();
        let status = daemon.wait_exit(REFUSAL_LIMIT).unwrap();
        let log = fs::read_to_string(log).unwrap();
        assert_eq!(status.code(), Some(1), "{}", &log[before..]);
        let words: Vec<&str> = log[before..].lines().filter(|line| line.starts_with("countersignd: ")).collect();
        eprintln!("{}", words.join("\n"));
        says(&words.join("\n"), said);
    }

    /// The trail's row: its name, size, last leaf and time.
    fn row(&self) -> (String, i64, Vec<u8>, i64) {
        let query = "SELECT origin, size, leaf, time FROM trails WHERE no = ?1";
        let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?));
        self.store().query_row(query, [TRAIL_NO], row).unwrap()
    }

    fn record(&self, seq: i64) -> Vec<u8> {
        let id = (TRAIL_NO << SEQ_BITS) | seq;
        self.store().query_row("SELECT bytes FROM records WHERE id = ?1", [id], |row| row.get(0)).unwrap()
    }
}

/// Puts a record at the trail's end with an intent over it, as whoever can write the store could:
/// everything is right but the MAC, where `late`, the microseconds that it goes on later than the record
/// before it, is 0.
fn plant_intent(stopped: &Stopped, late: i64) {
    let (origin, size, leaf, time) = stopped.row();
    let mut record = Record::parse(&stopped.record(size - 1)).unwrap();
    record.header.seq = size as u64;
    record.header.prev = Hash::from(<[u8; 32]>::try_from(&leaf[..]).unwrap());
    let bytes = record.to_bytes().unwrap();
    let next = leaf_hash(&bytes);
    let mut tree = CompactRange::empty();
    for seq in 0..size {
        tree.push(leaf_hash(&stopped.record(seq))).unwrap();
    }
    tree.push(next).unwrap();
    let head = Checkpoint { origin: origin.parse().unwrap(), size: size as u64 + 1, root: tree.root() };
    let store = stopped.store();
    let id = (TRAIL_NO << SEQ_BITS) | size;
    let add = "INSERT INTO records(id, leaf, time, bytes) VALUES (?1, ?2, ?3, ?4)";
    store.execute(add, params![id, next.as_bytes(), time, bytes]).unwrap();
    let intent =
        "INSERT INTO intents(trail, first, count, prev_leaf, prev_time, text, mac) VALUES (?1, ?2, 1, ?3, ?4, ?5, ?6)";
    store.execute(intent, params![TRAIL_NO, size, leaf, time + late, head.text(), [7u8; 32]]).unwrap();
    let moved = "UPDATE trails SET size = size + 1, leaf = ?2 WHERE no = ?1";
    store.execute(moved, params![TRAIL_NO, next.as_bytes()]).unwrap();
}

/// Cuts the last record off: the head moved back, the records too.
fn cut_back(stopped: &Stopped) {
    let (_, size, _, _) = stopped.row();
    let before = leaf_hash(&stopped.record(size - 2));
    let store = stopped.store();
    store.execute("DELETE FROM records WHERE id = ?1", [(TRAIL_NO << SEQ_BITS) | (size - 1)]).unwrap();
    let moved = "UPDATE trails SET size = size - 1, signed = signed - 1, leaf = ?2 WHERE no = ?1";
    store.execute(moved, params![TRAIL_NO, before.as_bytes()]).unwrap();
}

/// Changes one document that holds `text`, keeping its length and its name.
fn edit_document(stopped: &Stopped, text: &str, other: &str) {
    let store = stopped.store();
    let mut rows = store.prepare("SELECT hash, bytes FROM documents").unwrap();
    let rows = rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    let rows: Vec<(Vec<u8>, Vec<u8>)> = rows.map(Result::unwrap).collect();
    let hit = rows.into_iter().find_map(|(hash, bytes)| {
        let document = String::from_utf8(bytes).ok()?;
        document.contains(text).then(|| (hash, document.replacen(text, other, 1).into_bytes()))
    });
    let (hash, bytes) = hit.unwrap();
    assert_eq!(store.execute("UPDATE documents SET bytes = ?2 WHERE hash = ?1", params![hash, bytes]).unwrap(), 1);
}

/// Changes the stored bytes of one record: `trail` by its number, `seq`, or the last one.
fn edit_record(stopped: &Stopped, trail: i64, seq: i64, text: &str, other: &str) {
    let store = stopped.store();
    let id = (trail << SEQ_BITS) | seq;
    let bytes: Vec<u8> = store.query_row("SELECT bytes FROM records WHERE id = ?1", [id], |row| row.get(0)).unwrap();
    let changed = String::from_utf8(bytes).unwrap().replacen(text, other, 1);
    assert!(changed.contains(other));
    store.execute("UPDATE records SET bytes = ?2 WHERE id = ?1", params![id, changed.into_bytes()]).unwrap();
}

#[test]
fn a_store_that_was_changed() {
    let stopped = Stopped::new();
    let trail = stopped.row().0;
    let (_, size, _, _) = stopped.row();
    let size = size.to_string();
    stopped.refuses(&[&trail, &size, "does not carry the worker's MAC", "planted or changed"], |stopped| {
        plant_intent(stopped, 0)
    });
    stopped.refuses(&[&trail, "its open intent goes on from", "countersignd fsck"], |stopped| plant_intent(stopped, 1));
    stopped.refuses(&[&trail, "moved back", "restore the newest copy"], cut_back);
    stopped.refuses(&[&trail, "its head names leaf", "countersignd fsck"], |stopped| {
        let moved = "UPDATE trails SET leaf = ?2 WHERE no = ?1";
        stopped.store().execute(moved, params![TRAIL_NO, [9u8; 32]]).unwrap();
    });
    stopped.refuses(&[&trail, "moved back", "restore the newest copy"], |stopped| {
        stopped.store().execute("UPDATE trails SET size = size - 1 WHERE no = ?1", [TRAIL_NO]).unwrap();
    });
    // Later records and the clock's floor would go by it.
    for (no, microseconds) in [(TRAIL_NO, -1), (TRAIL_NO, 1), (TRAIL_NO, 290_000_000), (1, 1)] {
        stopped.refuses(&["demo.example/", "its head says", "its last record", "countersignd fsck"], |stopped| {
            let moved = "UPDATE trails SET time = time + ?2 WHERE no = ?1";
            stopped.store().execute(moved, [no, microseconds]).unwrap();
        });
    }
    stopped.refuses(&[&trail, "its head is at", "countersignd fsck"], |stopped| {
        stopped.store().execute("UPDATE trails SET signed = signed - 1 WHERE no = ?1", [TRAIL_NO]).unwrap();
    });
    // The roster, in the plan: a gateway with the auditor's identity; and a key of the genesis.
    stopped.refuses(&["plan", "countersignd fsck"], |stopped| edit_document(stopped, "/gateway-1\"", "/gateway-9\""));
    stopped.refuses(&["genesis", "countersignd fsck"], |stopped| {
        edit_document(stopped, "\"purpose\":\"record\"", "\"purpose\":\"tecord\"")
    });
    // Record bytes: the newest of a trail, and the sealing record of the admin trail.
    stopped.refuses(&[&trail, "hashes to", "countersignd fsck"], |stopped| {
        let (_, size, _, _) = stopped.row();
        edit_record(stopped, TRAIL_NO, size - 1, "\"v\":1", "\"v\":2");
    });
    stopped.refuses(&["alicf", "is not an administrator of the plan", "countersignd fsck"], |stopped| {
        edit_record(stopped, 1, 1, "\"member\":\"alice\"", "\"member\":\"alicf\"")
    });
}

#[test]
fn a_second_head_that_does_not_agree() {
    let stopped = Stopped::new();
    let trail = stopped.row().0;
    // The folder of an older copy: the second head is in front.
    stopped.refuses(&["demo.example/", "the store was moved back", "restore the newest copy"], |stopped| {
        let older = tempfile::tempdir().unwrap();
        copy(&stopped.at("data"), older.path());
        let daemon = stopped.stage.start().unwrap();
        sign(&stopped.stage, &trail, &events(&stopped.stage, 10, 15), "more.jsonl");
        daemon.stop().unwrap();
        fs::remove_dir_all(stopped.at("data")).unwrap();
        copy(older.path(), &stopped.at("data"));
    });
    let heads: Vec<PathBuf> = fs::read_dir(stopped.at("heads")).unwrap().map(|entry| entry.unwrap().path()).collect();
    let head = heads.iter().find(|path| path.to_str().unwrap().contains("batch")).unwrap().clone();
    stopped.refuses(&[&trail, "has leaf hash", "one of the two was changed"], |_| change_leaf(&head));
    stopped
        .refuses(&[&trail, "the second head cannot be opened", "check head_dir"], |_| fs::remove_file(&head).unwrap());
    let whole = fs::read(&head).unwrap();
    let mut flipped = whole.clone();
    for slot in [0, 4096] {
        flipped[slot + 64] ^= 1;
    }
    for damaged in [vec![], vec![b'c'], vec![0; whole.len()], whole[..60].to_vec(), flipped] {
        stopped.refuses(&[&trail, "the second head is damaged", "put the newest head_dir back"], |_| {
            fs::write(&head, damaged).unwrap();
        });
    }
}

/// Rewrites the newest slot of a second head with another leaf hash and a right checksum.
fn change_leaf(head: &Path) {
    let mut bytes = fs::read(head).unwrap();
    for slot in [0, 4096] {
        if bytes.len() >= slot + 104 {
            bytes[slot + 32..slot + 64].fill(3);
            let checksum = Hash::of(&bytes[slot..slot + 72]);
            bytes[slot + 72..slot + 104].copy_from_slice(checksum.as_bytes());
        }
    }
    fs::write(head, bytes).unwrap();
}

#[test]
fn a_mark_that_does_not_agree() {
    let stopped = Stopped::new();
    let admin = "demo.example/admin";
    let mark = stopped.at("hsm/pin-state").join(format!("{}.mark", stopped.stage.serial("admin").unwrap()));
    stopped.refuses(&[admin, "MARK_STATE", "missing", "see that the store is the newest copy", "mark-confirm"], |_| {
        fs::remove_file(&mark).unwrap()
    });
    stopped.refuses(&[admin, "MARK_STATE", "not authenticated", "mark-confirm"], |_| {
        let text = fs::read_to_string(&mark).unwrap();
        fs::write(&mark, text.replace("\"size\":", "\"size\":1")).unwrap();
    });
    // An older one of this host's.
    stopped.refuses(&[admin, "state_dir was moved back", "mark-confirm"], |stopped| {
        let older = fs::read(&mark).unwrap();
        stopped.stage.start().unwrap().stop().unwrap();
        fs::write(&mark, older).unwrap();
    });
    // Lost for good: an operator says that this store is the newest.
    let confirm = || stopped.stage.countersignd(&["mark-confirm"]);
    says(&done(&mut confirm()), &[admin, "nothing to confirm"]);
    let genuine = fs::read(&mark).unwrap();
    fs::remove_file(&mark).unwrap();
    stopped.refused(&["MARK_STATE"]);
    says(&done(&mut confirm()), &["set the mark", admin]);
    assert_eq!(fs::read(&mark).unwrap(), genuine, "the store's end is where it was");
    stopped.stage.start().unwrap().stop().unwrap();
    // It takes what a start takes: not a store behind its second head.
    let older = tempfile::tempdir().unwrap();
    copy(&stopped.at("data"), older.path());
    stopped.stage.start().unwrap().stop().unwrap();
    fs::remove_dir_all(stopped.at("data")).unwrap();
    copy(older.path(), &stopped.at("data"));
    fs::remove_file(&mark).unwrap();
    refused(&mut confirm(), &["the store was moved back", "second head"]);
    assert!(!mark.exists());
}

#[test]
fn a_database_or_configuration_that_is_not_right() {
    let stopped = Stopped::new();
    stopped.refuses(&["store.db does not exist", "countersignd init", "data_dir"], |stopped| {
        for entry in fs::read_dir(stopped.at("data")).unwrap() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
    });
    for (pragma, said) in [
        ("user_version = 0", "has schema version 0"),
        ("user_version = 2", "has schema version 2"),
        ("application_id = 5", "is not a Countersign store"),
    ] {
        stopped.refuses(&["store.db", said], |stopped| {
            stopped.store().execute_batch(&format!("PRAGMA {pragma}")).unwrap();
        });
    }
    stopped.refuses(&["is not a database"], |stopped| {
        for entry in fs::read_dir(stopped.at("data")).unwrap() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
        fs::write(stopped.at("data/store.db"), [b'x'; 100]).unwrap();
    });
    let text = fs::read_to_string(stopped.at("countersignd.toml")).unwrap();
    let line = format!("countersignd.toml: line {}, column 2: bach: unknown field", text.lines().count() + 2);
    stopped.refuses(&[&line], |stopped| {
        fs::write(stopped.at("countersignd.toml"), text + "\n[bach]\nmax_records = 5\n").unwrap();
    });
    let text = fs::read_to_string(stopped.at("countersignd.toml")).unwrap();
    let line = 1 + text.lines().position(|line| line.starts_with("grpc = ")).unwrap();
    let line = format!("countersignd.toml: line {line}, column 1: listen.grcp: unknown field");
    stopped.refuses(&[&line], |stopped| {
        fs::write(stopped.at("countersignd.toml"), text.replace("\ngrpc = ", "\ngrcp = ")).unwrap();
    });
    stopped.refuses(&["no genesis document with fingerprint 000", "check `genesis`"], |stopped| {
        let text = fs::read_to_string(stopped.at("countersignd.toml")).unwrap();
        let other = text.replace(&stopped.stage.fingerprint, &"0".repeat(64));
        fs::write(stopped.at("countersignd.toml"), other).unwrap();
    });
}

#[test]
fn a_second_daemon() {
    let stopped = Stopped::new();
    let daemon = stopped.stage.start().unwrap();
    let before = sizes(&stopped.stage);
    for arguments in [&[][..], &["fsck"]] {
        let second = stopped.stage.countersignd(arguments).output().unwrap();
        assert_eq!(second.status.code(), Some(1), "{}", printed(&second));
        says(&printed(&second), &["is in use by another countersignd", "stop that one first"]);
    }
    // The first one did not notice.
    let trail = stopped.row().0;
    sign(&stopped.stage, &trail, &events(&stopped.stage, 10, 12), "more.jsonl");
    assert_eq!(sizes(&stopped.stage)[&trail], before[&trail] + 2);
    // Killed, it leaves a lock file that locks nothing.
    daemon.kill().unwrap();
    stopped.stage.start().unwrap().stop().unwrap();
}

/// Makes every private key of a SoftHSM token folder extractable. An object file is a generation
/// number, then attributes: type and kind as 64-bit big-endian numbers, and the value, for a
/// boolean (kind 1) one byte.
fn make_extractable(tokens: &Path) -> usize {
    const EXTRACTABLE: [u8; 16] = [0, 0, 0, 0, 0, 0, 0x01, 0x62, 0, 0, 0, 0, 0, 0, 0, 1];
    let mut changed = 0;
    for token in fs::read_dir(tokens).unwrap() {
        for object in fs::read_dir(token.unwrap().path()).unwrap() {
            let path = object.unwrap().path();
            let mut bytes = fs::read(&path).unwrap();
            let at = bytes.windows(16).position(|window| window == EXTRACTABLE);
            if let Some(at) = at.filter(|_| path.extension().is_some_and(|extension| extension == "object")) {
                bytes[at + 16] = 0xff;
                fs::write(&path, bytes).unwrap();
                changed += 1;
            }
        }
    }
    changed
}

#[test]
fn a_token_that_is_not_as_the_ceremony_left_it() {
    let stopped = Stopped::new();
    stopped.refuses(&["KEY_EXTRACTABLE", "is true", "not as the ceremony left it"], |stopped| {
        assert!(make_extractable(&stopped.at("hsm/tokens")) > 0);
    });
    // Other tokens of the same labels and PINs.
    let wanted = format!("the genesis names the token with serial {}", stopped.stage.serial("record").unwrap());
    stopped.refuses(&["TOKEN_MISMATCH", &wanted, "configure that one"], |stopped| {
        fs::remove_dir_all(stopped.at("hsm/tokens")).unwrap();
        let provision = concat!(env!("CARGO_MANIFEST_DIR"), "/../hsm-config/softhsm2/provision.sh");
        done(Command::new("sh").arg(provision).arg(stopped.at("hsm")));
    });
    // The configuration follows them: the genesis still names the first ones.
    stopped.refuses(&["KEY_MISSING", &wanted, "configure that one"], |stopped| {
        fs::remove_dir_all(stopped.at("hsm/tokens")).unwrap();
        let provision = concat!(env!("CARGO_MANIFEST_DIR"), "/../hsm-config/softhsm2/provision.sh");
        done(Command::new("sh").arg(provision).arg(stopped.at("hsm")));
        stopped.stage.write_configuration().unwrap();
    });
    stopped.refuses(&["PIN_UNREADABLE", "admin.pin", "check pin_file"], |stopped| {
        fs::remove_file(stopped.at("hsm/pins/admin.pin")).unwrap()
    });
    stopped.refuses(&["MAC_KEY", "record.mac", "put back the MAC key"], |stopped| {
        fs::remove_file(stopped.at("hsm/pins/record.mac")).unwrap()
    });
}
