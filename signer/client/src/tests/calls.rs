use std::time::{Duration, Instant};

use countersign_trail::keys::Kid;
use tonic::{Code, Status};

use super::{events, refusal, refused};
use crate::common::ceremony::{DECISIONS, METRICS};
use crate::testing::server::{Act, Server};
use crate::testing::{full_event, plain_event};
use crate::{AlarmReason, Client, ClientError};

#[tokio::test]
async fn a_retry_never_makes_a_second_record() {
    for trail in [DECISIONS, METRICS] {
        let server = Server::start().await;
        let client = Client::connect(server.config()).await.unwrap();
        server.script([
            Act::LoseConnection,
            Act::Lose(Status::internal("h2 protocol error")),
            Act::Status(refusal(Code::Unavailable, "HSM_UNAVAILABLE", Some(1))),
        ]);
        let receipt = client.sign(trail, full_event("")).await.unwrap();
        assert_eq!(receipt.seq, 1);
        assert_eq!(server.recorded(trail), 1);
        let seen = server.seen();
        assert_eq!(seen.len(), 4);
        assert!(seen.iter().all(|ids| *ids == seen[0]), "{seen:?}");
        assert!(uuid::Uuid::parse_str(&seen[0][0]).unwrap().get_version_num() == 7);
        assert!(server.handshakes().len() >= 2, "the lost connection was made again");
    }
}

#[tokio::test]
async fn a_refusal_that_stays_is_not_repeated() {
    let server = Server::start().await;
    let client = Client::connect(server.config()).await.unwrap();
    server.script([Act::Status(refusal(Code::AlreadyExists, "ALREADY_EXISTS", None))]);
    let error = client.sign(METRICS, plain_event("e-1")).await.unwrap_err();
    assert!(
        matches!(&error, ClientError::Rejected { refusal, attempts: 1, .. } if refusal.code == Code::AlreadyExists),
        "{error}"
    );
    assert_eq!(error.reason(), "ALREADY_EXISTS");
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn the_daemon_says_how_long_to_wait() {
    let server = Server::start().await;
    let client = Client::connect(server.config()).await.unwrap();
    server.script([Act::Status(refusal(Code::ResourceExhausted, "OVERLOADED", Some(120)))]);
    let begun = Instant::now();
    client.sign(METRICS, plain_event("")).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(120));
}

#[tokio::test]
async fn attempts_and_time_are_bounded() {
    let server = Server::start().await;
    let mut config = server.config();
    config.attempts = 3;
    let client = Client::connect(config.clone()).await.unwrap();
    server.script((0..5).map(|_| Act::Status(Status::unavailable("gone"))));
    let error = client.sign(METRICS, plain_event("")).await.unwrap_err();
    assert!(matches!(&error, ClientError::Exhausted { attempts: 3, .. }), "{error}");
    assert_eq!(server.seen().len(), 3);

    let server = Server::start().await;
    config.connection = server.connection.clone();
    config.trust = crate::Trust::Genesis(server.fingerprint);
    config.deadline = Duration::from_millis(400);
    let client = Client::connect(config.clone()).await.unwrap();
    server.script([Act::Stall]);
    let begun = Instant::now();
    let error = client.sign(METRICS, plain_event("")).await.unwrap_err();
    assert!(matches!(error, ClientError::Exhausted { .. }), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(10));

    // A wait that would end after the deadline is not begun.
    server.script([Act::Status(refusal(Code::Unavailable, "HSM_UNAVAILABLE", Some(60_000)))]);
    let error = client.sign(METRICS, plain_event("")).await.unwrap_err();
    assert_eq!(error.reason(), "HSM_UNAVAILABLE");
}

#[tokio::test]
async fn what_is_refused_of_a_batch_is_repeated_by_itself() {
    for trail in [DECISIONS, METRICS] {
        let server = Server::start().await;
        let client = Client::connect(server.config()).await.unwrap();
        server.script([
            Act::Refuse(vec![1, 3], refused("OVERLOADED", 1)),
            Act::Refuse(vec![1], refused("INVALID_LINK", 0)),
        ]);
        let results = client.sign_batch(trail, events(5)).await.unwrap();
        let seqs: Vec<Option<u64>> =
            results.iter().map(|result| result.as_ref().ok().map(|receipt| receipt.seq)).collect();
        assert_eq!(seqs, [Some(1), Some(4), Some(2), None, Some(3)]);
        assert_eq!(results[3].as_ref().unwrap_err().reason(), "INVALID_LINK");
        let seen = server.seen();
        assert_eq!(seen[1], [seen[0][1].clone(), seen[0][3].clone()], "the same event_ids");
    }
}

#[tokio::test]
async fn answers_that_came_are_not_lost_with_the_rest() {
    let server = Server::start().await;
    let mut config = server.config();
    config.attempts = 2;
    let client = Client::connect(config).await.unwrap();
    server.script([Act::Refuse(vec![0], refused("OVERLOADED", 1)), Act::Status(Status::unavailable("gone"))]);
    let results = client.sign_batch(METRICS, events(2)).await.unwrap();
    assert!(matches!(results[0], Err(ClientError::Exhausted { .. })), "{:?}", results[0]);
    assert_eq!(results[1].as_ref().unwrap().seq, 1);
}

#[tokio::test]
async fn an_answer_too_few_keeps_both_sides_and_what_was_answered_before() {
    let server = Server::start().await;
    let client = Client::connect(server.config()).await.unwrap();
    server.script([Act::Refuse(vec![0, 2], refused("OVERLOADED", 1)), Act::Fewer]);
    let results = client.sign_batch(METRICS, events(3)).await.unwrap();
    assert_eq!(results[1].as_ref().unwrap().seq, 1);
    for place in [0, 2] {
        let Err(ClientError::Alarm(alarm)) = &results[place] else { panic!("{:?}", results[place]) };
        assert_eq!(alarm.reason, AlarmReason::Answers);
        let sent: Vec<&str> = alarm.sent.iter().map(|event| event.event_id.as_str()).collect();
        assert_eq!(sent, server.seen()[1]);
        assert_eq!(alarm.answer.answers.len(), 1);
        assert_eq!(alarm.answer.proofs.len(), 1);
    }

    server.script([Act::Fewer]);
    let error = client.sign_batch(METRICS, events(2)).await.unwrap_err();
    assert_eq!(error.reason(), "ANSWERS");
    assert_eq!(error.event_ids(), server.seen()[2]);
    assert!(!error.certainly_not_recorded());
}

#[tokio::test]
async fn an_error_names_the_events_whose_fate_is_open() {
    let server = Server::start().await;
    let mut config = server.config();
    config.attempts = 2;
    let client = Client::connect(config).await.unwrap();
    server.script([Act::Lose(Status::unavailable("gone")), Act::Status(Status::unavailable("gone"))]);
    let error = client.sign(METRICS, plain_event("")).await.unwrap_err();
    assert!(matches!(error, ClientError::Exhausted { .. }), "{error}");
    assert_eq!(error.event_ids(), server.seen()[0]);
    assert!(error.to_string().contains(&server.seen()[0][0]), "{error}");
    let id = error.event_ids()[0].to_owned();
    let receipt = client.sign(METRICS, plain_event(&id)).await.unwrap();
    assert_eq!((receipt.event_id, receipt.seq), (id.clone(), 1));
    assert_eq!(server.recorded(METRICS), 1);
    // A receipt that was kept names it, too.
    let kept = client.newest(METRICS).unwrap().to_json().unwrap();
    let other = Client::connect(server.config()).await.unwrap();
    other.hold(&kept).unwrap();
    assert_eq!(other.newest(METRICS).unwrap().event_id, id);

    // Each result of a batch names its own, an error of the whole batch all of them.
    server.script([
        Act::Refuse(vec![0, 2], refused("OVERLOADED", 1)),
        Act::Status(Status::unavailable("gone")),
        Act::Status(refusal(Code::PermissionDenied, "NOT_GRANTED", None)),
    ]);
    let results = client.sign_batch(METRICS, events(3)).await.unwrap();
    let sent = server.seen()[3].clone();
    for place in [0, 2] {
        assert_eq!(results[place].as_ref().unwrap_err().event_ids(), [&sent[place]]);
    }
    let error = client.sign_batch(METRICS, events(2)).await.unwrap_err();
    assert_eq!(error.event_ids(), server.seen()[5]);
}

#[tokio::test]
async fn only_a_denial_of_the_first_attempt_says_that_nothing_was_recorded() {
    let server = Server::start().await;
    let client = Client::connect(server.config()).await.unwrap();
    let revoked = || Act::Status(refusal(Code::Unauthenticated, "CERTIFICATE_REVOKED", None));
    server.script([revoked()]);
    let error = client.sign(METRICS, plain_event("")).await.unwrap_err();
    assert!(matches!(error, ClientError::Rejected { attempts: 1, .. }), "{error:?}");
    assert!(error.certainly_not_recorded());
    assert_eq!(server.recorded(METRICS), 0);

    server.script([Act::LoseConnection, revoked()]);
    let error = client.sign(METRICS, plain_event("")).await.unwrap_err();
    assert!(matches!(error, ClientError::Rejected { attempts: 2, .. }), "{error:?}");
    assert!(!error.certainly_not_recorded());
    assert_eq!(server.recorded(METRICS), 1);

    // Of outcome "failed", and not the daemon's own words.
    server.script([Act::Status(refusal(Code::Unavailable, "HSM_LATCHED", None)), Act::Status(Status::not_found("?"))]);
    for reason in ["HSM_LATCHED", "TRANSPORT"] {
        let error = client.sign(METRICS, plain_event("")).await.unwrap_err();
        assert_eq!(error.reason(), reason);
        assert!(!error.certainly_not_recorded(), "{error:?}");
    }

    server.script([
        Act::Refuse(vec![0], refused("INVALID_LINK", 0)),
        Act::Lose(Status::unavailable("gone")),
        Act::Refuse(vec![0], refused("INVALID_LINK", 0)),
    ]);
    for certain in [true, false] {
        let results = client.sign_batch(METRICS, events(2)).await.unwrap();
        assert_eq!(results[0].as_ref().unwrap_err().certainly_not_recorded(), certain, "{:?}", results[0]);
    }
    let error = client.sign_batch(METRICS, Vec::new()).await.unwrap_err();
    assert!(error.certainly_not_recorded(), "nothing was sent");
}

#[tokio::test]
async fn requests_carry_the_newest_head() {
    for trail in [DECISIONS, METRICS] {
        let server = Server::start().await;
        let client = Client::connect(server.config()).await.unwrap();
        let receipts = client.sign_batch(trail, events(3)).await.unwrap();
        let newest = receipts[2].as_ref().unwrap();
        client.sign(trail, plain_event("")).await.unwrap();
        let held = server.held();
        assert!(held[0].is_none());
        let held = held[1].as_ref().unwrap();
        assert_eq!((held.seq, &held.leaf_hash[..]), (3, &newest.leaf_hash.as_bytes()[..]));
        assert_eq!(held.record.is_empty(), trail == METRICS);
        assert_eq!(held.checkpoint.is_empty(), trail == DECISIONS);
        assert_eq!(client.newest(trail).unwrap().seq, 4);
    }
}

#[tokio::test]
async fn a_kept_receipt_is_the_head_of_the_next_run() {
    for trail in [DECISIONS, METRICS] {
        let server = Server::start().await;
        let first = Client::connect(server.config()).await.unwrap();
        let receipts = first.sign_batch(trail, events(2)).await.unwrap();
        let kept = receipts[1].as_ref().unwrap().to_json().unwrap();

        let client = Client::connect(server.config()).await.unwrap();
        client.hold(&kept).unwrap();
        assert_eq!(client.newest(trail).unwrap().seq, 2);
        client.sign(trail, plain_event("")).await.unwrap();
        let held = server.held();
        assert_eq!(held[1], held_of(first.newest(trail)), "as the first run would have sent it");

        // Under another key, with another signature, not canonical: nothing is held.
        let mut forged: serde_json::Value = serde_json::from_slice(&kept).unwrap();
        forged["kid"] = serde_json::json!(Kid::from_bytes([1; 32]));
        let foreign = serde_json::to_vec(&forged).unwrap();
        let swapped = receipts[0].as_ref().unwrap().to_json().unwrap();
        let swapped: serde_json::Value = serde_json::from_slice(&swapped).unwrap();
        let mut mixed: serde_json::Value = serde_json::from_slice(&kept).unwrap();
        mixed["record"] = swapped["record"].clone();
        let mixed = serde_json::to_vec(&mixed).unwrap();
        let fresh = Client::connect(server.config()).await.unwrap();
        for bad in [&foreign, &mixed, &kept[1..].to_vec()] {
            let result = fresh.hold(bad);
            assert!(matches!(result, Err(ClientError::Receipt(_))), "{result:?}");
        }
        assert!(fresh.newest(trail).is_none());
    }
}

fn held_of(receipt: Option<crate::Receipt>) -> Option<crate::v1::HeldHead> {
    receipt.as_ref().map(crate::held::held_head)
}

#[tokio::test]
async fn a_lie_raises_the_alarm_and_is_not_repeated() {
    let server = Server::start().await;
    let client = Client::connect(server.config()).await.unwrap();
    server.script([Act::Lie(|draft| draft.event.parts.clear())]);
    let error = client.sign(DECISIONS, full_event("e-1")).await.unwrap_err();
    let ClientError::Alarm(alarm) = error else { panic!("{error}") };
    assert_eq!(alarm.reason, AlarmReason::Part);
    assert_eq!(alarm.sent, [full_event("e-1")]);
    assert_eq!(alarm.answer.answers.len(), 1);
    assert!(alarm.to_string().contains("e-1"), "{alarm}");
    assert_eq!(server.seen().len(), 1);
    assert!(client.newest(DECISIONS).is_none());
}

#[tokio::test]
async fn an_answer_is_taken_up_to_a_bound_for_each_event() {
    let server = Server::start().await;
    let client = Client::connect(server.config()).await.unwrap();
    server.script([Act::Swell(50 << 10), Act::Swell(96 << 10), Act::Swell(96 << 10)]);
    assert_eq!(client.sign(METRICS, plain_event("")).await.unwrap_err().reason(), "SALT", "it was read");
    let error = client.sign(METRICS, plain_event("")).await.unwrap_err();
    assert!(matches!(&error, ClientError::Rejected { refusal, .. } if refusal.code == Code::OutOfRange), "{error}");
    assert!(!error.certainly_not_recorded());
    let results = client.sign_batch(METRICS, events(2)).await.unwrap();
    assert_eq!(results[0].as_ref().unwrap_err().reason(), "SALT");
}

#[tokio::test]
async fn what_breaks_a_bound_is_not_sent() {
    let server = Server::start().await;
    let client = Client::connect(server.config()).await.unwrap();
    let mut broken = events(2);
    broken[1].r#type = "countersign.x".to_owned();
    let error = client.sign_batch(METRICS, broken).await.unwrap_err();
    assert!(matches!(error, ClientError::Event { index: 1, .. }), "{error}");
    assert_eq!(error.reason(), "RESERVED_TYPE");
    assert!(matches!(client.sign_batch(METRICS, Vec::new()).await, Err(ClientError::BatchSize(0))));
    assert!(matches!(client.sign_batch(METRICS, events(4_097)).await, Err(ClientError::BatchSize(4_097))));
    assert!(matches!(client.sign("a.b/c", plain_event("")).await, Err(ClientError::UnknownTrail(_))));
    assert!(server.seen().is_empty());
}
