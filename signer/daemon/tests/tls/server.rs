//! A real tonic server behind the accept loop: gRPC health, with every call authorised to write.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use countersign_trail::document::Plan;
use countersign_trail::origin::Origin;
use countersign_trail::time::Timestamp;
use countersignd::access::Access;
use countersignd::config::{self, Limits};
use countersignd::metrics::Metrics;
use countersignd::peer::Peer;
use countersignd::reason::Refusal;
use countersignd::tls::{AcceptSettings, Tls, accept_loop};
use hyper_util::rt::TokioIo;
use rustls::client::WebPkiServerVerifier;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::service::InterceptorLayer;
use tonic::transport::{Channel, Endpoint, Server};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt;

use crate::pki::{self, Credential, Issuer};

/// A running server with its authorities and files.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) tls: Arc<Tls>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) dir: tempfile::TempDir,
    /// Issues clients.
    pub(crate) clients: Issuer,
    /// Issues the server.
    pub(crate) servers: Issuer,
    pub(crate) certificate: CertificateDer<'static>,
}

/// What a test changes.
#[derive(Default)]
pub(crate) struct Setup {
    pub(crate) limits: Limits,
    /// Content of the revocation list, from the clients' authority; None: no list.
    pub(crate) crl: Option<fn(&Issuer) -> String>,
}

impl Running {
    pub(crate) async fn start(setup: Setup) -> Running {
        let dir = tempfile::tempdir().unwrap();
        let (clients, servers) = (pki::authority("clients"), pki::authority("servers"));
        let certificate = pki::write_server(&servers, dir.path());
        let crls = match setup.crl {
            Some(crl) => {
                std::fs::write(dir.path().join("clients.crl"), crl(&clients)).unwrap();
                vec![dir.path().join("clients.crl")]
            }
            None => vec![],
        };
        let plan = pki::plan();
        let metrics = Arc::new(Metrics::new(members(&plan), []));
        let files = files(dir.path().into(), crls);
        let tls = Arc::new(Tls::new(&files, &[clients.der().clone()], metrics.clone()).unwrap());
        let access = Arc::new(Access::from_plan(&plan));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let incoming = accept_loop(
            listener,
            AcceptSettings { tls: tls.clone(), access: access.clone(), limits: setup.limits, metrics: metrics.clone() },
        );
        let (_reporter, health) = tonic_health::server::health_reporter();
        let authorise = move |request: tonic::Request<()>| {
            let trail = Origin::parse("acme.example/a").unwrap();
            let peer = request.extensions().get::<Peer>();
            access.authorise_write(peer, now(), &trail).map_err(|denied| Refusal::from(denied).to_status())?;
            Ok(request)
        };
        let router = Server::builder().layer(InterceptorLayer::new(authorise)).add_service(health);
        tokio::spawn(router.serve_with_incoming(incoming));
        Running { address, tls, metrics, dir, clients, servers, certificate }
    }

    /// A client's settings, with the newest protocol alone and ALPN h2.
    pub(crate) fn client(&self, credential: Option<&Credential>) -> ClientConfig {
        self.client_with(credential, &rustls::version::TLS13)
    }

    pub(crate) fn client_with(
        &self,
        credential: Option<&Credential>,
        version: &'static SupportedProtocolVersion,
    ) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.servers.der().clone()).unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().unwrap();
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_webpki_verifier(verifier);
        let mut config = match credential {
            Some(credential) => config.with_client_auth_cert(credential.chain.clone(), credential.key_der()).unwrap(),
            None => config.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        config
    }

    pub(crate) async fn connect(&self, config: ClientConfig) -> io::Result<TlsStream<TcpStream>> {
        self.connect_shared(&Arc::new(config)).await
    }

    pub(crate) async fn connect_shared(&self, config: &Arc<ClientConfig>) -> io::Result<TlsStream<TcpStream>> {
        self.connect_over(TcpStream::connect(self.address).await?, config).await
    }

    /// A handshake over a connection that is made.
    pub(crate) async fn connect_over(
        &self,
        stream: TcpStream,
        config: &Arc<ClientConfig>,
    ) -> io::Result<TlsStream<TcpStream>> {
        TlsConnector::from(config.clone()).connect(ServerName::try_from("localhost").unwrap(), stream).await
    }

    /// How the server ends a connection that it refuses: at the handshake or, as TLS 1.3 has the
    /// server check the client last, at the client's first read.
    pub(crate) async fn refusal(&self, config: ClientConfig) -> String {
        let read = async {
            let mut stream = self.connect(config).await?;
            loop {
                // HTTP/2 settings mean that the server took the connection.
                match stream.read_u8().await? {
                    0 => return Ok(()),
                    _ => continue,
                }
            }
        };
        match read.await {
            Ok(()) => panic!("the server took the connection"),
            Err(error) => io::Error::to_string(&error),
        }
    }

    /// A gRPC client on one connection, which it cannot make again.
    pub(crate) async fn call_over(&self, stream: TlsStream<TcpStream>) -> HealthClient<Channel> {
        let mut stream = Some(stream);
        let connector = tower::service_fn(move |_: tonic::codegen::http::Uri| {
            let stream = stream.take().map(TokioIo::new);
            async move { stream.ok_or_else(|| io::Error::other("the only connection is gone")) }
        });
        let channel = Endpoint::from_static("http://localhost").connect_with_connector(connector).await.unwrap();
        HealthClient::new(channel)
    }

    /// Waits until a line of the metrics is as wanted.
    pub(crate) async fn await_metric(&self, line: &str) {
        let seen = async {
            while !self.metrics.encode().lines().any(|each| each == line) {
                tokio::task::yield_now().await;
            }
        };
        if tokio::time::timeout(Duration::from_secs(20), seen).await.is_err() {
            panic!("no {line} in {}", self.metrics.encode());
        }
    }
}

/// One call: the reason of its refusal, if it was.
pub(crate) async fn call(client: &mut HealthClient<Channel>) -> Result<(), String> {
    match client.check(HealthCheckRequest::default()).await {
        Ok(_) => Ok(()),
        Err(status) => match status.get_details_error_info() {
            Some(info) => Err(info.reason),
            None => Err(format!("{status:?}")),
        },
    }
}

pub(crate) fn files(dir: PathBuf, crls: Vec<PathBuf>) -> config::Tls {
    config::Tls {
        certificate: dir.join("server.pem"),
        key: dir.join("server.key"),
        crls,
        enforce_crl_expiry: true,
        reload_seconds: 3600,
    }
}

fn members(plan: &Plan) -> impl Iterator<Item = countersign_trail::id::MemberId> {
    plan.members.iter().map(|member| member.id.clone())
}

pub(crate) fn now() -> Timestamp {
    let micros = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros();
    Timestamp::from_micros(i64::try_from(micros).unwrap()).unwrap()
}
