//! The TLS side of the listeners: TLS 1.3 only, X25519MLKEM768 first, clients by certificate.
//!
//! - `files`: reads certificate, key and revocation lists, and refuses what could not serve.
//! - `identity`: who a client is: exactly one URI SAN, a SPIFFE ID; never the common name.
//! - `verifier`: the client's chain against the genesis's roots, revocation, and its identity.
//! - `reload`: [`Tls`], the settings in force, replaced whole when the files change.
//! - `accept`: [`accept_loop`]: TCP, limits, handshake with a time-out, [`Connection`] for tonic.
//!
//! Sessions are never resumed (no tickets, no session store): a resumption would skip the check of
//! the client's certificate.

mod accept;
mod files;
mod identity;
mod reload;
mod verifier;

use std::path::PathBuf;
use std::sync::Arc;

use countersign_trail::base64;
use countersign_trail::document::Plan;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, kx_group};
use rustls_pki_types::CertificateDer;

pub use self::accept::{AcceptSettings, Connection, accept_loop};
pub use self::identity::IdentityError;
pub use self::reload::Tls;

use crate::config;

/// Why TLS cannot be set up, or a reading of its files is refused.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file's content cannot be used.
    #[error("{}: {problem}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
    /// A client root of the genesis is not a certificate.
    #[error("client root {index} of the genesis is not a usable certificate: {problem}")]
    ClientRoot {
        /// Position in the plan, from 0.
        index: usize,
        /// What is wrong.
        problem: String,
    },
    /// The parts do not fit together.
    #[error("TLS settings: {0}")]
    Settings(String),
}

/// What would keep the files that `config` names from being used, each problem by its file.
pub fn problems(config: &config::Tls) -> Vec<TlsError> {
    files::problems(config, &provider(), reload::now())
}

/// The client roots of a plan, as DER.
///
/// # Errors
/// A root is not base64; a checked plan has none such.
pub fn client_roots(plan: &Plan) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let decode = |(index, root): (usize, &String)| {
        let der = base64::std_decode(root);
        der.map(CertificateDer::from).map_err(|error| TlsError::ClientRoot { index, problem: error.to_string() })
    };
    plan.client_roots.iter().enumerate().map(decode).collect()
}

/// TLS 1.3 suites of aws-lc, the hybrid group first: recorded traffic stays closed to a later
/// quantum computer wherever the client offers it.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        kx_groups: vec![kx_group::X25519MLKEM768, kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1],
        ..aws_lc_rs::default_provider()
    })
}
