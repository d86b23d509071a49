//! A bounded HTTP/1.1 server.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::tls::Tls;

/// Most connections of one listener. Beyond it a new one is closed at once.
pub(super) const MAX_CONNECTIONS: usize = 256;
/// Longest request head, in bytes.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// Longest wait for a request's head, the first as any later one of the connection.
const HEAD_TIME: Duration = Duration::from_secs(5);
/// Longest TLS handshake.
const HANDSHAKE_TIME: Duration = Duration::from_secs(5);
/// Longest life of a connection; an answer under way is finished within [`GRACE`].
const CONNECTION_TIME: Duration = Duration::from_secs(60);
/// Longest time to finish answers after that, or after shutdown began.
const GRACE: Duration = Duration::from_secs(12);
/// Pause after the system refused to accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `shutdown` completes, then finishes what is under way.
pub(super) async fn serve(
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    router: Router,
    shutdown: impl Future<Output = ()> + Send,
) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let (stop, stopping) = watch::channel(());
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            // Keeps the set as small as the number of open connections.
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if let Ok(slot) = slots.clone().try_acquire_owned() {
            let connection = connection(stream, tls.clone(), router.clone(), stopping.clone());
            connections.spawn(async move {
                let _slot = slot;
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "HTTP connection ended");
                }
            });
        }
    }
    drop(listener);
    drop(stop);
    while connections.join_next().await.is_some() {}
}

async fn connection(
    stream: TcpStream,
    tls: Option<Arc<Tls>>,
    router: Router,
    mut stopping: watch::Receiver<()>,
) -> io::Result<()> {
    let Some(tls) = tls else {
        return converse(stream, router, stopping).await;
    };
    let handshake = TlsAcceptor::from(tls.public()).accept(stream);
    let stream = tokio::select! {
        done = tokio::time::timeout(HANDSHAKE_TIME, handshake) => done??,
        _ = stopping.changed() => return Ok(()),
    };
    converse(stream, router, stopping).await
}

async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    router: Router,
    mut stopping: watch::Receiver<()>,
) -> io::Result<()> {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME).max_buf_size(MAX_HEAD_BYTES);
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)));
    tokio::select! {
        done = &mut connection => return done.map_err(io::Error::other),
        // Changes only by being dropped: the listener stops.
        _ = stopping.changed() => {}
        () = tokio::time::sleep(CONNECTION_TIME) => {}
    }
    connection.as_mut().graceful_shutdown();
    tokio::time::timeout(GRACE, connection).await?.map_err(io::Error::other)
}
