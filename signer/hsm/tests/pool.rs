//! Signing, keys and supervision against a real token.

// Tests may stop at the first surprise; the lint's own setting covers test functions alone.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::time::Duration;

use common::{INSTANCE, Token, binding, checkpoint, generate, item, ready, token_with_key, trail, until, verify};
use countersign_hsm::{MAX_BATCH_ITEMS, MAX_MESSAGE_BYTES, Pool, PoolState, Reason, RecoveryProof};
use countersign_trail::dsse;
use countersign_trail::keys::{Algorithm, Kid, PublicKey};
use countersign_trail::origin::Origin;
use countersign_trail::signing::Purpose;
use rustix::process::{Pid, Signal, kill_process};

fn kill(pid: u32) {
    kill_process(Pid::from_raw(pid.try_into().unwrap()).unwrap(), Signal::KILL).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn both_algorithms_are_generated_bound_and_sign() {
    let token = Token::new();
    let pool = token.start(Vec::new());
    ready(&pool).await;
    for (algorithm, size) in [(Algorithm::Ed25519, 100), (Algorithm::EcdsaP256, 10_000)] {
        let key = generate(&pool, "acme.example/a/checkpoint", algorithm).await;
        let public = PublicKey::from_spki_der(&key.public_key).unwrap();
        assert_eq!((public.kid(), public.algorithm()), (key.kid, algorithm));
        let pae = dsse::pae(dsse::PROBE, &key.probe_payload);
        public.verify(&pae, &key.probe_signature).unwrap();
        for (name, want) in [
            ("CKA_SENSITIVE", true),
            ("CKA_EXTRACTABLE", false),
            ("CKA_LOCAL", true),
            ("CKA_ALWAYS_SENSITIVE", true),
            ("CKA_NEVER_EXTRACTABLE", true),
            ("CKA_DECRYPT", false),
        ] {
            assert_eq!(key.attributes.get(name), Some(&want), "{name}");
        }
        let refused = pool.sign(vec![item(key.kid, checkpoint(1, 1))]).await.unwrap_err();
        assert_eq!(refused.reason(), Reason::KeyUnknown);
        let key = binding(&key);
        pool.bind_keys(vec![key.clone()]).await.unwrap();
        // Enough that about half would be high-S if nobody lowered them.
        let messages: Vec<Vec<u8>> = (size..size + 300).map(|size| checkpoint(size, 1)).collect();
        let items = messages.iter().map(|message| item(key.kid, message.clone())).collect();
        let signatures = pool.sign(items).await.unwrap();
        assert_eq!(signatures.len(), messages.len());
        for (message, signature) in messages.iter().zip(&signatures) {
            verify(&key, message, signature);
        }
    }
    pool.probe().await.unwrap();
    let info = pool.token_info().unwrap();
    assert_eq!((info.label.as_str(), &info.serial), (common::LABEL, &token.serial));
    assert_eq!(info.module_sha256.len(), 64);
    pool.shutdown().await;
    assert_eq!(pool.worker_pids(), [None, None]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_position_takes_one_input_and_one_purpose() {
    let (token, key) = token_with_key(Algorithm::Ed25519).await;
    let pool = token.start(vec![key.clone()]);
    ready(&pool).await;
    let sign = |message: Vec<u8>| pool.sign(vec![item(key.kid, message)]);
    let first = sign(checkpoint(70_000, 1)).await.unwrap();
    assert_eq!(sign(checkpoint(70_000, 1)).await.unwrap(), first);
    let reason = |result: Result<_, countersign_hsm::HsmError>| result.unwrap_err().reason();
    assert_eq!(reason(sign(checkpoint(70_000, 2)).await), Reason::PositionConflict);

    let other = countersign_trail::checkpoint::Checkpoint {
        origin: Origin::parse("acme.example/b").unwrap(),
        size: 70_002,
        root: countersign_trail::hash::Hash::of(b""),
    };
    for message in [
        other.text().into(),
        dsse::pae(dsse::RECORD, b"{}"),
        dsse::pae(dsse::STATEMENT, b"{}"),
        b"hello".to_vec(),
        Vec::new(),
    ] {
        assert_eq!(reason(sign(message).await), Reason::PurposeMismatch);
    }
    assert_eq!(reason(sign(vec![b'a'; MAX_MESSAGE_BYTES + 1]).await), Reason::TooLarge);
    let unknown = pool.sign(vec![item(Kid::from_bytes([9; 32]), checkpoint(1, 1))]).await;
    assert_eq!(unknown.unwrap_err().reason(), Reason::KeyUnknown);

    // A kid keeps its purpose and trail, also after it was unbound.
    let mut evidence = key.clone();
    evidence.purpose = Purpose::Evidence;
    assert_eq!(pool.bind_keys(vec![evidence.clone()]).await.unwrap_err().reason(), Reason::KeyMismatch);
    pool.unbind_keys(&[key.kid]).await;
    assert_eq!(reason(sign(checkpoint(70_004, 1)).await), Reason::KeyUnknown);
    assert_eq!(pool.bind_keys(vec![evidence]).await.unwrap_err().reason(), Reason::KeyMismatch);
    pool.bind_keys(vec![key.clone()]).await.unwrap();
    sign(checkpoint(70_004, 1)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn below_the_window_a_valid_mac_is_needed_and_holds_across_restarts() {
    let (token, key) = token_with_key(Algorithm::Ed25519).await;
    let digest = [7; 32];
    let pool = token.start(vec![key.clone()]);
    ready(&pool).await;
    let mac = pool.mac(digest).await.unwrap();
    assert!(pool.check_mac(digest, mac).await.unwrap());
    assert!(!pool.check_mac([8; 32], mac).await.unwrap());
    pool.shutdown().await;

    let pool = token.start(vec![key.clone()]);
    ready(&pool).await;
    assert!(pool.check_mac(digest, mac).await.unwrap());
    let sign = |size, recovery| {
        let message = checkpoint(size, 1).into();
        let item = countersign_hsm::SignItem { kid: key.kid, message, recovery };
        pool.sign(vec![item])
    };
    sign(200_000, None).await.unwrap();
    assert_eq!(sign(10, None).await.unwrap_err().reason(), Reason::PositionStale);
    let forged = RecoveryProof { digest, mac: [0; 32] };
    assert_eq!(sign(10, Some(forged)).await.unwrap_err().reason(), Reason::RecoveryRefused);
    sign(10, Some(RecoveryProof { digest, mac })).await.unwrap();

    let other = Token::new();
    let elsewhere = other.start(Vec::new());
    ready(&elsewhere).await;
    assert!(!elsewhere.check_mac(digest, mac).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_worker_comes_back_under_load() {
    let (token, key) = token_with_key(Algorithm::Ed25519).await;
    let pool = token.start(vec![key.clone()]);
    ready(&pool).await;
    let started = pool.counters().workers_started;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let loads: Vec<_> = (0..4_u64)
        .map(|client| {
            let (pool, key, stopped) = (pool.clone(), key.clone(), stopped.clone());
            tokio::spawn(async move {
                let (mut good, mut failed) = (0, 0);
                for size in (0..).map(|n| n * 4 + client + 1) {
                    if *stopped.borrow() {
                        return (good, failed);
                    }
                    let message = checkpoint(size, 1);
                    match pool.sign(vec![item(key.kid, message.clone())]).await {
                        Ok(signatures) => {
                            verify(&key, &message, &signatures[0]);
                            good += 1;
                        }
                        Err(error) => {
                            assert_eq!(error.reason(), Reason::HsmUnavailable, "{error}");
                            assert!(error.retryable());
                            failed += 1;
                            tokio::task::yield_now().await;
                        }
                    }
                }
                unreachable!()
            })
        })
        .collect();
    for round in 1..=3 {
        let pid = pool.worker_pids()[0].unwrap();
        kill(pid);
        until(&pool, "degraded", |state| *state != PoolState::Ready).await;
        ready(&pool).await;
        assert_ne!(pool.worker_pids()[0], Some(pid));
        assert_eq!(pool.counters().workers_started, started + round);
    }
    stop.send(true).unwrap();
    let mut good = 0;
    for load in loads {
        good += load.await.unwrap().0;
    }
    assert!(good > 0);
    pool.probe().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_worker_is_replaced() {
    let (token, key) = token_with_key(Algorithm::Ed25519).await;
    let mut spec = token.spec(vec![key.clone()]);
    spec.token.workers = 1;
    spec.token.call_deadline = Duration::from_millis(500);
    let pool = Pool::start(spec).unwrap();
    ready(&pool).await;
    let pid = pool.worker_pids()[0].unwrap();
    kill_process(Pid::from_raw(pid.try_into().unwrap()).unwrap(), Signal::STOP).unwrap();
    let error = pool.sign(vec![item(key.kid, checkpoint(1, 1))]).await.unwrap_err();
    assert_eq!(error.reason(), Reason::HsmUnavailable);
    assert!(error.detail().contains("HSM_TIMEOUT"), "{error}");
    ready(&pool).await;
    pool.sign(vec![item(key.kid, checkpoint(1, 1))]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_for_a_worker_that_is_away_wait_for_it() {
    let (token, key) = token_with_key(Algorithm::Ed25519).await;
    let pool = token.start(vec![key.clone()]);
    ready(&pool).await;
    kill(pool.worker_pids()[1].unwrap());
    until(&pool, "degraded", |state| matches!(state, PoolState::Degraded { up: 1, .. })).await;
    let ups = pool.counters().workers_up;
    let sign = |size| pool.sign(vec![item(key.kid, checkpoint(size, 1))]);
    sign(2).await.unwrap();
    // Number 3 belongs to the second worker and to no other.
    let signatures = sign(3).await.unwrap();
    assert_eq!(pool.counters().workers_up, ups + 1);
    verify(&key, &checkpoint(3, 1), &signatures[0]);
    // Had the first worker signed it, the second would not know of it.
    let error = pool.sign(vec![item(key.kid, checkpoint(3, 2))]).await;
    assert_eq!(error.unwrap_err().reason(), Reason::PositionConflict);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_backlog_refuses_at_once_and_signs_nothing() {
    let (token, key) = token_with_key(Algorithm::Ed25519).await;
    let mut spec = token.spec(vec![key.clone()]);
    spec.token.workers = 1;
    spec.token.call_deadline = common::PATIENCE;
    let pool = Pool::start(spec).unwrap();
    ready(&pool).await;
    let pid = Pid::from_raw(pool.worker_pids()[0].unwrap().try_into().unwrap()).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    let batch = |from: u64| -> Vec<_> {
        let sizes = from..from + MAX_BATCH_ITEMS as u64;
        sizes.map(|size| item(key.kid, checkpoint(size, 1))).collect()
    };
    // Two of them fill the backlog, whichever come first.
    let mut answers = tokio::task::JoinSet::new();
    for from in [1, 10_000, 20_000] {
        let (pool, batch) = (pool.clone(), batch(from));
        answers.spawn(async move { pool.sign(batch).await });
    }
    let first = answers.join_next().await.unwrap().unwrap();
    let error = first.unwrap_err();
    assert_eq!(error.reason(), Reason::Overloaded);
    assert!(error.retryable());
    assert_eq!(pool.counters().overloaded, 1);
    kill_process(pid, Signal::CONT).unwrap();
    while let Some(answer) = answers.join_next().await {
        assert_eq!(answer.unwrap().unwrap().len(), MAX_BATCH_ITEMS);
    }
    let too_many = (0..=MAX_BATCH_ITEMS as u64).map(|size| item(key.kid, checkpoint(size + 1, 1)));
    let error = pool.sign(too_many.collect()).await.unwrap_err();
    assert_eq!(error.reason(), Reason::TooLarge);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_pending_until_final_and_leave_nothing_when_destroyed() {
    let token = Token::new();
    let pool = token.start(Vec::new());
    ready(&pool).await;
    assert!(pool.list_objects().await.unwrap().is_empty());
    let kept = generate(&pool, "kept", Algorithm::Ed25519).await;
    let left = generate(&pool, "left", Algorithm::EcdsaP256).await;
    for _ in 0..2 {
        pool.finalize_key(&kept.cka_id, INSTANCE, "kept").await.unwrap();
    }
    let error = pool.finalize_key(&kept.cka_id, INSTANCE, "other").await.unwrap_err();
    assert_eq!(error.reason(), Reason::KeyMismatch);
    let labels = |objects: Vec<countersign_hsm::ListedObject>| {
        let mut labels: Vec<_> = objects.into_iter().map(|object| (object.label, object.private)).collect();
        labels.sort();
        labels
    };
    let both = |label: &str| [(label.to_owned(), false), (label.to_owned(), true)];
    assert!(pool.sweep_pending("acme-2").await.unwrap().is_empty());
    assert_eq!(labels(pool.sweep_pending(INSTANCE).await.unwrap()), both("pending:acme-1:left"));
    assert_eq!(labels(pool.list_objects().await.unwrap()), both("countersign:acme-1:kept"));
    let error = pool.bind_keys(vec![binding(&left)]).await.unwrap_err();
    assert_eq!(error.reason(), Reason::KeyMissing);
    pool.bind_keys(vec![binding(&kept)]).await.unwrap();
    pool.unbind_keys(&[kept.kid]).await;
    for _ in 0..2 {
        pool.destroy_key(&kept.cka_id).await.unwrap();
    }
    assert!(pool.list_objects().await.unwrap().is_empty());
    assert!(pool.bind_keys(vec![binding(&kept)]).await.is_err());
    assert_eq!(binding(&kept).trail, Some(trail()));
}
