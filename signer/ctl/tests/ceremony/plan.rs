//! `ceremony plan` and `ceremony show`.

use countersign_trail::base64;
use countersign_trail::document::{Plan, Role};
use countersign_trail::hash::Hash;

use crate::stage::{Stage, certificate};

#[test]
fn a_plan_is_canonical_sorted_and_shown_decoded() {
    let stage = Stage::new();
    let run = stage.plan();
    assert_eq!(run.code, 0, "{run:?}");
    let bytes = stage.read("plan.json");
    let plan = Plan::parse(&bytes).unwrap();
    assert_eq!(plan.to_bytes().unwrap(), bytes);
    let ids: Vec<&str> = plan.members.iter().map(|member| member.id.as_str()).collect();
    assert_eq!(ids, ["alice", "bob", "carol", "dan", "gw-1"]);
    let origins: Vec<&str> = plan.trails.iter().map(|trail| trail.origin.as_str()).collect();
    assert_eq!(origins, ["acme.example/decisions", "acme.example/metrics"]);
    assert_eq!((plan.admin_token.serial.as_str(), plan.record_token.serial.as_str()), ("0a", "0b"));
    assert_eq!(plan.members.iter().filter(|m| m.role == Role::Administrator && m.ssh_keys.len() == 1).count(), 4);
    let root = base64::std_decode(&plan.client_roots[0]).unwrap();
    for text in [Hash::of(&bytes).to_string(), Hash::of(&root).to_string(), plan.members[0].ssh_keys[0].fingerprint()] {
        assert!(run.stdout.contains(&text), "{text} is not in {}", run.stdout);
    }
    assert!(run.stdout.contains("may write acme.example/decisions"), "{}", run.stdout);
    let shown = stage.countersign(&["ceremony", "show", "plan.json"]);
    assert!(run.stdout.starts_with(&shown.stdout), "plan and show differ: {}", shown.stdout);
    let json = stage.countersign(&["--json", "ceremony", "show", "plan.json"]).json();
    assert_eq!(json["sha256"], Hash::of(&bytes).to_string());
    assert_eq!(json["plan"]["approvals"], 2);
    assert_eq!(json["client_roots"][0]["name"], "CN=Clients of acme");
    assert_eq!(json["ssh_keys"][0]["fingerprint"], plan.members[0].ssh_keys[0].fingerprint());
}

#[test]
fn no_two_plans_are_alike_and_none_is_overwritten() {
    let stage = Stage::new();
    assert_eq!(stage.plan().code, 0);
    let first = stage.read("plan.json");
    stage.plan().refused(1, &["plan.json exists", "--force"]);
    assert_eq!(stage.read("plan.json"), first);
    let args = ["ceremony", "plan", "--file", "ceremony.toml", "--force", "--record-serial", "0b"];
    assert_eq!(stage.countersign(&args).code, 0);
    let (first, second) = (Plan::parse(&first).unwrap(), Plan::parse(&stage.read("plan.json")).unwrap());
    assert_ne!(first.nonce, second.nonce);
}

/// The ceremony file with one text replaced is refused, with these texts in the message.
fn refuses(edit: impl FnOnce(String) -> String, code: i32, texts: &[&str]) {
    let stage = Stage::new();
    let file = stage.ceremony_file(&["alice", "bob", "carol", "dan"]);
    let edited = edit(file.clone());
    assert_ne!(edited, file);
    stage.write("ceremony.toml", edited.as_bytes());
    stage.plan().refused(code, texts);
    assert!(!stage.path("plan.json").exists());
}

#[test]
fn too_few_administrators() {
    let stage = Stage::new();
    stage.write("ceremony.toml", stage.ceremony_file(&["alice", "bob", "carol"]).as_bytes());
    stage.plan().refused(64, &["3 administrators", "at least 4", "Add administrators"]);
    refuses(|file| format!("approvals = 3\n{file}"), 64, &["4 administrators", "at least 5"]);
    refuses(|file| format!("approvals = 1\n{file}"), 64, &["1 approvals", "at least 2"]);
}

#[test]
fn credentials_that_stand_twice() {
    let texts = &["SSH key SHA256:", "stands twice", "alice", "bob", "credentials of their own"];
    refuses(|file| file.replace("bob.pub", "alice.pub"), 64, texts);
    let texts = &["SPIFFE ID spiffe://acme.example/alice stands twice", "member alice", "member bob"];
    refuses(|file| file.replace("spiffe://acme.example/bob", "spiffe://acme.example/alice"), 64, texts);
    refuses(|file| file.replace("id = \"bob\"", "id = \"alice\""), 64, &["member id alice stands twice"]);
}

#[test]
fn what_the_file_gets_wrong_is_named() {
    refuses(|file| format!("aprovals = 2\n{file}"), 64, &["ceremony.toml", "aprovals", "ceremony.example.toml"]);
    refuses(|file| file.replace("alice.pub", "alice"), 64, &["member alice", "ends in .pub"]);
    refuses(|file| file.replace("alice.pub", "nobody.pub"), 1, &["nobody.pub", "No such file"]);
    refuses(
        |file| file.replace("\"acme.example/metrics\", ", "\"acme.example/other\", "),
        64,
        &["gw-1", "acme.example/other", "[[trails]]"],
    );
    refuses(|file| file.replace("record_algorithm = \"ecdsa-p256\"", ""), 64, &["record_algorithm", "ceremony.toml"]);
    refuses(|file| file.replace("serial = \"0a\"", ""), 64, &["admin token", "--admin-serial", "show-slots"]);
    refuses(
        |file| file.replace("origin = \"acme.example/metrics\"", "origin = \"acme.example/decisions\""),
        64,
        &["acme.example/decisions stands twice"],
    );
    refuses(|file| file.replace("ssh_key_files = [\"dan.pub\"]", ""), 64, &["dan", "SSH key"]);
}

#[test]
fn a_list_is_no_table() {
    let belongs = "is a list, where a value or a table belongs";
    let admin = "[tokens.admin]\nlabel = \"countersign-admin\"\nserial = \"0a\"\n";
    let listed = "tokens.admin = [\"countersign-admin\", \"0a\"]\n";
    let at_top = |file: String| format!("{listed}{}", file.replace(admin, ""));
    refuses(at_top, 64, &["line 1, column 8: tokens.admin: ", belongs, "ceremony.example.toml"]);
    let record = "[tokens.record]\nlabel = \"countersign-record\"\n";
    let both = "tokens = [[\"countersign-admin\", \"0a\"], [\"countersign-record\", \"0b\"]]\n";
    let at_top = |file: String| format!("{both}{}", file.replace(admin, "").replace(record, ""));
    refuses(at_top, 64, &["line 1, column 1: tokens: ", belongs]);
    let trail = "[[trails]]\norigin = \"acme.example/metrics\"\nmode = \"batch\"\n";
    let second =
        "[[trails]]\norigin = \"acme.example/decisions\"\nmode = \"record\"\nrecord_algorithm = \"ecdsa-p256\"\n";
    let trails = "trails = [\n  [\"acme.example/metrics\", \"batch\", \"ed25519\"],\n  { origin = \"acme.example/decisions\", mode = \"record\", record_algorithm = \"ed25519\" },\n]\n";
    let at_top = |file: String| format!("{trails}{}", file.replace(trail, "").replace(second, ""));
    refuses(at_top, 64, &["line 2, column 3: trails: ", belongs]);
}

#[test]
fn both_tokens_must_differ() {
    let file = |text: String| {
        text.replace("countersign-admin", "countersign-record").replace("serial = \"0a\"", "serial = \"0b\"")
    };
    refuses(file, 64, &["the same token"]);
}

#[test]
fn only_certification_authorities_are_client_roots() {
    let stage = Stage::new();
    stage.write("ca.pem", certificate(false).as_bytes());
    stage.plan().refused(64, &["client_roots", "ca.pem", "not a certification authority"]);
    stage.write("ca.pem", b"no PEM at all");
    stage.plan().refused(64, &["client_roots", "no certificate in it"]);
    let twice = certificate(true).repeat(2);
    stage.write("ca.pem", twice.as_bytes());
    stage.plan().refused(64, &["stands twice in client_roots"]);
}

#[test]
fn a_plan_that_was_edited_is_refused() {
    let stage = Stage::new();
    assert_eq!(stage.plan().code, 0);
    let text = String::from_utf8(stage.read("plan.json")).unwrap();
    let edits = [
        (text.replace("{\"admin", "{ \"admin"), "canonical"),
        (text.replace("\"approvals\":2", "\"approvals\":1"), "approvals"),
        (swapped(&text), "sorted"),
    ];
    for (edited, problem) in edits {
        assert_ne!(edited, text);
        stage.write("edited.json", edited.as_bytes());
        stage.countersign(&["ceremony", "show", "edited.json"]).refused(50, &["edited.json", problem, "byte for byte"]);
    }
    stage.write("edited.json", b"{}");
    stage.countersign(&["ceremony", "show", "edited.json"]).refused(50, &["not a ceremony document"]);
}

/// The plan with its first two trails exchanged.
fn swapped(plan: &str) -> String {
    let mut value: serde_json::Value = serde_json::from_str(plan).unwrap();
    value["trails"].as_array_mut().unwrap().swap(0, 1);
    String::from_utf8(countersign_trail::jcs::to_canonical(&value).unwrap()).unwrap()
}

#[test]
fn the_example_ceremony_file_makes_a_plan() {
    let stage = Stage::new();
    let example = include_str!("../../../../hsm-config/ceremony.example.toml");
    stage.write("ceremony.toml", example.as_bytes());
    stage.write("clients-ca.pem", certificate(true).as_bytes());
    let run = stage.countersign(&["ceremony", "plan", "--file", "ceremony.toml", "--out", "example.json"]);
    assert_eq!(run.code, 0, "{run:?}");
}
