//! Why TLS fails for good. With TLS 1.3 the daemon's verdict on our certificate comes with the first
//! read after the handshake, where HTTP/2 makes it a broken connection like any other: so it is
//! noticed below that.

use std::io::{Error, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use rustls::AlertDescription as Alert;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::error::ClientError;

/// What the newest connection of a channel failed of, where no repeat helps. Clones share it.
#[derive(Clone)]
pub(crate) struct Faults(Arc<Shared>);

struct Shared {
    endpoint: String,
    newest: Mutex<Option<String>>,
}

impl Faults {
    pub(super) fn of(endpoint: &str) -> Faults {
        Faults(Arc::new(Shared { endpoint: endpoint.to_owned(), newest: Mutex::default() }))
    }

    fn lock(&self) -> MutexGuard<'_, Option<String>> {
        self.0.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another connection begins.
    pub(super) fn begin(&self) {
        *self.lock() = None;
    }

    /// Looks at an error of the handshake. What the other side says then may be anybody's: our own
    /// verdict alone counts.
    pub(super) fn of_handshake(&self, error: &Error) {
        if let Some(tls @ rustls::Error::InvalidCertificate(_)) = of_tls(error) {
            self.put(tls, "check endpoint, server_name and ca_pem, or the daemon's certificate");
        }
    }

    /// Looks at an error after the handshake, when nobody but the daemon is heard.
    fn of_read(&self, error: &Error) {
        if let Some(tls @ rustls::Error::AlertReceived(alert)) = of_tls(error)
            && let Some(todo) = refused(*alert)
        {
            self.put(tls, todo);
        }
    }

    fn put(&self, error: &rustls::Error, todo: &str) {
        *self.lock() = Some(format!("{error}; {todo}"));
    }

    /// The fault, as the error of a call.
    pub(crate) fn newest(&self) -> Option<ClientError> {
        let problem = self.lock().clone()?;
        Some(self.error(problem))
    }

    /// An error of the channel.
    pub(super) fn error(&self, problem: String) -> ClientError {
        ClientError::Connect { endpoint: self.0.endpoint.clone(), problem, event_ids: Vec::new() }
    }
}

fn of_tls(error: &Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// What the daemon says of our certificate, and what to do.
fn refused(alert: Alert) -> Option<&'static str> {
    Some(match alert {
        Alert::CertificateRequired => "the daemon saw no certificate of ours: check cert_pem",
        Alert::CertificateRevoked => "our certificate is revoked: connect with another one",
        Alert::CertificateExpired => "our certificate has expired: connect with a current one",
        // The latter where a root of the same name has another key.
        Alert::UnknownCA | Alert::DecryptError => {
            "our certificate is of none of the genesis's client roots: connect with one that is, its intermediates \
             behind it in cert_pem"
        }
        Alert::BadCertificate | Alert::UnsupportedCertificate | Alert::CertificateUnknown | Alert::AccessDenied => {
            "the daemon does not take our certificate: connect with another one"
        }
        _ => return None,
    })
}

/// A TLS connection whose errors are looked at.
pub(super) struct Watched {
    pub(super) stream: TlsStream<TcpStream>,
    pub(super) faults: Faults,
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<Result<(), Error>> {
        let result = ready!(Pin::new(&mut self.stream).poll_read(cx, buffer));
        Poll::Ready(result.inspect_err(|error| self.faults.of_read(error)))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize, Error>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<Result<usize, Error>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
