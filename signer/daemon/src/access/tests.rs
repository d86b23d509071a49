use countersign_trail::document::{Member, Mode, TokenPlan, TrailPlan};
use countersign_trail::hash::Hash;
use countersign_trail::keys::Algorithm;

use super::*;
use crate::peer::Revocations;

fn origin(text: &str) -> Origin {
    Origin::parse(text).unwrap()
}

fn at(micros: i64) -> Timestamp {
    Timestamp::from_micros(micros).unwrap()
}

fn member(id: &str, role: Role, grants: &[&str]) -> Member {
    Member {
        grants: grants.iter().map(|grant| origin(grant)).collect(),
        id: MemberId::parse(id).unwrap(),
        name: id.to_owned(),
        role,
        spiffe_ids: vec![format!("spiffe://example.org/{id}"), format!("spiffe://example.org/{id}/2")],
        ssh_keys: vec![],
    }
}

fn access() -> Access {
    let token = |serial: &str| TokenPlan { label: "t".to_owned(), serial: serial.to_owned() };
    let trail = |text: &str| TrailPlan {
        checkpoint_algorithm: Algorithm::Ed25519,
        mode: Mode::Batch,
        origin: origin(text),
        record_algorithm: None,
    };
    Access::from_plan(&Plan {
        admin_algorithm: Algorithm::Ed25519,
        admin_token: token("1"),
        admin_trail: origin("acme.example/admin"),
        approvals: 2,
        client_roots: vec![],
        created: at(0),
        document: "countersign.plan".to_owned(),
        evidence_algorithm: Algorithm::Ed25519,
        instance: "demo".parse().unwrap(),
        members: vec![
            member("admin", Role::Administrator, &[]),
            member("auditor", Role::Auditor, &[]),
            member("gateway", Role::Gateway, &["acme.example/a"]),
            member("operator", Role::Operator, &[]),
        ],
        nonce: Hash::OF_EMPTY,
        predecessor: None,
        record_token: token("2"),
        trails: vec![trail("acme.example/a"), trail("acme.example/b")],
        v: 1,
    })
}

fn peer(id: &str) -> Peer {
    Peer::new(format!("spiffe://example.org/{id}"), 1, at(1_000), vec![], Revocations::default())
}

fn reason<T>(result: Result<T, Denied>) -> Option<Reason> {
    result.err().map(|denied| denied.reason())
}

/// The whole table of the module's docs, cell by cell.
#[test]
fn every_cell_of_the_table() {
    let access = access();
    let forbidden = Some(Reason::RoleForbids);
    let not_granted = Some(Reason::NotGranted);
    // sign a, sign b, read a, read b, read admin, keys, export, status
    let rows: [(&str, [Option<Reason>; 8]); 4] = [
        ("gateway", [None, not_granted, None, not_granted, not_granted, None, forbidden, forbidden]),
        ("auditor", [forbidden, forbidden, None, None, None, None, None, None]),
        ("admin", [forbidden, forbidden, None, None, None, None, forbidden, None]),
        ("operator", [forbidden, forbidden, forbidden, forbidden, forbidden, forbidden, forbidden, None]),
    ];
    for (id, want) in rows {
        for identity in [id.to_owned(), format!("{id}/2")] {
            let peer = peer(&identity);
            let peer = Some(&peer);
            let now = at(0);
            let write = |trail: &str| reason(access.authorise_write(peer, now, &origin(trail)));
            let read = |trail: &str| reason(access.authorise_read(peer, now, &origin(trail)));
            let found = [
                write("acme.example/a"),
                write("acme.example/b"),
                read("acme.example/a"),
                read("acme.example/b"),
                read("acme.example/admin"),
                reason(access.authorise_keys(peer, now)),
                reason(access.authorise_export(peer, now)),
                reason(access.authorise_status(peer, now)),
            ];
            assert_eq!(found, want, "{id}");
        }
    }
}

#[test]
fn parts_are_for_auditors_and_their_writers() {
    let access = access();
    let trail = origin("acme.example/a");
    let parts = |id: &str| access.authorise_read(Some(&peer(id)), at(0), &trail).unwrap().parts;
    let own = MemberId::parse("gateway").unwrap();
    let other = MemberId::parse("auditor").unwrap();
    assert_eq!(parts("auditor"), Parts::All);
    assert_eq!(parts("admin"), Parts::None);
    assert_eq!(parts("gateway"), Parts::Of(own.clone()));
    assert!(parts("gateway").include(Some(&own)));
    assert!(!parts("gateway").include(Some(&other)));
    assert!(!parts("gateway").include(None));
    assert!(!parts("admin").include(Some(&own)));
}

#[test]
fn nobody_is_somebody() {
    let access = access();
    let trail = origin("acme.example/a");
    assert_eq!(reason(access.authorise_write(None, at(0), &trail)), Some(Reason::Unauthenticated));
    // A prefix, a suffix and another trust domain are other identities.
    for id in ["gatewa", "gateway/", "gateway/3", "Gateway"] {
        assert_eq!(reason(access.authorise_write(Some(&peer(id)), at(0), &trail)), Some(Reason::UnknownIdentity));
    }
    let foreign = Peer::new("spiffe://example.com/gateway".to_owned(), 1, at(1), vec![], Revocations::default());
    assert_eq!(reason(access.authorise_status(Some(&foreign), at(0))), Some(Reason::UnknownIdentity));
    assert_eq!(access.member("spiffe://example.com/gateway"), None);
}

#[test]
fn the_certificate_is_checked_at_each_call() {
    let access = access();
    let trail = origin("acme.example/a");
    let late = access.authorise_write(Some(&peer("gateway")), at(1_001), &trail);
    assert_eq!(reason(late), Some(Reason::CertificateExpired));
    let refusal =
        Refusal::from(access.authorise_read(Some(&peer("gateway")), at(0), &origin("acme.example/b")).unwrap_err());
    assert_eq!(refusal.reason(), Reason::NotGranted);
    assert_eq!(refusal.message(), "gateway has no grant for acme.example/b");
}
