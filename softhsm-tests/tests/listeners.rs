//! The two HTTP listeners of a running daemon: what anyone may read over TLS without a certificate,
//! what operators read, and what both refuse.
#![cfg(test)]

mod support;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use countersign_stage::stage::{DOMAIN, free_port};
use countersign_stage::{Daemon, Options, Stage};
use countersign_trail::archive::Archive;
use countersign_trail::checkpoint::SignedCheckpoint;
use countersign_trail::document::Genesis;
use countersign_trail::keys::PublicKey;
use countersign_trail::signing::Purpose;
use serde_json::{Value, json};
use support::http::{Answer, head, over_tls, plain};
use support::tls::{alert, assert_tls_1_2_refused, client, connect};
use support::{events, export, says, sealed, sign, sizes};

/// How long a record-mode trail may take until a checkpoint covers its newest record: its interval is
/// a second.
const CHECKPOINT_LIMIT: Duration = Duration::from_secs(30);
/// Longest request head of the listeners, in bytes.
const MAX_HEAD_BYTES: usize = 16 * 1024;

/// A daemon with the public listener, and that listener's port.
fn running() -> (tempfile::TempDir, Stage, Daemon, u16) {
    let port = free_port().unwrap();
    let listen_lines = format!("public = \"127.0.0.1:{port}\"");
    let (folder, stage) = sealed(Options { workers: 1, listen_lines, ..Options::default() });
    let daemon = stage.start().unwrap();
    (folder, stage, daemon, port)
}

/// One request to the public listener, as anyone.
fn ask(stage: &Stage, port: u16, request: &[u8]) -> Answer {
    over_tls(connect(port, client(stage, None, b"http/1.1")), request)
}

fn get(stage: &Stage, port: u16, path: &str) -> Answer {
    ask(stage, port, head("GET", path).as_bytes())
}

/// A file of the evidence.
fn exported(evidence: &[u8], name: &str) -> Vec<u8> {
    Archive::parse(evidence).unwrap().iter().find(|(file, _)| *file == name).unwrap().1.to_vec()
}

fn genesis(stage: &Stage) -> Genesis {
    Genesis::parse(&std::fs::read(stage.folder.join("genesis.json")).unwrap()).unwrap()
}

/// The checkpoint key that the genesis gives a trail.
fn checkpoint_key(genesis: &Genesis, origin: &str) -> PublicKey {
    let of_trail =
        |trail: &Option<countersign_trail::origin::Origin>| trail.as_ref().is_some_and(|t| t.as_str() == origin);
    let purposes = [Purpose::Checkpoint, Purpose::AdminCheckpoint];
    let key = genesis.keys.iter().find(|key| of_trail(&key.trail) && purposes.contains(&key.purpose)).unwrap();
    PublicKey::from_spki_der(&countersign_trail::base64::std_decode(&key.spki).unwrap()).unwrap()
}

#[test]
fn anyone_reads_the_keys_without_a_certificate() {
    let (_folder, stage, daemon, port) = running();
    let evidence = std::fs::read(export(&stage, "evidence.zip")).unwrap();
    for (path, content_type, file) in
        [("/keys.json", "application/json", "keys.json"), ("/jwks.json", "application/jwk-set+json", "jwks.json")]
    {
        let answer = get(&stage, port, path);
        assert_eq!((answer.status, answer.header("content-type")), (200, Some(content_type)), "{answer:?}");
        assert_eq!(answer.header("cache-control"), Some("public, max-age=60"));
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        // The bytes that `countersign-verify` compares with what it derives itself.
        assert_eq!(answer.body, exported(&evidence, file), "{path}");
    }
    let kids = |list: &Value| -> BTreeSet<String> {
        list["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
    };
    let of_genesis: BTreeSet<String> = genesis(&stage).keys.iter().map(|key| key.kid.to_string()).collect();
    for path in ["/keys.json", "/jwks.json"] {
        assert_eq!(kids(&serde_json::from_slice(&get(&stage, port, path).body).unwrap()), of_genesis);
    }
    daemon.stop().unwrap();
}

#[test]
fn anyone_reads_checkpoints_that_the_keys_of_the_genesis_signed() {
    let (_folder, stage, daemon, port) = running();
    let listed: Value = serde_json::from_slice(&get(&stage, port, "/trails").body).unwrap();
    let trail = |origin: &str, mode: &str| json!({"mode": mode, "origin": origin});
    let mut trails = vec![trail(&format!("{DOMAIN}/admin"), "batch")];
    trails.extend(stage.options.trails.iter().map(|each| trail(&each.origin, each.mode)));
    assert_eq!(listed, json!({"genesis": stage.fingerprint, "trails": trails}));

    let sample = events(&stage, 0, 20);
    for each in &stage.options.trails {
        sign(&stage, &each.origin, &sample, &format!("{}.jsonl", each.mode));
    }
    let genesis = genesis(&stage);
    // Asked once: to be asked makes the daemon take a checkpoint, and here nobody asks it to.
    let mut wanted: Vec<(String, u64)> = stage.options.trails.iter().map(|trail| (trail.origin.clone(), 21)).collect();
    wanted.push((format!("{DOMAIN}/admin"), 3));
    for (origin, size) in wanted {
        let path = format!("/trails/{}/checkpoint", origin.replace('/', "~"));
        let begun = Instant::now();
        let newest = loop {
            let answer = get(&stage, port, &path);
            assert_eq!((answer.status, answer.header("content-type")), (200, Some("text/plain; charset=utf-8")));
            let newest = SignedCheckpoint::parse(&answer.body).unwrap();
            if newest.checkpoint().size >= size {
                break newest;
            }
            assert!(begun.elapsed() < CHECKPOINT_LIMIT, "{origin}: no checkpoint at {size}, but {newest:?}");
        };
        assert_eq!(newest.verify(&checkpoint_key(&genesis, &origin)).unwrap().origin.as_str(), origin);
        assert_eq!(newest.checkpoint().size, sizes(&stage)[&origin], "{origin}");
        // No other trail's key signed it.
        for other in stage.options.trails.iter().filter(|other| other.origin != origin) {
            newest.verify(&checkpoint_key(&genesis, &other.origin)).unwrap_err();
        }
    }
    daemon.stop().unwrap();
}

#[test]
fn the_public_listener_refuses_everything_else() {
    let (_folder, stage, daemon, port) = running();
    let grpc = "/countersign.v1.AuditService/ListTrails";
    for path in ["/", "/keys", "/keys.json/", "/metrics", "/healthz", "/readyz", "/trails/", "/../keys.json", grpc] {
        assert_eq!(get(&stage, port, path).status, 404, "{path}");
    }
    for trail in ["demo.example~no~such", "..", "demo.example%2Fadmin", "DEMO.example~admin", "%00", "%ff"] {
        let answer = get(&stage, port, &format!("/trails/{trail}/checkpoint"));
        assert!([400, 404].contains(&answer.status), "{trail}: {answer:?}");
    }
    assert_eq!(
        get(&stage, port, "/trails/demo.example~no~such/checkpoint").text().split(':').next(),
        Some("UNKNOWN_TRAIL")
    );
    for path in ["/keys.json", "/jwks.json", "/trails", "/trails/demo.example~admin/checkpoint"] {
        for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"] {
            assert_eq!(ask(&stage, port, head(method, path).as_bytes()).status, 405, "{method} {path}");
        }
        let answer = ask(&stage, port, head("HEAD", path).as_bytes());
        assert_eq!((answer.status, answer.body.len()), (200, 0), "HEAD {path}");
    }
    refuses_what_is_too_large(|request| ask(&stage, port, request));

    // TLS 1.3 and HTTP/1.1 alone.
    assert_tls_1_2_refused(port);
    says(&alert(port, client(&stage, None, b"h2")), &["NoApplicationProtocol"]);
    let unencrypted = std::panic::catch_unwind(|| plain(port, head("GET", "/keys.json").as_bytes()));
    assert!(unencrypted.is_err(), "{unencrypted:?}");
    // A member's certificate opens nothing more: it is not asked for.
    let answer = over_tls(connect(port, client(&stage, Some("auditor-1"), b"http/1.1")), head("GET", grpc).as_bytes());
    assert_eq!(answer.status, 404);
    assert_eq!(get(&stage, port, "/keys.json").status, 200);
    daemon.stop().unwrap();
}

/// Heads and bodies beyond the bounds are refused or never read; `ask` sends bytes and reads to the
/// connection's end.
fn refuses_what_is_too_large(ask: impl Fn(&[u8]) -> Answer) {
    let long_path = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(2 * MAX_HEAD_BYTES));
    let long_header = format!("GET /trails HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(2 * MAX_HEAD_BYTES));
    let many_headers = format!("GET /trails HTTP/1.1\r\nHost: x\r\n{}\r\n", "X: y\r\n".repeat(2 * MAX_HEAD_BYTES / 6));
    for request in [long_path, long_header, many_headers] {
        let answer = ask(request.as_bytes());
        assert!([414, 431].contains(&answer.status), "{:.40}: {answer:?}", request);
    }
    // A body that is announced and never comes is not waited for.
    let body = "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 9999999999\r\n\r\n";
    assert!([200, 404].contains(&ask(body.as_bytes()).status));
    let broken = ["GET /trails\r\n\r\n", "\0\0\0\0\r\n\r\n", "GET /trails HTTP/1.1\r\nHost x\r\n\r\n"];
    for request in broken {
        assert_eq!(ask(request.as_bytes()).status, 400, "{request:?}");
    }
}

/// Asserts that each stage of a batch was measured.
fn assert_every_stage(metrics: &Answer) {
    for stage in ["queue", "intent", "hsm", "verify", "commit", "release"] {
        let name = format!("countersign_stage_seconds_count{{stage=\"{stage}\"}} ");
        let count = metrics.text().lines().find_map(|line| line.strip_prefix(&name)?.parse::<u64>().ok());
        assert!(count.is_some_and(|count| count > 0), "{stage}: {count:?} in {}", metrics.text());
    }
}

#[test]
fn the_operations_listener_tells_operators_and_nothing_else() {
    let (_folder, stage, daemon, _) = running();
    let ask = |request: &[u8]| plain(stage.operations_port, request);
    let get = |path: &str| ask(head("GET", path).as_bytes());
    assert_eq!((get("/healthz").status, get("/healthz").text()), (200, "ok\n"));
    assert_eq!((get("/readyz").status, get("/readyz").text()), (200, "ready\n"));
    let origin = &stage.options.trails[0].origin;
    sign(&stage, origin, &events(&stage, 0, 7), "receipts.jsonl");
    assert_every_stage(&get("/metrics"));
    let metrics = get("/metrics");
    assert_eq!(metrics.status, 200);
    says(metrics.header("content-type").unwrap(), &["application/openmetrics-text"]);
    let counted = metrics.text().lines().find(|line| {
        ["countersign_records_total", origin, "gateway-1", "succeeded"].iter().all(|part| line.contains(part))
    });
    assert_eq!(counted.and_then(|line| line.rsplit(' ').next()), Some("7"), "{}", metrics.text());
    assert!(metrics.text().ends_with("# EOF\n"));
    for path in ["/", "/keys.json", "/jwks.json", "/trails", "/metrics/", "/countersign.v1.SigningService/Sign"] {
        assert_eq!(get(path).status, 404, "{path}");
    }
    for path in ["/metrics", "/healthz", "/readyz"] {
        for method in ["POST", "PUT", "DELETE"] {
            assert_eq!(ask(head(method, path).as_bytes()).status, 405, "{method} {path}");
        }
    }
    refuses_what_is_too_large(ask);
    assert_eq!(get("/readyz").status, 200);
    daemon.stop().unwrap();
}
