use std::time::Duration;

use countersign_trail::hash::Hash;
use countersign_trail::id::MemberId;
use countersign_trail::keys::{Kid, PublicKey};
use rcgen::SanType;

use crate::common::ceremony::{DECISIONS, METRICS};
use crate::testing::server::{Act, Authority, Server, closed_port};
use crate::testing::{MEMBER, full_event, plain_event};
use crate::{Client, ClientError, ConfigError, MAX_DEADLINE, Pin, Trust, TrustError};

#[tokio::test]
async fn the_genesis_says_who_we_are_and_whose_signatures_count() {
    let server = Server::start().await;
    let client = Client::connect(server.config()).await.unwrap();
    assert_eq!(client.member().as_str(), MEMBER);
    assert_eq!(client.trails(), [DECISIONS, METRICS]);
    for trail in [DECISIONS, METRICS] {
        assert_eq!(client.sign(trail, plain_event("")).await.unwrap().seq, 1);
    }
    assert_eq!(server.handshakes(), ["Some(TLSv1_3) Some(X25519MLKEM768)"]);
}

#[tokio::test]
async fn what_is_printed_holds_no_key_and_no_content() {
    let server = Server::start().await;
    let config = server.config();
    let key = String::from_utf8(config.connection.key_pem.clone()).unwrap();
    let secret = key.lines().nth(1).unwrap();
    let client = Client::connect(config.clone()).await.unwrap();
    let (mut sender, receiver) = client.sign_stream(DECISIONS).unwrap();
    sender.send(vec![full_event("e-1")]).await.unwrap();
    let text = format!("{client:?} {config:?} {sender:?} {receiver:?}");
    assert!(text.contains(MEMBER) && text.contains("unanswered: 1"), "{text}");
    let bytes = format!("{:?}", &config.connection.key_pem[..16]);
    for hidden in [secret, bytes.trim_matches(['[', ']']), "hello"] {
        assert!(!text.contains(hidden), "{hidden} in {text}");
    }
}

#[tokio::test]
async fn another_genesis_is_refused() {
    let server = Server::start().await;
    let mut config = server.config();
    config.trust = Trust::Genesis(Hash::of(b"another"));
    let error = Client::connect(config).await.err().unwrap();
    assert!(matches!(error, ClientError::Trust(TrustError::Fetch { .. })), "{error}");

    server.tamper(server.fingerprint, b"{}".to_vec());
    let error = Client::connect(server.config()).await.err().unwrap();
    assert!(matches!(error, ClientError::Trust(TrustError::Hash { .. })), "{error}");
}

#[tokio::test]
async fn a_certificate_without_a_member_is_refused() {
    let server = Server::start().await;
    let mut config = server.config();
    config.member = Some(MemberId::parse("gw-2").unwrap());
    let error = Client::connect(config).await.err().unwrap();
    assert!(matches!(error, ClientError::Trust(TrustError::OtherMember { .. })), "{error}");

    let stranger = Authority::new();
    let mut config = server.config();
    (config.connection.cert_pem, config.connection.key_pem) =
        stranger.issue(SanType::URI("spiffe://acme.example/gw-1".try_into().unwrap()));
    // Of an authority that the server does not know: TLS 1.3 tells the client with its first read.
    let error = Client::connect(config).await.err().unwrap();
    assert!(matches!(&error, ClientError::Connect { problem, .. } if problem.contains("client roots")), "{error}");
    assert!(error.certainly_not_recorded(), "there was nothing to record");

    let mut config = server.config();
    (config.connection.cert_pem, config.connection.key_pem) =
        stranger.issue(SanType::DnsName("gw-1.example".try_into().unwrap()));
    config.trust = Trust::Genesis(server.fingerprint);
    let spiffe = crate::connect::spiffe_id(&config.connection);
    assert!(matches!(spiffe, Err(ConfigError::SpiffeIds(0))), "{spiffe:?}");
}

#[tokio::test]
async fn a_server_that_is_not_the_daemon_is_refused() {
    let server = Server::start().await;
    let mut config = server.config();
    config.connection.ca_pem = Authority::new().pem();
    let error = Client::connect(config).await.err().unwrap();
    assert!(
        matches!(&error, ClientError::Connect { problem, .. } if problem.contains("invalid peer certificate")),
        "{error}"
    );

    let mut config = server.config();
    config.connection.server_name = Some("other.example".to_owned());
    let error = Client::connect(config).await.err().unwrap();
    assert!(
        matches!(&error, ClientError::Connect { problem, .. } if problem.contains("not valid for name")),
        "{error}"
    );

    let mut config = server.config();
    config.connection.endpoint = config.connection.endpoint.replace("https", "http");
    let error = Client::connect(config).await.err().unwrap();
    assert!(matches!(error, ClientError::Config(ConfigError::Endpoint(_))), "{error}");

    let mut config = server.config();
    config.connection.endpoint = format!("https://{}", closed_port().await);
    let error = Client::connect(config).await.err().unwrap();
    assert!(matches!(error, ClientError::Connect { .. }), "{error}");
}

#[tokio::test]
async fn a_certificate_that_is_refused_is_not_tried_until_the_deadline() {
    let stranger = Authority::new();
    // The daemon's view of ours, and ours of the daemon's.
    for (own, clients, todo) in [(None, Some(&stranger), "client roots"), (Some(&stranger), None, "ca_pem")] {
        let server = Server::start().await;
        let client = Client::connect(server.config()).await.unwrap();
        server.change_tls(own, clients);
        let error = client.sign(DECISIONS, plain_event("e-1")).await.unwrap_err();
        assert!(matches!(&error, ClientError::Connect { problem, .. } if problem.contains(todo)), "{error}");
        assert_eq!(error.event_ids(), ["e-1"]);
        assert!(!error.certainly_not_recorded(), "an earlier connection may have carried it");
        let (mut sender, mut receiver) = client.sign_stream(DECISIONS).unwrap();
        sender.send(vec![plain_event("e-2")]).await.unwrap();
        let error = receiver.recv().await.unwrap_err();
        assert_eq!((error.reason(), error.event_ids()), ("CONNECT", vec!["e-2"]));
        // The daemon's word may be lost with its connection, now and then.
        assert!(server.connections() < 10, "{} connections", server.connections());

        server.change_tls(None, None);
        assert_eq!(client.sign(DECISIONS, plain_event("e-1")).await.unwrap().seq, 1, "the next call connects again");
    }
}

#[tokio::test]
async fn a_daemon_that_restarts_is_waited_for() {
    let server = Server::start().await;
    let mut config = server.config();
    config.attempts = 12;
    let limited = Client::connect(config.clone()).await.unwrap();
    config.attempts = crate::ClientConfig::new(server.connection.clone(), config.trust.clone()).attempts;
    let client = Client::connect(config).await.unwrap();
    let socket = server.stop().await;
    let error = limited.sign(DECISIONS, plain_event("")).await.unwrap_err();
    assert!(matches!(error, ClientError::Exhausted { attempts: 12, .. }), "refused connections are repeated: {error}");
    let signing = tokio::spawn(async move { client.sign(DECISIONS, plain_event("")).await });
    // As long as twelve attempts take, and longer.
    limited.sign(DECISIONS, plain_event("")).await.unwrap_err();
    server.resume(socket);
    assert_eq!(signing.await.unwrap().unwrap().seq, 1);
}

#[tokio::test]
async fn a_deadline_without_bound_is_an_hour() {
    let server = Server::start().await;
    let mut config = server.config();
    config.deadline = Duration::MAX;
    config.connection.connect_timeout = Duration::MAX;
    (config.backoff, config.backoff_max, config.clock_skew) = (Duration::MAX, Duration::MAX, Duration::MAX);
    let client = Client::connect(config).await.unwrap();
    assert_eq!(client.0.config.deadline, MAX_DEADLINE);
    client.sign(METRICS, plain_event("")).await.unwrap();
    let (mut sender, mut receiver) = client.sign_stream(METRICS).unwrap();
    sender.send(vec![plain_event("")]).await.unwrap();
    assert!(receiver.recv().await.unwrap().unwrap()[0].is_ok());
    server.script([Act::Status(tonic::Status::unavailable("gone"))]);
    let error = client.sign(METRICS, plain_event("")).await.unwrap_err();
    assert!(matches!(error, ClientError::Exhausted { attempts: 1, .. }), "a pause beyond it is not begun: {error}");
}

#[tokio::test]
async fn pinned_keys_are_enough() {
    let server = Server::start().await;
    let listed = server.keys();
    let of =
        |purpose: &str, trail: &str| listed.iter().find(|key| key.purpose == purpose && key.trail == trail).unwrap();
    let mut config = server.config();
    let record = PublicKey::from_spki_der(&of("record", DECISIONS).spki).unwrap();
    let pins = vec![Pin::Key(record), Pin::Kid(of("checkpoint", METRICS).kid.parse().unwrap())];
    config.trust = Trust::Pinned(pins.clone());
    let error = Client::connect(config.clone()).await.err().unwrap();
    assert!(matches!(error, ClientError::Trust(TrustError::MemberMissing)), "{error}");
    config.member = Some(MemberId::parse(MEMBER).unwrap());
    let client = Client::connect(config.clone()).await.unwrap();
    for trail in [DECISIONS, METRICS] {
        client.sign(trail, plain_event("")).await.unwrap();
    }

    // The checkpoint key of a trail in record mode vouches for none of its records.
    config.trust = Trust::Pinned(vec![Pin::Kid(of("checkpoint", DECISIONS).kid.parse().unwrap())]);
    let client = Client::connect(config.clone()).await.unwrap();
    let error = client.sign(DECISIONS, plain_event("")).await.unwrap_err();
    assert_eq!(error.reason(), "KEY", "{error}");
    let error = client.sign(METRICS, plain_event("")).await.unwrap_err();
    assert!(matches!(error, ClientError::UnknownTrail(_)), "{error}");

    config.trust = Trust::Pinned(vec![Pin::Kid(Kid::from_bytes([1; 32]))]);
    let error = Client::connect(config).await.err().unwrap();
    assert!(matches!(error, ClientError::Trust(TrustError::PinMissing(_))), "{error}");
}
