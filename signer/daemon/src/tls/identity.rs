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

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, CertifiedIssuer, KeyPair, SanType};

    use super::*;

    fn certificate(names: &[&str]) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names.iter().map(|name| SanType::URI((*name).try_into().unwrap())).collect();
        let key = KeyPair::generate().unwrap();
        CertifiedIssuer::self_signed(params, key).unwrap().der().clone()
    }

    #[test]
    fn the_chain_ends_with_its_first_end() {
        let leaf = certificate(&["spiffe://example.org/a"]);
        let mut params = CertificateParams::default();
        params.not_after = rcgen::date_time_ymd(2031, 2, 3);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let identity = read(&[leaf, issuer.der().clone()]).unwrap();
        assert_eq!(identity.spiffe_id, "spiffe://example.org/a");
        assert_eq!(identity.not_after.to_string(), "2031-02-03T00:00:00.000000Z");
        assert_eq!(identity.chain.len(), 2);
        assert_ne!(identity.chain[0], identity.chain[1]);
    }

    #[test]
    fn what_names_nobody() {
        assert_eq!(read(&[]), Err(IdentityError::NoCertificate));
        assert_eq!(read(&[certificate(&[])]), Err(IdentityError::UriCount(0)));
        let two = ["spiffe://example.org/a", "spiffe://example.org/b"];
        assert_eq!(read(&[certificate(&two)]), Err(IdentityError::UriCount(2)));
        assert_eq!(read(&[certificate(&["https://example.org/a"])]), Err(IdentityError::NotSpiffe));
        let leaf = certificate(&two[..1]);
        assert_eq!(read(&[leaf, vec![0x30, 0x80].into()]), Err(IdentityError::Encoding(1)));
    }

    /// Each byte changed to each of a few values, and each prefix: an answer, never a panic, and
    /// never an identity that is no SPIFFE ID.
    #[test]
    fn damaged_certificates_do_no_harm() {
        let whole = certificate(&["spiffe://example.org/a"]);
        let read_one = |bytes: &[u8]| {
            if let Ok(identity) = read(&[bytes.to_vec().into()]) {
                assert!(is_spiffe_id(&identity.spiffe_id));
            }
        };
        for at in 0..whole.len() {
            read_one(&whole[..at]);
            for value in [0x00, 0x01, 0x30, 0x7f, 0x80, 0xff, whole[at] ^ 1] {
                let mut bytes = whole.to_vec();
                bytes[at] = value;
                read_one(&bytes);
            }
        }
    }
}
