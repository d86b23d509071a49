//! What ends a process, and what survives it.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{ChildStdin, Stdio};
use std::time::Duration;

use countersign_faulty_transcript::{
    Action, Asked, ENV_DIR, ENV_MODULE, Function, Outcome, Rule, Transcript, Which, call_log, calls, write_control,
};

use crate::support::{self, Algorithm, Bench, Key, role, wait_for};

const SIGABRT: i32 = 6;
const SIGKILL: i32 = 9;

/// The client of these tests: `make` makes the key, `sign` finds it and signs the process's id.
fn make_or_sign(role: &str) {
    let session = support::session();
    let key = match role {
        "make" => Key::generate(&session, Algorithm::Ed25519, b"k", "k"),
        _ => Key::find(&session, Algorithm::Ed25519, b"k"),
    };
    key.sign(&session, std::process::id().to_string().as_bytes()).unwrap();
}

fn asked(bench: &Bench) -> Vec<Asked> {
    Transcript::read(&bench.dir()).unwrap().asked().cloned().collect()
}

fn outcome_of_sign(bench: &Bench, n: u64) -> Option<Outcome> {
    let log = call_log(&bench.dir()).unwrap();
    log.iter().find(|line| (line.function, line.n) == (Function::C_Sign, n)).map(|line| line.outcome)
}

#[test]
fn counters_and_rules_outlive_a_process() {
    if let Some(role) = role() {
        return make_or_sign(&role);
    }
    let bench = Bench::new(concat!(module_path!(), "::counters_and_rules_outlive_a_process"));
    write_control(&bench.dir(), &[Rule::new(Function::C_Sign, Which::Only(3), Action::Return(0x5))]).unwrap();
    bench.run("make");
    bench.run("sign");
    let (_, printed) = bench.run_to_failure("sign");
    assert!(printed.contains("GeneralError"), "the third signature over all, not:\n{printed}");
    bench.run("sign");
    assert_eq!(calls(&bench.dir(), Function::C_Sign).unwrap(), 4);
    assert_eq!(calls(&bench.dir(), Function::C_Initialize).unwrap(), 4);
    let asked = asked(&bench);
    assert_eq!(asked.iter().map(|asked| asked.n).collect::<Vec<_>>(), [1, 2, 3, 4]);
    for asked in &asked {
        assert_eq!(asked.input, asked.pid.to_string().as_bytes(), "an input by the process that asked");
    }
}

#[test]
fn a_hang_ends_by_sigkill_alone() {
    if let Some(role) = role() {
        return make_or_sign(&role);
    }
    let bench = Bench::new(concat!(module_path!(), "::a_hang_ends_by_sigkill_alone"));
    write_control(&bench.dir(), &[Rule::new(Function::C_Sign, Which::Only(2), Action::Hang)]).unwrap();
    bench.run("make");
    let mut hanging = bench.client("sign").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_for("the hang", || (outcome_of_sign(&bench, 2) == Some(Outcome::Hang)).then_some(()));
    // No proof of "for ever", but a call that passed through would have ended the process by far in this time.
    let later = std::time::Instant::now() + Duration::from_millis(300);
    wait_for("some time to pass", || (std::time::Instant::now() > later).then_some(()));
    assert!(hanging.try_wait().unwrap().is_none(), "it returned");
    hanging.kill().unwrap();
    assert_eq!(hanging.wait().unwrap().signal(), Some(SIGKILL));

    bench.run("sign");
    let answered: Vec<bool> = asked(&bench).iter().map(|asked| asked.answer.is_some()).collect();
    assert_eq!(answered, [true, false, true], "the input of the hung call stands there, without an answer");
}

#[test]
fn an_abort_ends_its_process_alone() {
    if let Some(role) = role() {
        return make_or_sign(&role);
    }
    let bench = Bench::new(concat!(module_path!(), "::an_abort_ends_its_process_alone"));
    write_control(&bench.dir(), &[Rule::new(Function::C_Sign, Which::Only(2), Action::Abort)]).unwrap();
    bench.run("make");
    let (status, _) = bench.run_to_failure("sign");
    assert_eq!(status.signal(), Some(SIGABRT));
    assert_eq!(outcome_of_sign(&bench, 2), Some(Outcome::Abort));
    bench.run("sign");
    let answered: Vec<bool> = asked(&bench).iter().map(|asked| asked.answer.is_some()).collect();
    assert_eq!(answered, [true, false, true]);
}

#[test]
fn a_set_up_that_cannot_be_trusted_aborts() {
    if let Some(role) = role() {
        return make_or_sign(&role);
    }
    let bench = Bench::new(concat!(module_path!(), "::a_set_up_that_cannot_be_trusted_aborts"));
    for (text, message) in [
        ("C_Sign 3 retrun 0x30\n", "line 1: `retrun 0x30` is not"),
        ("# a comment\n\nC_Sing 3 hang\n", "line 3: `C_Sing` is no function"),
        ("C_Sign 0 hang\n", "line 1: `0` is not `every`"),
        ("C_Login 1 garbage\n", "line 1: C_Login returns no signature"),
    ] {
        std::fs::write(bench.dir().join("control"), text).unwrap();
        let (status, printed) = bench.run_to_failure("make");
        assert_eq!(status.signal(), Some(SIGABRT), "{printed}");
        assert!(printed.contains(message), "{message:?} is not in:\n{printed}");
    }
    write_control(&bench.dir(), &[]).unwrap();
    for (name, value, message) in [
        (ENV_DIR, "", "COUNTERSIGN_FAULTY_DIR is not set"),
        (ENV_DIR, "/nonexistent", "/nonexistent"),
        (ENV_MODULE, "/nonexistent.so", "cannot use /nonexistent.so as the real module"),
    ] {
        let output = bench.client("make").env(name, value).output().unwrap();
        let printed = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.signal(), Some(SIGABRT), "{printed}");
        assert!(printed.contains(message), "{message:?} is not in:\n{printed}");
    }
}

const THREADS: u64 = 3;
const SIGNATURES: u64 = 40; // of each thread

/// Signs with several threads, once its standard input says so.
fn sign_in_threads() {
    let session = support::session();
    let (pkcs11, slot) = (session_context(), session.get_session_info().unwrap().slot_id());
    println!("ready");
    std::io::stdin().lock().read_line(&mut String::new()).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let pkcs11 = &pkcs11;
            scope.spawn(move || {
                let session = pkcs11.open_rw_session(slot).unwrap();
                let key = Key::find(&session, Algorithm::Ed25519, b"k");
                for n in 0..SIGNATURES {
                    let input = format!("{} {thread} {n}", std::process::id());
                    key.sign(&session, input.as_bytes()).unwrap();
                }
            });
        }
    });
}

/// A second context of the module that `support::session` initialised: for more sessions of the same process.
fn session_context() -> cryptoki::context::Pkcs11 {
    cryptoki::context::Pkcs11::new(countersign_faulty_transcript::find_library().unwrap()).unwrap()
}

#[test]
fn threads_and_processes_never_share_a_number() {
    if let Some(role) = role() {
        return if role == "make" { make_or_sign(&role) } else { sign_in_threads() };
    }
    let bench = Bench::new(concat!(module_path!(), "::threads_and_processes_never_share_a_number"));
    bench.run("make");
    // SoftHSM's start is not safe against another process's, so one is ready before the next begins.
    let start = || {
        let mut child = bench.client("threads").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().ends_with("ready")), "the client did not start");
        (child, lines)
    };
    let clients = [start(), start()];
    let clients = clients.map(|(mut child, lines)| {
        child.stdin.take().map(|mut go: ChildStdin| go.write_all(b"go\n")).unwrap().unwrap();
        (child, lines)
    });
    for (mut child, lines) in clients {
        let printed: Vec<String> = lines.map(Result::unwrap).collect();
        assert!(child.wait().unwrap().success(), "{printed:?}");
    }
    let signatures = 1 + 2 * THREADS * SIGNATURES;
    assert_eq!(calls(&bench.dir(), Function::C_Sign).unwrap(), signatures);
    // Reading refuses a number that stands twice.
    let asked = asked(&bench);
    assert_eq!(asked.len() as u64, signatures);
    assert!(asked.iter().all(|asked| asked.answer.as_ref().is_some_and(|answer| answer.rv == 0)));
    let mut inputs: Vec<&[u8]> = asked.iter().map(|asked| asked.input.as_slice()).collect();
    inputs.sort_unstable();
    inputs.dedup();
    assert_eq!(inputs.len() as u64, signatures, "every input once");
}

/// Signs until it is killed, and prints each input once its signature is there.
fn sign_until_killed() {
    let session = support::session();
    let key = Key::find(&session, Algorithm::Ed25519, b"k");
    // Lines of many pages, so that a kill can fall inside of writing one.
    let filling = "x".repeat(20_000);
    for n in 0.. {
        key.sign(&session, format!("{} {n} {filling}", std::process::id()).as_bytes()).unwrap();
        println!("signed {} {n} ", std::process::id());
    }
}

#[test]
fn a_kill_under_load_loses_no_input() {
    if let Some(role) = role() {
        return if role == "make" { make_or_sign(&role) } else { sign_until_killed() };
    }
    let bench = Bench::new(concat!(module_path!(), "::a_kill_under_load_loses_no_input"));
    bench.run("make");
    let mut signed = Vec::new();
    for signatures in [1, 2, 3, 5, 8, 13, 21, 34] {
        let mut client = bench.client("load").stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(client.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut inputs =
            lines.by_ref().filter_map(|line| line.split_once("signed ").map(|(_, input)| input.to_owned()));
        signed.extend(inputs.by_ref().take(signatures));
        client.kill().unwrap();
        assert_eq!(client.wait().unwrap().signal(), Some(SIGKILL));
        // What it printed before the kill; its last line may be cut.
        signed.extend(inputs.filter(|input| input.ends_with(' ')));
    }
    let asked = asked(&bench);
    for input in &signed {
        let found = asked.iter().filter(|asked| asked.input.starts_with(input.as_bytes())).count();
        assert_eq!(found, 1, "`{input}` was signed, and stands in the transcript {found} times");
    }
    assert!(signed.len() >= 87, "all that were waited for");
    let unanswered = asked.iter().filter(|asked| asked.answer.is_none()).count();
    assert!(unanswered <= 8, "at most one call is under way at each kill, not {unanswered}");
}
