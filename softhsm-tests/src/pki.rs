//! A private certification authority and the certificates of the daemon and the members.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType,
    SerialNumber, date_time_ymd,
};

/// The authority, with its files in one folder: `ca.pem`, and NAME.pem with NAME.key for each
/// certificate.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(2024, 1, 1);
    params.not_after = date_time_ymd(2074, 1, 1);
    params
}

impl Authority {
    /// Makes the authority and writes its certificate.
    pub fn create(folder: &Path, name: &str) -> Result<Authority> {
        fs::create_dir_all(folder)?;
        let mut params = params(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        fs::write(folder.join("ca.pem"), certificate.pem())?;
        Ok(Authority { issuer: Issuer::new(params, key) })
    }

    /// The daemon's certificate, for localhost.
    pub fn server(&self, folder: &Path, name: &str) -> Result<()> {
        let mut params = params("countersignd");
        params.subject_alt_names =
            vec![SanType::DnsName("localhost".try_into()?), SanType::IpAddress(std::net::Ipv4Addr::LOCALHOST.into())];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.issue(folder, name, params)
    }

    /// A member's certificate: its one URI name is its SPIFFE ID. `serial` is what a revocation
    /// list names.
    pub fn client(&self, folder: &Path, name: &str, spiffe_id: &str, serial: u64) -> Result<()> {
        let mut params = params(name);
        params.subject_alt_names = vec![SanType::URI(spiffe_id.try_into()?)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.serial_number = Some(SerialNumber::from(serial));
        self.issue(folder, name, params)
    }

    /// A member's certificate that expired long ago.
    pub fn expired_client(&self, folder: &Path, name: &str, spiffe_id: &str) -> Result<()> {
        let mut params = params(name);
        params.not_after = date_time_ymd(2024, 2, 1);
        params.subject_alt_names = vec![SanType::URI(spiffe_id.try_into()?)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(folder, name, params)
    }

    /// A revocation list (PEM) that names these serial numbers.
    pub fn revocation_list(&self, file: &Path, serials: &[u64]) -> Result<()> {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2025, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2025, 1, 1),
            next_update: date_time_ymd(2074, 1, 1),
            crl_number: SerialNumber::from(serials.len() as u64 + 1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        fs::write(file, list.signed_by(&self.issuer)?.pem()?).with_context(|| file.display().to_string())
    }

    fn issue(&self, folder: &Path, name: &str, params: CertificateParams) -> Result<()> {
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        fs::write(folder.join(format!("{name}.pem")), certificate.pem())?;
        write_private(&folder.join(format!("{name}.key")), &key.serialize_pem())
    }
}

/// A file for its owner alone.
fn write_private(path: &Path, text: &str) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes()).with_context(|| path.display().to_string())
}
