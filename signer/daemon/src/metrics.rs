//! Metrics in the OpenMetrics text format, all with the prefix `countersign_`.
//!
//! | metric | labels | what |
//! |---|---|---|
//! | `operations_total` | operation, outcome, reason | calls by how they ended |
//! | `offered_total` | client | events that a client sent |
//! | `records_total` | trail, client, outcome | events by how they ended |
//! | `stage_seconds` | stage | time of each stage of a batch |
//! | `batch_records` | | records of a batch |
//! | `in_flight_records`, `in_flight_bytes` | | events not yet answered |
//! | `hsm_state` | token, state | 1 for the state that the token is in |
//! | `tls_reload_total` | outcome | readings of certificate, key and revocation lists |
//! | `connections` | | open connections of the gRPC listener |
//! | `connections_refused_total` | cause | connections that ended before a call |
//!
//! Labels come from closed lists: trails and members of the genesis (anything else is `other`),
//! the daemon's own operations, stages and reasons. No caller can make a new time series.

mod labels;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use countersign_trail::document::TokenRole;
use countersign_trail::id::MemberId;
use countersign_trail::origin::Origin;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use self::labels::{CauseLabels, ClientLabels, HsmLabels, OperationLabels, OutcomeLabels, RecordLabels, StageLabels};
pub use self::labels::{HsmState, RefusedConnection, Stage};
use crate::reason::{Outcome, Reason};

/// Label value of a trail or member that the genesis does not name.
const OTHER: &str = "other";

/// Content type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What one client offered since the start, and how it ended: offered = signed + denied + failed +
/// in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ClientCounts {
    /// Events received.
    pub offered: u64,
    /// Events answered with a signature.
    pub signed: u64,
    /// Events refused by a rule.
    pub denied: u64,
    /// Events that the daemon could not sign.
    pub failed: u64,
}

#[derive(Debug, Default)]
struct ClientCounters {
    offered: AtomicU64,
    signed: AtomicU64,
    denied: AtomicU64,
    failed: AtomicU64,
}

type Counters<L> = Family<L, Counter>;

/// Every metric of the daemon. One; shared by reference.
pub struct Metrics {
    registry: Registry,
    trails: BTreeSet<Origin>,
    clients: BTreeMap<MemberId, ClientCounters>,
    operations: Counters<OperationLabels>,
    offered: Counters<ClientLabels>,
    records: Counters<RecordLabels>,
    stages: Family<StageLabels, Histogram, fn() -> Histogram>,
    batch_records: Histogram,
    in_flight_records: Gauge<i64, AtomicI64>,
    in_flight_bytes: Gauge<i64, AtomicI64>,
    hsm: Family<HsmLabels, Gauge<i64, AtomicI64>>,
    reloads: Counters<OutcomeLabels>,
    connections: Gauge<i64, AtomicI64>,
    refused: Counters<CauseLabels>,
}

/// 50 µs to 26 s, doubling: an idle signature lies near 1 ms, a hung one at the call deadline.
fn stage_histogram() -> Histogram {
    Histogram::new(exponential_buckets(50e-6, 2.0, 20))
}

impl Metrics {
    /// For the members and trails (the admin trail included) of the genesis.
    pub fn new(members: impl IntoIterator<Item = MemberId>, trails: impl IntoIterator<Item = Origin>) -> Metrics {
        let mut metrics = Metrics {
            registry: Registry::with_prefix("countersign"),
            trails: trails.into_iter().collect(),
            clients: members.into_iter().map(|member| (member, ClientCounters::default())).collect(),
            operations: Family::default(),
            offered: Family::default(),
            records: Family::default(),
            stages: Family::new_with_constructor(stage_histogram as fn() -> Histogram),
            // 1 to 8,192 records, the largest batch.
            batch_records: Histogram::new(exponential_buckets(1.0, 2.0, 14)),
            in_flight_records: Gauge::default(),
            in_flight_bytes: Gauge::default(),
            hsm: Family::default(),
            reloads: Family::default(),
            connections: Gauge::default(),
            refused: Family::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register("operations", "Calls by operation, outcome and reason", self.operations.clone());
        registry.register("offered", "Events received, by client", self.offered.clone());
        registry.register("records", "Events by trail, client and outcome", self.records.clone());
        registry.register("stage_seconds", "Time of each stage of a batch, in seconds", self.stages.clone());
        registry.register("batch_records", "Records of a batch", self.batch_records.clone());
        registry.register("in_flight_records", "Events not yet answered", self.in_flight_records.clone());
        registry.register("in_flight_bytes", "Bytes of events not yet answered", self.in_flight_bytes.clone());
        registry.register("hsm_state", "1 for the state that the token is in", self.hsm.clone());
        registry.register("tls_reload", "Readings of certificate, key and revocation lists", self.reloads.clone());
        registry.register("connections", "Open connections of the gRPC listener", self.connections.clone());
        registry.register("connections_refused", "Connections that ended before a call", self.refused.clone());
    }

    fn client_label(&self, client: &MemberId) -> String {
        if self.clients.contains_key(client) { client.to_string() } else { OTHER.to_owned() }
    }

    /// Counts a call. `operation` is a literal of this program: the name of the RPC.
    pub fn operation(&self, operation: &'static str, result: Result<(), Reason>) {
        let (outcome, reason) = match result {
            Ok(()) => (Outcome::Succeeded, "NONE"),
            Err(reason) => (reason.outcome(), reason.code()),
        };
        let labels = OperationLabels { operation, outcome: outcome.word(), reason };
        self.operations.get_or_create(&labels).inc();
    }

    /// Counts events that a client sent, before anything is decided about them.
    pub fn offered(&self, client: &MemberId, events: u64) {
        self.offered.get_or_create(&ClientLabels { client: self.client_label(client) }).inc_by(events);
        if let Some(counters) = self.clients.get(client) {
            counters.offered.fetch_add(events, Ordering::Relaxed);
        }
    }

    /// Counts events by how they ended: once for each event that was offered. No trail: they were
    /// refused before they had one.
    pub fn records(&self, trail: Option<&Origin>, client: &MemberId, outcome: Outcome, events: u64) {
        let trail = trail.filter(|trail| self.trails.contains(*trail)).map_or(OTHER.to_owned(), Origin::to_string);
        let labels = RecordLabels { trail, client: self.client_label(client), outcome: outcome.word() };
        self.records.get_or_create(&labels).inc_by(events);
        if let Some(counters) = self.clients.get(client) {
            let counter = match outcome {
                Outcome::Succeeded => &counters.signed,
                Outcome::Denied => &counters.denied,
                Outcome::Failed => &counters.failed,
            };
            counter.fetch_add(events, Ordering::Relaxed);
        }
    }

    /// The counts of every member since the start, sorted by member.
    pub fn client_counts(&self) -> impl Iterator<Item = (&MemberId, ClientCounts)> {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        self.clients.iter().map(move |(member, counters)| {
            // Offered last: it is counted first, so it never falls short of the others.
            let (signed, denied, failed) = (read(&counters.signed), read(&counters.denied), read(&counters.failed));
            (member, ClientCounts { offered: read(&counters.offered), signed, denied, failed })
        })
    }

    /// Records how long a stage of a batch took.
    pub fn stage(&self, stage: Stage, time: Duration) {
        self.stages.get_or_create(&StageLabels { stage: stage.word() }).observe(time.as_secs_f64());
    }

    /// Records the size of a batch.
    pub fn batch(&self, records: usize) {
        self.batch_records.observe(records as f64);
    }

    /// Sets what is in flight, as [`crate::limits::Admission::in_flight`] says.
    pub fn in_flight(&self, (records, bytes): (usize, usize)) {
        self.in_flight_records.set(i64::try_from(records).unwrap_or(i64::MAX));
        self.in_flight_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Sets the state that a token is in.
    pub fn hsm_state(&self, token: TokenRole, state: HsmState) {
        for each in HsmState::ALL {
            let labels = HsmLabels { token: token.word(), state: each.word() };
            self.hsm.get_or_create(&labels).set(i64::from(each == state));
        }
    }

    /// Counts a reading of the TLS files.
    pub fn tls_reload(&self, outcome: Outcome) {
        self.reloads.get_or_create(&OutcomeLabels { outcome: outcome.word() }).inc();
    }

    /// Counts a connection, open until the answer is dropped.
    pub fn connection(&self) -> OpenConnection {
        self.connections.inc();
        OpenConnection(self.connections.clone())
    }

    /// Counts a connection that ended before a call.
    pub fn connection_refused(&self, cause: RefusedConnection) {
        self.refused.get_or_create(&CauseLabels { cause: cause.word() }).inc();
    }

    /// Everything, in the OpenMetrics text format.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        match encode(&mut text, &self.registry) {
            Ok(()) => text,
            // Writing to a String does not fail.
            Err(std::fmt::Error) => "# EOF\n".to_owned(),
        }
    }
}

/// One open connection of the gauge.
#[derive(Debug)]
pub struct OpenConnection(Gauge<i64, AtomicI64>);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics() -> Metrics {
        let member = |text: &str| MemberId::parse(text).unwrap();
        Metrics::new([member("a"), member("b")], [Origin::parse("acme.example/x").unwrap()])
    }

    #[test]
    fn client_counts_are_read_back() {
        let metrics = metrics();
        let (a, trail) = (MemberId::parse("a").unwrap(), Origin::parse("acme.example/x").unwrap());
        metrics.offered(&a, 10);
        metrics.records(Some(&trail), &a, Outcome::Succeeded, 6);
        metrics.records(Some(&trail), &a, Outcome::Denied, 3);
        metrics.records(Some(&trail), &a, Outcome::Failed, 1);
        let counts: Vec<_> = metrics.client_counts().map(|(_, counts)| counts).collect();
        let want = ClientCounts { offered: 10, signed: 6, denied: 3, failed: 1 };
        assert_eq!(counts, [want, ClientCounts::default()]);
        let text = metrics.encode();
        let line = "countersign_records_total{trail=\"acme.example/x\",client=\"a\",outcome=\"succeeded\"} 6\n";
        assert!(text.contains(line), "{text}");
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn callers_cannot_make_time_series() {
        let metrics = metrics();
        for n in 0..1000 {
            let client = MemberId::parse(&format!("m{n}")).unwrap();
            let trail = Origin::parse(&format!("acme.example/t{n}")).unwrap();
            metrics.offered(&client, 1);
            metrics.records(Some(&trail), &client, Outcome::Denied, 1);
        }
        let text = metrics.encode();
        assert!(text.contains("countersign_offered_total{client=\"other\"} 1000\n"), "{text}");
        assert!(text.lines().count() < 60, "{text}");
    }

    #[test]
    fn a_token_is_in_one_state() {
        let metrics = metrics();
        metrics.hsm_state(TokenRole::Record, HsmState::Starting);
        metrics.hsm_state(TokenRole::Record, HsmState::Down);
        let text = metrics.encode();
        let on = |line: &&str| line.starts_with("countersign_hsm_state{") && line.ends_with(" 1");
        let lines: Vec<&str> = text.lines().filter(on).collect();
        assert_eq!(lines, ["countersign_hsm_state{token=\"record\",state=\"down\"} 1"]);
    }

    #[test]
    fn operations_and_stages_and_connections() {
        let metrics = metrics();
        metrics.operation("Sign", Ok(()));
        metrics.operation("Sign", Err(Reason::Overloaded));
        metrics.stage(Stage::Hsm, Duration::from_millis(1));
        metrics.batch(8192);
        let open = metrics.connection();
        assert!(metrics.encode().contains("countersign_connections 1\n"));
        drop(open);
        let text = metrics.encode();
        for want in [
            "countersign_operations_total{operation=\"Sign\",outcome=\"succeeded\",reason=\"NONE\"} 1\n",
            "countersign_operations_total{operation=\"Sign\",outcome=\"failed\",reason=\"OVERLOADED\"} 1\n",
            "countersign_stage_seconds_count{stage=\"hsm\"} 1\n",
            "countersign_batch_records_bucket{le=\"8192.0\"} 1\n",
            "countersign_connections 0\n",
        ] {
            assert!(text.contains(want), "{want} in {text}");
        }
    }
}
