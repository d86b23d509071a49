//! HSM workers as processes of the system: whose they are, what they may do, what they leave behind.
#![cfg(test)]

mod support;
mod trouble;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use countersign_faulty_transcript::{CallLine, Function, call_log};
use countersign_stage::{Binaries, Daemon, Options, Stage};
use rustix::process::{Pid, Signal, geteuid, kill_process};
use support::{done, events, export, printed, sign, verify};
use tempfile::TempDir;
use trouble::{Scene, kill_process as kill_worker, wait_for, workers};

/// A user and a group that no system has by itself.
const USER: u32 = 54_321;
const GROUP: u32 = 54_322;
/// A worker that was stopped counts as hung soon.
const HASTY: &str = "call_deadline_ms = 1000";
/// What the unit says that a daemon needs whose workers have a user of their own.
const UNIT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/countersignd.service");

/// A field of /proc/PID/status.
fn status(pid: i32, field: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {field} in {text}")).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Neither size of a core file, of this moment and at most, is more than 0.
fn assert_no_core(pid: i32) {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let core = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().take(2).collect::<Vec<_>>(), ["0", "0"], "{limits}");
}

/// A command as the workers' user, without any privilege.
fn as_worker(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.arg(format!("--reuid={USER}")).arg(format!("--regid={GROUP}")).arg("--clear-groups").arg(program);
    command
}

fn assert_unreadable(path: &Path) {
    let output = as_worker("cat").arg(path).output().unwrap();
    assert!(!output.status.success() && output.stdout.is_empty(), "{} was read", path.display());
    assert!(printed(&output).contains("Permission denied"), "{}", printed(&output));
}

/// The folders and files that operations.md makes the workers' own.
fn give_to_workers(stage: &Stage) {
    let mut left = vec![stage.folder.join("hsm/tokens")];
    let hsm = stage.folder.join("hsm");
    for name in ["", "softhsm2.conf", "pins", "pins/record.pin", "pins/admin.pin"] {
        chown(hsm.join(name), Some(USER), Some(GROUP)).unwrap();
    }
    for name in ["record.pin", "admin.pin"] {
        fs::set_permissions(hsm.join("pins").join(name), PermissionsExt::from_mode(0o400)).unwrap();
    }
    while let Some(path) = left.pop() {
        chown(&path, Some(USER), Some(GROUP)).unwrap();
        if path.is_dir() {
            left.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
}

/// The capabilities that the unit names for workers with a user of their own, as setpriv takes them.
fn capabilities_of_the_unit() -> String {
    let unit = fs::read_to_string(UNIT).unwrap();
    let line = unit.lines().find_map(|line| line.strip_prefix("# CapabilityBoundingSet=CAP_")).unwrap();
    let named = line.split(" CAP_").map(|name| format!(",+{}", name.trim().to_lowercase()));
    format!("--bounding-set=-all{}", named.collect::<String>())
}

/// A sealed appliance whose daemon is root with few capabilities, and whose workers are another user.
fn scene() -> (TempDir, Stage) {
    let folder = tempfile::tempdir().unwrap();
    let binaries = Binaries::beside_this().unwrap().in_folder(&folder.path().join("bin")).unwrap();
    let options = Options {
        launcher: vec!["setpriv".to_owned(), capabilities_of_the_unit()],
        token_lines: format!("user = {USER}\ngroup = {GROUP}\n{HASTY}"),
        ..Options::default()
    };
    let mut stage = Stage::prepare(&folder.path().join("stage"), binaries, options, &mut |_| ()).unwrap();
    for path in [folder.path(), &stage.folder] {
        fs::set_permissions(path, PermissionsExt::from_mode(0o711)).unwrap();
    }
    give_to_workers(&stage);
    stage.hold_ceremony(&mut |_| ()).unwrap();
    (folder, stage)
}

fn assert_another_user(stage: &Stage, daemon: &Daemon) {
    let daemon_pid = i32::try_from(daemon.pid()).unwrap();
    assert_eq!(status(daemon_pid, "Uid"), "0 0 0 0");
    let all = workers(daemon);
    assert_eq!(all.len(), usize::from(stage.options.workers) + 1);
    for pid in all {
        // Real, effective, saved, file system.
        assert_eq!(status(pid, "Uid"), [USER; 4].map(|id| id.to_string()).join(" "));
        assert_eq!(status(pid, "Gid"), [GROUP; 4].map(|id| id.to_string()).join(" "));
        assert_eq!(status(pid, "Groups"), "");
        for set in ["CapPrm", "CapEff", "CapAmb"] {
            assert_eq!(status(pid, set), "0000000000000000", "{set}");
        }
        assert_no_core(pid);
        // A process that may not be dumped is root's in /proc, and closed to its own user.
        assert_eq!(fs::metadata(format!("/proc/{pid}/mem")).unwrap().uid(), 0);
        for file in ["mem", "environ"] {
            assert_unreadable(Path::new(&format!("/proc/{pid}/{file}")));
        }
    }
}

#[test]
fn workers_with_a_user_of_their_own() {
    if support::left_out() {
        return;
    }
    let (_folder, stage) = scene();
    let pins = stage.folder.join("hsm/pins");
    let daemon = stage.start().unwrap();
    assert_another_user(&stage, &daemon);
    // What is shown by what that user cannot read: it could, were it allowed to.
    assert!(done(as_worker("cat").arg("/proc/self/environ")).contains("PATH="));
    // What init and the workers made is theirs alone, as the PINs are.
    let theirs = ["record.pin", "admin.pin", "record.mac", "admin.mac"].map(|name| pins.join(name));
    let states = fs::read_dir(stage.folder.join("hsm/pin-state")).unwrap().map(|entry| entry.unwrap().path());
    for path in theirs.into_iter().chain(states) {
        let file = fs::metadata(&path).unwrap();
        assert_eq!((file.uid(), file.mode() & 0o077), (USER, 0), "{}", path.display());
    }
    for name in ["data/store.db", "heads", "tls/server.key", "people/alice"] {
        assert_unreadable(&stage.folder.join(name));
    }

    // It signs; and workers that hang, which are not the daemon's own user's, are killed and replaced.
    let sample = events(&stage, 0, 40);
    for trail in stage.options.trails.clone() {
        sign(&stage, &trail.origin, &sample, &format!("{}.jsonl", trail.mode));
    }
    let first = workers(&daemon);
    for pid in &first {
        kill_process(Pid::from_raw(*pid).unwrap(), Signal::STOP).unwrap();
    }
    for trail in stage.options.trails.clone() {
        sign(&stage, &trail.origin, &events(&stage, 40, 60), &format!("{}-again.jsonl", trail.mode));
    }
    assert!(workers(&daemon).iter().any(|pid| !first.contains(pid)));
    let (code, first_line, _) = verify(&stage, &export(&stage, "evidence.zip"), &[]);
    assert_eq!(code, 0, "{first_line}");
    wait_for("readiness", || daemon.readyz().unwrap().starts_with("HTTP/1.1 200"));
    assert_another_user(&stage, &daemon);
    daemon.stop().unwrap();
}

#[test]
fn a_pin_is_cleared_by_root_for_workers_with_a_user_of_their_own() {
    if support::left_out() {
        return;
    }
    let (_folder, stage) = scene();
    let pin = stage.folder.join("hsm/pins/record.pin");
    let right = fs::read(&pin).unwrap();
    // As root, and before any worker was there: it clears nothing, and takes nothing away.
    for entry in fs::read_dir(stage.folder.join("hsm/pin-state")).unwrap() {
        let path = entry.unwrap().path();
        // The mark stays: without it nothing is signed.
        if path.to_string_lossy().contains(".pin") {
            fs::remove_file(path).unwrap();
        }
    }
    assert!(done(&mut stage.countersignd(&["pin-clear", "--token", "record"])).contains("nothing to clear"));
    let daemon = stage.start().unwrap();
    fs::write(&pin, "000000").unwrap();
    workers(&daemon).into_iter().for_each(kill_worker);
    wait_for("the PIN latch", || daemon.readyz().unwrap().contains("PIN_LATCHED"));
    daemon.stop().unwrap();
    fs::write(&pin, right).unwrap();
    assert!(done(&mut stage.countersignd(&["pin-clear", "--token", "record"])).contains("cleared; the next start"));
    let daemon = stage.start().unwrap();
    sign(&stage, &stage.options.trails[0].origin, &events(&stage, 0, 5), "receipts.jsonl");
    daemon.stop().unwrap();

    // A PIN that others than the workers can read is refused, and so is one that they cannot.
    fs::set_permissions(&pin, PermissionsExt::from_mode(0o440)).unwrap();
    support::refused(&mut stage.countersignd(&[]), &["lets others read it", "check pin_file"]);
    fs::set_permissions(&pin, PermissionsExt::from_mode(0o400)).unwrap();
    chown(&pin, Some(0), Some(0)).unwrap();
    support::refused(&mut stage.countersignd(&[]), &["record.pin", "Permission denied", "check pin_file"]);
}

/// Of whatever user: no core file, and closed to every other process.
#[test]
fn hardened_workers() {
    let (_folder, stage) = support::sealed(Options::default());
    let daemon = stage.start().unwrap();
    let user = geteuid().as_raw().to_string();
    for pid in workers(&daemon) {
        assert_eq!(status(pid, "Uid"), [user.as_str(); 4].join(" "));
        assert_no_core(pid);
        assert_eq!(fs::metadata(format!("/proc/{pid}/mem")).unwrap().uid(), 0);
        if geteuid().is_root() {
            // Root's own processes are root's in /proc either way; that the mark is set is shown by
            // workers_with_a_user_of_their_own.
            continue;
        }
        for file in ["mem", "environ"] {
            let error = fs::read(format!("/proc/{pid}/{file}")).unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied, "{file}");
        }
    }
    sign(&stage, &stage.options.trails[0].origin, &events(&stage, 0, 5), "receipts.jsonl");
    daemon.stop().unwrap();
}

/// PKCS#11 gives no meaning to a module in a process that was forked after C_Initialize.
#[test]
fn the_module_is_called_by_workers_that_initialised_it_themselves() {
    let scene = Scene::set();
    let daemon = scene.stage.start().unwrap();
    let trail = scene.trail("record");
    sign(&scene.stage, &trail, &events(&scene.stage, 0, 20), "first.jsonl");
    let first = workers(&daemon);
    kill_worker(first[0]);
    wait_for("another worker", || {
        let now = workers(&daemon);
        now.len() == first.len() && now != first && daemon.readyz().unwrap().starts_with("HTTP/1.1 200")
    });
    sign(&scene.stage, &trail, &events(&scene.stage, 20, 40), "second.jsonl");
    let daemon_pid = daemon.pid();
    daemon.stop().unwrap();

    let mut by_process: BTreeMap<u32, Vec<CallLine>> = BTreeMap::new();
    for call in call_log(&scene.shared).unwrap() {
        by_process.entry(call.pid).or_default().push(call);
    }
    for (pid, calls) in &by_process {
        let initialises = |call: &&CallLine| call.function == Function::C_Initialize;
        assert!(initialises(&&calls[0]), "process {pid} began with {:?}", calls[0]);
        assert_eq!(calls.iter().filter(initialises).count(), 1, "process {pid}");
    }
    assert!(!by_process.contains_key(&daemon_pid), "the daemon loaded the module");
    let of_first = first.iter().filter(|pid| by_process.contains_key(&pid.unsigned_abs()));
    assert_eq!(of_first.count(), first.len());
    assert!(by_process.len() > first.len(), "the worker that was killed was replaced");
    assert!(scene.transcript().asked().all(|asked| by_process.contains_key(&asked.pid)));
}

/// What the system does not permit is said at once, and not tried for a minute.
#[test]
fn another_user_without_root_is_refused_by_name() {
    let token_lines = format!("user = {USER}\ngroup = {GROUP}");
    let folder = tempfile::tempdir().unwrap();
    let mut options = Options { token_lines, ..Options::default() };
    if geteuid().is_root() {
        options.launcher = vec!["setpriv".to_owned(), "--bounding-set=-all,+chown".to_owned()];
    }
    let stage = Stage::prepare(&folder.path().join("stage"), Binaries::beside_this().unwrap(), options, &mut |_| ());
    let stage = stage.unwrap();
    let mut init = stage.countersignd(&["init", "--plan"]);
    let said = if geteuid().is_root() { "cannot start a worker as uid 54321, gid 54322" } else { "not permitted" };
    support::refused(init.arg(stage.folder.join("plan.json")), &[said]);
}
