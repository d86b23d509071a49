//! Reads the TLS files. What could not serve is refused here, before it replaces what does.

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use countersign_trail::hash::Hash;
use countersign_trail::time::Timestamp;
use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use x509_cert::Certificate;
use x509_cert::certificate::Rfc5280;
use x509_cert::crl::CertificateList;
use x509_cert::der::{Decode, Encode};

use super::{TlsError, identity};
use crate::config;
use crate::peer::CertificateId;

/// Longest certificate or key file, in bytes.
const MAX_PEM_BYTES: u64 = 1 << 20;
/// Longest file of revocation lists, in bytes: about 400,000 entries of 40 bytes.
const MAX_CRL_BYTES: u64 = 16 << 20;
/// Most certificates of the server's chain.
const MAX_CHAIN: usize = 10;

/// The bytes of the server's certificate and key, as read at one time.
pub(super) struct RawKey {
    certificate: (PathBuf, Vec<u8>),
    key: (PathBuf, Vec<u8>),
}

/// The bytes of the revocation lists, as read at one time.
pub(super) struct RawLists(Vec<(PathBuf, Vec<u8>)>);

/// Revocation lists in two forms: for handshakes, and for connections that are open.
pub(super) struct RevocationLists {
    pub(super) lists: Vec<CertificateRevocationListDer<'static>>,
    pub(super) revoked: HashSet<CertificateId>,
}

/// Tells two readings apart.
fn digest_of<'f>(files: impl Iterator<Item = &'f (PathBuf, Vec<u8>)>) -> Hash {
    let hashes: Vec<Hash> = files.map(|(_, bytes)| Hash::of(bytes)).collect();
    Hash::of_parts(&hashes.iter().map(AsRef::as_ref).collect::<Vec<&[u8]>>())
}

impl RawKey {
    pub(super) fn read(config: &config::Tls) -> Result<RawKey, TlsError> {
        let certificate = read(&config.certificate, MAX_PEM_BYTES, false)?;
        let key = read(&config.key, MAX_PEM_BYTES, true)?;
        Ok(RawKey { certificate: (config.certificate.clone(), certificate), key: (config.key.clone(), key) })
    }

    pub(super) fn digest(&self) -> Hash {
        digest_of([&self.certificate, &self.key].into_iter())
    }

    /// The server's certificate and key, which belong together and are valid at `now`.
    pub(super) fn server_key(&self, provider: &CryptoProvider, now: Timestamp) -> Result<CertifiedKey, TlsError> {
        let (path, pem) = &self.certificate;
        let refuse = |problem: String| TlsError::Content { path: path.clone(), problem };
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(pem)
            .take(MAX_CHAIN + 1)
            .collect::<Result<_, _>>()
            .map_err(|error| refuse(format!("is not PEM certificates: {error}")))?;
        if chain.len() > MAX_CHAIN {
            return Err(refuse(format!("has more than {MAX_CHAIN} certificates")));
        }
        let leaf = chain.first().ok_or_else(|| refuse("has no PEM certificate".to_owned()))?;
        let leaf = Certificate::from_der(leaf).map_err(|error| refuse(format!("is no certificate: {error}")))?;
        let (from, to) = (identity::not_before(&leaf), identity::not_after(&leaf));
        if now < from || to < now {
            return Err(refuse(format!("is valid from {from} to {to}, and it is {now} now; install a current one")));
        }
        let (key_path, key_pem) = &self.key;
        let refuse = |problem: String| TlsError::Content { path: key_path.clone(), problem };
        let key = PrivateKeyDer::from_pem_slice(key_pem)
            .map_err(|error| refuse(format!("is no PEM private key: {error}")))?;
        CertifiedKey::from_der(chain, key, provider)
            .map_err(|error| refuse(format!("is not the key of {}: {error}", path.display())))
    }
}

impl RawLists {
    pub(super) fn read(config: &config::Tls) -> Result<RawLists, TlsError> {
        let list = |path: &PathBuf| Ok((path.clone(), read(path, MAX_CRL_BYTES, false)?));
        Ok(RawLists(config.crls.iter().map(list).collect::<Result<_, TlsError>>()?))
    }

    pub(super) fn digest(&self) -> Hash {
        digest_of(self.0.iter())
    }

    pub(super) fn parse(&self) -> Result<RevocationLists, TlsError> {
        let mut all = RevocationLists { lists: Vec::new(), revoked: HashSet::new() };
        for (path, bytes) in &self.0 {
            let refuse = |problem: String| TlsError::Content { path: path.clone(), problem };
            let lists = split_crls(bytes).map_err(|problem| refuse(format!("is no revocation list: {problem}")))?;
            for list in lists {
                let parsed = CertificateList::<Rfc5280>::from_der(&list)
                    .map_err(|error| refuse(format!("is no revocation list: {error}")))?;
                let parsed = parsed.tbs_cert_list;
                let issuer = parsed.issuer.to_der().map_err(|error| refuse(error.to_string()))?;
                let entries = parsed.revoked_certificates.unwrap_or_default();
                all.revoked.extend(entries.iter().map(|entry| CertificateId {
                    issuer: issuer.clone(),
                    serial: entry.serial_number.as_bytes().to_vec(),
                }));
                all.lists.push(list);
            }
        }
        Ok(all)
    }
}

/// Everything about the files that would be refused at a start, at `now`.
pub(super) fn problems(config: &config::Tls, provider: &CryptoProvider, now: Timestamp) -> Vec<TlsError> {
    let mut problems = Vec::new();
    let certificate = read(&config.certificate, MAX_PEM_BYTES, false).map_err(|error| problems.push(error));
    let key = read(&config.key, MAX_PEM_BYTES, true).map_err(|error| problems.push(error));
    if let (Ok(certificate), Ok(key)) = (certificate, key) {
        let certificate = (config.certificate.clone(), certificate);
        problems.extend(RawKey { certificate, key: (config.key.clone(), key) }.server_key(provider, now).err());
    }
    for path in &config.crls {
        let list = read(path, MAX_CRL_BYTES, false);
        problems.extend(list.and_then(|bytes| RawLists(vec![(path.clone(), bytes)]).parse()).err());
    }
    problems
}

/// One DER list, or PEM lists, of which there must be one.
fn split_crls(bytes: &[u8]) -> Result<Vec<CertificateRevocationListDer<'static>>, String> {
    const DER_SEQUENCE: u8 = 0x30;
    if bytes.first() == Some(&DER_SEQUENCE) {
        return Ok(vec![CertificateRevocationListDer::from(bytes.to_vec())]);
    }
    let lists = CertificateRevocationListDer::pem_slice_iter(bytes).collect::<Result<Vec<_>, _>>();
    match lists {
        Ok(lists) if !lists.is_empty() => Ok(lists),
        // An empty file must not read as "nothing is revoked".
        Ok(_) => Err("there is none in it".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn read(path: &Path, max: u64, private: bool) -> Result<Vec<u8>, TlsError> {
    const OTHERS: u32 = 0o007;
    let failed = |source| TlsError::Read { path: path.to_owned(), source };
    let refuse = |problem: String| Err(TlsError::Content { path: path.to_owned(), problem });
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return refuse("is not a regular file".to_owned());
    }
    if private && metadata.mode() & OTHERS != 0 {
        return refuse("can be read by others; chmod 0640 it or less".to_owned());
    }
    let mut bytes = Vec::new();
    file.take(max + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > max {
        return refuse(format!("is longer than {max} bytes"));
    }
    Ok(bytes)
}
