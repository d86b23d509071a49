//! Calls over gRPC whose answers the client library does not show as they are: repeats, streams that are
//! not read, and what an auditor asks.
#![cfg(test)]

mod support;
mod trouble;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use countersign_client::v1::audit_service_client::AuditServiceClient;
use countersign_client::v1::signing_service_client::SigningServiceClient;
use countersign_client::v1::{self, answer::Outcome};
use countersign_stage::stage::DOMAIN;
use countersign_stage::{Daemon, Options};
use countersign_trail::time::Timestamp;
use rustix::process::{Pid, Signal, kill_process};
use support::grpc::{connected, event};
use support::{done, events, export, says, sealed, sign, sizes, verify};
use tokio::task::JoinSet;
use tokio_stream::StreamExt;
use trouble::{wait_for, workers};

/// Calls with one event at the same time.
const TOGETHER: usize = 16;

#[tokio::test]
async fn an_event_that_is_twice_in_a_batch_has_one_answer() {
    let (_folder, stage) = sealed(Options::default());
    let _daemon = stage.start().unwrap();
    let gateway = connected(&stage, "gateway-1").await;
    for trail in stage.options.trails.iter().map(|trail| trail.origin.clone()) {
        let next = sizes(&stage)[&trail];
        let other = v1::Event { decision: v1::Decision::Block.into(), ..event("e") };
        let request = v1::SignBatchRequest {
            trail: trail.clone(),
            events: vec![event("e"), event("f"), event("e"), other],
            held: None,
        };
        // The second time none is new.
        for _ in 0..2 {
            let mut client = SigningServiceClient::new(gateway.clone());
            let answers = client.sign_batch(request.clone()).await.unwrap().into_inner().answers;
            let outcomes: Vec<Outcome> = answers.into_iter().map(|answer| answer.outcome.unwrap()).collect();
            let [Outcome::Signed(e), Outcome::Signed(f), Outcome::Signed(again), Outcome::Refused(other)] =
                &outcomes[..]
            else {
                panic!("{outcomes:?}")
            };
            assert_eq!((e.seq, f.seq, other.reason.as_str()), (next, next + 1, "ALREADY_EXISTS"));
            assert_eq!(e, again);
            assert_eq!(sizes(&stage)[&trail], next + 2);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_event_in_many_calls_at_once_has_one_answer() {
    let (_folder, stage) = sealed(Options::default());
    let _daemon = stage.start().unwrap();
    let gateway = connected(&stage, "gateway-1").await;
    for trail in stage.options.trails.iter().map(|trail| trail.origin.clone()) {
        let next = sizes(&stage)[&trail];
        for round in 0..8 {
            let mut calls = JoinSet::new();
            for _ in 0..TOGETHER {
                let mut client = SigningServiceClient::new(gateway.clone());
                let event = Some(event(&format!("together-{round}")));
                let request = v1::SignRequest { trail: trail.clone(), event, held: None };
                calls.spawn(async move { client.sign(request).await.unwrap().into_inner() });
            }
            let answers = calls.join_all().await;
            assert_eq!(answers[0].signed.as_ref().unwrap().seq, next + round);
            assert!(answers.iter().all(|answer| answer == &answers[0]), "{trail}: {answers:?}");
        }
        assert_eq!(sizes(&stage)[&trail], next + 8);
    }
}

/// Request messages of one stream that may wait for their answers (docs: SignStream).
const WINDOW: u64 = 64;
/// Messages of the test's stream: three windows.
const MESSAGES: u64 = 3 * WINDOW;
/// Content of each message: what HTTP/2 itself holds on the way, some MiB, is few of them.
const CONTENT: usize = 256 << 10;
/// Messages in HTTP/2's windows and buffers, with room.
const ON_THE_WAY: u64 = WINDOW / 2;
/// The longest that a worker may be stopped without being replaced.
const NOT_HUNG: &str = "call_deadline_ms = 120000";

/// A value of /metrics.
fn metric(daemon: &Daemon, name: &str) -> u64 {
    let text = daemon.metrics().unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.map_or(0, |value| value.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_taken_no_further_than_its_window() {
    let (_folder, stage) = sealed(Options { token_lines: NOT_HUNG.to_owned(), ..Options::default() });
    let daemon = stage.start().unwrap();
    let gateway = connected(&stage, "gateway-1").await;
    let stopped = |signal| {
        for pid in workers(&daemon) {
            kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
        }
    };
    for trail in stage.options.trails.iter().map(|trail| trail.origin.clone()) {
        let content = v1::Content {
            media_type: "text/plain".to_owned(),
            body: Some(v1::content::Body::Data(vec![b'x'; CONTENT].into())),
            ..v1::Content::default()
        };
        let message = {
            let trail = trail.clone();
            move |n| v1::SignBatchRequest {
                trail: trail.clone(),
                events: vec![v1::Event { request: Some(content.clone()), ..event(&format!("stream-{n}")) }],
                held: None,
            }
        };
        let pulled = Arc::new(AtomicU64::new(0));
        let counted = pulled.clone();
        let requests = tokio_stream::iter(0..MESSAGES).map(move |n| {
            counted.fetch_add(1, Ordering::SeqCst);
            message(n)
        });
        let offered = || metric(&daemon, "countersign_offered_total{client=\"gateway-1\"}");
        let before = offered();

        // No signature comes, so no answer does.
        stopped(Signal::STOP);
        let mut client = SigningServiceClient::new(gateway.clone()).max_decoding_message_size(8 << 20);
        let mut answers = client.sign_stream(requests).await.unwrap().into_inner();
        let reading = tokio::spawn(async move {
            let mut seqs = Vec::new();
            while let Some(answer) = answers.message().await.unwrap() {
                match answer.answers[0].outcome.as_ref().unwrap() {
                    Outcome::Signed(signed) => seqs.push(signed.seq),
                    Outcome::Refused(refused) => panic!("{refused:?}"),
                }
            }
            seqs
        });
        wait_for("a full window", || offered() - before >= WINDOW);
        // The bound holds for as long as one looks: several times as long as the gauge takes to follow.
        let mut looks = 0;
        wait_for("the last look", || {
            let (in_flight, taken) = (metric(&daemon, "countersign_in_flight_records"), offered() - before);
            assert!(in_flight <= WINDOW && taken <= WINDOW, "{trail}: {in_flight} in flight of {taken} taken");
            assert!(pulled.load(Ordering::SeqCst) <= WINDOW + ON_THE_WAY, "{trail}: {pulled:?} messages were sent");
            looks += 1;
            looks == 100
        });
        assert!(!reading.is_finished(), "an answer came without a signature");
        stopped(Signal::CONT);
        let seqs = reading.await.unwrap();
        assert_eq!(seqs.len() as u64, MESSAGES);
        assert!(seqs.is_sorted() && pulled.load(Ordering::SeqCst) == MESSAGES);
    }
    daemon.stop().unwrap();
}

#[test]
fn a_head_that_has_grown_continues_the_one_that_was_seen() {
    let (_folder, stage) = sealed(Options::default());
    let _daemon = stage.start().unwrap();
    for trail in &stage.options.trails {
        let head = || done(&mut stage.countersign("auditor-1", &["head", &trail.origin]));
        // Over more than one tile's worth in between, and over few.
        for (from, to, said) in [(0, 3, "first head"), (3, 300, "consistency proven"), (300, 301, "consistency proven")]
        {
            sign(&stage, &trail.origin, &events(&stage, from, to), "receipts.jsonl");
            let text = head();
            says(&text, &[said]);
            // Record 0 is the genesis's.
            let size = text.lines().find_map(|line| line.strip_prefix("Size")).unwrap();
            assert_eq!(size.trim(), (to + 1).to_string());
            says(&head(), &["the same as the last one seen"]);
        }
    }
}

#[test]
fn content_that_is_withheld_is_not_in_the_evidence_and_takes_nothing_from_it() {
    let (_folder, stage) = sealed(Options::default());
    let _daemon = stage.start().unwrap();
    let sample = events(&stage, 0, 40);
    for trail in &stage.options.trails {
        sign(&stage, &trail.origin, &sample, "receipts.jsonl");
    }
    let trail = stage.options.trails[0].origin.clone();
    let withheld = stage.folder.join("withheld.zip");
    done(stage.countersign("auditor-1", &["export", "--withhold", "request", "--out"]).arg(&withheld));
    let whole = export(&stage, "whole.zip");
    let figures = |evidence| {
        let (code, line, report) = verify(&stage, evidence, &[]);
        assert_eq!(code, 0, "{line}\n{report:#}");
        let rows = report["trails"].as_array().unwrap().iter();
        let parts = |row: &serde_json::Value| {
            let count = |name: &str| row[name].as_str().unwrap().parse::<u64>().unwrap();
            (row["origin"].as_str().unwrap().to_owned(), (count("parts_given"), count("parts_withheld")))
        };
        rows.map(parts).collect::<std::collections::BTreeMap<_, _>>()
    };
    let (some, all) = (figures(&withheld), figures(&whole));
    for trail in &stage.options.trails {
        let ((given, left_out), (total, none)) = (some[&trail.origin], all[&trail.origin]);
        assert!(left_out > 0 && none == 0 && given + left_out == total, "{some:?} {all:?}");
    }
    let text =
        done(stage.binaries.command("countersign-verify").arg(&withheld).args(["--genesis", &stage.fingerprint]));
    says(&text, &["VALID", &format!("{} parts given, {} withheld", some[&trail].0, some[&trail].1)]);

    // One trail alone is incomplete beside the admin trail, which names a head of the other.
    let one = stage.folder.join("one.zip");
    done(stage.countersign("auditor-1", &["export", "--trail", &trail, "--withhold", "request", "--out"]).arg(&one));
    let (code, line, report) = verify(&stage, &one, &[]);
    assert!(code == 20 && line.starts_with("INCOMPLETE"), "{code} {line}");
    let checks = report["checks"].as_array().unwrap().iter();
    let open: Vec<_> = checks.filter(|check| check["verdict"] == "not-checked").map(|check| &check["trail"]).collect();
    let other = &stage.options.trails[1].origin;
    assert!(!open.is_empty() && open.iter().all(|trail| *trail == other), "{open:?}");
}

#[tokio::test]
async fn keys_are_listed_by_place_and_by_time() {
    let (_folder, stage) = sealed(Options::default());
    let _daemon = stage.start().unwrap();
    let mut auditor = AuditServiceClient::new(connected(&stage, "auditor-1").await);
    let mut list = async |request: v1::ListKeysRequest| auditor.list_keys(request).await.unwrap().into_inner().keys;
    let all = list(v1::ListKeysRequest::default()).await;
    let from: Timestamp = all[0].from_time.parse().unwrap();
    let at = |micros: i64| v1::ListKeysRequest {
        at_time: Timestamp::from_micros(from.as_micros() + micros).unwrap().to_string(),
        ..v1::ListKeysRequest::default()
    };
    // All came into force with the genesis, and none before.
    assert_eq!(list(at(0)).await, all);
    assert_eq!(list(at(1)).await, all);
    assert_eq!(list(at(-1)).await, []);
    let admin = format!("{DOMAIN}/admin");
    for trail in stage.options.trails.iter().map(|trail| &trail.origin).chain([&admin]) {
        let of_trail: Vec<v1::Key> = all.iter().filter(|key| &key.trail == trail).cloned().collect();
        assert!(!of_trail.is_empty());
        for at_seq in [0, 1, 1_000_000] {
            let request =
                v1::ListKeysRequest { trail: trail.clone(), at_seq: Some(at_seq), ..v1::ListKeysRequest::default() };
            assert_eq!(list(request.clone()).await, of_trail, "{trail} at {at_seq}");
            assert_eq!(list(v1::ListKeysRequest { at_time: at(-1).at_time, ..request }).await, []);
        }
    }
}
