//! Input and callers that the daemon refuses, over real TLS: each gets a clear error with its reason
//! code, and costs no sequence number.
#![cfg(test)]

mod support;

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes};
use countersign_client::v1::audit_service_client::AuditServiceClient;
use countersign_client::v1::signing_service_client::SigningServiceClient;
use countersign_client::v1::{self, answer::Outcome};
use countersign_stage::stage::DOMAIN;
use countersign_stage::{Daemon, Options, Stage};
use rustix::process::Signal;
use support::grpc::{connected, event, expect, reason, sign_event};
use support::tls::{alert, assert_tls_1_2_refused, client};
use support::{done, planned, sealed, sizes};
use tonic::client::GrpcService;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::Request as HttpRequest;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Code, Status};

/// How long the daemon may take to read a revocation list after SIGHUP.
const REVOCATION_LIMIT: Duration = Duration::from_secs(20);
/// The method that raw requests go to.
const SIGN: &str = "/countersign.v1.SigningService/Sign";

fn running() -> (tempfile::TempDir, Stage, Daemon) {
    let (folder, stage) = sealed(Options { workers: 1, ..Options::default() });
    let daemon = stage.start().unwrap();
    (folder, stage, daemon)
}

/// Sizes of the trails that gateways write.
fn written(stage: &Stage) -> BTreeMap<String, u64> {
    let mut sizes = sizes(stage);
    sizes.remove(&format!("{DOMAIN}/admin")).unwrap();
    sizes
}

/// Sends the bytes as they are as the one message of a call.
#[derive(Clone, Default)]
struct RawCodec;

impl Codec for RawCodec {
    type Encode = Vec<u8>;
    type Decode = ();
    type Encoder = RawCodec;
    type Decoder = RawCodec;

    fn encoder(&mut self) -> RawCodec {
        RawCodec
    }

    fn decoder(&mut self) -> RawCodec {
        RawCodec
    }
}

impl Encoder for RawCodec {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, message: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&message);
        Ok(())
    }
}

impl Decoder for RawCodec {
    type Item = ();
    type Error = Status;

    fn decode(&mut self, _: &mut DecodeBuf<'_>) -> Result<Option<()>, Status> {
        Ok(Some(()))
    }
}

async fn send_raw(channel: &Channel, message: &[u8]) -> Result<(), Status> {
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    grpc.ready().await.unwrap();
    let path = PathAndQuery::from_static(SIGN);
    grpc.unary(tonic::Request::new(message.to_vec()), path, RawCodec).await.map(|_| ())
}

/// Sends a body that no gRPC library would write.
async fn send_body(channel: &Channel, body: &str) -> Status {
    let mut channel = channel.clone();
    poll_fn(|context| GrpcService::<tonic::body::Body>::poll_ready(&mut channel, context)).await.unwrap();
    let request = HttpRequest::post(SIGN).header("content-type", "application/grpc").header("te", "trailers");
    let answer = channel.call(request.body(tonic::body::Body::new(body.to_owned())).unwrap()).await.unwrap();
    Status::from_header_map(answer.headers()).unwrap()
}

fn with_data(id: &str, bytes: usize) -> v1::Event {
    let content = |bytes: usize| v1::Content {
        media_type: "text/plain".to_owned(),
        body: Some(v1::content::Body::Data(vec![b'x'; bytes].into())),
        ..v1::Content::default()
    };
    v1::Event { request: Some(content(bytes / 2)), response: Some(content(bytes - bytes / 2)), ..event(id) }
}

#[tokio::test]
async fn what_no_caller_may_send() {
    let (_folder, stage, _daemon) = running();
    let gateway = connected(&stage, "gateway-1").await;
    for trail in stage.options.trails.iter().map(|trail| trail.origin.as_str()) {
        sign_event(&gateway, trail, event("first")).await.unwrap();
        let before = written(&stage);
        let refused =
            async |event, wanted| expect(sign_event(&gateway, trail, event).await, Code::InvalidArgument, wanted);
        refused(with_data("large", (1 << 20) + 1), "EVENT_TOO_LARGE").await;
        refused(v1::Event { r#type: "countersign.heartbeat".to_owned(), ..event("own") }, "RESERVED_TYPE").await;
        refused(v1::Event { r#type: "No Type".to_owned(), ..event("type") }, "INVALID_EVENT").await;
        refused(v1::Event { category: 99, ..event("category") }, "INVALID_EVENT").await;
        refused(event(&"i".repeat(65)), "INVALID_EVENT").await;
        refused(event("spa ce"), "INVALID_EVENT").await;
        let link = v1::Link {
            rel: "retry".to_owned(),
            trail: trail.to_owned(),
            seq: 5_000,
            leaf_hash: Bytes::from_static(&[1; 32]),
        };
        refused(v1::Event { links: vec![link], ..event("link") }, "INVALID_LINK").await;
        let other = v1::Event { decision: v1::Decision::Block.into(), ..event("first") };
        expect(sign_event(&gateway, trail, other).await, Code::AlreadyExists, "ALREADY_EXISTS");
        expect(sign_event(&gateway, "no trail", event("n")).await, Code::InvalidArgument, "INVALID_REQUEST");
        let huge = with_data("huge", 9 << 20);
        expect(sign_event(&gateway, trail, huge).await, Code::OutOfRange, "MESSAGE_TOO_LARGE");
        let request = v1::SignBatchRequest { trail: trail.to_owned(), events: vec![event("x"); 4_097], held: None };
        let answer = SigningServiceClient::new(gateway.clone()).sign_batch(request).await;
        expect(answer, Code::InvalidArgument, "BATCH_TOO_LARGE");
        assert_eq!(written(&stage), before);
    }
}

/// An appliance whose gateway-2 may write the first trail alone.
fn with_fewer_grants() -> (tempfile::TempDir, Stage, Daemon) {
    let (folder, mut stage) = planned(Options { workers: 1, ..Options::default() });
    let [ceremony, plan] = ["ceremony.toml", "plan.json"].map(|name| stage.folder.join(name));
    let text = std::fs::read_to_string(&ceremony).unwrap();
    let second = format!(", \"{}\"]", stage.options.trails[1].origin);
    let (others, own) = text.split_at(text.find("id = \"gateway-2\"").unwrap());
    assert!(own.contains(&second));
    std::fs::write(&ceremony, format!("{others}{}", own.replacen(&second, "]", 1))).unwrap();
    std::fs::remove_file(&plan).unwrap();
    let mut command = stage.binaries.command("countersign");
    done(command.args(["ceremony", "plan", "--file"]).arg(&ceremony).arg("--out").arg(&plan));
    stage.hold_ceremony(&mut |_| ()).unwrap();
    let daemon = stage.start().unwrap();
    (folder, stage, daemon)
}

fn link(trail: &str, seq: u64, leaf_hash: &Bytes) -> v1::Link {
    v1::Link { rel: "retry".to_owned(), trail: trail.to_owned(), seq, leaf_hash: leaf_hash.clone() }
}

#[tokio::test]
async fn a_link_names_a_stored_record_of_a_trail_that_one_may_write() {
    let (_folder, stage, _daemon) = with_fewer_grants();
    let (first, second) = (connected(&stage, "gateway-1").await, connected(&stage, "gateway-2").await);
    let trails: Vec<&str> = stage.options.trails.iter().map(|trail| trail.origin.as_str()).collect();
    let with = |id: &str, links: Vec<v1::Link>| v1::Event { links, ..event(id) };
    let mut targets = Vec::new();
    for trail in &trails {
        let target = sign_event(&first, trail, event("target")).await.unwrap();
        targets.push(link(trail, target.seq, &target.leaf_hash));
    }
    // Within the trail and across, together and alone.
    for trail in &trails {
        let signed = sign_event(&first, trail, with("good", targets.clone())).await.unwrap();
        let record: serde_json::Value = serde_json::from_slice(&signed.record).unwrap();
        assert_eq!(record["links"].as_array().map(Vec::len), Some(2), "{record}");
    }
    sign_event(&second, trails[0], with("own", targets[..1].to_vec())).await.unwrap();

    let request = v1::ListRecordsRequest { trail: format!("{DOMAIN}/admin"), ..Default::default() };
    let mut auditor = AuditServiceClient::new(connected(&stage, "auditor-1").await);
    let admin = auditor.list_records(request).await.unwrap().into_inner().records.remove(0);
    let before = written(&stage);
    let refused = async |channel: &Channel, trail: &str, links: Vec<v1::Link>| {
        let answer = sign_event(channel, trail, with("bad", links)).await;
        expect(answer, Code::InvalidArgument, "INVALID_LINK");
    };
    for trail in &trails {
        for (target, other) in targets.iter().zip(targets.iter().rev()) {
            refused(&first, trail, vec![link(&target.trail, target.seq, &other.leaf_hash)]).await;
            refused(&first, trail, vec![link(&target.trail, before[&target.trail], &target.leaf_hash)]).await;
            refused(&first, trail, vec![link(&target.trail, u64::MAX >> 1, &target.leaf_hash)]).await;
            // One that is wrong spoils the event, whatever stands beside it.
            refused(&first, trail, vec![target.clone(), link(&target.trail, target.seq, &other.leaf_hash)]).await;
        }
        // Genuine, and not this client's to write.
        refused(&first, trail, vec![link(&format!("{DOMAIN}/admin"), admin.seq, &admin.leaf_hash)]).await;
    }
    refused(&second, trails[0], vec![targets[1].clone()]).await;
    assert_eq!(written(&stage), before);
    // The event_id that was refused is free.
    sign_event(&second, trails[0], event("bad")).await.unwrap();
}

#[tokio::test]
async fn bytes_that_are_no_request() {
    let (_folder, stage, _daemon) = running();
    let gateway = connected(&stage, "gateway-1").await;
    let before = written(&stage);
    // `trail` in two bytes that are no UTF-8; a field longer than its message; a field of 2 GiB; a
    // wire type that does not exist.
    for message in [&b"\x0a\x02\xff\xfe"[..], b"\x0a\x7f", b"\x0a\xff\xff\xff\xff\x07x", b"\x0f\x01"] {
        expect(send_raw(&gateway, message).await, Code::InvalidArgument, "INVALID_REQUEST");
    }
    // A declared length of 2 GiB, and one that is longer than what comes.
    for (body, code, wanted) in [
        ("\0\x7f\x7f\x7f\x7fabc", Code::OutOfRange, "MESSAGE_TOO_LARGE"),
        ("\0\0\0\0\x09short", Code::InvalidArgument, "INVALID_REQUEST"),
        ("\x07\0\0\0\0", Code::InvalidArgument, "INVALID_REQUEST"),
    ] {
        let status = send_body(&gateway, body).await;
        assert_eq!((status.code(), reason(&status).as_str()), (code, wanted), "{body:?}: {status:?}");
    }
    assert_eq!(written(&stage), before);
    // The connection still serves.
    sign_event(&gateway, &stage.options.trails[0].origin, event("after")).await.unwrap();
}

#[tokio::test]
async fn one_bad_event_does_not_spoil_the_others() {
    let (_folder, stage, _daemon) = running();
    let gateway = connected(&stage, "gateway-1").await;
    for trail in stage.options.trails.iter().map(|trail| trail.origin.as_str()) {
        let before = written(&stage)[trail];
        let own = v1::Event { r#type: "countersign.x".to_owned(), ..event("b") };
        let events = vec![event("a"), own, event("c"), with_data("d", (1 << 20) + 1), event("e")];
        let request = v1::SignBatchRequest { trail: trail.to_owned(), events, held: None };
        let answers =
            SigningServiceClient::new(gateway.clone()).sign_batch(request).await.unwrap().into_inner().answers;
        let what = answers.into_iter().map(|answer| match answer.outcome.unwrap() {
            Outcome::Signed(signed) => (signed.seq - before).to_string(),
            Outcome::Refused(refused) => refused.reason,
        });
        assert_eq!(what.collect::<Vec<_>>(), ["0", "RESERVED_TYPE", "1", "EVENT_TOO_LARGE", "2"]);
        assert_eq!(written(&stage)[trail], before + 3);
    }
}

#[tokio::test]
async fn a_held_head_that_is_made_up_fails_its_own_call_alone() {
    let (_folder, stage, _daemon) = running();
    let gateway = connected(&stage, "gateway-1").await;
    for trail in stage.options.trails.iter().map(|trail| trail.origin.as_str()) {
        let signed = sign_event(&gateway, trail, event("held")).await.unwrap();
        let before = written(&stage);
        let short = v1::HeldHead { seq: signed.seq, ..v1::HeldHead::default() };
        let request = v1::SignRequest { trail: trail.to_owned(), event: Some(event("new")), held: Some(short) };
        let refused = SigningServiceClient::new(gateway.clone()).sign(request).await.unwrap_err();
        assert_eq!(refused.message(), "held.leaf_hash has 0 bytes, not 32");
        let made_up = [
            v1::HeldHead { seq: signed.seq, leaf_hash: Bytes::from_static(&[7; 32]), ..v1::HeldHead::default() },
            v1::HeldHead { seq: signed.seq + 100, leaf_hash: signed.leaf_hash.clone(), ..v1::HeldHead::default() },
            v1::HeldHead { seq: 1, leaf_hash: Bytes::from_static(&[7; 5]), ..v1::HeldHead::default() },
            v1::HeldHead {
                seq: signed.seq,
                leaf_hash: Bytes::from_static(&[7; 32]),
                record: signed.record.clone(),
                signature: Bytes::from_static(&[1; 64]),
                checkpoint: Bytes::from_static(b"no checkpoint"),
                path: vec![Bytes::from_static(&[0; 32]); 200],
            },
        ];
        for held in made_up {
            let request = |held| v1::SignRequest { trail: trail.to_owned(), event: Some(event("new")), held };
            let mut client = SigningServiceClient::new(gateway.clone());
            expect(client.sign(request(Some(held))).await, Code::InvalidArgument, "INVALID_HEAD");
            assert_eq!(written(&stage), before);
        }
        // Another call goes on, and a true head is taken.
        let held = v1::HeldHead { seq: signed.seq, leaf_hash: signed.leaf_hash.clone(), ..v1::HeldHead::default() };
        let request = v1::SignRequest { trail: trail.to_owned(), event: Some(event("new")), held: Some(held) };
        let next = SigningServiceClient::new(gateway.clone()).sign(request).await.unwrap().into_inner();
        assert_eq!(next.signed.unwrap().seq, signed.seq + 1);
    }
}

#[tokio::test]
async fn who_may_not_write() {
    let (_folder, stage, _daemon) = running();
    let before = written(&stage);
    let tls = stage.folder.join("tls");
    let trail = stage.options.trails[0].origin.clone();
    for member in ["auditor-1", "operator-1", "alice"] {
        let answer = sign_event(&connected(&stage, member).await, &trail, event("e")).await;
        expect(answer, Code::PermissionDenied, "ROLE_FORBIDS");
    }
    let gateway = connected(&stage, "gateway-1").await;
    for other in [format!("{DOMAIN}/admin"), format!("{DOMAIN}/no/such")] {
        // Who may not write a trail does not learn whether it exists.
        expect(sign_event(&gateway, &other, event("e")).await, Code::PermissionDenied, "NOT_GRANTED");
    }
    stage.authority.client(&tls, "stranger", &format!("spiffe://{DOMAIN}/stranger"), 301).unwrap();
    let stranger = connected(&stage, "stranger").await;
    expect(sign_event(&stranger, &trail, event("e")).await, Code::PermissionDenied, "UNKNOWN_IDENTITY");
    let listed = AuditServiceClient::new(stranger).list_trails(v1::ListTrailsRequest {}).await;
    expect(listed, Code::PermissionDenied, "UNKNOWN_IDENTITY");
    // The same identity from another authority, and one that has expired.
    let foreign = countersign_stage::pki::Authority::create(&stage.folder.join("foreign"), "another CA").unwrap();
    foreign.client(&tls, "foreign", &format!("spiffe://{DOMAIN}/gateway-1"), 101).unwrap();
    support::says(&alert(stage.port, client(&stage, Some("foreign"), b"h2")), &["UnknownCA"]);
    stage.authority.expired_client(&tls, "expired", &format!("spiffe://{DOMAIN}/gateway-1")).unwrap();
    support::says(&alert(stage.port, client(&stage, Some("expired"), b"h2")), &["CertificateExpired"]);
    assert_eq!(written(&stage), before);
}

#[tokio::test]
async fn what_no_auditor_may_ask() {
    let (_folder, stage, _daemon) = running();
    let trail = stage.options.trails[0].origin.clone();
    sign_event(&connected(&stage, "gateway-1").await, &trail, event("e")).await.unwrap();
    let mut audit = AuditServiceClient::new(connected(&stage, "auditor-1").await);
    // What a mistyped name was to withhold would be disclosed.
    let export = |trails: &[&str], withhold: &[&str]| v1::ExportRequest {
        trails: trails.iter().map(|&name| name.to_owned()).collect(),
        withhold: withhold.iter().map(|&name| name.to_owned()).collect(),
    };
    let refused = audit.export(export(&[], &["requests"])).await.map(|_| ());
    support::says(refused.as_ref().unwrap_err().message(), &["\"requests\" is no part", "facts, request, response"]);
    expect(refused, Code::InvalidArgument, "INVALID_REQUEST");
    // A name that can be no trail's has one reason wherever it stands.
    let wrong = "No Trail".to_owned();
    expect(audit.export(export(&[&wrong], &[])).await.map(|_| ()), Code::InvalidArgument, "INVALID_REQUEST");
    let head = audit.get_head(v1::GetHeadRequest { trail: wrong.clone() }).await;
    expect(head, Code::InvalidArgument, "INVALID_REQUEST");
    let keys = audit.list_keys(v1::ListKeysRequest { trail: wrong, ..v1::ListKeysRequest::default() }).await;
    expect(keys, Code::InvalidArgument, "INVALID_REQUEST");
    // An auditor has no events of its own.
    let of = |client: &str| v1::ListRecordsRequest {
        trail: trail.clone(),
        select: Some(v1::list_records_request::Select::EventId("e".to_owned())),
        client: client.to_owned(),
        ..v1::ListRecordsRequest::default()
    };
    let found = audit.list_records(of("gateway-1")).await.unwrap().into_inner().records;
    assert_eq!(found.len(), 1);
    let refused = audit.list_records(of("")).await;
    support::says(refused.as_ref().unwrap_err().message(), &["client: name the roster id"]);
    expect(refused, Code::InvalidArgument, "INVALID_REQUEST");
}

#[tokio::test]
async fn a_client_that_is_revoked_while_it_is_connected() {
    let (_folder, stage, daemon) = running();
    let trail = stage.options.trails[0].origin.clone();
    let (first, second) = (connected(&stage, "gateway-1").await, connected(&stage, "gateway-2").await);
    sign_event(&second, &trail, event("before")).await.unwrap();
    stage.authority.revocation_list(&stage.folder.join("tls/revoked.crl"), &[102]).unwrap();
    daemon.signal(Signal::HUP).unwrap();
    let begun = Instant::now();
    while AuditServiceClient::new(second.clone()).list_trails(v1::ListTrailsRequest {}).await.is_ok() {
        assert!(begun.elapsed() < REVOCATION_LIMIT, "still served");
    }
    let before = written(&stage);
    expect(sign_event(&second, &trail, event("after")).await, Code::Unauthenticated, "CERTIFICATE_REVOKED");
    support::says(&alert(stage.port, client(&stage, Some("gateway-2"), b"h2")), &["CertificateRevoked"]);
    assert_eq!(written(&stage), before);
    // The other one's connection lost nothing.
    sign_event(&first, &trail, event("first")).await.unwrap();
}

#[test]
fn connections_without_a_certificate_or_with_tls_1_2() {
    let (_folder, stage, _daemon) = running();
    let before = written(&stage);
    support::says(&alert(stage.port, client(&stage, None, b"h2")), &["CertificateRequired"]);
    assert_tls_1_2_refused(stage.port);
    assert_eq!(written(&stage), before);
}
