//! Certificates, keys and revocation lists that change under a running daemon: no restart, no lost call,
//! and in force on connections and streams that are open.
#![cfg(test)]

mod support;

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use countersign_client::v1::audit_service_client::AuditServiceClient;
use countersign_client::v1::list_records_request::Select;
use countersign_client::v1::signing_service_client::SigningServiceClient;
use countersign_client::v1::{self, ListRecordsRequest, SignBatchRequest, SignBatchResponse};
use countersign_stage::pki::Authority;
use countersign_stage::stage::free_port;
use countersign_stage::{Daemon, Options, Stage};
use rustix::process::Signal;
use rustls::pki_types::CertificateDer;
use support::grpc::{connected, event, reason, sign_event};
use support::tls::{certificate, client, shown_certificate};
use support::{says, sealed};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

/// No wait of these tests takes longer on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// gateway-2's serial number.
const GATEWAY_2: u64 = 102;

/// Waits until the daemon's counter of readings of its TLS files stands at `count` or more.
async fn readings(daemon: &Daemon, outcome: &str, count: u64) {
    let name = format!("countersign_tls_reload_total{{outcome=\"{outcome}\"}} ");
    until(|| {
        let metrics = daemon.metrics().unwrap();
        metrics.lines().find_map(|line| line.strip_prefix(&name)?.parse::<u64>().ok()).unwrap_or(0) >= count
    })
    .await;
}

async fn until(mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < PATIENCE, "not within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// An open SignStream: requests go in one after the other.
struct OpenStream {
    trail: String,
    requests: mpsc::Sender<SignBatchRequest>,
    answers: Streaming<SignBatchResponse>,
    sent: u64,
}

impl OpenStream {
    async fn open(channel: &Channel, trail: &str) -> OpenStream {
        let (requests, receiver) = mpsc::channel(1);
        let mut client = SigningServiceClient::new(channel.clone());
        let answers = client.sign_stream(ReceiverStream::new(receiver)).await.unwrap().into_inner();
        OpenStream { trail: trail.to_owned(), requests, answers, sent: 0 }
    }

    /// One event, and its answer.
    async fn sign(&mut self) -> Result<v1::Signed, Status> {
        self.sent += 1;
        let events = vec![event(&format!("stream-{}", self.sent))];
        let request = SignBatchRequest { trail: self.trail.clone(), events, held: None };
        self.requests.send(request).await.unwrap();
        let answer = self.answers.message().await?.unwrap().answers.remove(0);
        match answer.outcome.unwrap() {
            v1::answer::Outcome::Signed(signed) => Ok(signed),
            v1::answer::Outcome::Refused(refused) => panic!("{refused:?}"),
        }
    }
}

/// Calls of one connection, one after the other, none of which may fail.
struct Calls {
    stop: Arc<AtomicBool>,
    made: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<()>,
}

impl Calls {
    async fn start(stage: &Stage, member: &str, trail: &str) -> Calls {
        let channel = connected(stage, member).await;
        let (stop, made): (Arc<AtomicBool>, Arc<AtomicU64>) = Default::default();
        let (stopped, count, trail, name) = (stop.clone(), made.clone(), trail.to_owned(), member.to_owned());
        let task = tokio::spawn(async move {
            while !stopped.load(Ordering::SeqCst) {
                let id = format!("{name}-{}", count.load(Ordering::SeqCst));
                sign_event(&channel, &trail, event(&id)).await.unwrap_or_else(|error| panic!("{id}: {error:?}"));
                count.fetch_add(1, Ordering::SeqCst);
            }
        });
        Calls { stop, made, task }
    }

    /// Waits until calls that began after now are answered.
    async fn go_on(&self) {
        let before = self.made.load(Ordering::SeqCst);
        until(|| {
            assert!(!self.task.is_finished(), "a call failed");
            self.made.load(Ordering::SeqCst) > before + 1
        })
        .await;
    }

    async fn finish(self) {
        self.stop.store(true, Ordering::SeqCst);
        self.task.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_loses_no_call() {
    let public = free_port().unwrap();
    let listen_lines = format!("public = \"127.0.0.1:{public}\"");
    let (_folder, stage) = sealed(Options { workers: 1, listen_lines, ..Options::default() });
    let daemon = stage.start().unwrap();
    let trail = stage.options.trails[0].origin.clone();
    let tls = stage.folder.join("tls");
    // On both listeners.
    let shown = |wanted: &CertificateDer<'_>| {
        shown_certificate(stage.port, client(&stage, Some("gateway-2"), b"h2")) == *wanted
            && shown_certificate(public, client(&stage, None, b"http/1.1")) == *wanted
    };
    let (first, calls) = (certificate(&stage, "server"), Calls::start(&stage, "gateway-1", &trail).await);
    let mut stream = OpenStream::open(&connected(&stage, "gateway-2").await, &trail).await;
    stream.sign().await.unwrap();
    assert!(shown(&first));

    // By SIGHUP, long before the next reading by time would be due, were it not each second here.
    stage.authority.server(&tls, "server").unwrap();
    daemon.signal(Signal::HUP).unwrap();
    let second = certificate(&stage, "server");
    assert_ne!(first, second);
    until(|| shown(&second)).await;
    calls.go_on().await;
    stream.sign().await.unwrap();

    // By time alone; the new files come one after the other, as renewals do.
    stage.authority.server(&tls, "next").unwrap();
    fs::rename(tls.join("next.pem"), tls.join("server.pem")).unwrap();
    readings(&daemon, "failed", 1).await;
    assert!(shown(&second), "certificate and key that do not fit leave the old ones in force");
    calls.go_on().await;
    fs::rename(tls.join("next.key"), tls.join("server.key")).unwrap();
    let third = certificate(&stage, "server");
    until(|| shown(&third)).await;
    calls.go_on().await;

    // A file that is none leaves them too.
    fs::write(tls.join("server.pem"), "nothing").unwrap();
    readings(&daemon, "failed", 2).await;
    assert!(shown(&third));
    says(&daemon.log_end(), &["a TLS file has changed and cannot be used", "server.pem"]);
    calls.go_on().await;
    stream.sign().await.unwrap();
    calls.finish().await;
    // What was opened under the first certificate was never cut.
    assert_eq!(stream.sent, 3);
    drop(stream);
    daemon.stop().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_stream_of_a_revoked_client_ends_with_its_reason() {
    let (_folder, stage) = sealed(Options { workers: 1, ..Options::default() });
    let daemon = stage.start().unwrap();
    let trail = stage.options.trails[0].origin.clone();
    let revoked = stage.folder.join("tls/revoked.crl");
    let calls = Calls::start(&stage, "gateway-1", &trail).await;
    let mut spared = OpenStream::open(&connected(&stage, "gateway-1").await, &trail).await;
    let mut stream = OpenStream::open(&connected(&stage, "gateway-2").await, &trail).await;
    let last = stream.sign().await.unwrap();
    spared.sign().await.unwrap();

    // A list of another authority, and one that is damaged, revoke nobody and leave the old one.
    let other = Authority::create(&stage.folder.join("other"), "another CA").unwrap();
    fs::write(&revoked, "no list").unwrap();
    readings(&daemon, "failed", 1).await;
    stream.sign().await.unwrap();
    other.revocation_list(&revoked, &[GATEWAY_2]).unwrap();
    readings(&daemon, "succeeded", 1).await;
    let before = stream.sign().await.unwrap().seq;
    assert!(before > last.seq);

    stage.authority.revocation_list(&revoked, &[GATEWAY_2]).unwrap();
    daemon.signal(Signal::HUP).unwrap();
    readings(&daemon, "succeeded", 2).await;
    let status = stream.sign().await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Unauthenticated, "CERTIFICATE_REVOKED"));
    says(status.message(), &["revoked", "66"]);
    // It is over, not only this message of it.
    assert!(stream.answers.message().await.is_ok_and(|more| more.is_none()));

    // Nobody else lost anything, and of the revoked client's event nothing is there.
    calls.go_on().await;
    spared.sign().await.unwrap();
    calls.finish().await;
    drop((spared, stream));
    let mut auditor = AuditServiceClient::new(connected(&stage, "auditor-1").await);
    for (id, count) in [("stream-3", 1), ("stream-4", 0)] {
        let select = Some(Select::EventId(id.to_owned()));
        let request =
            ListRecordsRequest { trail: trail.clone(), select, client: "gateway-2".to_owned(), ..Default::default() };
        assert_eq!(auditor.list_records(request).await.unwrap().into_inner().records.len(), count, "{id}");
    }
    daemon.stop().unwrap();
}
