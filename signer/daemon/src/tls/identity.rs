//! Who a client is, from the certificates that it presented.

use std::time::Duration;

use countersign_trail::document::is_spiffe_id;
use countersign_trail::time::Timestamp;
use rustls_pki_types::CertificateDer;
use x509_cert::Certificate;
use x509_cert::der::{Decode, Encode};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use crate::peer::CertificateId;

/// Why a verified certificate names no client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// No certificate was presented.
    #[error("no client certificate")]
    NoCertificate,
    /// A certificate does not parse under RFC 5280.
    #[error("certificate {0} of the client's chain does not parse")]
    Encoding(usize),
    /// The leaf does not have exactly one URI subject alternative name.
    #[error("the client certificate has {0} URI subject alternative names, not exactly one")]
    UriCount(usize),
    /// Its URI is not a SPIFFE ID with a path.
    #[error("the URI of the client certificate is not a SPIFFE ID of the form spiffe://trust-domain/path")]
    NotSpiffe,
}

/// What a chain says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ClientIdentity {
    pub(super) spiffe_id: String,
    /// The earliest end of validity in the chain.
    pub(super) not_after: Timestamp,
    /// Every certificate presented, leaf first.
    pub(super) chain: Vec<CertificateId>,
}

/// Reads identity, validity and names from a chain (leaf first). Verifies nothing.
pub(super) fn read(chain: &[CertificateDer<'_>]) -> Result<ClientIdentity, IdentityError> {
    let parse = |(index, der): (usize, &CertificateDer<'_>)| {
        Certificate::from_der(der).map_err(|_| IdentityError::Encoding(index))
    };
    let certificates: Vec<Certificate> = chain.iter().enumerate().map(parse).collect::<Result<_, _>>()?;
    let leaf = certificates.first().ok_or(IdentityError::NoCertificate)?;
    let spiffe_id = spiffe_id(leaf)?;
    let not_after = certificates.iter().map(not_after).min().ok_or(IdentityError::NoCertificate)?;
    let name = |(index, certificate): (usize, &Certificate)| {
        let certificate = certificate.tbs_certificate();
        let issuer = certificate.issuer().to_der().map_err(|_| IdentityError::Encoding(index))?;
        Ok(CertificateId { issuer, serial: certificate.serial_number().as_bytes().to_vec() })
    };
    let chain = certificates.iter().enumerate().map(name).collect::<Result<_, _>>()?;
    Ok(ClientIdentity { spiffe_id, not_after, chain })
}

fn spiffe_id(leaf: &Certificate) -> Result<String, IdentityError> {
    let mut uris = Vec::new();
    // A second extension of this kind would be a violation of RFC 5280, 4.2; its names count too.
    for extension in leaf.tbs_certificate().filter_extensions::<SubjectAltName>() {
        let (_, names) = extension.map_err(|_| IdentityError::Encoding(0))?;
        uris.extend(names.0.into_iter().filter_map(|name| match name {
            GeneralName::UniformResourceIdentifier(uri) => Some(uri.to_string()),
            _ => None,
        }));
    }
    match uris.as_slice() {
        [uri] if is_spiffe_id(uri) => Ok(uri.clone()),
        [_] => Err(IdentityError::NotSpiffe),
        uris => Err(IdentityError::UriCount(uris.len())),
    }
}

/// End of validity; the "no well-defined expiration" of RFC 5280, 4.1.2.5, is the last time.
pub(super) fn not_after(certificate: &Certificate) -> Timestamp {
    timestamp(certificate.tbs_certificate().validity().not_after.to_unix_duration())
}

pub(super) fn not_before(certificate: &Certificate) -> Timestamp {
    timestamp(certificate.tbs_certificate().validity().not_before.to_unix_duration())
}

/// X.509 times lie between 1970 and 9999, as [`Timestamp`]s do; anything else counts as expired.
fn timestamp(since_epoch: Duration) -> Timestamp {
    let micros = i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX);
    Timestamp::from_micros(micros).unwrap_or(Timestamp::EPOCH)
}
