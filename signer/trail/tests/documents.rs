//! Documents: one spelling of each; and every rule of the plan, with a plan that breaks it.
#![cfg(test)]

mod common;

use common::ceremony::{ADMIN_TRAIL, DECISIONS, METRICS, broken_rule, member};
use common::{Ceremony, Person, origin};
use countersign_trail::base64;
use countersign_trail::document::{
    DocumentError, Genesis, MAX_DOCUMENT_LEN, MAX_MEMBERS, MAX_TRAILS, Mode, Plan, Role, TrailPlan, is_spiffe_id,
    planned_keys,
};
use countersign_trail::hash::Hash;
use countersign_trail::jcs::JcsError;
use countersign_trail::keys::Algorithm;

fn sample_plan() -> Plan {
    let people = ["alice", "bob", "carol", "dave"].map(|id| Person::new(id, "ed25519"));
    common::ceremony::plan(&people)
}

/// A change that breaks one rule of a plan.
type Break = fn(&mut Plan);

const ALICE: usize = 0;
const AUDREY: usize = 1;
const GATEWAY: usize = 5;

fn many_trails(plan: &mut Plan, count: usize) {
    plan.trails = (0..count)
        .map(|n| TrailPlan {
            checkpoint_algorithm: Algorithm::Ed25519,
            mode: Mode::Batch,
            origin: origin(&format!("acme.example/t{n:04}")),
            record_algorithm: None,
        })
        .collect();
    plan.members[GATEWAY].grants.clear();
}

fn many_members(plan: &mut Plan, count: usize) {
    let more = count - plan.members.len();
    plan.members.extend((0..more).map(|n| member(&format!("z{n:04}"), Role::Auditor)));
}

fn many_roots(plan: &mut Plan, count: u8) {
    plan.client_roots = (0..count).map(|n| base64::std_encode(&[0x30, 0x03, 0x02, 0x01, n])).collect();
}

#[test]
fn a_good_plan_at_its_bounds() {
    let changes: [Break; 8] = [
        |_| {},
        |plan| many_trails(plan, 1),
        |plan| many_trails(plan, MAX_TRAILS),
        |plan| many_members(plan, MAX_MEMBERS),
        |plan| many_roots(plan, 16),
        |plan| plan.members[ALICE].name = "n".repeat(200),
        |plan| plan.admin_token.label = "l".repeat(32),
        |plan| plan.predecessor = Some(Hash::of(b"lost")),
    ];
    let good = sample_plan();
    assert_eq!(good.members[AUDREY].id.as_str(), "audrey");
    assert_eq!(good.members[GATEWAY].id.as_str(), "gw-1");
    for (at, change) in changes.iter().enumerate() {
        let mut plan = good.clone();
        change(&mut plan);
        let bytes = plan.to_bytes().unwrap();
        assert_eq!(Plan::parse(&bytes).unwrap(), plan, "change {at}");
    }
    let administrators: Vec<&str> = good.administrators().map(|m| m.id.as_str()).collect();
    assert_eq!(administrators, ["alice", "bob", "carol", "dave"]);
}

#[test]
fn each_rule_of_a_plan() {
    let cases: &[(&str, Break)] = &[
        ("v is not 1", |p| p.v = 2),
        ("document is not countersign.plan", |p| p.document = "countersign.genesis".to_owned()),
        ("1 to 64 trails", |p| many_trails(p, 0)),
        ("1 to 64 trails", |p| many_trails(p, MAX_TRAILS + 1)),
        ("more than 1,024 members", |p| many_members(p, MAX_MEMBERS + 1)),
        ("1 to 16 client_roots", |p| many_roots(p, 0)),
        ("1 to 16 client_roots", |p| many_roots(p, 17)),
        ("client_roots[0] is not DER in base64", |p| p.client_roots[0].push('=')),
        ("client_roots[0] is not DER in base64", |p| p.client_roots[0] = base64::std_encode(b"PEM")),
        ("client_roots[0] is not DER in base64", |p| p.client_roots[0].clear()),
        ("client_roots[1] stands twice", |p| p.client_roots.push(p.client_roots[0].clone())),
        ("trails are not sorted", |p| p.trails.reverse()),
        ("trails are not sorted", |p| p.trails[1] = p.trails[0].clone()),
        ("members are not sorted", |p| p.members.swap(0, 1)),
        ("members are not sorted", |p| p.members.insert(AUDREY, p.members[AUDREY].clone())),
        ("acme.example/decisions: has the admin trail's origin", |p| p.admin_trail = origin(DECISIONS)),
        ("acme.example/decisions: record_algorithm stands", |p| p.trails[0].record_algorithm = None),
        ("acme.example/metrics: record_algorithm stands", |p| {
            p.trails[1].record_algorithm = Some(Algorithm::Ed25519);
        }),
        ("admin_token wants label and serial", |p| p.admin_token.label.clear()),
        ("admin_token wants label and serial", |p| p.admin_token.serial.clear()),
        ("record_token wants label and serial", |p| p.record_token.label = "l".repeat(33)),
        ("record_token wants label and serial", |p| p.record_token.serial = "a\nb".to_owned()),
        ("the same token", |p| p.record_token = p.admin_token.clone()),
        ("member alice: name wants 1 to 200", |p| p.members[ALICE].name.clear()),
        ("member alice: name wants 1 to 200", |p| p.members[ALICE].name = "n".repeat(201)),
        ("member alice: name wants 1 to 200", |p| p.members[ALICE].name.push('\u{1b}')),
        ("member alice: 1 to 8 ssh_keys", |p| p.members[ALICE].ssh_keys.clear()),
        ("member alice: 1 to 8 ssh_keys", |p| {
            p.members[ALICE].ssh_keys = vec![p.members[ALICE].ssh_keys[0].clone(); 9];
        }),
        ("member audrey: 1 to 8 ssh_keys", |p| {
            p.members[AUDREY].ssh_keys = p.members[ALICE].ssh_keys.clone();
        }),
        ("member audrey: wants 1 to 8 spiffe_ids", |p| p.members[AUDREY].spiffe_ids.clear()),
        ("member audrey: wants 1 to 8 spiffe_ids", |p| {
            p.members[AUDREY].spiffe_ids = (0..9).map(|n| format!("spiffe://a/{n}")).collect();
        }),
        ("member audrey: only a gateway has grants", |p| p.members[AUDREY].grants = vec![origin(METRICS)]),
        ("member gw-1: grants are not sorted", |p| p.members[GATEWAY].grants.reverse()),
        ("member gw-1: grants are not sorted", |p| {
            p.members[GATEWAY].grants = vec![origin(METRICS); 2];
        }),
        ("member gw-1: a grant for acme.example/admin", |p| {
            p.members[GATEWAY].grants = vec![origin(ADMIN_TRAIL)];
        }),
        ("member audrey: a spiffe_id that is not", |p| {
            p.members[AUDREY].spiffe_ids = vec!["https://acme.example/audrey".to_owned()];
        }),
        ("member audrey: a spiffe_id that stands twice", |p| {
            p.members[AUDREY].spiffe_ids = p.members[ALICE].spiffe_ids.clone();
        }),
        ("member audrey: a spiffe_id that stands twice", |p| {
            let again = p.members[AUDREY].spiffe_ids[0].clone();
            p.members[AUDREY].spiffe_ids.push(again);
        }),
        ("member bob: an ssh key that stands twice", |p| {
            p.members[2].ssh_keys = p.members[ALICE].ssh_keys.clone();
        }),
        ("1 approvals of 4 administrators", |p| p.approvals = 1),
        ("3 approvals of 4 administrators", |p| p.approvals = 3),
        ("4294967295 approvals of 4 administrators", |p| p.approvals = u32::MAX),
        ("2 approvals of 3 administrators", |p| {
            p.members.remove(ALICE);
        }),
    ];
    let good = sample_plan();
    assert_eq!(good.members[2].id.as_str(), "bob");
    for (problem, change) in cases {
        let mut plan = good.clone();
        change(&mut plan);
        broken_rule(plan.check(), "countersign.plan", problem);
        // What is read is checked.
        broken_rule(Plan::parse(&plan.to_bytes().unwrap()), "countersign.plan", problem);
    }
}

#[test]
fn spiffe_ids() {
    let long = format!("spiffe://a/{}", "b".repeat(2048 - 11));
    for good in ["spiffe://a/b", "spiffe://acme.example/ns/x_1/sa/Gw-1.b", &long] {
        assert!(is_spiffe_id(good), "{good}");
    }
    let longer = format!("{long}b");
    let domain = format!("spiffe://{}/b", "a".repeat(256));
    for bad in [
        "",
        "spiffe://",
        "spiffe://a",
        "spiffe://a/",
        "spiffe:///b",
        "spiffe://A/b",
        "spiffe://a:1/b",
        "spiffe://u@a/b",
        "spiffe://a/b/",
        "spiffe://a//b",
        "spiffe://a/./b",
        "spiffe://a/../b",
        "spiffe://a/b?c",
        "spiffe://a/b#c",
        "spiffe://a/%41",
        "spiffe://a/b c",
        "SPIFFE://a/b",
        "https://a/b",
        &longer,
        &domain,
    ] {
        assert!(!is_spiffe_id(bad), "{bad}");
    }
}

/// Every other spelling of a document's value is refused.
fn one_spelling<T: std::fmt::Debug>(text: &str, parse: impl Fn(&[u8]) -> Result<T, DocumentError>) {
    parse(text.as_bytes()).unwrap();
    let json = |text: String| match parse(text.as_bytes()) {
        Err(DocumentError::Json { source, .. }) => source,
        other => panic!("{text}: {other:?}"),
    };
    let not_canonical = |text: String| {
        assert!(matches!(json(text), JcsError::NotCanonical { .. }));
    };
    not_canonical(format!("{text}\n"));
    not_canonical(format!(" {text}"));
    not_canonical(text.replacen("{\"", "{ \"", 1));
    not_canonical(text.replacen(",\"v\":1}", ",\"v\":1,\"v\":1}", 1));
    not_canonical(text.replacen("\"countersign.", "\"\\u0063ountersign.", 1));
    let moved = text.replacen(",\"v\":1}", "}", 1).replacen('{', "{\"v\":1,", 1);
    not_canonical(moved);
    assert_eq!(json(text.replacen(",\"v\":1}", ",\"v\":1.5}", 1)), JcsError::Number);
    for other in [",\"v\":1,\"w\":1}", "}", ",\"v\":\"1\"}"] {
        let source = json(text.replacen(",\"v\":1}", other, 1));
        assert!(matches!(source, JcsError::Shape(_)), "{other}: {source}");
    }
    assert!(matches!(json(text[..text.len() - 1].to_owned()), JcsError::Shape(_)));
    let long = " ".repeat(MAX_DOCUMENT_LEN + 1);
    assert!(matches!(json(long), JcsError::TooLong { .. }));
}

fn is_not_canonical<T>(parsed: Result<T, DocumentError>) -> bool {
    matches!(parsed, Err(DocumentError::Json { source: JcsError::NotCanonical { .. }, .. }))
}

#[test]
fn documents_have_one_spelling() {
    let ceremony = Ceremony::new();
    let plan = String::from_utf8(ceremony.plan.to_bytes().unwrap()).unwrap();
    one_spelling(&plan, Plan::parse);
    let genesis = String::from_utf8(ceremony.genesis_bytes()).unwrap();
    one_spelling(&genesis, Genesis::parse);
    assert!(Genesis::parse(plan.as_bytes()).is_err());
    // A list is no object, and null is not the same as absent.
    let (token, serial) = (&ceremony.plan.admin_token.label, &ceremony.plan.admin_token.serial);
    let (object, list) =
        (format!(r#"{{"label":"{token}","serial":"{serial}"}}"#), format!(r#"["{token}","{serial}"]"#));
    for other in
        [plan.replace(&object, &list), plan.replace(",\"record_token\"", ",\"predecessor\":null,\"record_token\"")]
    {
        assert_ne!(other, plan);
        assert!(is_not_canonical(Plan::parse(other.as_bytes())), "{other}");
    }
    let first = &ceremony.genesis.records[0];
    let object = format!(r#"{{"leaf_hash":"{}","trail":"{}"}}"#, first.leaf_hash, first.trail);
    let list = format!(r#"["{}","{}"]"#, first.leaf_hash, first.trail);
    let null = |text: &str| text.replace("\"token\":\"record\"}", "\"token\":\"record\",\"trail\":null}");
    for other in [genesis.replace(&object, &list), null(&genesis)] {
        assert_ne!(other, genesis);
        assert!(is_not_canonical(Genesis::parse(other.as_bytes())), "{other}");
    }
    // An enrolled key has no comment.
    let key = ceremony.people[0].key.to_string();
    let commented = plan.replacen(&key, &format!("{key} alice@host"), 1);
    assert!(matches!(Plan::parse(commented.as_bytes()), Err(DocumentError::Json { .. })));
}

#[test]
fn a_plan_names_the_keys_to_be_made() {
    let keys = planned_keys(&sample_plan());
    let names: Vec<(&str, Option<&str>, &str, &str)> = keys
        .iter()
        .map(|(purpose, trail, algorithm, token)| {
            (purpose.word(), trail.as_ref().map(|t| t.as_str()), algorithm.name(), token.word())
        })
        .collect();
    let want = [
        ("admin-checkpoint", Some(ADMIN_TRAIL), "ecdsa-p256", "admin"),
        ("evidence", None, "ed25519", "record"),
        ("checkpoint", Some(DECISIONS), "ecdsa-p256", "record"),
        ("record", Some(DECISIONS), "ed25519", "record"),
        ("checkpoint", Some(METRICS), "ed25519", "record"),
    ];
    assert_eq!(names, want);
}
