//! The ladder, the watchdog and the PIN latch against a module that fails on demand.

// Tests may stop at the first surprise; the lint's own setting covers test functions alone.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::path::PathBuf;
use std::time::Duration;

use common::{MODULE, Token, checkpoint, down, item, ready, token_with_key, until, verify};
use countersign_faulty_transcript::{
    Action, ENV_DIR, ENV_MODULE, Function, Rule, Transcript, Which, calls, find_library, write_control,
};
use countersign_hsm::{HsmError, KeyBinding, Pool, PoolState, Reason};
use countersign_trail::keys::Algorithm;

/// A token behind the faulty module, with one worker of one session.
struct Faulty {
    token: Token,
    key: KeyBinding,
    faults: PathBuf,
    size: u64,
}

impl Faulty {
    async fn new() -> Faulty {
        let (token, key) = token_with_key(Algorithm::Ed25519).await;
        let faults = token.path("faults");
        std::fs::create_dir(&faults).unwrap();
        Faulty { token, key, faults, size: 0 }
    }

    fn start(&self) -> Pool {
        let mut spec = self.token.spec(vec![self.key.clone()]);
        spec.token.module = find_library().unwrap();
        spec.token.workers = 1;
        spec.token.sessions_per_worker = 1;
        spec.token.call_deadline = Duration::from_secs(1);
        spec.command.envs.push((ENV_MODULE.into(), MODULE.into()));
        spec.command.envs.push((ENV_DIR.into(), self.faults.clone().into()));
        Pool::start(spec).unwrap()
    }

    fn calls(&self, function: Function) -> u64 {
        calls(&self.faults, function).unwrap()
    }

    /// The next `times` calls of `function` meet `action`.
    fn next(&self, function: Function, times: u64, action: Action) {
        let next = self.calls(function) + 1;
        self.rule(function, Which::Range(next, next + times - 1), action);
    }

    fn rule(&self, function: Function, which: Which, action: Action) {
        write_control(&self.faults, &[Rule { function, which, action }]).unwrap();
    }

    fn heal(&self) {
        write_control(&self.faults, &[]).unwrap();
    }

    /// Signs a new position.
    async fn sign(&mut self, pool: &Pool) -> Result<(), HsmError> {
        self.size += 1;
        let message = checkpoint(self.size, 1);
        let signatures = pool.sign(vec![item(self.key.kid, message.clone())]).await?;
        verify(&self.key, &message, &signatures[0]);
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_retry_cures_costs_no_worker() {
    let mut faulty = Faulty::new().await;
    let pool = faulty.start();
    ready(&pool).await;
    for rv in [0x5, 0x6, 0x60, 0x82, 0x90, 0xB0, 0xB3, 0x101, 0x201] {
        for function in [Function::C_SignInit, Function::C_Sign] {
            faulty.next(function, 1, Action::Return(rv));
            let result = faulty.sign(&pool).await;
            assert!(result.is_ok(), "{function:?} {rv:#x}: {result:?}");
        }
    }
    assert_eq!(pool.counters().workers_started, 1);
    assert_eq!(faulty.calls(Function::C_Login), 3, "one at the start, one for each 0x101");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_new_worker_cures_costs_one_worker() {
    let mut faulty = Faulty::new().await;
    let pool = faulty.start();
    ready(&pool).await;
    let cases = [
        (1, Action::Return(0x30)),
        (1, Action::Return(0x32)),
        (1, Action::Return(0xE0)),
        (1, Action::Return(0x3)),
        (1, Action::Return(0x190)),
        (3, Action::Return(0x5)),
        (1, Action::Hang),
        (1, Action::Abort),
    ];
    for (n, (times, action)) in (2..).zip(cases) {
        faulty.next(Function::C_Sign, times, action);
        let error = faulty.sign(&pool).await.unwrap_err();
        assert_eq!(error.reason(), Reason::HsmUnavailable, "{action:?}: {error}");
        if action == Action::Hang {
            assert!(error.detail().contains("HSM_TIMEOUT"), "{error}");
        }
        ready(&pool).await;
        assert_eq!(pool.counters().workers_started, n, "{action:?}");
        faulty.size -= 1;
        faulty.sign(&pool).await.unwrap();
    }
    // Every input was asked for as often as it took, and never in two versions.
    let transcript = Transcript::read(&faulty.faults).unwrap();
    let mut positions = std::collections::HashMap::new();
    for asked in transcript.asked() {
        let text = String::from_utf8_lossy(&asked.input).into_owned();
        let Some(("acme.example/a", rest)) = text.split_once('\n') else {
            continue;
        };
        let size = rest.split_once('\n').unwrap().0.to_owned();
        assert_eq!(positions.entry(size).or_insert_with(|| text.clone()), &text);
    }
    assert_eq!(positions.len(), cases.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_unknown_latches_down_and_a_refused_call_does_not() {
    let mut faulty = Faulty::new().await;
    let pool = faulty.start();
    ready(&pool).await;
    faulty.next(Function::C_SignInit, 1, Action::Return(0x68));
    assert_eq!(faulty.sign(&pool).await.unwrap_err().reason(), Reason::HsmRejected);
    faulty.sign(&pool).await.unwrap();
    faulty.next(Function::C_Sign, 1, Action::Return(0x8000_0001));
    assert_eq!(faulty.sign(&pool).await.unwrap_err().reason(), Reason::HsmUnavailable);
    assert_eq!(down(&pool).await, (Reason::HsmLatched, true));
    assert_eq!(faulty.sign(&pool).await.unwrap_err().reason(), Reason::HsmLatched);
    assert_eq!(pool.counters().workers_started, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_signatures_are_wrong_never_comes_up() {
    let mut faulty = Faulty::new().await;
    faulty.rule(Function::C_Sign, Which::Every, Action::Garbage);
    let pool = faulty.start();
    assert_eq!(down(&pool).await, (Reason::BadSignature, false));
    faulty.heal();
    ready(&pool).await;
    faulty.sign(&pool).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proven_pin_is_presented_again_after_other_errors_and_hangs() {
    let mut faulty = Faulty::new().await;
    // token_with_key proved the PIN.
    let write = |rules: &[(u64, Action)]| {
        let rule =
            |(n, action): &(u64, Action)| Rule { function: Function::C_Login, which: Which::Only(*n), action: *action };
        write_control(&faulty.faults, &rules.iter().map(rule).collect::<Vec<_>>()).unwrap();
    };
    write(&[(1, Action::Return(0x30)), (2, Action::Hang), (3, Action::Abort)]);
    let pool = faulty.start();
    ready(&pool).await;
    assert_eq!(faulty.calls(Function::C_Login), 4);
    faulty.sign(&pool).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_pin_is_never_presented_again() {
    let faulty = Faulty::new().await;
    faulty.rule(Function::C_Login, Which::Only(1), Action::Return(0xA4));
    for _ in 0..3 {
        let pool = faulty.start();
        assert_eq!(down(&pool).await, (Reason::PinLatched, true));
        pool.shutdown().await;
    }
    assert_eq!(faulty.calls(Function::C_Login), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unproven_pin_whose_login_hangs_is_never_presented_again() {
    let faulty = Faulty::new().await;
    let state = faulty.token.path("state").join(format!("{}.pin", faulty.token.serial));
    std::fs::remove_file(state).unwrap();
    faulty.rule(Function::C_Login, Which::Only(1), Action::Hang);
    let pool = faulty.start();
    until(&pool, "latched", |state| matches!(state, PoolState::Down { latched: true, .. })).await;
    pool.shutdown().await;
    let pool = faulty.start();
    assert_eq!(down(&pool).await, (Reason::PinLatched, true));
    assert_eq!(faulty.calls(Function::C_Login), 1);
}
