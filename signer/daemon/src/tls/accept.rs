//! From a TCP connection to one that tonic may serve: limits, handshake, identity.
//!
//! Every bound is checked without waiting: a connection beyond one is closed and counted. Those in
//! handshake, which anyone on the network can open, are counted apart from those of members, in all and
//! for each source address, and last at most `handshake_ms`.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

use super::{Tls, identity};
use crate::access::Access;
use crate::config::Limits;
use crate::metrics::{Metrics, OpenConnection, RefusedConnection};
use crate::peer::Peer;

/// Finished handshakes that wait for the server to take them. More wait inside their tasks, which
/// the bound on connections bounds.
const HANDED_OVER: usize = 64;
/// Most connections in handshake.
const HANDSHAKES: usize = 256;
/// Most of them from one source: an IPv4 address, or 64 bits of an IPv6 address.
const HANDSHAKES_PER_SOURCE: usize = 64;
/// Pause after the system refused to accept (no file descriptors left, for example).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Slot of every identity that the roster does not know.
const UNKNOWN: &str = "";

/// What the accept loop needs.
#[derive(Clone)]
pub struct AcceptSettings {
    /// Certificates.
    pub tls: Arc<Tls>,
    /// The roster: connections are counted by member.
    pub access: Arc<Access>,
    /// `connections`, `connections_per_client`, `handshake_ms`.
    pub limits: Limits,
    /// Where to count.
    pub metrics: Arc<Metrics>,
}

/// A client's connection after its handshake. Its [`Peer`] stands in the extensions of each request
/// (`request.extensions().get::<Peer>()`).
pub struct Connection {
    stream: TlsStream<TcpStream>,
    peer: Peer,
    _total: OwnedSemaphorePermit,
    _slot: Slot,
    _open: OpenConnection,
}

/// Accepts connections until the stream that it gives is dropped, which also closes the listener.
///
/// For `serve_with_incoming_shutdown`. Must be called inside a tokio runtime. The stream never
/// yields an error.
pub fn accept_loop(listener: TcpListener, settings: AcceptSettings) -> ReceiverStream<io::Result<Connection>> {
    let (sender, receiver) = mpsc::channel(HANDED_OVER);
    tokio::spawn(run(listener, settings, sender));
    ReceiverStream::new(receiver)
}

async fn run(listener: TcpListener, settings: AcceptSettings, sender: mpsc::Sender<io::Result<Connection>>) {
    let total = Arc::new(Semaphore::new(settings.limits.connections));
    let slots = Slots::new(settings.limits.connections_per_client);
    let (handshakes, sources) = (Arc::new(Semaphore::new(HANDSHAKES)), Slots::new(HANDSHAKES_PER_SOURCE));
    loop {
        let accepted = tokio::select! {
            () = sender.closed() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let place = handshakes.clone().try_acquire_owned().ok().zip(sources.take(&source(address.ip())));
        let Some(place) = place else {
            settings.metrics.connection_refused(RefusedConnection::Handshakes);
            // Not louder: anyone can have it written as often as they connect.
            tracing::debug!(%address, "connection refused: too many are in handshake");
            continue;
        };
        let bounds = Bounds { total: total.clone(), slots: slots.clone() };
        tokio::spawn(take_in(stream, address, place, bounds, settings.clone(), sender.clone()));
    }
}

/// What handshakes are counted by. Whoever has an IPv6 address has 64 bits of them.
fn source(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("{:x}/64", address.to_bits() >> 64),
    }
}

/// A place among the connections in handshake.
type HandshakePlace = (OwnedSemaphorePermit, Slot);

/// Bounds on connections that are open.
struct Bounds {
    total: Arc<Semaphore>,
    slots: Slots,
}

async fn take_in(
    stream: TcpStream,
    address: SocketAddr,
    place: HandshakePlace,
    bounds: Bounds,
    settings: AcceptSettings,
    sender: mpsc::Sender<io::Result<Connection>>,
) {
    let made = handshake(stream, &bounds, &settings).await;
    drop(place);
    match made {
        Ok(connection) => {
            tracing::debug!(%address, peer = ?connection.peer, "connected");
            // The receiver is gone only when the server stops.
            let _ = sender.send(Ok(connection)).await;
        }
        Err((cause, reason)) => {
            settings.metrics.connection_refused(cause);
            tracing::info!(%address, reason, "connection refused");
        }
    }
}

async fn handshake(
    stream: TcpStream,
    bounds: &Bounds,
    settings: &AcceptSettings,
) -> Result<Connection, (RefusedConnection, String)> {
    let failed = |text: String| (RefusedConnection::Handshake, text);
    // Small answers must not wait for an acknowledgement of the one before (Nagle).
    stream.set_nodelay(true).map_err(|error| failed(error.to_string()))?;
    let acceptor = TlsAcceptor::from(settings.tls.mutual());
    let limit = Duration::from_millis(settings.limits.handshake_ms);
    let stream = match tokio::time::timeout(limit, acceptor.accept(stream)).await {
        Ok(done) => done.map_err(|error| failed(error.to_string()))?,
        Err(_) => return Err((RefusedConnection::HandshakeTimeout, format!("no handshake within {limit:?}"))),
    };
    let session = stream.get_ref().1;
    if session.alpn_protocol() != Some(b"h2") {
        return Err(failed("the client does not speak HTTP/2 (ALPN h2)".to_owned()));
    }
    let chain = session.peer_certificates().unwrap_or_default();
    let client = identity::read(chain).map_err(|error| failed(error.to_string()))?;
    let slot_name = settings.access.member(&client.spiffe_id).map_or(UNKNOWN, |member| member.as_str());
    let Some(slot) = bounds.slots.take(slot_name) else {
        let text = format!("{} has {} connections, its bound", client.spiffe_id, bounds.slots.bound);
        return Err((RefusedConnection::Client, text));
    };
    let Ok(total) = bounds.total.clone().try_acquire_owned() else {
        let text = format!("all {} connections are taken", settings.limits.connections);
        return Err((RefusedConnection::Total, text));
    };
    let revocations = settings.tls.revocations().clone();
    let peer = Peer::new(client.spiffe_id, next_number(), client.not_after, client.chain, revocations);
    let open = settings.metrics.connection();
    Ok(Connection { stream, peer, _total: total, _slot: slot, _open: open })
}

fn next_number() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Ordering::Relaxed) + 1
}

/// Connections by name: a member, or a source address. Unknown identities share one. Names
/// without connections are not kept.
#[derive(Clone)]
struct Slots {
    bound: usize,
    taken: Arc<Mutex<HashMap<String, usize>>>,
}

struct Slot {
    name: String,
    slots: Slots,
}

impl Slots {
    fn new(bound: usize) -> Slots {
        Slots { bound, taken: Arc::default() }
    }

    fn take(&self, name: &str) -> Option<Slot> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.entry(name.to_owned()).or_default();
        if *count >= self.bound {
            return None;
        }
        *count += 1;
        Some(Slot { name: name.to_owned(), slots: self.clone() })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.slots.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.name) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                taken.remove(&self.name);
            }
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
