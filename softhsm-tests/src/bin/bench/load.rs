//! Gateways under load.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail};
use countersign_client::{Client, ClientConfig, Connection, Trust};
use countersign_proto::v1;
use countersign_proto::v1::answer::Outcome;
use countersign_proto::v1::signing_service_client::SigningServiceClient;
use countersign_stage::{Stage, Trail};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;

/// Events of one stream message: batch mode, record mode.
const BATCH_MESSAGE: usize = 200;
const RECORD_MESSAGE: usize = 64;
/// Messages of all streams together that may wait for their answers: enough to keep a batch gathering
/// while another is signed, and below what one client may have in flight.
const MESSAGES_IN_FLIGHT: usize = 64;
/// What a load does before it is measured: caches fill, and keys get their multiples.
const WARM_UP: Duration = Duration::from_secs(1);
/// The largest answer of a message, in bytes, with room.
const MAX_ANSWER_LEN: usize = 16 << 20;

/// What a gateway does with its answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gateway {
    /// Reads them and sees that every event has its record. The gateways' own work belongs to other
    /// machines; here it would be taken from the daemon's.
    Reads,
    /// Checks all of them with the client library, on the same processors.
    Checks,
}

/// One measurement.
pub(crate) struct Measured {
    /// Records a second.
    pub(crate) rate: f64,
    /// Latency of a message, milliseconds.
    pub(crate) p50: f64,
    /// The same.
    pub(crate) p99: f64,
}

fn window(clients: usize) -> usize {
    (MESSAGES_IN_FLIGHT / clients).clamp(1, 32)
}

fn message_size(trail: &Trail) -> usize {
    if trail.mode == "batch" { BATCH_MESSAGE } else { RECORD_MESSAGE }
}

async fn client(stage: &Stage, clients: usize) -> Result<Client> {
    let at = |name: &str| fs::read(stage.folder.join("tls").join(name));
    let endpoint = format!("https://localhost:{}", stage.port);
    let connection = Connection::new(&endpoint, at("ca.pem")?, at("gateway-1.pem")?, at("gateway-1.key")?);
    let fingerprint = stage.fingerprint.parse().context("the genesis fingerprint")?;
    let mut config = ClientConfig::new(connection, Trust::Genesis(fingerprint));
    config.stream_window = window(clients);
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
pub(crate) async fn stream(
    stage: &Stage,
    trail: &Trail,
    gateway: Gateway,
    clients: usize,
    time: Duration,
) -> Result<Measured> {
    let mut connected = Vec::new();
    for _ in 0..clients {
        connected.push(client(stage, clients).await?);
    }
    let signed = Arc::new(AtomicU64::new(0));
    let begun = Instant::now() + WARM_UP;
    let mut tasks = JoinSet::new();
    for (number, client) in connected.into_iter().enumerate() {
        let load = Load { number, trail: trail.clone(), window: window(clients), begun, until: begun + time };
        let signed = signed.clone();
        tasks.spawn(async move {
            match gateway {
                Gateway::Reads => load.reading(&client, &signed).await,
                Gateway::Checks => load.checking(&client, &signed).await,
            }
        });
    }
    let mut latencies = Vec::new();
    while let Some(ended) = tasks.join_next().await {
        latencies.extend(ended??);
    }
    let rate = signed.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64();
    Ok(measured(rate, latencies))
}

/// One gateway's part.
struct Load {
    number: usize,
    trail: Trail,
    window: usize,
    begun: Instant,
    until: Instant,
}

impl Load {
    /// Counts an answered message, once the load is warm.
    fn count(&self, latencies: &mut Vec<Duration>, records: usize, sent_at: Option<Instant>, signed: &AtomicU64) {
        if Instant::now() >= self.begun {
            signed.fetch_add(records as u64, Ordering::Relaxed);
            latencies.extend(sent_at.map(|at| at.elapsed()));
        }
    }

    async fn checking(self, client: &Client, signed: &AtomicU64) -> Result<Vec<Duration>> {
        let (mut sender, mut receiver) = client.sign_stream(&self.trail.origin)?;
        let (sent_at, mut sent) = mpsc::unbounded_channel::<Instant>();
        let (until, size) = (self.until, message_size(&self.trail));
        let sending = tokio::spawn(async move {
            while Instant::now() < until {
                let events = vec![event(); size];
                let _ = sent_at.send(Instant::now());
                sender.send(events).await?;
            }
            Ok::<_, anyhow::Error>(())
        });
        let mut latencies = Vec::new();
        while let Some(results) = receiver.recv().await? {
            for result in &results {
                result.as_ref().map_err(Clone::clone)?;
            }
            self.count(&mut latencies, results.len(), sent.recv().await, signed);
        }
        sending.await??;
        Ok(latencies)
    }

    async fn reading(self, client: &Client, signed: &AtomicU64) -> Result<Vec<Duration>> {
        let mut service = SigningServiceClient::new(client.channel()).max_decoding_message_size(MAX_ANSWER_LEN);
        let (requests, receiver) = mpsc::channel(self.window);
        let room = Arc::new(Semaphore::new(self.window));
        let (sent_at, mut sent) = mpsc::unbounded_channel::<Instant>();
        let sending = {
            let room = room.clone();
            let (until, size) = (self.until, message_size(&self.trail));
            let (number, trail) = (self.number, self.trail.origin.clone());
            tokio::spawn(async move {
                let mut ids = EventIds::new(number);
                while Instant::now() < until {
                    room.acquire().await?.forget();
                    let events = (0..size).map(|_| v1::Event { event_id: ids.next(), ..event() }).collect();
                    let _ = sent_at.send(Instant::now());
                    requests.send(v1::SignBatchRequest { trail: trail.clone(), events, held: None }).await?;
                }
                Ok::<_, anyhow::Error>(())
            })
        };
        let mut answers = service.sign_stream(ReceiverStream::new(receiver)).await?.into_inner();
        let mut latencies = Vec::new();
        while let Some(message) = answers.message().await? {
            for answer in &message.answers {
                if !matches!(&answer.outcome, Some(Outcome::Signed(one)) if !one.record.is_empty()) {
                    bail!("an event was not signed: {:?}", answer.outcome);
                }
            }
            room.add_permits(1);
            self.count(&mut latencies, message.answers.len(), sent.recv().await, signed);
        }
        sending.await??;
        Ok(latencies)
    }
}

/// Event ids in the order of time, as a client library makes them.
struct EventIds {
    prefix: String,
    next: u64,
}

impl EventIds {
    fn new(gateway: usize) -> EventIds {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        EventIds { prefix: format!("{:012x}-{gateway:02x}", since.as_millis()), next: 0 }
    }

    fn next(&mut self) -> String {
        self.next += 1;
        format!("{}-{:08x}", self.prefix, self.next)
    }
}

/// One client, one Sign at a time, every answer checked.
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
