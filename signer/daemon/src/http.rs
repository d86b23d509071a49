//! The two HTTP listeners, both read-only and GET alone.
//!
//! - [`serve_operations`]: plain HTTP for the operator's own network. `/metrics`, `/healthz` (the
//!   process answers; the HSM is not asked), `/readyz` (200, or 503 with the reason).
//! - [`serve_public`]: TLS without client certificates, for anyone. `/keys.json`, `/jwks.json`,
//!   `/trails`, `/trails/{origin, its slashes as ~}/checkpoint`.
//!
//! Both bound connections, the size and time of a request, and the life of a connection.

mod server;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use countersign_trail::origin::Origin;
use tokio::net::TcpListener;

use crate::metrics::{self, Metrics};
use crate::reason::{Reason, Refusal};
use crate::tls::Tls;

/// Longest time that an answer may take.
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// How long anyone may keep a public answer: a rotation's lead time is hours.
const PUBLIC_CACHE: &str = "public, max-age=60";

/// Whether the daemon can sign now.
pub trait Readiness: Send + Sync + 'static {
    /// Must not wait, and must not ask the HSM: it tells what the last probe signature showed.
    ///
    /// # Errors
    /// The stable reason and a message for the operator.
    fn readiness(&self) -> Result<(), Refusal>;
}

/// What is public. Every answer consists of bytes that are durable.
pub trait Published: Send + Sync + 'static {
    /// The key file (JSON): every public key that ever was, with its history.
    fn keys(&self) -> impl Future<Output = Result<Bytes, Refusal>> + Send;
    /// The same keys as a JWK set (RFC 7517).
    fn jwks(&self) -> impl Future<Output = Result<Bytes, Refusal>> + Send;
    /// Origins and modes of the trails (JSON).
    fn trails(&self) -> impl Future<Output = Result<Bytes, Refusal>> + Send;
    /// The newest durable checkpoint of a trail, as a C2SP signed note; takes no new one.
    ///
    /// # Errors
    /// [`Reason::UnknownTrail`], or what the store says.
    fn checkpoint(&self, trail: &Origin) -> impl Future<Output = Result<Bytes, Refusal>> + Send;
}

/// Serves the operations listener until `shutdown` completes.
pub async fn serve_operations(
    listener: TcpListener,
    metrics: Arc<Metrics>,
    readiness: Arc<dyn Readiness>,
    shutdown: impl Future<Output = ()> + Send,
) {
    server::serve(listener, None, operations(metrics, readiness), shutdown).await;
}

/// Serves the public listener until `shutdown` completes.
pub async fn serve_public<P: Published>(
    listener: TcpListener,
    tls: Arc<Tls>,
    published: Arc<P>,
    shutdown: impl Future<Output = ()> + Send,
) {
    server::serve(listener, Some(tls), public(published), shutdown).await;
}

fn operations(metrics: Arc<Metrics>, readiness: Arc<dyn Readiness>) -> Router {
    let exposed = move || {
        let content_type = (header::CONTENT_TYPE, HeaderValue::from_static(metrics::CONTENT_TYPE));
        std::future::ready(([content_type], metrics.encode()))
    };
    let ready = move || {
        let answer = match readiness.readiness() {
            Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
            Err(refusal) => (StatusCode::SERVICE_UNAVAILABLE, format!("{refusal}\n")),
        };
        std::future::ready(answer)
    };
    Router::new()
        .route("/metrics", get(exposed))
        .route("/healthz", get(|| std::future::ready("ok\n")))
        .route("/readyz", get(ready))
}

fn public<P: Published>(published: Arc<P>) -> Router {
    const JSON: &str = "application/json";
    const JWK_SET: &str = "application/jwk-set+json";
    Router::new()
        .route("/keys.json", get(|State(p): State<Arc<P>>| async move { answer(JSON, p.keys()).await }))
        .route("/jwks.json", get(|State(p): State<Arc<P>>| async move { answer(JWK_SET, p.jwks()).await }))
        .route("/trails", get(|State(p): State<Arc<P>>| async move { answer(JSON, p.trails()).await }))
        .route("/trails/{trail}/checkpoint", get(checkpoint::<P>))
        .with_state(published)
}

async fn checkpoint<P: Published>(State(published): State<Arc<P>>, Path(segment): Path<String>) -> Response {
    // No origin has a `~`, and in a path no origin has a `/`.
    match Origin::parse(&segment.replace('~', "/")) {
        Ok(trail) if trail.path_segment() == segment => {
            answer("text/plain; charset=utf-8", published.checkpoint(&trail)).await
        }
        _ => refuse(&Refusal::from(Reason::UnknownTrail)),
    }
}

async fn answer(content_type: &'static str, bytes: impl Future<Output = Result<Bytes, Refusal>>) -> Response {
    const NO_SNIFF: (HeaderName, HeaderValue) = (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    match tokio::time::timeout(ANSWER_TIME, bytes).await {
        Ok(Ok(bytes)) => {
            let content_type = (header::CONTENT_TYPE, HeaderValue::from_static(content_type));
            let cache = (header::CACHE_CONTROL, HeaderValue::from_static(PUBLIC_CACHE));
            ([content_type, cache, NO_SNIFF], bytes).into_response()
        }
        Ok(Err(refusal)) => refuse(&refusal),
        Err(_) => refuse(&Refusal::from(Reason::StoreUnavailable)),
    }
}

/// The stable reason and its meaning: a public listener tells nothing about the host.
fn refuse(refusal: &Refusal) -> Response {
    let reason = refusal.reason();
    let status = match reason {
        Reason::UnknownTrail | Reason::NotFound => StatusCode::NOT_FOUND,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, format!("{reason}: {}\n", reason.meaning())).into_response()
}

#[cfg(test)]
mod tests;
