//! Who is at the other end of a connection, as its client certificate says.
//!
//! A [`Peer`] is made by the TLS accept loop after a handshake and stands in the extensions of
//! every request of its connection. A handshake proves a certificate once; [`Peer::check`] holds it
//! against the clock and the newest revocation lists again, at each call and each stream message.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use countersign_trail::time::Timestamp;

use crate::access::Denied;

/// A certificate as revocation lists name it (RFC 5280, 5.3): DER of the issuer's name, and the
/// serial number as the contents of its DER INTEGER.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CertificateId {
    /// DER of the issuer's distinguished name.
    pub issuer: Vec<u8>,
    /// Serial number, big-endian, as encoded.
    pub serial: Vec<u8>,
}

/// The certificates that the newest revocation lists name. Shared: the reloader writes, every peer
/// reads.
#[derive(Debug, Clone, Default)]
pub struct Revocations(Arc<ArcSwap<HashSet<CertificateId>>>);

impl Revocations {
    /// Puts a new set in force, for open connections too.
    pub fn publish(&self, revoked: HashSet<CertificateId>) {
        self.0.store(Arc::new(revoked));
    }

    /// How many certificates are revoked.
    pub fn len(&self) -> usize {
        self.0.load().len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What a handshake proved. Cheap to clone.
#[derive(Clone)]
pub struct Peer(Arc<Proven>);

struct Proven {
    spiffe_id: String,
    connection: u64,
    not_after: Timestamp,
    chain: Vec<CertificateId>,
    revocations: Revocations,
}

impl Peer {
    /// A peer whose chain (leaf first) has just been verified.
    ///
    /// `not_after` is the earliest end of validity in the chain, `connection` a number that no
    /// other connection of this process has.
    pub fn new(
        spiffe_id: String,
        connection: u64,
        not_after: Timestamp,
        chain: Vec<CertificateId>,
        revocations: Revocations,
    ) -> Peer {
        Peer(Arc::new(Proven { spiffe_id, connection, not_after, chain, revocations }))
    }

    /// The one URI SAN of its certificate: a SPIFFE ID.
    pub fn spiffe_id(&self) -> &str {
        &self.0.spiffe_id
    }

    /// The connection's number, for logs.
    pub fn connection(&self) -> u64 {
        self.0.connection
    }

    /// When the first certificate of its chain expires.
    pub fn not_after(&self) -> Timestamp {
        self.0.not_after
    }

    /// Whether the certificate still stands at `now`.
    ///
    /// # Errors
    /// [`Denied::CertificateExpired`], [`Denied::CertificateRevoked`].
    pub fn check(&self, now: Timestamp) -> Result<(), Denied> {
        if now > self.0.not_after {
            return Err(Denied::CertificateExpired { not_after: self.0.not_after });
        }
        let revoked = self.0.revocations.0.load();
        match self.0.chain.iter().find(|certificate| revoked.contains(*certificate)) {
            Some(certificate) => Err(Denied::CertificateRevoked { serial: serial_text(&certificate.serial) }),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (connection {})", self.0.spiffe_id, self.0.connection)
    }
}

/// A serial number as people compare it: lower-case hexadecimal, at most 20 bytes (RFC 5280, 4.1.2.2).
fn serial_text(serial: &[u8]) -> String {
    serial.iter().take(20).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(serial: u8) -> CertificateId {
        CertificateId { issuer: b"issuer".to_vec(), serial: vec![0, serial] }
    }

    fn at(micros: i64) -> Timestamp {
        Timestamp::from_micros(micros).unwrap()
    }

    #[test]
    fn expiry_and_revocation_reach_an_open_connection() {
        let revocations = Revocations::default();
        let chain = vec![id(1), id(2)];
        let peer = Peer::new("spiffe://a/b".to_owned(), 7, at(100), chain, revocations.clone());
        assert_eq!(peer.check(at(100)), Ok(()));
        assert_eq!(peer.check(at(101)), Err(Denied::CertificateExpired { not_after: at(100) }));

        revocations.publish(HashSet::from([id(3)]));
        assert_eq!(peer.check(at(100)), Ok(()));
        // The issuing certificate, not only the leaf.
        revocations.publish(HashSet::from([id(2)]));
        assert_eq!(peer.check(at(100)), Err(Denied::CertificateRevoked { serial: "0002".to_owned() }));
        // The same serial number of another issuer is another certificate.
        let other = CertificateId { issuer: b"other".to_vec(), ..id(2) };
        revocations.publish(HashSet::from([other]));
        assert_eq!(peer.check(at(100)), Ok(()));
    }
}
