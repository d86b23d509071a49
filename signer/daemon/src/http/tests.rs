use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use super::*;

struct Down;

impl Readiness for Down {
    fn readiness(&self) -> Result<(), Refusal> {
        Err(Refusal::new(Reason::HsmUnavailable, "record token: starting"))
    }
}

struct Fixed;

impl Published for Fixed {
    async fn keys(&self) -> Result<Bytes, Refusal> {
        Ok(Bytes::from_static(b"{\"keys\":[]}"))
    }
    async fn jwks(&self) -> Result<Bytes, Refusal> {
        Err(Refusal::new(Reason::StoreUnavailable, "disk /secret/path"))
    }
    async fn trails(&self) -> Result<Bytes, Refusal> {
        Ok(Bytes::from_static(b"[]"))
    }
    async fn checkpoint(&self, trail: &Origin) -> Result<Bytes, Refusal> {
        match trail.as_str() {
            "acme.example/a/b" => Ok(Bytes::from_static(b"acme.example/a/b\n1\n")),
            _ => Err(Refusal::from(Reason::UnknownTrail)),
        }
    }
}

struct Running {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    done: tokio::task::JoinHandle<()>,
}

async fn run(router: Router) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let done = tokio::spawn(server::serve(listener, None, router, async {
        let _ = stopped.await;
    }));
    Running { address, stop, done }
}

/// One request on one connection: the whole answer.
async fn ask(address: SocketAddr, head: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("{head}\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8(answer).unwrap()
}

fn some_metrics() -> Arc<Metrics> {
    Arc::new(Metrics::new([], []))
}

#[tokio::test]
async fn operations_answer() {
    let running = run(operations(some_metrics(), Arc::new(Down))).await;
    let metrics = ask(running.address, "GET /metrics HTTP/1.1").await;
    assert!(
        metrics.starts_with("HTTP/1.1 200 OK\r\n") && metrics.contains("application/openmetrics-text"),
        "{metrics}"
    );
    assert!(metrics.ends_with("# EOF\n"));
    // Alive though not ready.
    assert!(ask(running.address, "GET /healthz HTTP/1.1").await.ends_with("\r\n\r\nok\n"));
    let ready = ask(running.address, "GET /readyz HTTP/1.1").await;
    assert!(
        ready.starts_with("HTTP/1.1 503") && ready.ends_with("HSM_UNAVAILABLE: record token: starting\n"),
        "{ready}"
    );
    assert!(ask(running.address, "POST /metrics HTTP/1.1").await.starts_with("HTTP/1.1 405"));
    assert!(ask(running.address, "GET /keys.json HTTP/1.1").await.starts_with("HTTP/1.1 404"));
}

#[tokio::test]
async fn the_public_answers_and_tells_nothing_of_the_host() {
    let running = run(public(Arc::new(Fixed))).await;
    let keys = ask(running.address, "GET /keys.json HTTP/1.1").await;
    assert!(keys.contains("content-type: application/json\r\n") && keys.ends_with("\r\n\r\n{\"keys\":[]}"), "{keys}");
    assert!(keys.contains("cache-control: public, max-age=60\r\n") && keys.contains("nosniff"), "{keys}");
    let jwks = ask(running.address, "GET /jwks.json HTTP/1.1").await;
    assert!(
        jwks.starts_with("HTTP/1.1 503") && jwks.contains("STORE_UNAVAILABLE") && !jwks.contains("secret"),
        "{jwks}"
    );
    let found = ask(running.address, "GET /trails/acme.example~a~b/checkpoint HTTP/1.1").await;
    assert!(found.starts_with("HTTP/1.1 200") && found.ends_with("acme.example/a/b\n1\n"), "{found}");
    for path in ["acme.example~c", "..", "acme.example~..", "A~b", "acme.example%2Fa%2Fb", "%00"] {
        let answer = ask(running.address, &format!("GET /trails/{path}/checkpoint HTTP/1.1")).await;
        assert!(answer.starts_with("HTTP/1.1 404"), "{path}: {answer}");
    }
    for path in ["/metrics", "/readyz"] {
        assert!(ask(running.address, &format!("GET {path} HTTP/1.1")).await.starts_with("HTTP/1.1 404"));
    }
}

#[tokio::test]
async fn requests_are_bounded() {
    let running = run(operations(some_metrics(), Arc::new(Down))).await;
    let long = format!("GET /{} HTTP/1.1", "x".repeat(64 * 1024));
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    // The server may close before all is written; that is a refusal too.
    let _ = stream.write_all(format!("{long}\r\n\r\n").as_bytes()).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431") || answer.starts_with("HTTP/1.1 414"), "{answer}");
    assert!(ask(running.address, "GET /healthz HTTP/1.1").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn connections_beyond_the_bound_are_closed() {
    let running = run(operations(some_metrics(), Arc::new(Down))).await;
    let mut held = Vec::new();
    for _ in 0..server::MAX_CONNECTIONS {
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        // An answer shows that the connection was taken in.
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut byte = [0; 1];
        stream.read_exact(&mut byte).await.unwrap();
        held.push(stream);
    }
    let mut one_more = TcpStream::connect(running.address).await.unwrap();
    let mut byte = [0; 1];
    assert_eq!(one_more.read(&mut byte).await.unwrap_or(0), 0);
    // And all of them end with the listener, idle as they are.
    running.stop.send(()).unwrap();
    tokio::time::timeout(Duration::from_secs(30), running.done).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_silent_connection_is_closed() {
    let running = run(operations(some_metrics(), Arc::new(Down))).await;
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    stream.write_all(b"GET /healthz HT").await.unwrap();
    let mut answer = Vec::new();
    let started = tokio::time::Instant::now();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(started.elapsed() < Duration::from_secs(60));
}
