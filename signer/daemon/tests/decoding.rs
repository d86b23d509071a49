//! Requests that no service ever sees, sent as raw bytes to a real server: each is answered with a
//! gRPC code and a reason.

#![allow(clippy::unwrap_used, reason = "a test stops at its first surprise")]

use countersignd::decoding::with_reason;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::codegen::http::{Request, Response};
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Status};
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};
use tonic_types::StatusExt;
use tower::ServiceExt;
use tower::util::MapResponseLayer;

const LIMIT: usize = 64;

async fn server() -> Channel {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let health = HealthServer::new(HealthService::from_health_reporter(HealthReporter::new()));
    let router = Server::builder()
        .layer(MapResponseLayer::new(with_reason))
        .add_service(health.max_decoding_message_size(LIMIT));
    tokio::spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));
    Endpoint::new(format!("http://{address}")).unwrap().connect().await.unwrap()
}

/// A gRPC frame: flag, length, message (gRPC over HTTP/2, "Length-Prefixed-Message").
fn frame(flag: u8, length: u32, message: &[u8]) -> Vec<u8> {
    [&[flag][..], &length.to_be_bytes(), message].concat()
}

async fn send(channel: &Channel, body: Vec<u8>) -> Status {
    let request = Request::post("http://localhost/grpc.health.v1.Health/Check")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(tonic::body::Body::new(axum::body::Body::from(body)))
        .unwrap();
    let response: Response<_> = channel.clone().oneshot(request).await.unwrap();
    Status::from_header_map(response.headers()).unwrap_or_else(|| Status::ok(""))
}

#[tokio::test]
async fn what_does_not_decode_has_a_reason() {
    let channel = server().await;
    let name_field = |bytes: &[u8]| [&[0x0a, bytes.len() as u8][..], bytes].concat();
    let (long, not_utf8) = (name_field(&[b'x'; LIMIT]), name_field(&[0xff, 0xfe]));
    for (body, code, reason) in [
        (frame(0, long.len() as u32, &long), Code::OutOfRange, "MESSAGE_TOO_LARGE"),
        (frame(0, u32::MAX, b"x"), Code::OutOfRange, "MESSAGE_TOO_LARGE"),
        (frame(0, not_utf8.len() as u32, &not_utf8), Code::InvalidArgument, "INVALID_REQUEST"),
        // A field that is longer than the message.
        (frame(0, 2, &[0x0a, 0x7f]), Code::InvalidArgument, "INVALID_REQUEST"),
        (frame(0, 9, b"short"), Code::InvalidArgument, "INVALID_REQUEST"),
        (frame(7, 0, b""), Code::InvalidArgument, "INVALID_REQUEST"),
        (vec![], Code::InvalidArgument, "INVALID_REQUEST"),
    ] {
        let status = send(&channel, body.clone()).await;
        let info = status.get_details_error_info().map(|info| info.reason);
        assert_eq!((status.code(), info.as_deref()), (code, Some(reason)), "{body:x?}: {status:?}");
        assert!(!status.message().is_empty());
    }
}

#[tokio::test]
async fn a_compressed_request_has_a_reason() {
    let request = Request::post("http://localhost/grpc.health.v1.Health/Check")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-encoding", "gzip")
        .body(tonic::body::Body::new(axum::body::Body::from(frame(1, 0, b""))))
        .unwrap();
    let response = server().await.oneshot(request).await.unwrap();
    let status = Status::from_header_map(response.headers()).unwrap();
    assert_eq!(status.get_details_error_info().unwrap().reason, "INVALID_REQUEST");
    assert!(status.message().contains("gzip"), "{status:?}");
}

#[tokio::test]
async fn other_answers_pass_unchanged() {
    let channel = server().await;
    assert_eq!(send(&channel, frame(0, 0, b"")).await.code(), Code::Ok);
    let unknown = send(&channel, frame(0, 3, &[0x0a, 1, b'x'])).await;
    assert_eq!((unknown.code(), unknown.details().len()), (Code::NotFound, 0));
    let no_method = Request::post("http://localhost/grpc.health.v1.Health/No").header("te", "trailers");
    let no_method = no_method.header("content-type", "application/grpc").body(tonic::body::Body::default()).unwrap();
    let answer = channel.oneshot(no_method).await.unwrap();
    assert_eq!(Status::from_header_map(answer.headers()).unwrap().code(), Code::Unimplemented);
}
