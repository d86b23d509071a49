//! `countersignd fsck` against stores that were changed behind the daemon's back: each kind of
//! damage is found, and named.
#![cfg(test)]

#[path = "../../../trail/tests/common/mod.rs"]
mod common;
mod store;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use countersign_trail::hash::Hash;
use countersignd::backup::{self, BackupError};
use countersignd::config::Config;
use countersignd::fsck::FsckError;
use countersignd::store::files::FolderLock;
use countersignd::store::sqlite::reserve::{RESERVE_NAME, RESERVE_PER_TRAIL};
use countersignd::store::sqlite::schema::SchemaError;

use common::ceremony::{DECISIONS, METRICS};
use store::{Folders, METRICS_SIZE, fsck, fsck_in, made, sound};

/// A row id: trails 1 (admin), 2 (record mode), 3 (batch mode).
fn id(trail: i64, seq: i64) -> i64 {
    (trail << 40) | seq
}

fn part(trail: i64, seq: i64, ordinal: i64) -> i64 {
    (id(trail, seq) << 4) | ordinal
}

fn node(trail: i64, level: i64, index: i64) -> i64 {
    (((trail << 3) | level) << 40) | index
}

/// What is wrong with the findings: each of `expected` must be part of one, and each must hold one.
fn wrong_findings(name: &str, folders: &Folders, expected: &[&str]) -> Vec<String> {
    let (findings, _) = fsck(folders);
    let lacks = expected.iter().filter(|want| !findings.iter().any(|line| line.contains(*want)));
    let mut wrong: Vec<String> = lacks.map(|want| format!("{name}: lacks {want:?}")).collect();
    let extra = findings.iter().filter(|line| !expected.iter().any(|want| line.contains(want)));
    wrong.extend(extra.map(|line| format!("{name}: has {line:?}")));
    wrong
}

fn assert_found(name: &str, folders: &Folders, expected: &[&str]) {
    assert_eq!(wrong_findings(name, folders, expected), [""; 0]);
}

#[tokio::test]
async fn a_sound_store_has_no_findings() {
    let folders = sound().await;
    let (findings, notes) = fsck(&folders);
    assert_eq!(findings, [""; 0]);
    for want in [
        "note: acme.example/admin: 3 records, 3 signed, 3 checkpoints",
        "note: acme.example/decisions: 23 records, 21 signed, 5 checkpoints",
        "note: acme.example/metrics: 601 records, 601 signed, 13 checkpoints",
        "note: acme.example/decisions open intent: its MAC was not checked",
    ] {
        assert!(notes.iter().any(|line| line.starts_with(want)), "no {want:?} in {notes:#?}");
    }
}

#[tokio::test]
async fn every_kind_of_damage_is_named() {
    let sound = sound().await;
    let flip = |table: &str, column: &str, id: i64| {
        // The last byte becomes another one.
        format!(
            "UPDATE {table} SET {column} = CAST(substr({column}, 1, length({column}) - 1)
                || CASE substr({column}, -1) WHEN x'00' THEN x'01' ELSE x'00' END AS BLOB) WHERE id = {id};"
        )
    };
    let edit_client = format!(
        "UPDATE records SET bytes = CAST(replace(CAST(bytes AS TEXT), 'gw-1', 'olga') AS BLOB) WHERE id = {};",
        id(3, 7)
    );
    let cases: Vec<(&str, String, Vec<&str>)> = vec![
        ("bytes that are no record", flip("records", "bytes", id(3, 7)),
            vec!["metrics record 7: not a record", "metrics record 7: hash of its bytes: expected"]),
        ("bytes of another client", edit_client,
            vec!["metrics record 7: hash of its bytes", "metrics record 7: client: expected a gateway with a grant for the trail, found olga",
                 "metrics record 7: event index of olga e-3-7: expected 7, found none"]),
        ("bytes of a signed record", format!("UPDATE records SET bytes = CAST(replace(CAST(bytes AS TEXT), 'allow', 'block') AS BLOB) WHERE id = {};", id(2, 7)),
            vec!["decisions record 7: hash of its bytes", "decisions record 7: signature: "]),
        ("bytes of the last record", format!("UPDATE records SET bytes = CAST(replace(CAST(bytes AS TEXT), 'allow', 'block') AS BLOB) WHERE id = {};", id(3, 600)),
            vec!["metrics record 600: hash of its bytes"]),
        ("leaf column", flip("records", "leaf", id(3, 7)), vec!["metrics record 7: stored leaf hash: expected"]),
        ("short leaf column", format!("UPDATE records SET leaf = x'00' WHERE id = {};", id(3, 7)), vec!["metrics record 7: stored leaf hash"]),
        ("time column", format!("UPDATE records SET time = time + 1 WHERE id = {};", id(3, 7)), vec!["metrics record 7: stored time: expected"]),
        ("removed record", format!("DELETE FROM records WHERE id = {};", id(3, 7)),
            vec!["metrics record 7: rows up to the next that is there: expected 1, found 0"]),
        ("removed tail", format!("DELETE FROM records WHERE id >= {} AND id < {};", id(3, 590), id(4, 0)),
            vec!["metrics: records, by its head: expected 601, found 590", "metrics: leaf hash of its head", "metrics: time of its head",
                 "metrics: size of its newest checkpoint: expected 601, found 551", "metrics checkpoint at 601: the records end at 590",
                 "metrics: size, which admin record 2 states", "metrics: size, which the second head states: expected at least 601, found 590"]),
        ("exchanged records", format!("UPDATE records SET id = 1 WHERE id = {a}; UPDATE records SET id = {a} WHERE id = {b}; UPDATE records SET id = {b} WHERE id = 1;", a = id(3, 7), b = id(3, 8)),
            vec!["metrics record 7: place: expected", "metrics record 8: place: expected", "metrics record 7: prev: expected", "metrics record 8: prev: expected",
                 "metrics record 9: prev: expected", "metrics record 8: time: expected not before", "event index of gw-1 e-3-7", "event index of gw-1 e-3-8",
                 "metrics record 7: commitment of part facts", "metrics record 8: commitment of part facts",
                 "metrics checkpoint at 51: root of the records", "metrics record 255: node 0 of level 1", "metrics: root at size 601, which admin record 2 states"]),
        ("signature", flip("signatures", "signature", id(2, 7)), vec!["decisions record 7: signature: "]),
        ("removed signature", format!("DELETE FROM signatures WHERE id = {};", id(2, 7)), vec!["decisions record 7: signature: expected one, found none"]),
        ("signature of an open record", format!("INSERT INTO signatures SELECT {}, signature FROM signatures WHERE id = {};", id(2, 22), id(2, 7)),
            vec!["decisions record 22: signature: ", "table signatures: rows"]),
        ("signature in batch mode", format!("INSERT INTO signatures VALUES ({}, x'00');", id(3, 7)), vec!["metrics record 7: signature: expected none, found one", "table signatures: rows"]),
        ("node", flip("nodes", "hash", node(3, 1, 1)), vec!["metrics record 511: node 1 of level 1: expected"]),
        ("removed node", format!("DELETE FROM nodes WHERE id = {};", node(3, 1, 0)), vec!["metrics record 255: node 0 of level 1: expected", "found none", "table nodes: rows"]),
        ("planted node", format!("INSERT INTO nodes VALUES ({}, zeroblob(32));", node(3, 2, 0)), vec!["table nodes: rows"]),
        ("event index", "UPDATE events SET seq = 8 WHERE trail = 3 AND event_id = 'e-3-7';".to_owned(), vec!["metrics record 7: event index of gw-1 e-3-7: expected 7, found 8"]),
        ("removed event index", "DELETE FROM events WHERE trail = 3 AND event_id = 'e-3-7';".to_owned(),
            vec!["metrics record 7: event index of gw-1 e-3-7: expected 7, found none", "table events: rows that follow from the records of 3 trails: expected 622, found 621"]),
        ("planted event id", "INSERT INTO events VALUES (3, 1, 'planted', 7);".to_owned(), vec!["table events: rows"]),
        ("removed request index", "DELETE FROM requests WHERE trail = 3 AND seq = 7;".to_owned(), vec!["metrics record 7: request index: expected", "table requests: rows"]),
        ("planted request", "INSERT INTO requests VALUES (3, 'planted', 7);".to_owned(), vec!["table requests: rows"]),
        ("renamed client", "UPDATE clients SET member = 'mallory';".to_owned(), vec!["client 1: member: expected an id of the roster, found mallory", "event index of gw-1"]),
        ("part", flip("parts", "data", part(3, 7, 0)), vec!["metrics record 7: commitment of part facts: expected", "table requests: rows"]),
        ("salt", flip("parts", "salt", part(3, 7, 0)), vec!["metrics record 7: commitment of part facts: expected"]),
        ("half a part", format!("UPDATE parts SET salt = NULL WHERE id = {};", part(3, 7, 0)), vec!["metrics record 7: part facts: expected content with a salt"]),
        ("media type", format!("UPDATE parts SET media_type = 'text/plain' WHERE id = {};", part(3, 7, 0)), vec!["metrics record 7: commitment of part facts"]),
        ("removed part", format!("DELETE FROM parts WHERE id = {};", part(3, 7, 1)), vec!["metrics record 7: part request: expected a row for commitment"]),
        ("planted part", format!("INSERT INTO parts VALUES ({}, 'secret', 'text/plain', zeroblob(32), x'00');", part(3, 7, 2)), vec!["metrics record 7: part: expected none, found secret", "table parts: rows"]),
        ("part of a control record", format!("INSERT INTO parts VALUES ({}, 'facts', 'text/plain', zeroblob(32), x'00');", part(1, 1, 0)), vec!["admin record 1: part: expected none, found facts", "table parts: rows"]),
        ("checkpoint", "UPDATE checkpoints SET note = CAST(replace(CAST(note AS TEXT), char(10) || '51' || char(10), char(10) || '52' || char(10)) AS BLOB) WHERE trail = 3 AND size = 51;".to_owned(),
            vec!["metrics checkpoint at 51: text: expected", "metrics checkpoint at 51: signature: "]),
        ("checkpoint that is no note", "UPDATE checkpoints SET note = x'00' WHERE trail = 3 AND size = 51;".to_owned(), vec!["metrics checkpoint at 51: "]),
        ("moved checkpoint", "UPDATE checkpoints SET size = 52 WHERE trail = 3 AND size = 51;".to_owned(), vec!["metrics checkpoint at 52: text", "metrics checkpoint at 52: root of the records"]),
        ("checkpoint of an earlier time", "UPDATE checkpoints SET size = -5 WHERE trail = 3 AND size = 51;".to_owned(), vec!["metrics checkpoint at -5: no record leads to it"]),
        ("removed newest checkpoint", format!("DELETE FROM checkpoints WHERE trail = 3 AND size = {METRICS_SIZE};"), vec!["metrics: size of its newest checkpoint: expected 601, found 551"]),
        ("checkpoint beyond", "INSERT INTO checkpoints SELECT 3, 700, note FROM checkpoints WHERE trail = 3 AND size = 51;".to_owned(), vec!["metrics checkpoint at 700: the records end at 601"]),
        ("head moved back", "UPDATE trails SET size = 551, signed = 551 WHERE no = 3;".to_owned(),
            vec!["metrics: records, by its head: expected 551, found 601", "metrics: size of its newest checkpoint"]),
        ("head's leaf", "UPDATE trails SET leaf = zeroblob(32) WHERE no = 3;".to_owned(), vec!["metrics: leaf hash of its head: expected"]),
        ("head's time", "UPDATE trails SET time = time + 1 WHERE no = 3;".to_owned(), vec!["metrics: time of its head: expected"]),
        ("signed moved on", "UPDATE trails SET signed = 23 WHERE no = 2; DELETE FROM intents;".to_owned(),
            vec!["decisions record 21: signature: expected one, found none", "decisions record 22: signature: expected one, found none"]),
        ("signed moved back", "UPDATE trails SET signed = 20 WHERE no = 2;".to_owned(),
            vec!["decisions record 20: signature: expected none, found one", "decisions open intent: first record and count: expected (20, 3), found (21, 2)",
                 "decisions open intent: previous", "decisions: size of its newest checkpoint: expected at most 20, found 21", "table signatures: rows"]),
        ("renamed trail", "UPDATE trails SET origin = 'acme.example/mallory' WHERE no = 3;".to_owned(),
            vec!["trail 3 (acme.example/mallory): the genesis knows no such trail", "acme.example/metrics: the genesis names this trail", "table "]),
        ("removed intent", "DELETE FROM intents;".to_owned(), vec!["decisions open intent: intent over records 21 to 22: expected one, found none"]),
        ("planted intent", "INSERT INTO intents VALUES (3, 601, 1, zeroblob(32), 0, NULL, zeroblob(32));".to_owned(),
            vec!["metrics open intent: first record and count", "metrics open intent: previous leaf hash", "metrics open intent: previous time", "metrics open intent: checkpoint text: expected"]),
        ("intent's text", "UPDATE intents SET text = replace(text, '23', '24');".to_owned(), vec!["decisions open intent: checkpoint text: expected acme.example/decisions 23"]),
        ("intent's MAC", "UPDATE intents SET mac = x'00';".to_owned(), vec!["decisions open intent: length of its MAC: expected 32, found 1"]),
        ("intent's head", "UPDATE intents SET prev_leaf = zeroblob(32), prev_time = 0;".to_owned(), vec!["decisions open intent: previous leaf hash", "decisions open intent: previous time"]),
        ("intent of no trail", "INSERT INTO intents VALUES (9, 0, 1, zeroblob(32), 0, NULL, zeroblob(32));".to_owned(), vec!["table intents: rows"]),
        ("records of no trail", format!("INSERT INTO records VALUES ({}, zeroblob(32), 0, x'00');", id(9, 0)), vec!["table records: rows that follow from the records of 3 trails: expected 627, found 628"]),
        ("edited admin record", format!("UPDATE records SET bytes = CAST(replace(CAST(bytes AS TEXT), 'ready', 'down ') AS BLOB) WHERE id = {};", id(1, 2)),
            vec!["acme.example/admin: admin-records: admin record 2", "admin record 2: body of countersign.hsm", "admin record 2: hash of its bytes"]),
        ("statement's number", "UPDATE statements SET number = 7 WHERE number = 2;".to_owned(), vec!["statement 7 of key", "payload: expected statement 7 of key"]),
        ("statement", "UPDATE statements SET payload = x'00' WHERE number = 2;".to_owned(), vec!["statement 2 of key"]),
        ("statement of another key", "UPDATE statements SET kid = 'x' WHERE number = 2;".to_owned(), vec!["statement 2 of key x: key: expected", "statement 2 of key x: payload"]),
    ];
    let mut wrong = Vec::new();
    for (name, sql, expected) in &cases {
        let folders = sound.copy();
        folders.sql(sql);
        wrong.extend(wrong_findings(name, &folders, expected));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn documents_and_genesis() {
    let sound = sound().await;
    let folders = sound.copy();
    // A person's signature, the only kind of document that is no JSON.
    folders.sql(
        "UPDATE documents SET bytes = CAST(bytes || x'0a' AS BLOB) WHERE substr(CAST(bytes AS TEXT), 1, 5) = '-----';",
    );
    let (findings, _) = fsck(&folders);
    assert!(
        findings.iter().filter(|line| line.starts_with("document ") && line.contains(": SHA-256: expected ")).count()
            == 4,
        "{findings:#?}"
    );
    assert!(
        findings.iter().any(|line| line.starts_with("acme.example/admin: documents: a signature has SHA-256 ")),
        "{findings:#?}"
    );

    let folders = sound.copy();
    folders.sql("DELETE FROM documents;");
    assert_found(
        "no documents",
        &folders,
        &[&format!("genesis: documents: the genesis document {} is missing", folders.genesis)],
    );

    let mut folders = sound.copy();
    folders.genesis = Hash::of(b"another");
    assert_found("another genesis", &folders, &["genesis: documents: the genesis document"]);

    let folders = sound.copy();
    let extra = Hash::of(b"extra");
    folders.sql(&format!("INSERT INTO documents VALUES (x'{extra}', CAST('extra' AS BLOB));"));
    let (findings, notes) = fsck(&folders);
    assert_eq!(findings, [""; 0]);
    assert!(notes.contains(&format!("note: document {extra}: the admin trail does not name it")), "{notes:#?}");
}

#[tokio::test]
async fn second_heads() {
    let sound = sound().await;
    let folders = sound.copy();
    folders.second_head(METRICS, METRICS_SIZE + 10, Hash::of(b"later"));
    assert_found(
        "store moved back",
        &folders,
        &["metrics: size, which the second head states: expected at least 611, found 601"],
    );

    let folders = sound.copy();
    folders.second_head(METRICS, 500, Hash::of(b"other"));
    assert_found("another leaf", &folders, &["metrics: leaf hash of record 499 in the second head: expected"]);

    let folders = sound.copy();
    let name = DECISIONS.replace('/', "~");
    std::fs::write(folders.heads().join(format!("{name}.head")), b"").unwrap();
    assert_found("empty", &folders, &["decisions: second head: expected a slot whose checksum holds, found none"]);
    std::fs::remove_file(folders.heads().join(format!("{name}.head"))).unwrap();
    assert_found("gone", &folders, &["decisions: second head: cannot be opened: "]);
}

#[tokio::test]
async fn a_reserve_that_is_not_whole_is_noted() {
    let folders = sound().await;
    let noted = |folders: &Folders| {
        let (findings, notes) = fsck(folders);
        assert_eq!(findings, [""; 0]);
        notes.into_iter().find(|line| line.starts_with("note: store.reserve: "))
    };
    assert_eq!(noted(&folders), None);
    let reserve = std::fs::OpenOptions::new().write(true).open(folders.data().join(RESERVE_NAME)).unwrap();
    reserve.set_len(5).unwrap();
    let note = noted(&folders).unwrap();
    assert!(note.contains(&format!(" 5 of {} bytes", 3 * RESERVE_PER_TRAIL)), "{note}");
    assert_eq!(noted(&folders.copy()), None, "a backup has none");
}

#[tokio::test]
async fn damaged_pages_are_findings_and_not_the_end() {
    let folders = sound().await.copy();
    let mut bytes = std::fs::read(folders.database()).unwrap();
    // Every page from the third on is overwritten at its head; page 1 holds the schema.
    for page in (2..bytes.len() / 16_384).step_by(3) {
        bytes[page * 16_384..page * 16_384 + 64].fill(0xff);
    }
    std::fs::write(folders.database(), bytes).unwrap();
    let (findings, _) = fsck(&folders);
    assert!(
        findings.iter().any(|line| line.starts_with("database: ") || line.contains("cannot be read on")),
        "{findings:#?}"
    );
}

#[tokio::test]
async fn refused_while_the_daemon_runs_or_without_a_store() {
    let folders = sound().await;
    let run = |folders: &Folders| {
        countersignd::fsck::fsck(&folders.data(), &folders.heads(), folders.genesis, &mut Vec::new())
    };
    let lock = FolderLock::take(&folders.data()).unwrap();
    assert!(matches!(run(&folders), Err(FsckError::Lock(_))));
    drop(lock);
    assert_eq!(run(&folders).unwrap(), 0);
    std::fs::remove_file(folders.database()).unwrap();
    assert!(matches!(run(&folders), Err(FsckError::Schema(SchemaError::Missing(_)))));
}

/// A configuration for these folders, and its file.
fn config(folders: &Folders) -> (Config, std::path::PathBuf) {
    let text = include_str!("../../../../deploy/countersignd.toml");
    let line = |key: &str, path: std::path::PathBuf| format!("{key} = {:?}\n", path.display().to_string());
    let rest = text.lines().filter(|line| !line.starts_with("data_dir") && !line.starts_with("head_dir"));
    let rest: String = rest.map(|line| format!("{line}\n")).collect();
    let text = line("data_dir", folders.data()) + &line("head_dir", folders.heads()) + &rest;
    let file = folders.data().join("config.toml");
    std::fs::write(&file, &text).unwrap();
    (Config::parse(&text, &folders.data()).unwrap(), file)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_beside_a_busy_daemon_is_sound() {
    let (folders, maker, mut metrics) = made().await;
    let stop = Arc::new(AtomicBool::new(false));
    let (busy, stopped) = (Arc::new(tokio::sync::Notify::new()), stop.clone());
    let writing = busy.clone();
    let writer = tokio::spawn(async move {
        while !stopped.load(Ordering::Relaxed) {
            maker.events(&mut metrics, 50, true, true).await;
            writing.notify_one();
        }
        metrics.head.size
    });
    busy.notified().await;
    let (config, file) = config(&folders);
    let to = folders.data().join("backup");
    let (out, again) = {
        let to = to.clone();
        let work = move || {
            let mut out = Vec::new();
            let trails = backup::backup(&config, &file, &to).unwrap();
            backup::report(&config, &to, &trails, &mut out).unwrap();
            (out, backup::backup(&config, &file, &to))
        };
        tokio::task::spawn_blocking(work).await.unwrap()
    };
    stop.store(true, Ordering::Relaxed);
    let written = writer.await.unwrap();
    assert!(matches!(again, Err(BackupError::Exists(_))), "{again:?}");
    let mut names: Vec<_> = std::fs::read_dir(&to).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, [backup::CONFIG, backup::HEADS, "store.db"]);

    let (findings, notes) = fsck_in(&to, &to.join(backup::HEADS), folders.genesis);
    assert_eq!(findings, [""; 0], "{notes:#?}");
    let out = String::from_utf8(out).unwrap();
    let line = out.lines().find_map(|line| line.strip_prefix("  acme.example/metrics: ")).unwrap();
    let copied: u64 = line.strip_suffix(" records").unwrap().parse().unwrap();
    assert!((METRICS_SIZE + 50..=written).contains(&copied), "{copied} of {written}");
    assert!(out.contains("HEAD_MISMATCH"), "{out}");
    assert!(to.join(backup::CONFIG).exists());
}
