//! A gRPC server over real TLS, whose answers come from [`Notary`]s and whose failures from a
//! script.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use countersign_proto::v1;
use countersign_proto::v1::audit_service_server::{AuditService, AuditServiceServer};
use countersign_proto::v1::signing_service_server::{SigningService, SigningServiceServer};
use countersign_trail::document::Mode;
use countersign_trail::hash::Hash;
use countersign_trail::signing::Purpose;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose, SanType};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::PrivateKeyDer;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{Draft, MEMBER, Notary};
use crate::common::Ceremony;
use crate::common::ceremony::{DECISIONS, METRICS};
use crate::config::{ClientConfig, Connection, Trust};

/// What becomes of the next message; when the script is empty, everything is honest.
pub(crate) enum Act {
    /// A refusal of the whole message; nothing is recorded.
    Status(Status),
    /// The events are recorded, and the answer is lost with this status.
    Lose(Status),
    /// The events are recorded, and the connection breaks.
    LoseConnection,
    /// The events at these places are refused; the others are recorded.
    Refuse(Vec<usize>, v1::Refused),
    /// The events are recorded, and the last one has no answer.
    Fewer,
    /// The answer is this many bytes longer than it should be.
    Swell(usize),
    /// The records say something else.
    Lie(fn(&mut Draft)),
    /// The stream ends as if everything were answered; nothing is recorded.
    End,
    /// No answer, ever.
    Stall,
}

/// A message as it came.
pub(crate) struct Seen {
    pub(crate) ids: Vec<String>,
    pub(crate) held: Option<v1::HeldHead>,
}

pub(crate) struct State {
    notaries: Mutex<HashMap<String, Notary>>,
    script: Mutex<VecDeque<Act>>,
    seen: Mutex<Vec<Seen>>,
    documents: Mutex<HashMap<Hash, Vec<u8>>>,
    keys: Vec<v1::Key>,
    /// Every change breaks every connection.
    cut: watch::Sender<u64>,
    /// For new connections.
    tls: Mutex<TlsAcceptor>,
    /// Connections, those that failed in TLS included.
    connections: AtomicUsize,
    /// The task that accepts connections.
    listening: Mutex<Option<JoinHandle<()>>>,
    /// Name of the key exchange and protocol version of each connection.
    handshakes: Mutex<Vec<String>>,
}

/// A running server and what a client needs for it.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) state: Arc<State>,
    pub(crate) fingerprint: Hash,
    pub(crate) connection: Connection,
    authority: Arc<Authority>,
}

/// A private certification authority.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new() -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn pem(&self) -> Vec<u8> {
        self.0.pem().into_bytes()
    }

    /// A certificate with this one name, and its key, in PEM.
    pub(crate) fn issue(&self, name: SanType) -> (Vec<u8>, Vec<u8>) {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![name];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        (certificate.pem().into_bytes(), key.serialize_pem().into_bytes())
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}

impl Server {
    /// A server with the trails of a ceremony: one in record mode, one in batch mode.
    pub(crate) async fn start() -> Server {
        let ceremony = Ceremony::new();
        let authority = Authority::new();
        let (cert_pem, key_pem) =
            authority.issue(SanType::URI(format!("spiffe://acme.example/{MEMBER}").try_into().unwrap()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State::of(ceremony, server_tls(&authority, &authority)));
        let fingerprint = state.fingerprint();
        *locked(&state.listening) = Some(tokio::spawn(accept(listener, Arc::clone(&state))));
        let endpoint = format!("https://localhost:{}", address.port());
        let connection = Connection::new(&endpoint, authority.pem(), cert_pem, key_pem);
        Server { state, fingerprint, connection, authority: Arc::new(authority) }
    }

    /// Breaks every connection, and gives new ones a certificate of `own` and takes those of
    /// `clients`; none: of the authority that it began with.
    pub(crate) fn change_tls(&self, own: Option<&Authority>, clients: Option<&Authority>) {
        let ours = &*self.authority;
        *locked(&self.state.tls) = server_tls(own.unwrap_or(ours), clients.unwrap_or(ours));
        self.cut();
    }

    /// Breaks every connection, and refuses new ones; the port stays ours.
    pub(crate) async fn stop(&self) -> TcpSocket {
        let listening = locked(&self.state.listening).take().unwrap();
        listening.abort();
        // Over when its socket is closed.
        let _ = listening.await;
        self.cut();
        let port: u16 = self.connection.endpoint.rsplit(':').next().unwrap().parse().unwrap();
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(([127, 0, 0, 1], port).into()).unwrap();
        socket
    }

    /// Takes connections again.
    pub(crate) fn resume(&self, socket: TcpSocket) {
        let listener = socket.listen(64).unwrap();
        *locked(&self.state.listening) = Some(tokio::spawn(accept(listener, Arc::clone(&self.state))));
    }

    pub(crate) fn connections(&self) -> usize {
        self.state.connections.load(Ordering::Relaxed)
    }

    /// A configuration that trusts the genesis and does not wait long between attempts.
    pub(crate) fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new(self.connection.clone(), Trust::Genesis(self.fingerprint));
        config.backoff = std::time::Duration::from_millis(1);
        config
    }

    pub(crate) fn script(&self, acts: impl IntoIterator<Item = Act>) {
        locked(&self.state.script).extend(acts);
    }

    pub(crate) fn script_is_done(&self) -> bool {
        locked(&self.state.script).is_empty()
    }

    /// The event_ids of every message so far.
    pub(crate) fn seen(&self) -> Vec<Vec<String>> {
        locked(&self.state.seen).iter().map(|seen| seen.ids.clone()).collect()
    }

    pub(crate) fn held(&self) -> Vec<Option<v1::HeldHead>> {
        locked(&self.state.seen).iter().map(|seen| seen.held.clone()).collect()
    }

    pub(crate) fn handshakes(&self) -> Vec<String> {
        locked(&self.state.handshakes).clone()
    }

    /// Breaks every connection.
    pub(crate) fn cut(&self) {
        self.state.cut.send_modify(|cuts| *cuts += 1);
    }

    /// Records in a trail, without record 0.
    pub(crate) fn recorded(&self, trail: &str) -> u64 {
        locked(&self.state.notaries)[trail].size() - 1
    }

    /// Puts other bytes under a document's name.
    pub(crate) fn tamper(&self, name: Hash, bytes: Vec<u8>) {
        locked(&self.state.documents).insert(name, bytes);
    }

    pub(crate) fn keys(&self) -> Vec<v1::Key> {
        self.state.keys.clone()
    }
}

impl State {
    fn of(mut ceremony: Ceremony, tls: TlsAcceptor) -> State {
        let mut notaries = HashMap::new();
        let modes = [(DECISIONS, Mode::Record, Purpose::Record), (METRICS, Mode::Batch, Purpose::Checkpoint)];
        for (trail, mode, purpose) in modes {
            let key = ceremony.keys.remove(&ceremony.kid(purpose, Some(trail))).unwrap();
            let origin = crate::common::origin(trail);
            notaries.insert(trail.to_owned(), Notary::of(origin, mode, key));
        }
        let key = |key: &countersign_trail::document::GenesisKey| v1::Key {
            kid: key.kid.to_string(),
            algorithm: key.algorithm.name().to_owned(),
            purpose: key.purpose.word().to_owned(),
            trail: key.trail.as_ref().map(ToString::to_string).unwrap_or_default(),
            spki: countersign_trail::base64::std_decode(&key.spki).unwrap().into(),
            ..v1::Key::default()
        };
        State {
            notaries: Mutex::new(notaries),
            script: Mutex::default(),
            seen: Mutex::default(),
            keys: ceremony.genesis.keys.iter().map(key).collect(),
            documents: Mutex::new(ceremony.store.0.into_iter().collect()),
            cut: watch::Sender::new(0),
            tls: Mutex::new(tls),
            connections: AtomicUsize::new(0),
            listening: Mutex::default(),
            handshakes: Mutex::default(),
        }
    }

    fn fingerprint(&self) -> Hash {
        let documents = locked(&self.documents);
        let genesis = |bytes: &[u8]| countersign_trail::document::Genesis::parse(bytes).is_ok();
        *documents.iter().find(|(_, bytes)| genesis(bytes)).unwrap().0
    }

    /// Plays the next act of the script for one message.
    async fn play(&self, request: v1::SignBatchRequest) -> Result<v1::SignBatchResponse, Status> {
        let ids = request.events.iter().map(|event| event.event_id.clone()).collect();
        locked(&self.seen).push(Seen { ids, held: request.held });
        let record = |events: &[v1::Event], lie: &dyn Fn(&mut Draft)| {
            let mut notaries = locked(&self.notaries);
            notaries.get_mut(&request.trail).unwrap().answer_with(events, lie)
        };
        let act = locked(&self.script).pop_front();
        match act {
            None => Ok(record(&request.events, &|_| {})),
            Some(Act::Lie(lie)) => Ok(record(&request.events, &lie)),
            Some(Act::Swell(more)) => {
                let mut answer = record(&request.events, &|_| {});
                if let Some(v1::answer::Outcome::Signed(signed)) = &mut answer.answers[0].outcome {
                    signed.salts.push(v1::Salt { part: "x".to_owned(), salt: vec![0; more].into() });
                }
                Ok(answer)
            }
            Some(Act::Fewer) => {
                let mut answer = record(&request.events, &|_| {});
                answer.answers.pop();
                Ok(answer)
            }
            Some(Act::Status(status)) => Err(status),
            Some(Act::End) => Err(Status::ok("")),
            Some(Act::Stall) => std::future::pending().await,
            Some(Act::Lose(status)) => {
                record(&request.events, &|_| {});
                Err(status)
            }
            Some(Act::LoseConnection) => {
                record(&request.events, &|_| {});
                self.cut.send_modify(|cuts| *cuts += 1);
                std::future::pending().await
            }
            Some(Act::Refuse(places, refused)) => {
                let mut kept = request.events.clone();
                for place in places.iter().rev() {
                    kept.remove(*place);
                }
                let mut answer = v1::SignBatchResponse::default();
                if !kept.is_empty() {
                    answer = record(&kept, &|_| {});
                }
                for place in places {
                    let outcome = Some(v1::answer::Outcome::Refused(refused.clone()));
                    answer.answers.insert(place, v1::Answer { outcome });
                }
                Ok(answer)
            }
        }
    }
}

fn server_tls(authority: &Authority, of_clients: &Authority) -> TlsAcceptor {
    use rustls_pki_types::pem::PemObject as _;
    let (cert, key) = authority.issue(SanType::DnsName("localhost".try_into().unwrap()));
    let mut roots = RootCertStore::empty();
    roots.add(of_clients.0.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().unwrap();
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(clients)
        .with_single_cert(
            vec![rustls_pki_types::CertificateDer::from_pem_slice(&cert).unwrap()],
            PrivateKeyDer::from_pem_slice(&key).unwrap(),
        )
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    while let Ok((tcp, _)) = listener.accept().await {
        state.connections.fetch_add(1, Ordering::Relaxed);
        let (tls, state) = (locked(&state.tls).clone(), Arc::clone(&state));
        tokio::spawn(async move {
            let Ok(stream) = tls.accept(tcp).await else { return };
            let session = stream.get_ref().1;
            let group = session.negotiated_key_exchange_group().map(|group| group.name());
            locked(&state.handshakes).push(format!("{:?} {group:?}", session.protocol_version()));
            let mut cut = state.cut.subscribe();
            let service = Service(Arc::clone(&state));
            let routes = tonic::service::Routes::new(SigningServiceServer::new(service.clone()))
                .add_service(AuditServiceServer::new(service));
            let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new()).http2_only();
            let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes));
            tokio::select! {
                _ = connection => {}
                _ = cut.changed() => {}
            }
        });
    }
}

#[derive(Clone)]
struct Service(Arc<State>);

#[tonic::async_trait]
impl SigningService for Service {
    async fn sign(&self, request: Request<v1::SignRequest>) -> Result<Response<v1::SignResponse>, Status> {
        let v1::SignRequest { trail, event, held } = request.into_inner();
        let events = event.into_iter().collect();
        let mut answer = self.0.play(v1::SignBatchRequest { trail, events, held }).await?;
        let signed = match answer.answers.remove(0).outcome {
            Some(v1::answer::Outcome::Signed(signed)) => Some(signed),
            _ => None,
        };
        Ok(Response::new(v1::SignResponse { signed, proof: answer.proofs.pop() }))
    }

    async fn sign_batch(
        &self,
        request: Request<v1::SignBatchRequest>,
    ) -> Result<Response<v1::SignBatchResponse>, Status> {
        self.0.play(request.into_inner()).await.map(Response::new)
    }

    type SignStreamStream = ReceiverStream<Result<v1::SignBatchResponse, Status>>;

    async fn sign_stream(
        &self,
        request: Request<Streaming<v1::SignBatchRequest>>,
    ) -> Result<Response<Self::SignStreamStream>, Status> {
        let (answers, receiver) = mpsc::channel(4);
        let state = Arc::clone(&self.0);
        tokio::spawn(async move {
            let mut requests = request.into_inner();
            while let Ok(Some(message)) = requests.message().await {
                let answer = state.play(message).await;
                let last = answer.is_err();
                let ended = matches!(&answer, Err(status) if status.code() == tonic::Code::Ok);
                if ended || answers.send(answer).await.is_err() || last {
                    break;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

/// Calls that no client of this library makes.
macro_rules! absent {
    ($($name:ident($request:ident) -> $response:ident);+ $(;)?) => {
        #[tonic::async_trait]
        impl AuditService for Service {
            $(async fn $name(&self, _: Request<v1::$request>) -> Result<Response<v1::$response>, Status> {
                Err(Status::unimplemented(stringify!($name)))
            })+

            type ExportStream = ReceiverStream<Result<v1::ExportResponse, Status>>;

            async fn export(&self, _: Request<v1::ExportRequest>) -> Result<Response<Self::ExportStream>, Status> {
                Err(Status::unimplemented("export"))
            }

            async fn list_keys(
                &self,
                _: Request<v1::ListKeysRequest>,
            ) -> Result<Response<v1::ListKeysResponse>, Status> {
                Ok(Response::new(v1::ListKeysResponse { keys: self.0.keys.clone() }))
            }

            async fn get_document(
                &self,
                request: Request<v1::GetDocumentRequest>,
            ) -> Result<Response<v1::GetDocumentResponse>, Status> {
                let name = Hash::try_from(&request.into_inner().sha256[..]).unwrap();
                match locked(&self.0.documents).get(&name) {
                    Some(document) => Ok(Response::new(v1::GetDocumentResponse { document: document.clone().into() })),
                    None => Err(Status::not_found("no such document")),
                }
            }
        }
    };
}

absent! {
    list_trails(ListTrailsRequest) -> ListTrailsResponse;
    get_head(GetHeadRequest) -> GetHeadResponse;
    list_records(ListRecordsRequest) -> ListRecordsResponse;
    get_proof(GetProofRequest) -> GetProofResponse;
    get_consistency(GetConsistencyRequest) -> GetConsistencyResponse;
    get_status(GetStatusRequest) -> GetStatusResponse;
}

/// An address at which nothing listens.
pub(crate) async fn closed_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}
