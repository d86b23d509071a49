use std::time::Duration;

use tonic::{Code, Status};

use super::{events, refusal, refused};
use crate::common::ceremony::{DECISIONS, METRICS};
use crate::testing::plain_event;
use crate::testing::server::{Act, Server};
use crate::{AlarmReason, Client, ClientError, SignReceiver};

/// Every result of a stream, in order.
async fn drain(receiver: &mut SignReceiver) -> Vec<Result<u64, ClientError>> {
    let mut seqs = Vec::new();
    while let Some(results) = receiver.recv().await.unwrap() {
        seqs.extend(results.into_iter().map(|result| result.map(|receipt| receipt.seq)));
    }
    seqs
}

fn seqs(results: Vec<Result<u64, ClientError>>) -> Vec<u64> {
    results.into_iter().map(Result::unwrap).collect()
}

#[tokio::test]
async fn answers_come_in_order_and_the_window_holds() {
    for trail in [DECISIONS, METRICS] {
        let server = Server::start().await;
        let mut config = server.config();
        config.stream_window = 3;
        let client = Client::connect(config).await.unwrap();
        let (mut sender, mut receiver) = client.sign_stream(trail).unwrap();
        for _ in 0..3 {
            sender.send(events(4)).await.unwrap();
        }
        // Nobody receives: the fourth waits.
        tokio::select! {
            biased;
            _ = sender.send(events(4)) => panic!("beyond the window"),
            () = std::future::ready(()) => {}
        }
        let sending = tokio::spawn(async move {
            for _ in 0..20 {
                sender.send(events(4)).await.unwrap();
            }
        });
        assert_eq!(seqs(drain(&mut receiver).await), (1..=92).collect::<Vec<u64>>());
        sending.await.unwrap();
        assert_eq!(server.recorded(trail), 92);
        assert_eq!(server.handshakes().len(), 1);
    }
}

#[tokio::test]
async fn a_broken_stream_goes_on_with_the_same_event_ids() {
    for trail in [DECISIONS, METRICS] {
        let server = Server::start().await;
        let client = Client::connect(server.config()).await.unwrap();
        server.script([
            Act::LoseConnection,
            Act::Lose(Status::unavailable("gone")),
            Act::Status(refusal(Code::Unavailable, "DRAINING", Some(1))),
            Act::End,
        ]);
        let (mut sender, mut receiver) = client.sign_stream(trail).unwrap();
        for count in 1..=5 {
            sender.send(events(count)).await.unwrap();
        }
        drop(sender);
        assert_eq!(seqs(drain(&mut receiver).await), (1..=15).collect::<Vec<u64>>());
        assert_eq!(server.recorded(trail), 15, "nothing is there twice");
        assert!(server.script_is_done());
        let mut messages = server.seen();
        messages.sort();
        messages.dedup();
        assert_eq!(messages.len(), 5, "every repeat had the ids of its message");
    }
}

#[tokio::test]
async fn an_idle_stream_may_be_ended_and_goes_on() {
    let server = Server::start().await;
    let client = Client::connect(server.config()).await.unwrap();
    let (mut sender, mut receiver) = client.sign_stream(METRICS).unwrap();
    for seq in 1..=3 {
        sender.send(vec![plain_event("")]).await.unwrap();
        let results = receiver.recv().await.unwrap().unwrap();
        assert_eq!(results[0].as_ref().unwrap().seq, seq);
        server.cut();
    }
    drop(sender);
    assert!(receiver.recv().await.unwrap().is_none());
}

#[tokio::test]
async fn refused_events_of_a_stream_are_repeated_in_their_place() {
    let server = Server::start().await;
    let client = Client::connect(server.config()).await.unwrap();
    server.script([Act::Refuse(vec![0], refused("OVERLOADED", 1)), Act::Refuse(vec![1], refused("INVALID_LINK", 0))]);
    let (mut sender, mut receiver) = client.sign_stream(METRICS).unwrap();
    sender.send(events(2)).await.unwrap();
    sender.send(events(2)).await.unwrap();
    drop(sender);
    let results = drain(&mut receiver).await;
    let reasons: Vec<Option<&str>> =
        results.iter().map(|result| result.as_ref().err().map(ClientError::reason)).collect();
    assert_eq!(reasons, [None, None, None, Some("INVALID_LINK")]);
    assert_eq!(server.recorded(METRICS), 3);
}

#[tokio::test]
async fn a_stream_that_cannot_go_on_says_for_which_events() {
    let server = Server::start().await;
    let client = Client::connect(server.config()).await.unwrap();
    server.script([Act::Status(refusal(Code::PermissionDenied, "NOT_GRANTED", None))]);
    let (mut sender, mut receiver) = client.sign_stream(METRICS).unwrap();
    sender.send(vec![plain_event("e-1")]).await.unwrap();
    let error = receiver.recv().await.unwrap_err();
    assert_eq!(error.reason(), "NOT_GRANTED");
    assert_eq!(receiver.unanswered()[0][0].event_id, "e-1");
    assert!(matches!(sender.send(events(1)).await, Err(ClientError::StreamEnded)));
    let error = receiver.recv().await.unwrap_err();
    assert!(matches!(error, ClientError::StreamEnded) && !error.certainly_not_recorded(), "{error}");
}

#[tokio::test]
async fn a_refused_stream_says_nothing_of_the_messages_behind() {
    for (messages, certain) in [(1, true), (2, false)] {
        let server = Server::start().await;
        let client = Client::connect(server.config()).await.unwrap();
        server.script([Act::Status(refusal(Code::ResourceExhausted, "RATE_LIMITED", None))]);
        let (mut sender, mut receiver) = client.sign_stream(METRICS).unwrap();
        for _ in 0..messages {
            sender.send(events(2)).await.unwrap();
        }
        let error = receiver.recv().await.unwrap_err();
        assert_eq!(error.certainly_not_recorded(), certain, "{error:?}");
        let unanswered = receiver.unanswered();
        let ids: Vec<&str> = unanswered.iter().flatten().map(|event| event.event_id.as_str()).collect();
        assert_eq!(error.event_ids(), ids);
        assert_eq!(ids.len(), 2 * messages);
    }
}

#[tokio::test]
async fn an_answer_too_few_leaves_its_message_unanswered() {
    let server = Server::start().await;
    let client = Client::connect(server.config()).await.unwrap();
    server.script([Act::Fewer]);
    let (mut sender, mut receiver) = client.sign_stream(METRICS).unwrap();
    sender.send(vec![plain_event("e-1"), plain_event("e-2")]).await.unwrap();
    sender.send(vec![plain_event("e-3")]).await.unwrap();
    let error = receiver.recv().await.unwrap_err();
    let ClientError::Alarm(alarm) = &error else { panic!("{error}") };
    assert_eq!((alarm.reason, alarm.answer.answers.len()), (AlarmReason::Answers, 1));
    assert_eq!(error.event_ids(), ["e-1", "e-2"]);
    assert_eq!(receiver.unanswered(), [alarm.sent.clone(), vec![plain_event("e-3")]]);
}

#[tokio::test]
async fn a_stream_without_answers_is_given_up() {
    let server = Server::start().await;
    let mut config = server.config();
    config.deadline = Duration::from_millis(300);
    let client = Client::connect(config).await.unwrap();
    server.script((0..20).map(|_| Act::Stall));
    let (mut sender, mut receiver) = client.sign_stream(METRICS).unwrap();
    sender.send(events(1)).await.unwrap();
    let error = receiver.recv().await.unwrap_err();
    assert!(matches!(error, ClientError::Exhausted { .. }), "{error}");
}

#[tokio::test]
async fn a_lie_in_a_stream_raises_the_alarm_for_its_event() {
    let server = Server::start().await;
    let client = Client::connect(server.config()).await.unwrap();
    let (mut sender, mut receiver) = client.sign_stream(METRICS).unwrap();
    server.script([Act::Lie(|draft| draft.header.seq += 7)]);
    sender.send(events(1)).await.unwrap();
    sender.send(events(1)).await.unwrap();
    let results = receiver.recv().await.unwrap().unwrap();
    assert_eq!(results[0].as_ref().unwrap_err().reason(), "SEQ");
    drop((sender, receiver));
}

#[tokio::test]
async fn streams_carry_the_head_now_and_then() {
    let server = Server::start().await;
    let client = Client::connect(server.config()).await.unwrap();
    client.sign(METRICS, plain_event("")).await.unwrap();
    let (mut sender, mut receiver) = client.sign_stream(METRICS).unwrap();
    for _ in 0..4 {
        sender.send(events(1)).await.unwrap();
    }
    drop(sender);
    assert_eq!(drain(&mut receiver).await.len(), 4);
    let held = server.held();
    assert_eq!(held[1].as_ref().unwrap().seq, 1);
    assert!(held[2..].iter().all(Option::is_none), "once a second at most");
}
