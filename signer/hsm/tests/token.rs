//! The PIN latch, a token that goes away, keys that must not be used, the process itself.

// Tests may stop at the first surprise; the lint's own setting covers test functions alone.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use common::{
    LABEL, MODULE, PIN, Token, binding, checkpoint, down, example, generate, item, ready, token_with_key, until, verify,
};
use countersign_hsm::{PinClear, PoolState, Reason, consume_pin_cleared_marker, pin_clear, pin_cleared_marker};
use countersign_trail::keys::{Algorithm, PublicKey};
use rustix::process::{Pid, Signal, kill_process};

fn state_file(token: &Token) -> serde_json::Value {
    let path = token.path("state").join(format!("{}.pin", token.serial));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_pin_is_presented_once_until_it_is_cleared() {
    let token = Token::new();
    token.write_pin("00000000");
    let pool = token.start(Vec::new());
    assert_eq!(down(&pool).await, (Reason::PinLatched, true));
    assert_eq!(state_file(&token)["state"], "refused");
    assert_eq!(pool.counters().workers_started, 1, "the first login decides");
    assert_eq!(pool.mac([1; 32]).await.unwrap_err().reason(), Reason::PinLatched);
    pool.shutdown().await;

    // The token would take this PIN; that it is refused shows that nobody asked the token.
    token.write_pin(PIN);
    let pool = token.start(Vec::new());
    assert_eq!(down(&pool).await, (Reason::PinLatched, true));
    assert_eq!(state_file(&token)["state"], "refused");
    pool.shutdown().await;

    let state = token.path("state");
    assert_eq!(pin_clear(&state, &token.serial).unwrap(), PinClear::Cleared);
    let pool = token.start(Vec::new());
    ready(&pool).await;
    assert_eq!(state_file(&token)["state"], "proven");
    assert!(pin_cleared_marker(&state, &token.serial).unwrap());
    consume_pin_cleared_marker(&state, &token.serial).unwrap();
    assert!(!pin_cleared_marker(&state, &token.serial).unwrap());
    let text = std::fs::read_to_string(token.path("state").join(format!("{}.pin", token.serial)));
    assert!(!text.unwrap().contains(PIN));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_at_a_restart_latches_all_workers() {
    let (token, key) = token_with_key(Algorithm::Ed25519).await;
    let pool = token.start(vec![key.clone()]);
    ready(&pool).await;
    token.write_pin("00000000");
    let pid = pool.worker_pids()[1].unwrap();
    kill_process(Pid::from_raw(pid.try_into().unwrap()).unwrap(), Signal::KILL).unwrap();
    until(&pool, "latched", |state| matches!(state, PoolState::Down { latched: true, .. })).await;
    let error = pool.sign(vec![item(key.kid, checkpoint(2, 1))]).await.unwrap_err();
    assert_eq!(error.reason(), Reason::PinLatched);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_moved_away_and_back_serves_again() {
    let (token, key) = token_with_key(Algorithm::EcdsaP256).await;
    let pool = token.start(vec![key.clone()]);
    ready(&pool).await;
    std::fs::rename(token.path("tokens"), token.path("away")).unwrap();
    for pid in pool.worker_pids().into_iter().flatten() {
        kill_process(Pid::from_raw(pid.try_into().unwrap()).unwrap(), Signal::KILL).unwrap();
    }
    let (reason, latched) = down(&pool).await;
    assert!(!latched, "{reason}");
    let error = pool.sign(vec![item(key.kid, checkpoint(1, 1))]).await.unwrap_err();
    assert_eq!(error.reason(), Reason::HsmUnavailable);
    until(&pool, "without a token", |state| match state {
        PoolState::Down { reason, .. } => {
            matches!(reason.reason(), Reason::TokenMissing | Reason::ModuleLoad)
        }
        _ => false,
    })
    .await;
    std::fs::rename(token.path("away"), token.path("tokens")).unwrap();
    ready(&pool).await;
    let signatures = pool.sign(vec![item(key.kid, checkpoint(1, 1))]).await.unwrap();
    verify(&key, &checkpoint(1, 1), &signatures[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_replaced_under_a_running_worker_is_noticed() {
    let (token, key) = token_with_key(Algorithm::Ed25519).await;
    let pool = token.start(vec![key.clone()]);
    ready(&pool).await;
    std::fs::rename(token.path("tokens"), token.path("away")).unwrap();
    // Whatever the module answers for a token that is gone: no call hangs, no signature is wrong.
    match pool.sign(vec![item(key.kid, checkpoint(1, 1))]).await {
        Ok(signatures) => verify(&key, &checkpoint(1, 1), &signatures[0]),
        Err(error) => assert_eq!(error.reason(), Reason::HsmUnavailable, "{error}"),
    }
    std::fs::rename(token.path("away"), token.path("tokens")).unwrap();
    ready(&pool).await;
    pool.sign(vec![item(key.kid, checkpoint(1, 1))]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn another_serial_is_refused() {
    let token = Token::new();
    let mut spec = token.spec(Vec::new());
    spec.token.token_serial = Some("0000000000000000".to_owned());
    let pool = countersign_hsm::Pool::start(spec).unwrap();
    assert_eq!(down(&pool).await, (Reason::TokenMismatch, false));
    assert!(!token.path("state").join(format!("{}.pin", token.serial)).exists(), "no login");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_extractable_key_is_refused() {
    let token = Token::new();
    let output = Command::new(example("extractable_key"))
        .args([MODULE, LABEL, PIN, "extractable-1"])
        .env("SOFTHSM2_CONF", token.path("softhsm2.conf"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let hex = String::from_utf8(output.stdout).unwrap();
    let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    let point: Vec<u8> = (0..hex.trim().len()).step_by(2).map(byte).collect();
    let public = PublicKey::from_raw(Algorithm::Ed25519, &point[2..]).unwrap();

    let pool = token.start(Vec::new());
    ready(&pool).await;
    let mut key = binding(&generate(&pool, "good", Algorithm::Ed25519).await);
    key.kid = public.kid();
    key.public_key = public.spki_der();
    // The good key's CKA_ID with another public key.
    let error = pool.bind_keys(vec![key.clone()]).await.unwrap_err();
    assert_eq!(error.reason(), Reason::KeyMismatch);
    key.cka_id = b"extractable-1".to_vec();
    let error = pool.bind_keys(vec![key.clone()]).await.unwrap_err();
    assert_eq!(error.reason(), Reason::KeyExtractable);
    pool.shutdown().await;

    // Bound from the start it does not keep the others from working, and signs nothing.
    let pool = token.start(vec![key.clone()]);
    let state = until(&pool, "degraded", |state| matches!(state, PoolState::Degraded { up: 2, .. })).await;
    let PoolState::Degraded { reason, .. } = state else { panic!("{state:?}") };
    assert_eq!(reason.reason(), Reason::KeyExtractable);
    let error = pool.sign(vec![item(key.kid, checkpoint(1, 1))]).await.unwrap_err();
    assert_eq!(error.reason(), Reason::KeyExtractable);
    assert_eq!(pool.probe().await.unwrap_err().reason(), Reason::KeyExtractable);
    assert_eq!(pool.refused_keys().len(), 2);
    pool.unbind_keys(&[key.kid]).await;
    ready(&pool).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_has_no_core_and_no_secret_in_its_arguments() {
    let token = Token::new();
    let pool = token.start(Vec::new());
    ready(&pool).await;
    let pid = pool.worker_pids()[0].unwrap();
    let proc = |name: &str| std::fs::read(format!("/proc/{pid}/{name}")).unwrap();
    let limits = String::from_utf8(proc("limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"]);
    for name in ["cmdline", "environ"] {
        let text = String::from_utf8_lossy(&proc(name)).into_owned();
        assert!(!text.contains(PIN), "{name}");
    }
}

/// What a worker answers, and its exit code, when its peer sends these bytes and closes.
fn talk(bytes: &[u8]) -> (Vec<u8>, Option<i32>) {
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let mut child = Command::new(common::worker_program())
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    ours.write_all(bytes).unwrap();
    ours.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    match ours.read_to_end(&mut answer) {
        // It closed without having read everything.
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
        result => assert_eq!(result.unwrap(), answer.len()),
    }
    (answer, child.wait().unwrap().code())
}

#[test]
fn a_worker_refuses_other_versions_and_bad_frames() {
    let preamble = b"CSHSM\0\x02\0";
    let longest = (16 * 1024 * 1024_u32 + 1).to_le_bytes();
    for bytes in [
        b"CSHSM\0\x03\0".to_vec(),
        b"GET / HTTP/1.1\r\n".to_vec(),
        preamble.to_vec(),
        [&preamble[..], &longest].concat(),
        [&preamble[..], &[1, 0, 0, 0, 0]].concat(),
        [&preamble[..], &[4, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]].concat(),
    ] {
        assert_eq!(talk(&bytes), (Vec::new(), Some(2)), "{bytes:?}");
    }
}
