//! The TLS listener against real clients over loopback: who gets in, who stays in, and what a new
//! certificate or revocation list changes.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at its first surprise")]

mod pki;
mod server;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use countersign_trail::origin::Origin;
use countersignd::config::Limits;
use countersignd::http::{Published, serve_public};
use countersignd::metrics::Metrics;
use countersignd::reason::{Reason, Refusal};
use countersignd::tls::Tls;
use rcgen::{CertificateParams, SanType, date_time_ymd};
use rustix::process::{Signal, getpid, kill_process};
use rustls::crypto::aws_lc_rs::kx_group::X25519MLKEM768;
use rustls::{HandshakeKind, NamedGroup, ProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use pki::{client, client_params, crl, issue, uri};
use server::{Running, Setup, call, files};

const GATEWAY: &str = "spiffe://example.org/gateway";

#[tokio::test]
async fn a_member_gets_in_over_the_hybrid_group() {
    let running = Running::start(Setup::default()).await;
    let gateway = client(&running.clients, "gateway", 1);
    let stream = running.connect(running.client(Some(&gateway))).await.unwrap();
    let session = stream.get_ref().1;
    assert_eq!(session.negotiated_key_exchange_group().unwrap().name(), NamedGroup::X25519MLKEM768);
    assert_eq!(X25519MLKEM768.name(), NamedGroup::X25519MLKEM768);
    assert_eq!(session.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    assert_eq!(session.alpn_protocol(), Some(&b"h2"[..]));
    let mut grpc = running.call_over(stream).await;
    assert_eq!(call(&mut grpc).await, Ok(()));
    running.await_metric("countersign_connections 1").await;
    drop(grpc);
    running.await_metric("countersign_connections 0").await;
}

#[tokio::test]
async fn the_roster_decides_behind_the_handshake() {
    let running = Running::start(Setup::default()).await;
    for (member, want) in [("stranger", "UNKNOWN_IDENTITY"), ("auditor", "ROLE_FORBIDS")] {
        let credential = client(&running.clients, member, 1);
        let stream = running.connect(running.client(Some(&credential))).await.unwrap();
        assert_eq!(call(&mut running.call_over(stream).await).await, Err(want.to_owned()));
    }
}

#[tokio::test]
async fn tls_1_2_is_refused() {
    let running = Running::start(Setup::default()).await;
    let gateway = client(&running.clients, "gateway", 1);
    let config = running.client_with(Some(&gateway), &rustls::version::TLS12);
    let refusal = running.refusal(config).await;
    assert!(refusal.contains("ProtocolVersion"), "{refusal}");
    running.await_metric("countersign_connections_refused_total{cause=\"handshake\"} 1").await;
}

#[tokio::test]
async fn a_client_without_certificate_is_refused() {
    let running = Running::start(Setup::default()).await;
    let refusal = running.refusal(running.client(None)).await;
    assert!(refusal.contains("CertificateRequired"), "{refusal}");
}

#[tokio::test]
async fn a_foreign_authority_is_refused_even_by_the_same_name() {
    let running = Running::start(Setup::default()).await;
    for name in ["others", "clients"] {
        let foreign = client(&pki::authority(name), "gateway", 1);
        let refusal = running.refusal(running.client(Some(&foreign))).await;
        assert!(
            refusal.contains("UnknownCA") || refusal.contains("DecryptError") || refusal.contains("BadCertificate"),
            "{refusal}"
        );
    }
    // The authority of the server's certificate is none for clients.
    let foreign = client(&running.servers, "gateway", 1);
    running.refusal(running.client(Some(&foreign))).await;
}

#[tokio::test]
async fn identity_is_exactly_one_spiffe_uri() {
    let running = Running::start(Setup::default()).await;
    let dns = SanType::DnsName("gateway.example.org".try_into().unwrap());
    for names in [
        vec![],
        vec![dns.clone()],
        vec![uri(GATEWAY), uri("spiffe://example.org/other")],
        vec![uri(GATEWAY), uri(GATEWAY)],
        vec![uri("https://example.org/gateway")],
        vec![uri("spiffe://example.org/")],
        vec![uri("spiffe://example.org/a//b")],
    ] {
        let credential = issue(&running.clients, &client_params(names.clone(), 1));
        let refusal = running.refusal(running.client(Some(&credential))).await;
        assert!(refusal.contains("alert"), "{names:?}: {refusal}");
    }
    // Another kind of name beside the one URI does no harm.
    let credential = issue(&running.clients, &client_params(vec![dns, uri(GATEWAY)], 1));
    let stream = running.connect(running.client(Some(&credential))).await.unwrap();
    assert_eq!(call(&mut running.call_over(stream).await).await, Ok(()));
}

#[tokio::test]
async fn certificates_out_of_time_or_for_servers_are_refused() {
    let running = Running::start(Setup::default()).await;
    let changed = |change: fn(&mut CertificateParams)| {
        let mut params = client_params(vec![uri(GATEWAY)], 1);
        change(&mut params);
        issue(&running.clients, &params)
    };
    let expired = changed(|params| params.not_after = date_time_ymd(2020, 1, 1));
    let refusal = running.refusal(running.client(Some(&expired))).await;
    assert!(refusal.contains("CertificateExpired"), "{refusal}");
    let early = changed(|params| params.not_before = date_time_ymd(3000, 1, 1));
    running.refusal(running.client(Some(&early))).await;
    let for_servers = changed(|params| params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth]);
    running.refusal(running.client(Some(&for_servers))).await;
}

#[tokio::test]
async fn other_protocols_are_refused() {
    let running = Running::start(Setup::default()).await;
    let gateway = client(&running.clients, "gateway", 1);
    for alpn in [vec![], vec![b"http/1.1".to_vec()]] {
        let mut config = running.client(Some(&gateway));
        config.alpn_protocols = alpn;
        running.refusal(config).await;
    }
}

#[tokio::test]
async fn sessions_are_never_resumed() {
    let running = Running::start(Setup::default()).await;
    let gateway = client(&running.clients, "gateway", 1);
    let config = Arc::new(running.client(Some(&gateway)));
    for _ in 0..3 {
        let stream = running.connect_shared(&config).await.unwrap();
        // The hybrid group is the client's second guess here, or its first: full either way.
        let kind = stream.get_ref().1.handshake_kind().unwrap();
        assert!(matches!(kind, HandshakeKind::Full | HandshakeKind::FullWithHelloRetryRequest), "{kind:?}");
        // A call reads all that the server sends after the handshake, tickets too.
        assert_eq!(call(&mut running.call_over(stream).await).await, Ok(()));
    }
}

#[tokio::test]
async fn revocation_reaches_an_open_connection() {
    let running = Running::start(Setup { crl: Some(|ca| crl(ca, &[], 2100)), ..Setup::default() }).await;
    let (gateway, other) = (client(&running.clients, "gateway", 77), client(&running.clients, "other", 78));
    let stream = running.connect(running.client(Some(&gateway))).await.unwrap();
    let mut revoked = running.call_over(stream).await;
    let stream = running.connect(running.client(Some(&other))).await.unwrap();
    let mut untouched = running.call_over(stream).await;
    assert_eq!(call(&mut revoked).await, Ok(()));

    let list = running.dir.path().join("clients.crl");
    std::fs::write(&list, crl(&running.clients, &[77], 2100)).unwrap();
    assert!(running.tls.reload().unwrap());
    assert_eq!(call(&mut revoked).await, Err("CERTIFICATE_REVOKED".to_owned()));
    assert_eq!(call(&mut untouched).await, Ok(()));
    let refusal = running.refusal(running.client(Some(&gateway))).await;
    assert!(refusal.contains("CertificateRevoked"), "{refusal}");
    running.connect(running.client(Some(&other))).await.unwrap();

    // A list that comes with a certificate that cannot be used is in force all the same.
    std::fs::write(running.dir.path().join("server.pem"), "nothing").unwrap();
    std::fs::write(&list, crl(&running.clients, &[77, 78], 2100)).unwrap();
    assert!(running.tls.reload().unwrap_err().to_string().contains("server.pem"));
    assert_eq!(call(&mut untouched).await, Err("CERTIFICATE_REVOKED".to_owned()));
    assert!(
        running.refusal(running.client(Some(&other))).await.contains("CertificateRevoked"),
        "by the old certificate"
    );

    // A damaged or missing list takes nothing back.
    for damaged in [Some("not a list"), Some(""), None] {
        match damaged {
            Some(text) => std::fs::write(&list, text).unwrap(),
            None => std::fs::remove_file(&list).unwrap(),
        }
        assert!(running.tls.reload().is_err());
        assert_eq!(call(&mut revoked).await, Err("CERTIFICATE_REVOKED".to_owned()));
    }
    let text = running.metrics.encode();
    assert!(text.contains("countersign_tls_reload_total{outcome=\"failed\"} 4\n"), "{text}");
    assert!(text.contains("countersign_tls_reload_total{outcome=\"succeeded\"} 1\n"), "{text}");
}

#[tokio::test]
async fn a_list_that_is_stale_or_of_another_issuer_refuses() {
    let stale = Running::start(Setup { crl: Some(|ca| crl(ca, &[], 2025)), ..Setup::default() }).await;
    stale.refusal(stale.client(Some(&client(&stale.clients, "gateway", 1)))).await;
    let foreign = Setup { crl: Some(|_| crl(&pki::authority("others"), &[], 2100)), ..Setup::default() };
    let foreign = Running::start(foreign).await;
    foreign.refusal(foreign.client(Some(&client(&foreign.clients, "gateway", 1)))).await;
}

#[tokio::test]
async fn a_new_server_certificate_loses_no_connection() {
    let running = Running::start(Setup::default()).await;
    let gateway = client(&running.clients, "gateway", 1);
    let stream = running.connect(running.client(Some(&gateway))).await.unwrap();
    assert_eq!(stream.get_ref().1.peer_certificates().unwrap()[0], running.certificate);
    let mut open = running.call_over(stream).await;
    assert_eq!(call(&mut open).await, Ok(()));
    assert!(!running.tls.reload().unwrap(), "nothing has changed");

    let renewed = pki::write_server(&running.servers, running.dir.path());
    assert!(running.tls.reload().unwrap());
    assert_eq!(call(&mut open).await, Ok(()));
    let stream = running.connect(running.client(Some(&gateway))).await.unwrap();
    assert_eq!(stream.get_ref().1.peer_certificates().unwrap()[0], renewed);

    // A key of another certificate, as between two writes of a renewal: the old pair stays.
    pki::write_private(&running.dir.path().join("server.key"), &rcgen::KeyPair::generate().unwrap().serialize_pem());
    let refusal = running.tls.reload().unwrap_err().to_string();
    assert!(refusal.contains("server.key: is not the key of"), "{refusal}");
    let stream = running.connect(running.client(Some(&gateway))).await.unwrap();
    assert_eq!(stream.get_ref().1.peer_certificates().unwrap()[0], renewed);
    assert_eq!(call(&mut open).await, Ok(()));
}

#[tokio::test]
async fn files_that_could_not_serve_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let servers = pki::authority("servers");
    let roots = [pki::authority("clients").der().clone()];
    let begin = || {
        let tls = Tls::new(&files(dir.path().into(), vec![]), &roots, Arc::new(Metrics::new([], [])));
        tls.err().map(|error| error.to_string()).unwrap_or_default()
    };
    assert!(begin().contains("server.pem: No such file"), "{}", begin());
    pki::write_server(&servers, dir.path());
    assert_eq!(begin(), "");

    use std::os::unix::fs::PermissionsExt;
    let key = dir.path().join("server.key");
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o604)).unwrap();
    assert!(begin().contains("server.key: can be read by others"), "{}", begin());
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o640)).unwrap();
    assert_eq!(begin(), "");

    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.not_after = date_time_ymd(2020, 1, 1);
    let pair = rcgen::KeyPair::generate().unwrap();
    std::fs::write(dir.path().join("server.pem"), params.signed_by(&pair, &servers).unwrap().pem()).unwrap();
    assert!(begin().contains("server.pem: is valid from"), "{}", begin());
    std::fs::write(dir.path().join("server.pem"), "nothing").unwrap();
    assert!(begin().contains("server.pem: has no PEM certificate"), "{}", begin());

    let no_root = Tls::new(&files(dir.path().into(), vec![]), &[vec![0x30].into()], Arc::new(Metrics::new([], [])));
    assert!(no_root.err().unwrap().to_string().contains("client root 0 of the genesis"));
}

#[tokio::test]
async fn connections_are_bounded_by_member_and_in_all() {
    let limits = Limits { connections: 3, connections_per_client: 2, ..Limits::default() };
    let running = Running::start(Setup { limits, ..Setup::default() }).await;
    let gateway = client(&running.clients, "gateway", 1);
    let mut first = running.call_over(running.connect(running.client(Some(&gateway))).await.unwrap()).await;
    let mut second = running.call_over(running.connect(running.client(Some(&gateway))).await.unwrap()).await;
    assert_eq!((call(&mut first).await, call(&mut second).await), (Ok(()), Ok(())));
    // The third of the same member is closed without a word, and gives its place back.
    running.refusal(running.client(Some(&gateway))).await;
    running.await_metric("countersign_connections_refused_total{cause=\"limit_client\"} 1").await;
    let other = client(&running.clients, "other", 2);
    let mut third = running.call_over(running.connect(running.client(Some(&other))).await.unwrap()).await;
    assert_eq!(call(&mut third).await, Ok(()));
    running.refusal(running.client(Some(&other))).await;
    running.await_metric("countersign_connections_refused_total{cause=\"limit_total\"} 1").await;

    drop(first);
    running.await_metric("countersign_connections 2").await;
    let mut again = running.call_over(running.connect(running.client(Some(&gateway))).await.unwrap()).await;
    assert_eq!(call(&mut again).await, Ok(()));
    assert_eq!(call(&mut second).await, Ok(()));
}

#[tokio::test]
async fn a_silent_client_does_not_hold_a_place() {
    let limits = Limits { connections: 1, handshake_ms: 100, ..Limits::default() };
    let running = Running::start(Setup { limits, ..Setup::default() }).await;
    let mut silent = TcpStream::connect(running.address).await.unwrap();
    let mut byte = [0; 1];
    let closed = tokio::time::timeout(Duration::from_secs(20), silent.read(&mut byte)).await.unwrap();
    assert_eq!(closed.unwrap_or(0), 0);
    running.await_metric("countersign_connections_refused_total{cause=\"handshake_timeout\"} 1").await;
    let gateway = client(&running.clients, "gateway", 1);
    let mut grpc = running.call_over(running.connect(running.client(Some(&gateway))).await.unwrap()).await;
    assert_eq!(call(&mut grpc).await, Ok(()));
}

/// Anyone can open connections and say nothing. Those of members are counted apart, and those of other
/// addresses have room.
#[tokio::test]
async fn silent_connections_keep_nobody_else_out() {
    let limits = Limits { connections: 4, handshake_ms: 60_000, ..Limits::default() };
    let running = Running::start(Setup { limits, ..Setup::default() }).await;
    let from = |last: u8| {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, last], 0).into()).unwrap();
        socket
    };
    let mut silent = Vec::new();
    for _ in 0..80 {
        silent.push(from(7).connect(running.address).await.unwrap());
    }
    running.await_metric("countersign_connections_refused_total{cause=\"limit_handshakes\"} 16").await;
    let gateway = client(&running.clients, "gateway", 1);
    let mut grpc = running.call_over(running.connect(running.client(Some(&gateway))).await.unwrap()).await;
    assert_eq!(call(&mut grpc).await, Ok(()));
    // A silent one that goes gives its place back.
    drop(silent);
    let config = Arc::new(running.client(Some(&gateway)));
    let again = async {
        loop {
            let stream = from(7).connect(running.address).await.unwrap();
            if running.connect_over(stream, &config).await.is_ok() {
                break;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), again).await.unwrap();
}

/// The files are read at SIGHUP, long before their next turn.
#[tokio::test]
async fn a_hangup_reads_the_files() {
    let running = Running::start(Setup::default()).await;
    // Installs this process's handler, so that no signal of this test can end it.
    let _handled = signal(SignalKind::hangup()).unwrap();
    let renewed = pki::write_server(&running.servers, running.dir.path());
    let fresh = tokio::spawn(running.tls.clone().keep_fresh());
    let read = async {
        while !running.metrics.encode().contains("countersign_tls_reload_total{outcome=\"succeeded\"} 1\n") {
            // Again: the first may come before the task listens.
            kill_process(getpid(), Signal::HUP).unwrap();
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), read).await.unwrap();
    let gateway = client(&running.clients, "gateway", 1);
    let stream = running.connect(running.client(Some(&gateway))).await.unwrap();
    assert_eq!(stream.get_ref().1.peer_certificates().unwrap()[0], renewed);
    fresh.abort();
}

struct Keys;

impl Published for Keys {
    async fn keys(&self) -> Result<Bytes, Refusal> {
        Ok(Bytes::from_static(b"{}"))
    }
    async fn jwks(&self) -> Result<Bytes, Refusal> {
        Err(Refusal::from(Reason::NotFound))
    }
    async fn trails(&self) -> Result<Bytes, Refusal> {
        Err(Refusal::from(Reason::NotFound))
    }
    async fn checkpoint(&self, _: &Origin) -> Result<Bytes, Refusal> {
        Err(Refusal::from(Reason::UnknownTrail))
    }
}

#[tokio::test]
async fn the_public_listener_asks_for_no_certificate_and_speaks_tls_1_3_alone() {
    let mut running = Running::start(Setup::default()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    running.address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let served = tokio::spawn(serve_public(listener, running.tls.clone(), Arc::new(Keys), async {
        let _ = stopped.await;
    }));
    let mut config = running.client(None);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let mut stream = running.connect(config).await.unwrap();
    stream.write_all(b"GET /keys.json HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\n{}"), "{answer}");

    let mut old = running.client_with(None, &rustls::version::TLS12);
    old.alpn_protocols.clear();
    let refusal = running.refusal(old).await;
    assert!(refusal.contains("ProtocolVersion"), "{refusal}");
    // A connection that says nothing does not keep the listener from ending.
    let _silent = TcpStream::connect(running.address).await.unwrap();
    stop.send(()).unwrap();
    tokio::time::timeout(Duration::from_secs(30), served).await.unwrap().unwrap();
}
