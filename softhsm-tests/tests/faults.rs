//! What a failing HSM may cost, and what it may not: a refused PIN, hangs, aborts, false signatures,
//! and no HSM at all.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops at what it did not expect")]

mod support;
mod trouble;

use std::fs;
use std::time::{Duration, Instant};

use countersign_client::{Client, ClientConfig};
use countersign_faulty_transcript::{Action, Function, Outcome, Rule, Which, call_log, calls, write_control};
use countersign_stage::Daemon;
use countersign_stage::binaries::run;
use countersign_trail::time::Timestamp;
use support::sizes;
use tokio::runtime::Runtime;
use trouble::{Answered, GATEWAY, Load, Scene, assert_whole, event, kill_process, wait_for, workers};

/// A worker whose call takes longer counts as hung.
const CALL_DEADLINE: &str = "call_deadline_ms = 1000";
/// A call that the daemon can only refuse is refused within this.
const FAST: Duration = Duration::from_secs(1);
/// How long a start may take to be refused.
const REFUSED_WITHIN: Duration = Duration::from_secs(60);
/// How long a caller waits that does not wait for a slow token.
const HURRY: Duration = Duration::from_millis(500);
/// A slow token's signature; the worker does not count as hung yet.
const SLOW: Duration = Duration::from_secs(3);
/// CKR_DEVICE_ERROR: the worker is replaced.
const DEVICE_ERROR: u64 = 0x30;
/// CKR_PIN_INCORRECT.
const PIN_INCORRECT: u64 = 0xa0;

/// Number of calls of a function so far.
fn count(scene: &Scene, function: Function) -> u64 {
    calls(&scene.shared, function).unwrap()
}

/// Bodies of the admin trail's records of a type.
fn bodies(scene: &Scene, record_type: &str) -> Vec<serde_json::Value> {
    let of_type = scene.admin_records().into_iter().filter(|record| record["type"] == record_type);
    of_type.map(|record| record["body"].clone()).collect()
}

#[test]
fn a_wrong_pin_is_presented_once_until_it_is_cleared() {
    let scene = Scene::set();
    let runtime = Runtime::new().unwrap();
    let daemon = scene.stage.start().unwrap();
    let hasty = runtime.block_on(scene.hasty(GATEWAY));
    let pin_file = scene.stage.folder.join("hsm/pins/record.pin");
    let right = fs::read_to_string(&pin_file).unwrap();

    // A wrong PIN, and every worker has to log in again.
    fs::write(&pin_file, "000000").unwrap();
    let before = count(&scene, Function::C_Login);
    for pid in record_workers(&scene, &daemon) {
        kill_process(pid);
    }
    wait_for("the PIN's refusal", || count(&scene, Function::C_Login) > before);
    wait_for("the PIN latch", || daemon.readyz().unwrap().contains("PIN_LATCHED"));
    for trail in scene.trails() {
        for n in 0..3 {
            let begun = Instant::now();
            let error = runtime.block_on(hasty.sign(&trail, event(&format!("refused-{n}")))).expect_err("latched");
            assert_eq!(error.reason(), "PIN_LATCHED", "{error}");
            assert!(begun.elapsed() < FAST, "refused after {:?}", begun.elapsed());
        }
    }
    daemon.stop().unwrap();
    for _ in 0..2 {
        let mut refused = scene.stage.spawn().unwrap();
        assert!(!refused.wait_exit(REFUSED_WITHIN).unwrap().success());
        assert!(refused.log_end().contains("pin-clear"), "it says what to do: {}", refused.log_end());
    }
    // Even with the right PIN in place: only a person knows that it is.
    fs::write(&pin_file, &right).unwrap();
    assert!(!scene.stage.spawn().unwrap().wait_exit(REFUSED_WITHIN).unwrap().success());
    assert_eq!(count(&scene, Function::C_Login), before + 1, "the wrong PIN was presented once in all");
    let refusals = call_log(&scene.shared).unwrap();
    let refusals = refusals.iter().filter(|call| call.outcome == Outcome::Returned(PIN_INCORRECT)).count();
    assert_eq!(refusals, 1);

    run(&mut scene.stage.countersignd(&["pin-clear", "--token", "record"])).unwrap();
    let daemon = scene.stage.start().unwrap();
    let trail = scene.trail("record");
    runtime.block_on(async { scene.patient(GATEWAY).await.sign(&trail, event("cleared")).await }).unwrap();
    let states: Vec<_> = bodies(&scene, "countersign.pin").iter().map(|body| body["state"].clone()).collect();
    assert_eq!(states, ["latched", "cleared"]);
    daemon.stop().unwrap();
}

/// The workers of the record token: those that a signature in flight, or the next, needs. They are
/// started before the admin token's only one.
fn record_workers(scene: &Scene, daemon: &Daemon) -> Vec<i32> {
    let all = workers(daemon);
    assert_eq!(all.len(), usize::from(scene.stage.options.workers) + 1);
    all[..usize::from(scene.stage.options.workers)].to_vec()
}

/// Lets the next calls of C_Sign meet `action` under load, and asserts that everything is answered,
/// by the same daemon, and true.
fn survive(action: Action, calls_met: u64) -> Scene {
    let scene = Scene::with_token_lines(CALL_DEADLINE);
    let runtime = Runtime::new().unwrap();
    let daemon = scene.stage.start().unwrap();
    let before = workers(&daemon);
    let load = runtime.block_on(Load::start(&scene));
    load.wait_progress();
    // Far enough ahead that the rule is there before the call is.
    let first = count(&scene, Function::C_Sign) + 5;
    let rule = Rule::new(Function::C_Sign, Which::Range(first, first + calls_met - 1), action);
    write_control(&scene.shared, &[rule]).unwrap();
    wait_for("the fault", || count(&scene, Function::C_Sign) >= first + calls_met);
    load.wait_progress();
    runtime.block_on(async { assert_whole(&scene, &load.finish().await).await });
    if matches!(action, Action::Hang | Action::Abort) {
        assert_ne!(workers(&daemon), before, "a worker was replaced");
    }
    assert_eq!(workers(&daemon).len(), before.len());
    // The daemon that was started first is the one that stops now.
    daemon.stop().unwrap();
    scene
}

#[test]
fn a_hang_costs_a_worker_and_not_the_daemon() {
    survive(Action::Hang, 1);
}

#[test]
fn an_abort_costs_a_worker_and_not_the_daemon() {
    survive(Action::Abort, 1);
}

#[test]
fn a_garbage_signature_is_never_stored_or_released() {
    // More than the calls of one batch, so that a whole retry meets it too.
    let scene = survive(Action::Garbage, 24);
    let transcript = scene.transcript();
    let answers = || transcript.asked().filter_map(|asked| asked.answer.as_ref());
    let garbage: Vec<&[u8]> =
        answers().filter(|answer| answer.injected).filter_map(|answer| answer.signature.as_deref()).collect();
    assert!(!garbage.is_empty(), "the fault was met");
    let data = fs::read_dir(scene.stage.folder.join("data")).unwrap().map(|entry| entry.unwrap().path());
    let stored: Vec<u8> =
        data.filter(|path| !path.ends_with("store.reserve")).flat_map(|path| fs::read(path).unwrap()).collect();
    let has = |needle: &[u8]| stored.windows(needle.len()).any(|window| window == needle);
    for signature in garbage {
        assert!(!has(signature), "a garbage signature is in the store");
    }
    // What the search would find: signatures of records stand in the store as they are.
    let honest = transcript.asked().filter(|asked| asked.input.starts_with(b"DSSEv1 ")).find_map(|asked| {
        let answer = asked.answer.as_ref().filter(|answer| !answer.injected)?;
        asked.input.windows(7).any(|window| window == b"\"seq\":\"").then_some(answer.signature.as_deref()?)
    });
    assert!(has(honest.expect("a record's signature")), "an honest signature is in the store");
}

#[test]
fn a_deadline_that_passes_during_signing_frees_the_caller_and_not_the_record() {
    let scene = Scene::set();
    let runtime = Runtime::new().unwrap();
    let daemon = scene.stage.start().unwrap();
    let hurried = ClientConfig { attempts: 1, deadline: HURRY, ..scene.client_config(GATEWAY) };
    let hurried = runtime.block_on(Client::connect(hurried)).unwrap();
    let patient = runtime.block_on(scene.patient(GATEWAY));
    let mut answered = Vec::new();
    for trail in scene.trails() {
        let seq = sizes(&scene.stage)[&trail];
        write_control(&scene.shared, &[Rule::new(Function::C_Sign, Which::Every, Action::Latency(SLOW))]).unwrap();
        let begun = Instant::now();
        let error = runtime.block_on(hurried.sign(&trail, event("late"))).expect_err("the token is slow");
        let freed = begun.elapsed();
        assert!(freed >= HURRY && freed < SLOW, "freed after {freed:?}: {error}");
        // Nobody asks again, and the record is there.
        wait_for("the record", || sizes(&scene.stage)[&trail] == seq + 1);
        write_control(&scene.shared, &[]).unwrap();
        let before = Timestamp::from_micros(since_epoch()).unwrap();
        let receipt = runtime.block_on(patient.sign(&trail, event("late"))).unwrap();
        assert_eq!(receipt.seq, seq);
        assert!(receipt.time < before, "the repeat has the record of the first attempt");
        assert_eq!(sizes(&scene.stage)[&trail], seq + 1);
        answered.push(Answered { trail, event_id: "late".to_owned(), receipt });
    }
    runtime.block_on(assert_whole(&scene, &answered));
    daemon.stop().unwrap();
}

/// The wall clock, in microseconds.
fn since_epoch() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(now.as_micros()).unwrap()
}

/// The folder of the token with a label, in SoftHSM's token folder.
fn token_folder(scene: &Scene, label: &[u8]) -> std::path::PathBuf {
    let folders = fs::read_dir(scene.stage.folder.join("hsm/tokens")).unwrap();
    let is_it = |folder: &std::path::PathBuf| {
        let object = fs::read(folder.join("token.object")).unwrap_or_default();
        object.windows(label.len()).any(|window| window == label)
    };
    folders.map(|entry| entry.unwrap().path()).find(is_it).expect("the token's folder")
}

/// Asserts that calls are refused at once, and with the reason.
fn assert_fails_fast(runtime: &Runtime, scene: &Scene, client: &countersign_client::Client) {
    for trail in scene.trails() {
        for n in 0..3 {
            let begun = Instant::now();
            let error = runtime.block_on(client.sign(&trail, event(&format!("down-{n}")))).expect_err("no HSM");
            assert_eq!(error.reason(), "HSM_UNAVAILABLE", "{error}");
            assert!(begun.elapsed() < FAST, "refused after {:?}: {error}", begun.elapsed());
        }
    }
}

#[test]
fn without_an_hsm_calls_fail_fast_and_each_transition_is_one_record() {
    let scene = Scene::with_token_lines(CALL_DEADLINE);
    let runtime = Runtime::new().unwrap();
    let daemon = scene.stage.start().unwrap();
    let hasty = runtime.block_on(scene.hasty(GATEWAY));
    let ready = || daemon.readyz().unwrap().starts_with("HTTP/1.1 200");

    // The record token alone, by its folder.
    let folder = token_folder(&scene, b"countersign-record");
    let away = scene.stage.folder.join("record-token.away");
    fs::rename(&folder, &away).unwrap();
    for pid in record_workers(&scene, &daemon) {
        kill_process(pid);
    }
    wait_for("not ready", || !ready());
    assert_fails_fast(&runtime, &scene, &hasty);
    // A while in which workers are started again and again.
    let restarts = count(&scene, Function::C_Initialize);
    wait_for("attempts", || count(&scene, Function::C_Initialize) > restarts + 2);
    fs::rename(&away, &folder).unwrap();
    wait_for("ready", ready);
    assert_transitions(&scene, &[("record", "down"), ("record", "ready")]);

    // Both tokens, by every signature: the records follow when the admin token can sign again.
    write_control(&scene.shared, &[Rule::new(Function::C_Sign, Which::Every, Action::Return(DEVICE_ERROR))]).unwrap();
    for pid in workers(&daemon) {
        kill_process(pid);
    }
    wait_for("not ready", || !ready());
    assert_fails_fast(&runtime, &scene, &hasty);
    write_control(&scene.shared, &[]).unwrap();
    wait_for("ready", ready);
    let mut all = vec![("record", "down"), ("record", "ready")];
    all.extend([("record", "down"), ("record", "ready"), ("admin", "down"), ("admin", "ready")]);
    assert_transitions(&scene, &all);
    daemon.stop().unwrap();
}

/// Waits for the admin records of these transitions; the order of a token's own is kept.
fn assert_transitions(scene: &Scene, want: &[(&str, &str)]) {
    let mut found = Vec::new();
    wait_for("the transitions' records", || {
        found = bodies(scene, "countersign.hsm");
        found.len() >= want.len()
    });
    for token in ["record", "admin"] {
        let of_token = found.iter().filter(|body| body["token"] == token);
        let states: Vec<&str> = of_token.map(|body| body["state"].as_str().unwrap()).collect();
        let wanted: Vec<&str> = want.iter().filter(|(name, _)| *name == token).map(|(_, state)| *state).collect();
        assert_eq!(states, wanted, "{token}");
    }
}
