//! Listeners, signals, drain.

use std::sync::Arc;
use std::time::Duration;

use countersign_proto::v1::audit_service_server::AuditServiceServer;
use countersign_proto::v1::signing_service_server::SigningServiceServer;
use countersign_proto::{FILE_DESCRIPTOR_SET, MAX_ANSWER_LEN};
use countersign_trail::document::TokenRole;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::transport::Server;
use tower::util::{MapRequestLayer, MapResponseLayer};

use super::start::Started;
use super::{RunError, clockwatch};
use crate::appliance::Appliance;
use crate::config::Config;
use crate::decoding;
use crate::http;
use crate::intake;
use crate::service::audit::Audit;
use crate::service::public::{Health, Public};
use crate::service::signing::Signing;
use crate::service::timeout::InTimeLayer;
use crate::tls::{AcceptSettings, Tls, accept_loop, client_roots};

/// HTTP/2 windows: what a caller may send on before it is read. They bound what a connection holds that
/// nobody has looked at.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// The largest request to the auditors' service: names, numbers and a page token.
const MAX_AUDIT_REQUEST_BYTES: usize = 64 << 10;
/// Headers of one call: metadata and a trace context, with room.
const MAX_HEADERS_BYTES: u32 = 16 << 10;
/// How often gRPC health and metrics look at the tokens.
const HEALTH_EVERY: Duration = Duration::from_millis(250);

fn io(what: &str) -> impl FnOnce(std::io::Error) -> RunError {
    let what = what.to_owned();
    move |error| RunError::Io { what, error }
}

/// Serves until SIGTERM, SIGINT or a fatal condition, then drains.
pub(super) async fn serve(config: &Config, mut started: Started) -> Result<(), RunError> {
    // Before anything says that the daemon is ready: who sees that may tell it to stop.
    let signals = Signals::listen()?;
    let appliance = started.appliance.clone();
    let tls = Arc::new(Tls::new(&config.tls, &client_roots(&appliance.admin.plan)?, appliance.metrics.clone())?);
    let listener = TcpListener::bind(config.listen.grpc).await.map_err(io("listen.grpc"))?;
    let operations = TcpListener::bind(config.listen.operations).await.map_err(io("listen.operations"))?;
    // Before /readyz answers: who is told that the daemon is ready finds every listener there.
    let public = match config.listen.public {
        Some(address) => Some(TcpListener::bind(address).await.map_err(io("listen.public"))?),
        None => None,
    };
    let address = listener.local_addr().map_err(io("listen.grpc"))?;
    let operations_address = operations.local_addr().map_err(io("listen.operations"))?;
    let (stop, stopping) = watch::channel(false);
    let mut sides = JoinSet::new();
    let health = Arc::new(Health::new(appliance.clone()));
    sides.spawn(http::serve_operations(
        operations,
        appliance.metrics.clone(),
        health.clone(),
        stopped(stopping.clone()),
    ));
    if let Some(listener) = public {
        let published = Arc::new(Public::new(appliance.clone()));
        sides.spawn(http::serve_public(listener, tls.clone(), published, stopped(stopping.clone())));
    }
    watch_tokens(&mut sides, &started, &stopping);
    sides.spawn(clockwatch::watch(config.data_dir.clone(), appliance.clock.clone(), started.log.clone()));
    let fresh = tls.clone();
    sides.spawn(async move {
        if let Err(error) = fresh.keep_fresh().await {
            tracing::error!(%error, "TLS files are not read again");
        }
    });
    let settings = AcceptSettings {
        tls,
        access: Arc::new(crate::access::Access::new(&appliance.admin)),
        limits: config.limits.clone(),
        metrics: appliance.metrics.clone(),
    };
    let server = tokio::spawn(grpc(config.clone(), appliance.clone(), health, listener, settings, stopped(stopping)));
    tracing::info!(%address, %operations_address, genesis = %appliance.genesis, "serving");
    crate::notify::ready();
    let ended = until_stopped(signals, &mut started).await;
    crate::notify::stopping();
    let _ = stop.send(true);
    if ended.is_ok() {
        let limit = Duration::from_secs(config.limits.drain_seconds);
        if tokio::time::timeout(limit, drain(&appliance, server)).await.is_err() {
            tracing::warn!(?limit, "not everything was drained in time; the next start recovers the rest");
        }
    }
    sides.abort_all();
    appliance.record_token.pool().shutdown().await;
    appliance.admin_token.pool().shutdown().await;
    if ended.is_ok() {
        tracing::info!("stopped");
    }
    ended
}

/// Records the changes of both tokens' service until the drain begins: from then on a token's end is wanted.
fn watch_tokens(sides: &mut JoinSet<()>, started: &Started, stopping: &watch::Receiver<bool>) {
    let appliance = &started.appliance;
    for (role, token) in [(TokenRole::Record, &appliance.record_token), (TokenRole::Admin, &appliance.admin_token)] {
        let (log, states, stopping) = (started.log.clone(), token.pool().state(), stopping.clone());
        sides.spawn(async move {
            tokio::select! {
                biased;
                () = stopped(stopping) => {}
                () = log.watch(role, states) => {}
            }
        });
    }
}

async fn stopped(mut stopping: watch::Receiver<bool>) {
    // An error means that the sender is gone: stop as well.
    let _ = stopping.wait_for(|stop| *stop).await;
}

async fn grpc(
    config: Config,
    appliance: Arc<Appliance>,
    health: Arc<Health>,
    listener: TcpListener,
    settings: AcceptSettings,
    stopped: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    let limits = &config.limits;
    let (reporter, health_service) = tonic_health::server::health_reporter();
    tokio::spawn(health.report(reporter, HEALTH_EVERY));
    let signing = SigningServiceServer::new(Signing::new(appliance.clone()))
        .max_decoding_message_size(limits.message_bytes)
        .max_encoding_message_size(MAX_ANSWER_LEN);
    let audit = AuditServiceServer::new(Audit::new(appliance.clone()))
        .max_decoding_message_size(MAX_AUDIT_REQUEST_BYTES)
        .max_encoding_message_size(MAX_ANSWER_LEN);
    let reflection = config.listen.reflection.then(|| {
        let builder = tonic_reflection::server::Builder::configure();
        let health = tonic_health::pb::FILE_DESCRIPTOR_SET;
        let builder = builder.register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET);
        builder.register_encoded_file_descriptor_set(health).build_v1()
    });
    let reflection = match reflection {
        Some(Ok(service)) => Some(service),
        Some(Err(error)) => {
            tracing::error!(%error, "reflection is off");
            None
        }
        None => None,
    };
    let message_bytes = limits.message_bytes;
    let arriving = move |request| intake::arriving(&appliance, message_bytes, request);
    Server::builder()
        .layer(MapResponseLayer::new(decoding::with_reason))
        .layer(InTimeLayer)
        .layer(MapResponseLayer::new(intake::leaving))
        .layer(MapRequestLayer::new(arriving))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(limits.streams_per_connection)
        .concurrency_limit_per_connection(limits.streams_per_connection as usize)
        .http2_keepalive_interval(Some(Duration::from_secs(limits.keepalive_seconds)))
        .http2_keepalive_timeout(Some(Duration::from_secs(limits.keepalive_timeout_seconds)))
        .http2_max_header_list_size(MAX_HEADERS_BYTES)
        .max_connection_age_grace(Duration::from_secs(limits.drain_seconds))
        .max_connection_age(Duration::from_secs(limits.max_connection_age_seconds))
        .add_service(health_service)
        .add_service(signing)
        .add_service(audit)
        .add_optional_service(reflection)
        .serve_with_incoming_shutdown(accept_loop(listener, settings), stopped)
        .await
}

/// The signals that ask for a clean end.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// From here on neither ends the process by itself.
    fn listen() -> Result<Signals, RunError> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate()).map_err(io("SIGTERM"))?,
            interrupt: signal(SignalKind::interrupt()).map_err(io("SIGINT"))?,
        })
    }
}

/// Waits for a signal, or for a sequencer that must not go on.
async fn until_stopped(mut signals: Signals, started: &mut Started) -> Result<(), RunError> {
    tokio::select! {
        _ = signals.terminate.recv() => tracing::info!("told to stop"),
        _ = signals.interrupt.recv() => tracing::info!("interrupted"),
        Some(ended) = started.tasks.join_next() => match ended {
            Ok(result) => result?,
            Err(error) => return Err(io("a sequencer")(std::io::Error::other(error))),
        },
    }
    Ok(())
}

/// Calls first, then the trails' last batches and checkpoints.
async fn drain(appliance: &Appliance, server: tokio::task::JoinHandle<Result<(), tonic::transport::Error>>) {
    for trail in appliance.trails.values() {
        if let Err(error) = trail.drain().await {
            tracing::warn!(trail = %trail.facts().origin, %error, "not drained");
        }
    }
    match server.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "the server ended"),
        Err(error) => tracing::warn!(%error, "the server ended"),
    }
}
