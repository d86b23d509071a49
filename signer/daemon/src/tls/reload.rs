//! The TLS settings in force, and how they are replaced while connections go on.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use countersign_trail::hash::Hash;
use countersign_trail::time::Timestamp;
use rustls::crypto::CryptoProvider;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};
use tokio::signal::unix::{SignalKind, signal};

use super::files::{RawKey, RawLists, RevocationLists};
use super::verifier::IdentityVerifier;
use super::{TlsError, provider};
use crate::config;
use crate::metrics::Metrics;
use crate::peer::Revocations;
use crate::reason::Outcome;

/// Both listeners' settings, from one reading of the files.
struct InForce {
    mutual: Arc<ServerConfig>,
    public: Arc<ServerConfig>,
}

/// The TLS settings in force. One for the daemon, shared.
///
/// A reading replaces certificate and key together or not at all, and revocation lists together or not at
/// all; neither waits for the other, so that a certificate that cannot be used keeps no revocation out.
/// Open connections keep the certificate that they were made with; revocation reaches them through
/// [`crate::peer::Peer::check`].
pub struct Tls {
    files: config::Tls,
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
    in_force: ArcSwap<InForce>,
    revocations: Revocations,
    /// The last reading, good or refused. Held while files are read: one reading at a time.
    last: Mutex<LastReading>,
    metrics: Arc<Metrics>,
}

/// What is in force, each with the digest of its files.
struct LastReading {
    key: (Hash, Arc<CertifiedKey>),
    lists: (Hash, Vec<CertificateRevocationListDer<'static>>),
    /// The refusal that was logged last, so that each is logged once.
    refusal: Option<String>,
}

impl Tls {
    /// Reads the files and begins. `client_roots` come from the genesis.
    ///
    /// # Errors
    /// Any file or root cannot be used.
    pub fn new(
        files: &config::Tls,
        client_roots: &[CertificateDer<'static>],
        metrics: Arc<Metrics>,
    ) -> Result<Tls, TlsError> {
        let mut roots = RootCertStore::empty();
        for (index, root) in client_roots.iter().enumerate() {
            let refuse = |error: rustls::Error| TlsError::ClientRoot { index, problem: error.to_string() };
            roots.add(root.clone()).map_err(refuse)?;
        }
        let (roots, provider) = (Arc::new(roots), provider());
        let (raw_key, raw_lists) = (RawKey::read(files)?, RawLists::read(files)?);
        let key = Arc::new(raw_key.server_key(&provider, now())?);
        let RevocationLists { lists, revoked } = raw_lists.parse()?;
        let in_force = build(&key, lists.clone(), files, &roots, &provider)?;
        let revocations = Revocations::default();
        revocations.publish(revoked);
        let (key, lists) = ((raw_key.digest(), key), (raw_lists.digest(), lists));
        let last = Mutex::new(LastReading { key, lists, refusal: None });
        Ok(Tls {
            files: files.clone(),
            roots,
            provider,
            in_force: ArcSwap::from_pointee(in_force),
            revocations,
            last,
            metrics,
        })
    }

    /// The settings for a new connection of a client with a certificate; ALPN `h2`.
    pub fn mutual(&self) -> Arc<ServerConfig> {
        self.in_force.load().mutual.clone()
    }

    /// The settings for a new connection of the public listener: no client certificate; ALPN
    /// `http/1.1`.
    pub fn public(&self) -> Arc<ServerConfig> {
        self.in_force.load().public.clone()
    }

    /// What the newest revocation lists name.
    pub fn revocations(&self) -> &Revocations {
        &self.revocations
    }

    /// Reads the files again. Gives whether something changed. What cannot be used leaves its
    /// predecessor in force. Counted, and logged where something changed. Blocks on file reads.
    ///
    /// # Errors
    /// Any file cannot be used; what could be is in force all the same.
    pub fn reload(&self) -> Result<bool, TlsError> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let (changed, refused) = self.read_again(&mut last);
        if changed {
            tracing::info!(revoked = self.revocations.len(), "TLS files have changed and are in force");
        }
        match refused {
            None => {
                last.refusal = None;
                if changed {
                    self.metrics.tls_reload(Outcome::Succeeded);
                }
                Ok(changed)
            }
            Some(error) => {
                self.metrics.tls_reload(Outcome::Failed);
                let text = error.to_string();
                if last.refusal.as_ref() != Some(&text) {
                    tracing::error!(error = %text, "a TLS file has changed and cannot be used; the old one stays in force");
                    last.refusal = Some(text);
                }
                Err(error)
            }
        }
    }

    /// Puts in force what changed and can be used; gives whether anything did, and what was refused.
    fn read_again(&self, last: &mut LastReading) -> (bool, Option<TlsError>) {
        let key = RawKey::read(&self.files).and_then(|raw| match raw.digest() {
            same if same == last.key.0 => Ok(None),
            digest => Ok(Some((digest, Arc::new(raw.server_key(&self.provider, now())?)))),
        });
        let lists = RawLists::read(&self.files).and_then(|raw| match raw.digest() {
            same if same == last.lists.0 => Ok(None),
            digest => Ok(Some((digest, raw.parse()?))),
        });
        let (key, no_key) = apart(key);
        let (lists, no_lists) = apart(lists);
        let refused = no_lists.or(no_key);
        if key.is_none() && lists.is_none() {
            return (false, refused);
        }
        let key = key.unwrap_or_else(|| last.key.clone());
        let (lists, revoked) = match lists {
            Some((digest, RevocationLists { lists, revoked })) => ((digest, lists), Some(revoked)),
            None => (last.lists.clone(), None),
        };
        match build(&key.1, lists.1.clone(), &self.files, &self.roots, &self.provider) {
            Err(error) => (false, Some(error)),
            Ok(in_force) => {
                self.in_force.store(Arc::new(in_force));
                if let Some(revoked) = revoked {
                    self.revocations.publish(revoked);
                }
                (last.key, last.lists) = (key, lists);
                (true, refused)
            }
        }
    }

    /// Reads the files again every `reload_seconds` and at SIGHUP. Ends only with its task.
    ///
    /// # Errors
    /// The signal handler cannot be installed.
    pub async fn keep_fresh(self: Arc<Self>) -> std::io::Result<()> {
        let mut hangup = signal(SignalKind::hangup())?;
        let period = Duration::from_secs(u64::from(self.files.reload_seconds));
        loop {
            let asked = tokio::select! {
                () = tokio::time::sleep(period) => false,
                _ = hangup.recv() => true,
            };
            let tls = self.clone();
            // The error is logged and counted there; a panic of the reading is not a reason to stop.
            let read = tokio::task::spawn_blocking(move || tls.reload()).await;
            if asked && matches!(read, Ok(Ok(false))) {
                tracing::info!("TLS files were read again as asked: they have not changed");
            }
        }
    }
}

/// What a reading gives, and what it refuses.
fn apart<T>(read: Result<Option<T>, TlsError>) -> (Option<T>, Option<TlsError>) {
    match read {
        Ok(read) => (read, None),
        Err(error) => (None, Some(error)),
    }
}

fn build(
    key: &Arc<CertifiedKey>,
    lists: Vec<CertificateRevocationListDer<'static>>,
    files: &config::Tls,
    roots: &Arc<RootCertStore>,
    provider: &Arc<CryptoProvider>,
) -> Result<InForce, TlsError> {
    let mutual = mutual_config(key, lists, files.enforce_crl_expiry, roots, provider)?;
    let public = public_config(key, provider)?;
    Ok(InForce { mutual: Arc::new(mutual), public: Arc::new(public) })
}

fn mutual_config(
    key: &Arc<CertifiedKey>,
    lists: Vec<CertificateRevocationListDer<'static>>,
    enforce_expiry: bool,
    roots: &Arc<RootCertStore>,
    provider: &Arc<CryptoProvider>,
) -> Result<ServerConfig, TlsError> {
    let mut verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone()).with_crls(lists);
    if enforce_expiry {
        verifier = verifier.enforce_revocation_expiration();
    }
    let chain = verifier.build().map_err(|error| TlsError::Settings(format!("client verification: {error}")))?;
    let config = tls13(provider)?.with_client_cert_verifier(Arc::new(IdentityVerifier { chain }));
    Ok(finish(config.with_cert_resolver(resolver(key)), b"h2"))
}

fn public_config(key: &Arc<CertifiedKey>, provider: &Arc<CryptoProvider>) -> Result<ServerConfig, TlsError> {
    let config = tls13(provider)?.with_no_client_auth();
    Ok(finish(config.with_cert_resolver(resolver(key)), b"http/1.1"))
}

fn tls13(
    provider: &Arc<CryptoProvider>,
) -> Result<rustls::ConfigBuilder<ServerConfig, rustls::WantsVerifier>, TlsError> {
    ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| TlsError::Settings(error.to_string()))
}

fn resolver(key: &Arc<CertifiedKey>) -> Arc<SingleCertAndKey> {
    Arc::new(SingleCertAndKey::from(CertifiedKey::clone(key)))
}

fn finish(mut config: ServerConfig, alpn: &[u8]) -> ServerConfig {
    config.alpn_protocols = vec![alpn.to_vec()];
    // Resumption would skip the client's certificate and every revocation since.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config
}

/// The wall clock, for validity alone.
pub(super) fn now() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_micros())
        .ok()
        .and_then(|micros| Timestamp::from_micros(micros).ok())
        .unwrap_or(Timestamp::EPOCH)
}
