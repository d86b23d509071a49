//! What the host's commands say, and what they leave on the disk.
#![cfg(test)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use countersign_stage::{Options, Stage};
use countersign_trail::base64::std_encode;
use countersign_trail::hash::Hash;
use rustix::process::Signal;
use serde_json::{Value, json};
use support::{SAMPLE, done, events, planned, refused, says, sealed, sign, sizes};

/// Far beyond what any of it takes.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at the log.
const AGAIN: Duration = Duration::from_millis(20);

/// Every file below `folder` that group or others could do anything with.
fn open_to_others(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode();
        if entry.file_type().unwrap().is_dir() {
            open_to_others(&entry.path(), found);
        } else if mode & 0o077 != 0 {
            found.push(format!("{} {mode:o}", entry.path().display()));
        }
    }
}

#[test]
fn files_of_the_daemon_are_its_users_alone() {
    let (_folder, stage) = sealed(Options { workers: 1, ..Options::default() });
    let daemon = stage.start().unwrap();
    sign(&stage, &stage.options.trails[0].origin, SAMPLE.as_ref(), "receipts.jsonl");
    let backup = stage.folder.join("backup");
    done(stage.countersignd(&["backup", "--to"]).arg(&backup));
    for name in ["data/store.db", "data/store.db-wal", "data/store.db-shm", "backup/store.db", "hsm/pins/record.mac"] {
        assert!(stage.folder.join(name).exists(), "{name}");
    }
    let mut found = Vec::new();
    for name in ["data", "heads", "backup", "hsm/pin-state"] {
        open_to_others(&stage.folder.join(name), &mut found);
    }
    assert!(found.is_empty(), "{found:#?}");
    daemon.stop().unwrap();
}

/// The lines that a run of the daemon logged, from `before` bytes on.
fn logged(stage: &Stage, before: usize) -> Vec<String> {
    let log = fs::read_to_string(stage.folder.join("countersignd.log")).unwrap();
    log[before..].lines().map(str::to_owned).collect()
}

#[test]
fn a_clean_stop_says_so_and_warns_of_nothing() {
    let (_folder, stage) = sealed(Options { workers: 1, ..Options::default() });
    let daemon = stage.start().unwrap();
    let before = sizes(&stage)["demo.example/admin"];
    daemon.signal(Signal::HUP).unwrap();
    let said = "TLS files were read again as asked: they have not changed";
    let begun = Instant::now();
    while !logged(&stage, 0).iter().any(|line| line.contains(said)) {
        assert!(begun.elapsed() < PATIENCE, "SIGHUP is not answered in the log");
        std::thread::sleep(AGAIN);
    }
    daemon.stop().unwrap();
    let lines = logged(&stage, 0);
    let trouble = |line: &&String| line.contains("WARN") || line.contains("ERROR");
    assert_eq!(lines.iter().find(trouble), None, "{lines:#?}");
    assert!(!lines.iter().any(|line| line.contains("signal 9")), "{lines:#?}");
    for pool in ["record", "admin"] {
        let stopped = |line: &&String| line.contains("HSM workers stopped") && line.contains(pool);
        assert_eq!(lines.iter().filter(stopped).count(), 1, "{lines:#?}");
    }
    assert!(lines.last().unwrap().contains("stopped"), "{lines:#?}");
    // The trail tells of the next start, and of no token that went away.
    let length = lines.iter().map(|line| line.len() + 1).sum();
    let daemon = stage.start().unwrap();
    assert_eq!(sizes(&stage)["demo.example/admin"], before + 1);
    daemon.stop().unwrap();
    assert!(logged(&stage, length).iter().any(|line| line.contains("serving")));
}

/// What must never stand in a log: bytes as text, in hexadecimal, in base64.
fn spellings(bytes: &[u8]) -> [String; 3] {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    // Without the last characters, which depend on what follows.
    let base64 = std_encode(bytes).trim_end_matches('=').to_owned();
    [String::from_utf8_lossy(bytes).into_owned(), hex, base64[..base64.len() - 2].to_owned()]
}

#[test]
fn the_fullest_log_has_no_secret_and_no_content() {
    let configuration = "[log]\nfilter = \"trace\"\n".to_owned();
    let (_folder, stage) = sealed(Options { workers: 1, configuration, ..Options::default() });
    let daemon = stage.start().unwrap();
    for trail in &stage.options.trails {
        sign(&stage, &trail.origin, &events(&stage, 0, 3), "receipts.jsonl");
    }
    let shown = done(&mut stage.countersign("auditor-1", &["record", &stage.options.trails[0].origin, "1", "--json"]));
    daemon.stop().unwrap();
    let log = fs::read(stage.folder.join("countersignd.log")).unwrap();
    let log = String::from_utf8_lossy(&log);
    assert!(log.contains("TRACE") && log.contains("operation=\"SignStream\""), "{}", &log[..2000.min(log.len())]);
    let mut secrets: Vec<(String, Vec<u8>)> = Vec::new();
    for name in ["record.pin", "admin.pin", "record.mac", "admin.mac"] {
        let bytes = fs::read(stage.folder.join("hsm/pins").join(name)).unwrap();
        secrets.push((name.to_owned(), bytes.trim_ascii_end().to_vec()));
    }
    for line in fs::read_to_string(SAMPLE).unwrap().lines().take(3) {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        for part in ["request", "response"] {
            let content = event[part]["text"].as_str().unwrap();
            assert!(content.len() > 20);
            secrets.push((format!("{part} of {}", event["event_id"]), content.as_bytes().to_vec()));
        }
    }
    assert!(shown.contains("event_id"), "{shown}");
    for (name, secret) in secrets {
        for spelling in spellings(&secret) {
            assert!(!log.contains(&spelling), "{name} stands in the log");
        }
    }
}

#[test]
fn the_record_of_a_start_names_what_was_started() {
    let (_folder, stage) = sealed(Options { workers: 1, ..Options::default() });
    let daemon = stage.start().unwrap();
    let last = (sizes(&stage)["demo.example/admin"] - 1).to_string();
    let mut show = stage.countersign("auditor-1", &["record", "demo.example/admin", &last, "--json"]);
    let shown = done(&mut show);
    daemon.stop().unwrap();
    let hash = |path: &Path| Hash::of(&fs::read(path).unwrap()).to_string();
    let module = hash(&stage.options.module);
    let binary = hash(&stage.binaries.path("countersignd"));
    says(
        &shown,
        &[
            "countersign.start",
            &binary,
            &hash(&stage.folder.join("countersignd.toml")),
            &module,
            &stage.serial("record").unwrap(),
            &stage.serial("admin").unwrap(),
        ],
    );
}

/// What a command prints with `--json`: one value, and nothing else.
fn object(stage: &Stage, arguments: &[&str]) -> Value {
    let output = done(stage.countersignd(arguments).arg("--json"));
    serde_json::from_str(&output).unwrap_or_else(|error| panic!("{arguments:?}: {error} in {output}"))
}

#[test]
fn the_hosts_commands_say_what_they_did() {
    let (_folder, stage) = sealed(Options { workers: 1, ..Options::default() });
    let serial = stage.serial("record").unwrap();
    let said = |arguments: &[&str]| done(&mut stage.countersignd(arguments));
    let pin = said(&["pin-clear", "--token", "record"]);
    assert_eq!(pin, format!("record token {serial}: its PIN is not refused, nothing to clear\n"));
    let pin = object(&stage, &["pin-clear", "--token", "record"]);
    assert_eq!(pin, json!({ "token": "record", "serial": serial, "cleared": false }));

    says(&said(&["clock-confirm"]), &["confirmed that the clock is right at 20", "the next start records it"]);
    assert!(object(&stage, &["clock-confirm"])["confirmed"].as_str().unwrap().ends_with('Z'));

    let mark = object(&stage, &["mark-confirm"]);
    assert_eq!(mark[0], json!({ "of": "demo.example/admin", "size": 2, "set": false }));
    // Of the evidence key's statements, of which there is none.
    assert_eq!((&mark[1]["size"], &mark[1]["set"]), (&json!(0), &json!(false)), "{mark}");

    let to = stage.folder.join("backup");
    let backup = object(&stage, &["backup", "--to", to.to_str().unwrap()]);
    let sizes: Vec<_> = backup["trails"].as_array().unwrap().iter().map(|trail| trail["size"].clone()).collect();
    assert_eq!((&backup["folder"], sizes), (&json!(to), vec![json!(2), json!(1), json!(1)]));

    let whole = object(&stage, &["fsck"]);
    assert_eq!((&whole["findings"], &whole["count"]), (&json!([]), &json!(0)));
    assert!(whole["notes"][0]["place"].is_string() && whole["notes"][0]["text"].is_string(), "{whole}");
    let nowhere = stage.countersignd(&["fsck", "--backup", "nope", "--json"]).output().unwrap();
    let failure: Value = serde_json::from_slice(&nowhere.stderr).unwrap();
    assert_eq!(failure["error"], "nope is no folder: --backup names one that `countersignd backup` made");

    // One finding: exit code 1, and still one object.
    let store = rusqlite::Connection::open(to.join("store.db")).unwrap();
    store.execute("DELETE FROM nodes", []).unwrap();
    assert_eq!(store.execute("UPDATE records SET time = time + 1 WHERE id = (SELECT max(id) FROM records)", []), Ok(1));
    drop(store);
    let output = stage.countersignd(&["fsck", "--json", "--backup", to.to_str().unwrap()]).output().unwrap();
    let changed: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(changed["count"], changed["findings"].as_array().unwrap().len());
    assert!(changed["findings"][0]["text"].as_str().unwrap().contains("expected"), "{changed}");
}

#[test]
fn a_configuration_is_checked_with_all_that_it_names() {
    let (_folder, stage) = planned(Options::default());
    let check = || stage.countersignd(&["--check-config"]);
    says(&done(&mut check()), &["ok: its keys and bounds", "modules and PIN files are there"]);
    assert_eq!(object(&stage, &["--check-config"])["ok"], true);
    let file = stage.folder.join("countersignd.toml");
    let text = fs::read_to_string(&file).unwrap();
    // The key of another certificate, an authority in the place of a list, and files that are not there.
    let changed = text
        .replace("tls/server.key", "tls/auditor-1.key")
        .replace("tls/revoked.crl", "tls/ca.pem")
        .replace("pins/admin.pin", "pins/none.pin")
        .replacen("libsofthsm2.so", "libnone.so", 1);
    fs::write(&file, changed).unwrap();
    let said = [
        "auditor-1.key: is not the key of",
        "ca.pem: is no revocation list",
        "record_token.module: /usr/lib/softhsm/libnone.so: No such file",
        "admin_token.pin_file: ",
        "none.pin: No such file",
    ];
    refused(&mut check(), &said);
    fs::write(&file, text.replace("tls/server.pem", "tls/none.pem").replace("tls/server.key", "tls/none.key")).unwrap();
    refused(&mut check(), &["none.pem: No such file", "none.key: No such file"]);
}
