//! Gateways under load, with every answer checked by the client library.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use countersign_client::{Client, ClientConfig, Connection, Trust};
use countersign_proto::v1;
use countersign_stage::{Stage, Trail};
use tokio::sync::Mutex;

/// Events of one stream message: batch mode, record mode.
const BATCH_MESSAGE: usize = 200;
const RECORD_MESSAGE: usize = 32;

/// One measurement.
pub(crate) struct Measured {
    /// Records a second.
    pub(crate) rate: f64,
    /// Latency of a message, milliseconds.
    pub(crate) p50: f64,
    /// The same.
    pub(crate) p99: f64,
}

/// Messages of all streams together that may wait for their answers: enough to keep a batch gathering
/// while another is signed, and below what one client may have in flight.
const MESSAGES_IN_FLIGHT: usize = 128;

async fn client(stage: &Stage, clients: usize) -> Result<Client> {
    let at = |name: &str| fs::read(stage.folder.join("tls").join(name));
    let endpoint = format!("https://localhost:{}", stage.port);
    let connection = Connection::new(&endpoint, at("ca.pem")?, at("gateway-1.pem")?, at("gateway-1.key")?);
    let fingerprint = stage.fingerprint.parse().context("the genesis fingerprint")?;
    let mut config = ClientConfig::new(connection, Trust::Genesis(fingerprint));
    config.stream_window = (MESSAGES_IN_FLIGHT / clients).clamp(1, 8);
    Ok(Client::connect(config).await?)
}

/// An event whose facts are about 400 bytes of JSON.
fn event() -> v1::Event {
    let text = |text: &str| text.to_owned();
    v1::Event {
        r#type: text("llm.completion"),
        category: v1::Category::Normal.into(),
        decision: v1::Decision::Allow.into(),
        result: v1::Result::Delivered.into(),
        facts: Some(v1::Facts {
            occurred_at: text("2026-01-31T08:00:00.000000Z"),
            agent: Some(v1::Agent { id: text("agent-7f3a"), name: text("support-assistant"), version: text("4.2.0") }),
            team: text("customer-care"),
            org: text("demo.example"),
            session_id: text("5f0c9b1e-2f6d-4c1a-9f5e-6f6a3b2c1d0e"),
            model: Some(v1::Model { provider: text("example"), name: text("large-2"), version: text("2026-01") }),
            policy: Some(v1::Policy {
                id: text("default"),
                version: text("17"),
                digest: text("sha256:9f86d081884c7d65"),
            }),
            tokens: Some(v1::Tokens { prompt: 812, completion: 164 }),
            cost: Some(v1::Cost { estimated: text("0.00412"), settled: text("0.00409"), currency: text("USD") }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// `clients` streams, each as fast as its answers come.
pub(crate) async fn stream(stage: &Stage, trail: &Trail, clients: usize, time: Duration) -> Result<Measured> {
    let message = if trail.mode == "batch" { BATCH_MESSAGE } else { RECORD_MESSAGE };
    let signed = Arc::new(AtomicU64::new(0));
    let latencies = Arc::new(Mutex::new(Vec::new()));
    let mut tasks = tokio::task::JoinSet::new();
    let mut connected = Vec::new();
    for _ in 0..clients {
        connected.push(client(stage, clients).await?);
    }
    let begun = Instant::now();
    for client in connected {
        let (signed, latencies, origin) = (signed.clone(), latencies.clone(), trail.origin.clone());
        tasks.spawn(async move {
            let (mut sender, mut receiver) = client.sign_stream(&origin)?;
            let (sent_at, mut sent) = tokio::sync::mpsc::unbounded_channel::<Instant>();
            let sending = tokio::spawn(async move {
                while begun.elapsed() < time {
                    let events = vec![event(); message];
                    let _ = sent_at.send(Instant::now());
                    sender.send(events).await?;
                }
                Ok::<_, anyhow::Error>(())
            });
            let mut own = Vec::new();
            while let Some(results) = receiver.recv().await? {
                let count = results.iter().filter(|result| result.is_ok()).count();
                signed.fetch_add(count as u64, Ordering::Relaxed);
                if let Some(at) = sent.recv().await {
                    own.push(at.elapsed());
                }
            }
            sending.await??;
            latencies.lock().await.extend(own);
            Ok::<_, anyhow::Error>(())
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    let rate = signed.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64();
    let latencies = std::mem::take(&mut *latencies.lock().await);
    Ok(measured(rate, latencies))
}

/// One client, one Sign at a time.
pub(crate) async fn idle(stage: &Stage, trail: &Trail, time: Duration) -> Result<Measured> {
    let client = client(stage, 1).await?;
    let mut latencies = Vec::new();
    let begun = Instant::now();
    while begun.elapsed() < time {
        let at = Instant::now();
        client.sign(&trail.origin, event()).await?;
        latencies.push(at.elapsed());
    }
    let rate = latencies.len() as f64 / begun.elapsed().as_secs_f64();
    Ok(measured(rate, latencies))
}

fn measured(rate: f64, mut latencies: Vec<Duration>) -> Measured {
    latencies.sort_unstable();
    let at = |part: f64| {
        let index = (latencies.len().saturating_sub(1) as f64 * part) as usize;
        latencies.get(index).map_or(0.0, |latency| latency.as_secs_f64() * 1e3)
    };
    Measured { rate, p50: at(0.5), p99: at(0.99) }
}
