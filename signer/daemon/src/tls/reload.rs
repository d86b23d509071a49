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

use super::files::{RawFiles, RevocationLists};
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
/// A reading replaces certificate, key and revocation lists together or not at all. Open
/// connections keep the certificate that they were made with; revocation reaches them through
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

struct LastReading {
    /// Of the files in force.
    digest: Hash,
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
        let raw = RawFiles::read(files)?;
        let (in_force, lists) = build(&raw, files, &roots, &provider)?;
        let revocations = Revocations::default();
        revocations.publish(lists.revoked);
        let last = Mutex::new(LastReading { digest: raw.digest(), refusal: None });
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

    /// Reads the files again. Gives whether something changed. On an error everything stays as it
    /// was. Counted, and logged where something changed. Blocks on file reads.
    ///
    /// # Errors
    /// Any file cannot be used.
    pub fn reload(&self) -> Result<bool, TlsError> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match self.read_again(last.digest) {
            Ok(Some(digest)) => {
                *last = LastReading { digest, refusal: None };
                self.metrics.tls_reload(Outcome::Succeeded);
                tracing::info!(revoked = self.revocations.len(), "TLS files have changed and are in force");
                Ok(true)
            }
            Ok(None) => {
                last.refusal = None;
                Ok(false)
            }
            Err(error) => {
                self.metrics.tls_reload(Outcome::Failed);
                let text = error.to_string();
                if last.refusal.as_ref() != Some(&text) {
                    tracing::error!(error = %text, "TLS files have changed and cannot be used; the old ones stay in force");
                    last.refusal = Some(text);
                }
                Err(error)
            }
        }
    }

    /// Gives the digest of the new files, or None if they are those in force.
    fn read_again(&self, in_force: Hash) -> Result<Option<Hash>, TlsError> {
        let raw = RawFiles::read(&self.files)?;
        let digest = raw.digest();
        if digest == in_force {
            return Ok(None);
        }
        let (settings, lists) = build(&raw, &self.files, &self.roots, &self.provider)?;
        self.in_force.store(Arc::new(settings));
        self.revocations.publish(lists.revoked);
        Ok(Some(digest))
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

fn build(
    raw: &RawFiles,
    files: &config::Tls,
    roots: &Arc<RootCertStore>,
    provider: &Arc<CryptoProvider>,
) -> Result<(InForce, RevocationLists), TlsError> {
    let key = Arc::new(raw.server_key(provider, now())?);
    let mut lists = raw.revocation_lists()?;
    let mutual = mutual_config(&key, std::mem::take(&mut lists.lists), files.enforce_crl_expiry, roots, provider)?;
    let public = public_config(&key, provider)?;
    Ok((InForce { mutual: Arc::new(mutual), public: Arc::new(public) }, lists))
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
