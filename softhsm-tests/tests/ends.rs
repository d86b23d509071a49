//! How signing calls end that do not end as their caller hoped: given up, out of time, refused, beyond a
//! limit. Each event that was offered is counted once for its end.
#![cfg(test)]

mod support;
mod trouble;

use std::fs::{self, File};
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use countersign_client::v1;
use countersign_client::v1::audit_service_client::AuditServiceClient;
use countersign_client::v1::signing_service_client::SigningServiceClient;
use countersign_faulty_transcript::{Action, Function, Rule, Which, calls, write_control};
use countersign_stage::stage::DOMAIN;
use countersign_stage::{Options, Stage};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use support::grpc::{connected, event, expect, reason, sign_event};
use support::tls::client;
use support::{sealed, sizes};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::codegen::http::Uri;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;
use trouble::{PATIENCE, Scene};

/// A slow token's signature.
const SLOW: Duration = Duration::from_secs(1);
/// How long a caller waits that does not wait for a slow token.
const HURRY: Duration = Duration::from_millis(300);

/// Events of a member by how they ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counts {
    offered: u64,
    signed: u64,
    denied: u64,
    failed: u64,
}

impl Counts {
    fn in_flight(self) -> u64 {
        self.offered - self.signed - self.denied - self.failed
    }
}

/// What an operator is told of a member.
async fn counts(stage: &Stage, member: &str) -> Counts {
    let mut audit = AuditServiceClient::new(connected(stage, "operator-1").await);
    let status = audit.get_status(v1::GetStatusRequest {}).await.unwrap().into_inner();
    let one = status.clients.into_iter().find(|one| one.client == member).unwrap();
    Counts { offered: one.offered, signed: one.signed, denied: one.denied, failed: one.failed }
}

/// Waits until a member's counts are as `wanted`, and gives them.
async fn counted(stage: &Stage, member: &str, wanted: impl Fn(Counts) -> bool) -> Counts {
    let begun = Instant::now();
    loop {
        let now = counts(stage, member).await;
        if wanted(now) {
            return now;
        }
        assert!(begun.elapsed() < PATIENCE, "still {now:?}");
    }
}

/// Lets every signature of both tokens take so long.
fn slow(scene: &Scene, latency: Option<Duration>) {
    let rule = |latency| Rule::new(Function::C_Sign, Which::Every, Action::Latency(latency));
    write_control(&scene.shared, &latency.map(rule).into_iter().collect::<Vec<_>>()).unwrap();
}

fn batch(trail: &str, name: &str, events: usize) -> v1::SignBatchRequest {
    let events = (0..events).map(|n| event(&format!("{name}-{n}"))).collect();
    v1::SignBatchRequest { trail: trail.to_owned(), events, held: None }
}

fn one(trail: &str, name: &str) -> v1::SignRequest {
    v1::SignRequest { trail: trail.to_owned(), event: Some(event(name)), held: None }
}

/// Appends tables to a stage's configuration before its daemon starts.
fn configure(stage: &Stage, tables: &str) {
    let mut file = File::options().append(true).open(stage.folder.join("countersignd.toml")).unwrap();
    file.write_all(tables.as_bytes()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_given_up_is_counted_to_its_end() {
    let scene = Scene::set();
    let daemon = scene.stage.start().unwrap();
    let gateway = connected(&scene.stage, "gateway-1").await;
    let mut offered = 0;
    for trail in scene.trails() {
        let before = sizes(&scene.stage)[&trail];
        slow(&scene, Some(SLOW));
        let mut service = SigningServiceClient::new(gateway.clone());
        tokio::select! {
            answer = service.sign(one(&trail, "single")) => panic!("{answer:?}: the token is slow"),
            _ = counted(&scene.stage, "gateway-1", |now| now.offered == offered + 1) => {}
        }
        tokio::select! {
            answer = service.sign_batch(batch(&trail, "of-a-batch", 3)) => panic!("{answer:?}: the token is slow"),
            _ = counted(&scene.stage, "gateway-1", |now| now.offered == offered + 4) => {}
        }
        slow(&scene, None);
        offered += 4;
        // Nobody waits for them, and they are signed and counted.
        let ended = counted(&scene.stage, "gateway-1", |now| now.in_flight() == 0).await;
        assert_eq!(ended, Counts { offered, signed: offered, denied: 0, failed: 0 });
        assert_eq!(sizes(&scene.stage)[&trail], before + 4);
    }
    daemon.stop().unwrap();
}

/// A member's calls over HTTP/2 that wait for the daemon's own answer, however late it is.
async fn unhurried(stage: &Stage, member: &str) -> SigningServiceClient<UnhurriedService> {
    let tcp = TcpStream::connect(("127.0.0.1", stage.port)).await.unwrap();
    let tls = TlsConnector::from(Arc::new(client(stage, Some(member), b"h2")));
    let tls = tls.connect("localhost".try_into().unwrap(), tcp).await.unwrap();
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(tls)).await.unwrap();
    tokio::spawn(connection);
    SigningServiceClient::with_origin(UnhurriedService(sender), Uri::from_static("https://localhost"))
}

#[derive(Clone)]
struct UnhurriedService(http2::SendRequest<tonic::body::Body>);

impl tower::Service<hyper::Request<tonic::body::Body>> for UnhurriedService {
    type Response = hyper::Response<hyper::body::Incoming>;
    type Error = hyper::Error;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Self::Response, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: hyper::Request<tonic::body::Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

/// Asserts that the answer is a refusal that says when to repeat, and how.
fn assert_late<T: std::fmt::Debug>(answer: Result<T, Status>) {
    let status = answer.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::DeadlineExceeded, "DEADLINE_EXCEEDED"), "{status:?}");
    assert_eq!(status.get_details_retry_info().unwrap().retry_delay, Some(Duration::from_millis(100)));
    assert!(status.message().contains("event ids"), "{status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_that_passes_is_answered_with_its_reason() {
    let scene = Scene::set();
    let daemon = scene.stage.start().unwrap();
    let mut service = unhurried(&scene.stage, "gateway-1").await;
    let in_time = |message| {
        let mut request = Request::new(message);
        request.set_timeout(HURRY);
        request
    };
    let mut rounds = 0;
    for trail in scene.trails() {
        let before = sizes(&scene.stage)[&trail];
        slow(&scene, Some(SLOW));
        let begun = Instant::now();
        assert_late(service.sign_batch(in_time(batch(&trail, "late", 3))).await);
        let freed = begun.elapsed();
        assert!(freed >= HURRY && freed < SLOW, "freed after {freed:?}");
        let mut single = Request::new(one(&trail, "late-0"));
        single.set_timeout(HURRY);
        assert_late(service.sign(single).await);
        // No caller's time is too short for a reason.
        let mut none = Request::new(one(&trail, "late-0"));
        none.set_timeout(Duration::from_nanos(1));
        assert_late(service.sign(none).await);
        slow(&scene, None);
        // The repeat has the records of the first attempt.
        let answers = service.sign_batch(batch(&trail, "late", 3)).await.unwrap().into_inner().answers;
        let seqs = answers.into_iter().map(|answer| match answer.outcome.unwrap() {
            v1::answer::Outcome::Signed(signed) => signed.seq,
            v1::answer::Outcome::Refused(refused) => panic!("{refused:?}"),
        });
        assert_eq!(seqs.collect::<Vec<_>>(), [before, before + 1, before + 2]);
        assert_eq!(sizes(&scene.stage)[&trail], before + 3);
        rounds += 1;
        let ended = counted(&scene.stage, "gateway-1", |now| now.in_flight() == 0).await;
        assert_eq!((ended.signed, ended.denied), (3 * rounds, 0), "{ended:?}");
        // One of a nanosecond may have ended before its events were looked at.
        assert!((4 * rounds..=5 * rounds).contains(&ended.failed), "{ended:?}");
    }
    daemon.stop().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_before_it_has_a_trail_is_counted() {
    let (_folder, stage) = sealed(Options { workers: 1, ..Options::default() });
    let daemon = stage.start().unwrap();
    let gateway = connected(&stage, "gateway-1").await;
    let admin = format!("{DOMAIN}/admin");
    expect(sign_event(&gateway, &admin, event("a")).await, Code::PermissionDenied, "NOT_GRANTED");
    expect(sign_event(&gateway, "no trail", event("b")).await, Code::InvalidArgument, "INVALID_REQUEST");
    let refused = SigningServiceClient::new(gateway).sign_batch(batch(&admin, "c", 3)).await;
    expect(refused, Code::PermissionDenied, "NOT_GRANTED");
    assert_eq!(counts(&stage, "gateway-1").await, Counts { offered: 5, signed: 0, denied: 5, failed: 0 });
    let metrics = daemon.metrics().unwrap();
    let line = "countersign_records_total{trail=\"other\",client=\"gateway-1\",outcome=\"denied\"} 5\n";
    assert!(metrics.contains(line), "{metrics}");
    daemon.stop().unwrap();
}

/// When a refused call may be repeated.
fn retry_after<T: std::fmt::Debug>(answer: Result<T, Status>, wanted: &str) -> Duration {
    let status = answer.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::ResourceExhausted, wanted), "{status:?}");
    status.get_details_retry_info().unwrap().retry_delay.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_beyond_its_rate_is_told_when_to_come_back() {
    let configuration = "[limits]\nbatch_records = 1\nrate_per_client = 1\nburst_per_client = 1\n".to_owned();
    let (_folder, stage) = sealed(Options { workers: 1, configuration, ..Options::default() });
    let daemon = stage.start().unwrap();
    let trail = stage.options.trails[0].origin.clone();
    let (first, second) = (connected(&stage, "gateway-1").await, connected(&stage, "gateway-2").await);
    let before = sizes(&stage)[&trail];
    sign_event(&first, &trail, event("a")).await.unwrap();
    let wait = retry_after(sign_event(&first, &trail, event("b")).await, "RATE_LIMITED");
    assert!(wait > Duration::ZERO && wait <= Duration::from_secs(1), "{wait:?}");
    // Each has a rate of its own.
    let signed = sign_event(&second, &trail, event("c")).await.unwrap();
    assert_eq!((signed.seq, sizes(&stage)[&trail]), (before + 1, before + 2));
    daemon.stop().unwrap();
}

/// Calls one event in flight too many, and gives the refusal.
async fn one_too_many(scene: &Scene, gateway: &Channel, trail: &str) -> Status {
    let asked = calls(&scene.shared, Function::C_Sign).unwrap();
    let holding = tokio::spawn({
        let (gateway, trail) = (gateway.clone(), trail.to_owned());
        async move { sign_event(&gateway, &trail, event("holding")).await }
    });
    trouble::wait_for("the signature's begin", || calls(&scene.shared, Function::C_Sign).unwrap() > asked);
    let begun = Instant::now();
    let refused = sign_event(gateway, trail, event("too-many")).await.unwrap_err();
    assert!(begun.elapsed() < SLOW && !holding.is_finished(), "refused after {:?}", begun.elapsed());
    let other = connected(&scene.stage, "gateway-2").await;
    let signed = sign_event(&other, trail, event("of-another")).await.unwrap();
    assert_eq!(signed.seq, holding.await.unwrap().unwrap().seq + 1);
    refused
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_with_too_much_in_flight_is_refused_at_once() {
    let scene = Scene::set();
    // Two events in flight, of which each gateway may hold one.
    configure(&scene.stage, "\n[limits]\nbatch_records = 1\ninflight_records = 2\nclient_share_percent = 50\n");
    let daemon = scene.stage.start().unwrap();
    let gateway = connected(&scene.stage, "gateway-1").await;
    let trail = scene.trail("batch");
    let before = sizes(&scene.stage)[&trail];
    slow(&scene, Some(3 * SLOW));
    let refused = one_too_many(&scene, &gateway, &trail).await;
    slow(&scene, None);
    assert_eq!(retry_after(Err::<(), _>(refused), "OVERLOADED"), Duration::from_millis(250));
    assert_eq!(sizes(&scene.stage)[&trail], before + 2);
    // What it held is given back.
    sign_event(&gateway, &trail, event("too-many")).await.unwrap();
    daemon.stop().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_tells_how_each_call_of_a_trace_ended() {
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    let configuration = "[log]\nformat = \"json\"\nfilter = \"countersignd=debug\"\n".to_owned();
    let (_folder, stage) = sealed(Options { workers: 1, configuration, ..Options::default() });
    let daemon = stage.start().unwrap();
    let trail = stage.options.trails[0].origin.clone();
    let mut service = SigningServiceClient::new(connected(&stage, "gateway-1").await);
    fn traced<T>(message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("traceparent", format!("00-{TRACE}-00f067aa0ba902b7-01").parse().unwrap());
        request
    }
    service.sign(traced(one(&trail, "a"))).await.unwrap();
    service.sign(traced(one("no trail", "b"))).await.unwrap_err();
    service.sign_batch(traced(batch(&trail, "c", 2))).await.unwrap();
    let stream = traced(tokio_stream::once(batch(&trail, "d", 3)));
    service.sign_stream(stream).await.unwrap().into_inner().message().await.unwrap().unwrap();
    daemon.stop().unwrap();
    let log = fs::read_to_string(stage.folder.join("countersignd.log")).unwrap();
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let told = lines.filter(|line| line["message"] == "answered" && line["span"]["trace_id"] == TRACE);
    let told = told.map(|line| {
        let word = |value: &Value| value.as_str().unwrap_or("none").to_owned();
        let operation = word(&line["span"]["operation"]);
        (operation, word(&line["outcome"]), word(&line["reason"]), line["events"].as_u64().unwrap())
    });
    let wanted = [
        ("Sign", "succeeded", "none", 1),
        ("Sign", "denied", "INVALID_REQUEST", 1),
        ("SignBatch", "succeeded", "none", 2),
        ("SignStream", "succeeded", "none", 3),
    ];
    let wanted = wanted.map(|(operation, outcome, reason, events)| {
        (operation.to_owned(), outcome.to_owned(), reason.to_owned(), events)
    });
    assert_eq!(told.collect::<Vec<_>>(), wanted);
}
