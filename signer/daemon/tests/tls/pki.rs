//! Certification authorities and certificates made for one test.

use std::path::Path;

use countersign_trail::document::{Member, Mode, Plan, Role, TokenPlan, TrailPlan};
use countersign_trail::hash::Hash;
use countersign_trail::id::MemberId;
use countersign_trail::keys::Algorithm;
use countersign_trail::origin::Origin;
use countersign_trail::time::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber,
    date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

pub(crate) type Issuer = CertifiedIssuer<'static, KeyPair>;

/// A certificate with its chain, and its key.
pub(crate) struct Credential {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: KeyPair,
}

impl Credential {
    pub(crate) fn key_der(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key.serialize_der()).into()
    }
}

pub(crate) fn authority(name: &str) -> Issuer {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

pub(crate) fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

/// Parameters of a client certificate with these names and this serial number.
pub(crate) fn client_params(names: Vec<SanType>, serial: u64) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "spiffe://example.org/gateway");
    params.subject_alt_names = names;
    params.serial_number = Some(SerialNumber::from(serial));
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    params
}

pub(crate) fn issue(issuer: &Issuer, params: &CertificateParams) -> Credential {
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, issuer).unwrap();
    Credential { chain: vec![certificate.der().clone()], key }
}

/// A valid certificate of a member of [`plan`].
pub(crate) fn client(issuer: &Issuer, member: &str, serial: u64) -> Credential {
    issue(issuer, &client_params(vec![uri(&format!("spiffe://example.org/{member}"))], serial))
}

/// Writes a server certificate for `localhost` and its key; gives the certificate.
pub(crate) fn write_server(issuer: &Issuer, dir: &Path) -> CertificateDer<'static> {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let certificate = params.signed_by(&key, issuer).unwrap();
    std::fs::write(dir.join("server.pem"), certificate.pem()).unwrap();
    write_private(&dir.join("server.key"), &key.serialize_pem());
    certificate.der().clone()
}

pub(crate) fn write_private(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
}

/// A revocation list of `issuer`, valid to the first day of `until`, in PEM.
pub(crate) fn crl(issuer: &Issuer, serials: &[u64], until: i32) -> String {
    let revoked = |serial: &u64| RevokedCertParams {
        serial_number: SerialNumber::from(*serial),
        revocation_time: date_time_ymd(2024, 1, 1),
        reason_code: None,
        invalidity_date: None,
    };
    let params = CertificateRevocationListParams {
        this_update: date_time_ymd(2024, 1, 1),
        next_update: date_time_ymd(until, 1, 1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: serials.iter().map(revoked).collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    params.signed_by(issuer).unwrap().pem().unwrap()
}

/// A plan with a gateway, another one and an auditor.
pub(crate) fn plan() -> Plan {
    let origin = |text: &str| Origin::parse(text).unwrap();
    let member = |id: &str, role: Role| Member {
        grants: if role == Role::Gateway { vec![origin("acme.example/a")] } else { vec![] },
        id: MemberId::parse(id).unwrap(),
        name: id.to_owned(),
        role,
        spiffe_ids: vec![format!("spiffe://example.org/{id}")],
        ssh_keys: vec![],
    };
    let token = |serial: &str| TokenPlan { label: "t".to_owned(), serial: serial.to_owned() };
    Plan {
        admin_algorithm: Algorithm::Ed25519,
        admin_token: token("1"),
        admin_trail: origin("acme.example/admin"),
        approvals: 2,
        client_roots: vec![],
        created: Timestamp::EPOCH,
        document: "countersign.plan".to_owned(),
        evidence_algorithm: Algorithm::Ed25519,
        instance: "demo".parse().unwrap(),
        members: vec![
            member("auditor", Role::Auditor),
            member("gateway", Role::Gateway),
            member("other", Role::Gateway),
        ],
        nonce: Hash::OF_EMPTY,
        predecessor: None,
        record_token: token("2"),
        trails: vec![TrailPlan {
            checkpoint_algorithm: Algorithm::Ed25519,
            mode: Mode::Batch,
            origin: origin("acme.example/a"),
            record_algorithm: None,
        }],
        v: 1,
    }
}
