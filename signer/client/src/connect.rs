//! The connection: TLS 1.3 alone, X25519MLKEM768 first, HTTP/2 by ALPN.

mod fault;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, kx_group};
use rustls::{ClientConfig as TlsConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};
use x509_cert::Certificate;
use x509_cert::der::Decode as _;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use crate::config::Connection;
use crate::error::{ClientError, ConfigError};
pub(crate) use fault::Faults;
use fault::Watched;

/// HTTP/2 flow-control window of one stream, in bytes: an answer of 4,096 records of 1 KiB.
const STREAM_WINDOW: u32 = 4 << 20;
/// HTTP/2 flow-control window of the connection, in bytes: four such streams.
const CONNECTION_WINDOW: u32 = 16 << 20;

/// Connects, and connects again by itself whenever the connection is lost.
///
/// # Errors
/// [`ClientError::Config`]; [`ClientError::Connect`] when the first connection fails.
pub async fn channel(connection: &Connection) -> Result<Channel, ClientError> {
    Ok(open(connection).await?.0)
}

/// The same, with what its connections fail of.
pub(crate) async fn open(connection: &Connection) -> Result<(Channel, Faults), ClientError> {
    let refused = || ConfigError::Endpoint(connection.endpoint.clone());
    let uri: Uri = connection.endpoint.parse().map_err(|_| refused())?;
    let host = uri.host().filter(|_| uri.scheme_str() == Some("https")).ok_or_else(refused)?.to_owned();
    // An IPv6 address stands in brackets in a URI, and without them everywhere else.
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let name = connection.server_name.clone().unwrap_or_else(|| host.clone());
    let name = ServerName::try_from(name.clone()).map_err(|_| ConfigError::ServerName(name))?;
    let faults = Faults::of(&connection.endpoint);
    let connector = Connector {
        faults: faults.clone(),
        tls: TlsConnector::from(Arc::new(tls_config(connection)?)),
        name,
        address: (host, uri.port_u16().unwrap_or(443)),
    };
    let endpoint = Endpoint::from(uri)
        .connect_timeout(connection.connect_timeout)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_keep_alive_interval(std::time::Duration::from_secs(20))
        .keep_alive_timeout(std::time::Duration::from_secs(10));
    let channel = endpoint.connect_with_connector(connector).await;
    let channel = channel.map_err(|error| faults.newest().unwrap_or_else(|| faults.error(causes(&error))))?;
    Ok((channel, faults))
}

/// An error with everything behind it, each cause once.
pub(crate) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

fn provider() -> CryptoProvider {
    CryptoProvider {
        kx_groups: vec![kx_group::X25519MLKEM768, kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1],
        ..aws_lc_rs::default_provider()
    }
}

fn tls_config(connection: &Connection) -> Result<TlsConfig, ConfigError> {
    let mut roots = RootCertStore::empty();
    for root in certificates("ca_pem", &connection.ca_pem)? {
        roots.add(root)?;
    }
    let key = PrivateKeyDer::from_pem_slice(&connection.key_pem)
        .map_err(|error| ConfigError::Pem { file: "key_pem", problem: error.to_string() })?;
    let mut tls = TlsConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_client_auth_cert(certificates("cert_pem", &connection.cert_pem)?, key)?;
    tls.alpn_protocols = vec![b"h2".to_vec()];
    // The daemon issues no tickets: every connection proves its certificate anew.
    tls.resumption = rustls::client::Resumption::disabled();
    Ok(tls)
}

fn certificates(file: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|error| ConfigError::Pem { file, problem: error.to_string() })?;
    if found.is_empty() {
        return Err(ConfigError::Pem { file, problem: "holds no certificate".to_owned() });
    }
    Ok(found)
}

/// The one URI name of our certificate.
pub(crate) fn spiffe_id(connection: &Connection) -> Result<String, ConfigError> {
    let malformed = |problem: String| ConfigError::Pem { file: "cert_pem", problem };
    let certificates = certificates("cert_pem", &connection.cert_pem)?;
    let leaf = certificates.first().ok_or(ConfigError::SpiffeIds(0))?;
    let certificate = Certificate::from_der(leaf).map_err(|error| malformed(error.to_string()))?;
    let names = certificate.tbs_certificate().get_extension::<SubjectAltName>();
    let names = names.map_err(|error| malformed(error.to_string()))?;
    let mut uris: Vec<String> = Vec::new();
    for name in names.iter().flat_map(|(_, names)| &names.0) {
        if let GeneralName::UniformResourceIdentifier(uri) = name {
            uris.push(uri.to_string());
        }
    }
    match <[String; 1]>::try_from(uris) {
        Ok([uri]) => Ok(uri),
        Err(other) => Err(ConfigError::SpiffeIds(other.len())),
    }
}

/// Opens a TLS connection for tonic, whose own TLS settings have neither key-exchange groups nor
/// protocol versions.
#[derive(Clone)]
struct Connector {
    faults: Faults,
    tls: TlsConnector,
    name: ServerName<'static>,
    address: (String, u16),
}

type Connected = Result<TokioIo<Watched>, std::io::Error>;

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<Watched>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = Connected> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Connector { faults, tls, name, address } = self.clone();
        Box::pin(async move {
            let tcp = TcpStream::connect((address.0.as_str(), address.1)).await?;
            tcp.set_nodelay(true)?;
            faults.begin();
            let stream = tls.connect(name, tcp).await.inspect_err(|error| faults.of_handshake(error))?;
            if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
                return Err(std::io::Error::other("the server does not speak HTTP/2 (ALPN h2)"));
            }
            Ok(TokioIo::new(Watched { stream, faults }))
        })
    }
}
