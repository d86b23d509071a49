//! `countersign keys`: only what the pinned genesis authorises, for what it authorises it.

use countersign_trail::keys::Algorithm;

use crate::common::SoftKey;
use crate::stage::{Stage, names_ending};

#[test]
fn keys_come_in_every_form() {
    let stage = Stage::new(1);
    let kids: Vec<String> = stage.daemon.state().keys.iter().map(|key| key.kid.clone()).collect();
    let all: Vec<&str> = kids.iter().map(String::as_str).collect();
    stage.countersign(&["keys"]).shows(&all);
    stage.countersign(&["keys"]).shows(&["by the pinned genesis"]);
    stage.countersign(&["keys", "--jwks"]).shows(&all);
    let pem = stage.countersign(&["keys", "--pem"]);
    assert_eq!(pem.stdout.matches("BEGIN PUBLIC KEY").count(), kids.len());
    let vkeys = stage.countersign(&["keys", "--vkey"]);
    assert_eq!(vkeys.stdout.lines().count(), 3, "two trails and the admin trail: {}", vkeys.stdout);
    for (form, count) in [("--vkey", 3), ("--pem", kids.len())] {
        let run = stage.countersign(&["--json", "keys", form]);
        let json: Vec<String> = serde_json::from_str(&run.stdout).unwrap();
        assert_eq!(json.len(), count, "{run:?}");
    }
    stage.countersign(&["keys", "--out", "keys"]).shows(&all);
    assert_eq!(names_ending(&stage.path("keys"), ".pem").len(), kids.len());
    assert!(stage.path("keys/jwks.json").exists() && stage.path("keys/vkeys.txt").exists());
}

#[test]
fn a_key_that_the_genesis_does_not_authorise() {
    let stage = Stage::new(1);
    let public = SoftKey::new(Algorithm::Ed25519, 99).public();
    {
        let mut state = stage.daemon.state();
        let mut foreign = state.keys.iter().find(|key| key.purpose == "evidence").unwrap().clone();
        foreign.kid = public.kid().to_string();
        foreign.spki = public.spki_der().into();
        state.keys.push(foreign);
    }
    stage.countersign(&["keys", "--out", "keys"]).refused(40, &[&public.kid().to_string(), "does not authorise"]);
    assert!(!stage.path("keys").exists());
}

#[test]
fn a_key_for_another_purpose_or_under_another_name() {
    for change in ["purpose", "trail", "spki", "vkey", "kid"] {
        let stage = Stage::new(1);
        {
            let mut state = stage.daemon.state();
            let spki = state.keys.iter().find(|key| key.purpose == "evidence").unwrap().spki.clone();
            let key = state.keys.iter_mut().find(|key| key.purpose == "checkpoint").unwrap();
            match change {
                "purpose" => key.purpose = "record".to_owned(),
                "trail" => key.trail = "acme.example/other".to_owned(),
                "spki" => key.spki = spki,
                "vkey" => key.vkey.push('='),
                _ => key.kid = "x".to_owned(),
            }
        }
        let run = stage.countersign(&["keys"]);
        assert_eq!(run.code, 40, "{change}: {run:?}");
    }
}
