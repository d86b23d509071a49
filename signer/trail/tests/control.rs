//! Control records: every type goes through a record and comes back, and no other body is read.
#![cfg(test)]

mod common;

use common::ceremony::{ADMIN_TRAIL, DECISIONS, METRICS, control_bytes, head};
use common::{SoftKey, origin, time};
use countersign_trail::control::{
    Body, ClockBody, ControlError, GapBody, GenesisBody, HeartbeatBody, HsmBody, PersonSignature, PinBody, PlanBody,
    StartBody, TokenSerial, TrailBody,
};
use countersign_trail::document::{Mode, TokenRole};
use countersign_trail::hash::Hash;
use countersign_trail::id::{MemberId, TypeName};
use countersign_trail::keys::Algorithm;
use countersign_trail::record::{Content, Control, Header, Record};
use serde_json::{Value, json};

/// A body of every type, in the order of [`Body::TYPES`].
fn every_type() -> Vec<Body> {
    let heads = vec![head(DECISIONS, 5, Hash::of(b"root")), head(METRICS, u64::MAX, Hash::of(b"r"))];
    vec![
        Body::Plan(PlanBody { plan: Hash::of(b"plan") }),
        Body::Genesis(GenesisBody {
            genesis: Hash::of(b"genesis"),
            heads: heads.clone(),
            signatures: vec![PersonSignature {
                document: Hash::of(b"armor"),
                key: "SHA256:0000000000000000000000000000000000000000000".to_owned(),
                member: MemberId::parse("alice").unwrap(),
            }],
        }),
        Body::Start(StartBody {
            binary: Hash::of(b"binary"),
            config: Hash::of(b"config"),
            heads: heads.clone(),
            tokens: vec![TokenSerial {
                module: Hash::of(b"module"),
                role: TokenRole::Record,
                serial: "0b0b".to_owned(),
            }],
            version: "0.1.0".to_owned(),
        }),
        Body::Hsm(HsmBody {
            heads: heads.clone(),
            reason: String::new(),
            state: "ready".to_owned(),
            time: time(1),
            token: TokenRole::Admin,
        }),
        Body::Pin(PinBody { heads: heads.clone(), state: "latched".to_owned(), token: TokenRole::Record }),
        Body::Clock(ClockBody { expected: time(1), found: time(600), heads, state: "stepped".to_owned() }),
        Body::Trail(TrailBody { admin_seq: 0, admin_trail: origin(ADMIN_TRAIL), mode: Mode::Record }),
        Body::Heartbeat(HeartbeatBody { since: time(1) }),
        Body::Gap(GapBody { from: time(1), reason: "stopped".to_owned(), to: time(2) }),
    ]
}

fn control(type_name: &str, body: Value) -> Control {
    Control { type_name: TypeName::parse(type_name).unwrap(), body }
}

fn body_problem(control: &Control) -> String {
    match Body::parse(control) {
        Err(ControlError::Body { type_name, problem }) => {
            assert_eq!(type_name, control.type_name.as_str());
            problem
        }
        other => panic!("{control:?}: {other:?}"),
    }
}

#[test]
fn every_type_goes_round() {
    let bodies = every_type();
    let types: Vec<&str> = bodies.iter().map(Body::type_name).collect();
    assert_eq!(types, Body::TYPES);
    for body in bodies {
        let header = Header {
            trail: origin(DECISIONS),
            seq: 3,
            time: time(9),
            prev: Hash::of(b"prev"),
            kids: vec![SoftKey::new(Algorithm::Ed25519, 1).kid()],
        };
        let record = Record::parse(&control_bytes(header, &body)).unwrap();
        assert_eq!(record.type_name().as_str(), body.type_name());
        let Content::Control(control) = &record.content else {
            panic!("{record:?}");
        };
        assert_eq!(Body::parse(control).unwrap(), body);
    }
}

#[test]
fn heads_stand_in_the_types_of_the_admin_trail() {
    let with: Vec<&str> = every_type().iter().filter(|body| body.heads().len() == 2).map(Body::type_name).collect();
    let want = ["genesis", "start", "hsm", "pin", "clock"].map(|name| format!("countersign.{name}"));
    assert_eq!(with, want);
}

/// Every object within a body, by its JSON pointer.
fn objects(value: &Value, at: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            found.push(at.to_owned());
            for (name, member) in members {
                objects(member, &format!("{at}/{name}"), found);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                objects(item, &format!("{at}/{index}"), found);
            }
        }
        _ => {}
    }
}

#[test]
fn members_are_neither_more_nor_fewer_at_any_depth() {
    for body in every_type() {
        let good = body.to_control().unwrap();
        let mut places = Vec::new();
        objects(&good.body, "", &mut places);
        for place in places {
            let object = |control: &mut Control| {
                let found = control.body.pointer_mut(&place).unwrap();
                std::mem::take(found.as_object_mut().unwrap())
            };
            let mut more = good.clone();
            let mut members = object(&mut more);
            let names: Vec<String> = members.keys().cloned().collect();
            members.insert("unheard".to_owned(), Value::Null);
            *more.body.pointer_mut(&place).unwrap() = Value::Object(members);
            assert!(body_problem(&more).contains("unheard"));
            for name in names {
                let mut fewer = good.clone();
                let mut members = object(&mut fewer);
                members.remove(&name);
                *fewer.body.pointer_mut(&place).unwrap() = Value::Object(members);
                assert!(body_problem(&fewer).contains(&name));
            }
        }
    }
}

#[test]
fn a_list_is_no_object_at_any_depth() {
    for body in every_type() {
        let good = body.to_control().unwrap();
        let mut places = Vec::new();
        objects(&good.body, "", &mut places);
        for place in places {
            let mut other = good.clone();
            let object = other.body.pointer_mut(&place).unwrap();
            // The bodies declare their members in the order of their names.
            *object = object.as_object().unwrap().values().cloned().collect();
            assert_eq!(body_problem(&other), "an object is written as a list", "{place}");
        }
    }
}

#[test]
fn unknown_types_and_words() {
    assert_eq!(
        Body::parse(&control("countersign.later", json!({}))),
        Err(ControlError::UnknownType("countersign.later".to_owned()))
    );
    let hsm = |state: &str, reason: &str| {
        let body = json!({
            "heads": [], "reason": reason, "state": state,
            "time": "2026-01-01T00:00:00.000000Z", "token": "record",
        });
        control("countersign.hsm", body)
    };
    let pin =
        |state: &str, token: &str| control("countersign.pin", json!({"heads": [], "state": state, "token": token}));
    let gap = |reason: &str| {
        let time = "2026-01-01T00:00:00.000000Z";
        control("countersign.gap", json!({"from": time, "reason": reason, "to": time}))
    };
    let clock = |state: &str| {
        let time = "2026-01-01T00:00:00.000000Z";
        let body = json!({"expected": time, "found": time, "heads": [], "state": state});
        control("countersign.clock", body)
    };
    let trail = |mode: &str, seq: Value| {
        let body = json!({"admin_seq": seq, "admin_trail": ADMIN_TRAIL, "mode": mode});
        control("countersign.trail", body)
    };
    for good in [
        hsm("ready", ""),
        hsm("down", "HSM_TIMEOUT"),
        pin("cleared", "admin"),
        gap("no-service"),
        clock("confirmed"),
        trail("batch", json!("7")),
    ] {
        Body::parse(&good).unwrap();
    }
    for bad in [
        hsm("ready", "HSM_TIMEOUT"),
        hsm("down", ""),
        hsm("down", "the card was pulled"),
        hsm("down", &"A".repeat(65)),
        hsm("gone", ""),
        pin("forgotten", "admin"),
        pin("latched", "both"),
        gap(""),
        gap("Reboot"),
        gap(&"a".repeat(33)),
        clock("fine"),
        trail("both", json!("7")),
        trail("batch", json!(7)),
        trail("batch", json!("07")),
        trail("batch", json!("18446744073709551616")),
    ] {
        body_problem(&bad);
    }
}

#[test]
fn nothing_is_written_that_would_not_be_read() {
    let body = Body::Pin(PinBody { heads: Vec::new(), state: "forgotten".to_owned(), token: TokenRole::Admin });
    assert!(matches!(body.to_control(), Err(ControlError::Body { .. })));
}
