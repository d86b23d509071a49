//! What callers can make the daemon hold: messages that have not come whole, messages that are larger
//! decoded than on the wire, answers that nobody reads. Each is bounded, and hurts its sender alone.
#![cfg(test)]

mod support;

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use countersign_client::v1;
use countersign_client::v1::signing_service_client::SigningServiceClient;
use countersign_stage::{Daemon, Options, Stage};
use http_body::Frame;
use support::grpc::{connected, event, reason, sign_event};
use support::{sealed, sizes};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::GrpcService;
use tonic::codegen::http::Request as HttpRequest;
use tonic::transport::Channel;
use tonic::{Code, Status};

/// How long a condition may take to come about on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);
const SIGN_BATCH: &str = "/countersign.v1.SigningService/SignBatch";
/// Length of a large message, within the bound of 8 MiB.
const LARGE: usize = 0x7f_0000;

fn running(limits: &str) -> (tempfile::TempDir, Stage, Daemon) {
    let configuration = format!("[limits]\n{limits}\n");
    let (folder, stage) = sealed(Options { workers: 1, configuration, ..Options::default() });
    let daemon = stage.start().unwrap();
    (folder, stage, daemon)
}

/// The most memory that the daemon ever had, in bytes.
fn peak(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// A request's body: what it says, then its end, or nothing more for ever.
struct Said {
    data: Option<Bytes>,
    ends: bool,
}

impl http_body::Body for Said {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match self.data.take() {
            Some(data) => Poll::Ready(Some(Ok(Frame::data(data)))),
            None if self.ends => Poll::Ready(None),
            None => Poll::Pending,
        }
    }
}

/// A message's prefix, and the message as far as it is given.
fn message(declared: usize, given: &[u8]) -> Bytes {
    [&[0][..], &u32::try_from(declared).unwrap().to_be_bytes(), given].concat().into()
}

/// Sends a body to SignBatch; the status that comes back with the head.
async fn say(channel: &Channel, data: Bytes, ends: bool) -> Status {
    let mut channel = channel.clone();
    poll_fn(|context| GrpcService::<tonic::body::Body>::poll_ready(&mut channel, context)).await.unwrap();
    let request = HttpRequest::post(SIGN_BATCH).header("content-type", "application/grpc").header("te", "trailers");
    let body = tonic::body::Body::new(Said { data: Some(data), ends });
    let answer = channel.call(request.body(body).unwrap()).await.unwrap();
    Status::from_header_map(answer.headers()).unwrap()
}

#[tokio::test]
async fn a_message_is_not_decoded_into_many_times_its_length() {
    let (_folder, stage, daemon) = running("");
    let gateway = connected(&stage, "gateway-1").await;
    sign_event(&gateway, &stage.options.trails[0].origin, event("first")).await.unwrap();
    let (before, signed) = (peak(&daemon), sizes(&stage));
    // Events without a field: 2 bytes each, 2 KB decoded.
    let events = message(LARGE, &[0x12, 0].repeat(LARGE / 2));
    let status = say(&gateway, events.clone(), true).await;
    assert_eq!((status.code(), reason(&status).as_str()), (Code::OutOfRange, "MESSAGE_TOO_LARGE"), "{status:?}");
    // Who may not sign is refused before the message is there.
    let operator = connected(&stage, "operator-1").await;
    let status = say(&operator, events.slice(..1000), false).await;
    assert_eq!((status.code(), reason(&status).as_str()), (Code::PermissionDenied, "ROLE_FORBIDS"), "{status:?}");
    let grown = peak(&daemon) - before;
    assert!(grown < 64 << 20, "{grown} bytes for a message of {LARGE}");
    assert_eq!(sizes(&stage), signed);
}

#[tokio::test]
async fn messages_that_do_not_come_whole_fill_their_senders_share_alone() {
    // A share of 64 MiB has room for eight messages of 8 MiB.
    let (_folder, stage, _daemon) = running("inflight_bytes = 134217728");
    let trail = stage.options.trails[0].origin.as_str();
    let (gateway, other) = (connected(&stage, "gateway-1").await, connected(&stage, "gateway-2").await);
    let mut begun = tokio::task::JoinSet::new();
    for _ in 0..9 {
        let gateway = gateway.clone();
        begun.spawn(async move { say(&gateway, message(LARGE, b"and then nothing"), false).await });
    }
    // One of them is refused, whichever came last; the others wait for what they announced.
    let refused = tokio::time::timeout(LIMIT, begun.join_next()).await.unwrap().unwrap().unwrap();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::ResourceExhausted, "OVERLOADED"), "{refused:?}");
    assert!(begun.try_join_next().is_none());
    // Small messages have room, of this gateway and of others.
    sign_event(&gateway, trail, event("small")).await.unwrap();
    let again = say(&gateway, message(LARGE, b"one more"), false).await;
    assert_eq!(reason(&again), "OVERLOADED");
    sign_event(&other, trail, event("of-another")).await.unwrap();
    let large = tokio::spawn(async move { say(&other, message(LARGE, b"of another"), false).await });
    // What is given up is given back.
    begun.shutdown().await;
    let whole = message(LARGE, &[0x12, 0].repeat(LARGE / 2));
    let until = Instant::now() + LIMIT;
    while reason(&say(&gateway, whole.clone(), true).await) != "MESSAGE_TOO_LARGE" {
        assert!(Instant::now() < until, "the share is not given back");
    }
    assert!(!large.is_finished(), "another gateway's message was refused");
    large.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_nobody_reads_stay_in_flight() {
    let (_folder, stage, daemon) = running("batch_records = 64\ninflight_records = 16384");
    let trail = stage.options.trails[0].origin.clone();
    let before = sizes(&stage)[&trail];
    let gateway = connected(&stage, "gateway-1").await;
    // Some 16 MB of answers, of which HTTP/2 takes a few without anybody asking. Then they fill the stream's
    // window of 64 messages, and the daemon reads no more of it.
    const MESSAGES: u64 = 400;
    const WAITING: u64 = 64 * 60;
    let batch = {
        let trail = trail.clone();
        move |n: u64| {
            let events = (0..64).map(|at| event(&format!("unread-{n}-{at}"))).collect();
            v1::SignBatchRequest { trail: trail.clone(), events, held: None }
        }
    };
    let (open, opened) = tokio::sync::mpsc::channel(1);
    let requests = tokio_stream::iter(0..MESSAGES).map(batch).chain(ReceiverStream::new(opened));
    let unread = SigningServiceClient::new(gateway.clone()).sign_stream(requests).await.unwrap();
    let in_flight = || {
        let metrics = daemon.metrics().unwrap();
        let line = metrics.lines().find(|line| line.starts_with("countersign_in_flight_records ")).unwrap();
        line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()
    };
    let until = Instant::now() + LIMIT;
    // What was sequenced before another's event is signed when that is. The stream stands still when it is full
    // and nothing of it came between.
    let other = connected(&stage, "gateway-2").await;
    for n in 0.. {
        assert!(Instant::now() < until, "{} in flight of a stream that goes on", in_flight());
        let size = sizes(&stage)[&trail];
        sign_event(&other, &trail, event(&format!("of-another-{n}"))).await.unwrap();
        if sizes(&stage)[&trail] == size + 1 && in_flight() >= WAITING {
            break;
        }
    }
    assert!(sizes(&stage)[&trail] < before + 64 * MESSAGES);
    drop((open, unread));
    while in_flight() > 0 {
        assert!(Instant::now() < until, "the share is not given back");
    }
    sign_event(&gateway, &trail, event("after")).await.unwrap();
}
