//! TLS clients below any library of ours: what the listeners show, and how they refuse.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use countersign_stage::Stage;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, StreamOwned};

/// How long an alert may take: a connection that is taken has none.
const ALERT_LIMIT: Duration = Duration::from_secs(20);

/// A TLS connection.
pub(crate) type TlsStream = StreamOwned<ClientConnection, TcpStream>;

/// A certificate of the stage's folder `tls`.
pub(crate) fn certificate(stage: &Stage, name: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(stage.folder.join("tls").join(format!("{name}.pem"))).unwrap()
}

/// A client's settings, with a member's certificate or with none, and one protocol by ALPN.
pub(crate) fn client(stage: &Stage, member: Option<&str>, alpn: &[u8]) -> ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate(stage, "ca")).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let builder = builder.with_root_certificates(roots);
    let mut config = match member {
        None => builder.with_no_client_auth(),
        Some(member) => {
            let key = PrivateKeyDer::from_pem_file(stage.folder.join("tls").join(format!("{member}.key"))).unwrap();
            builder.with_client_auth_cert(vec![certificate(stage, member)], key).unwrap()
        }
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    config
}

/// A connection to a loopback port; the handshake is made by the first read or write.
pub(crate) fn connect(port: u16, config: ClientConfig) -> TlsStream {
    let name = ServerName::try_from("localhost").unwrap();
    let session = ClientConnection::new(Arc::new(config), name).unwrap();
    StreamOwned::new(session, TcpStream::connect(("127.0.0.1", port)).unwrap())
}

/// The certificate that a listener shows.
pub(crate) fn shown_certificate(port: u16, config: ClientConfig) -> CertificateDer<'static> {
    let mut stream = connect(port, config);
    stream.conn.complete_io(&mut stream.sock).unwrap();
    stream.conn.peer_certificates().unwrap()[0].clone().into_owned()
}

/// The alert that ends the connection of a client.
pub(crate) fn alert(port: u16, config: ClientConfig) -> String {
    let mut stream = connect(port, config);
    stream.sock.set_read_timeout(Some(ALERT_LIMIT)).unwrap();
    let mut byte = [0];
    let read = loop {
        match stream.read(&mut byte) {
            Ok(0) => panic!("closed without an alert"),
            // HTTP/2 settings that were on their way.
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    read.to_string()
}

/// Asserts that a hello of TLS 1.2 is answered with an alert (21) of 2 bytes: fatal (2),
/// protocol_version (70): RFC 8446 section 6.2.
pub(crate) fn assert_tls_1_2_refused(port: u16) {
    // TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256; x25519; ecdsa_secp256r1_sha256; no supported_versions.
    let mut body = [&[3, 3][..], &[5; 32], &[0], &[0, 2, 0xc0, 0x2b], &[1, 0]].concat();
    let extensions = [&[0, 10, 0, 4, 0, 2, 0, 29][..], &[0, 13, 0, 4, 0, 2, 4, 3]].concat();
    body.extend((extensions.len() as u16).to_be_bytes());
    body.extend(extensions);
    let handshake = [&[1, 0][..], &(body.len() as u16).to_be_bytes(), &body].concat();
    let record = [&[22, 3, 1][..], &(handshake.len() as u16).to_be_bytes(), &handshake].concat();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(&record).unwrap();
    let mut alert = [0; 7];
    stream.read_exact(&mut alert).unwrap();
    assert_eq!((alert[0], &alert[3..]), (21, &[0, 2, 2, 70][..]), "{alert:?}");
}
