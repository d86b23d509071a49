//! The command line itself: help, exit codes, completions, man pages, profiles.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise")]

use std::path::Path;
use std::process::{Command, Output};

fn countersign(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_countersign"));
    command.args(args).env_remove("COUNTERSIGN_PROFILE").stdin(std::process::Stdio::null());
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

const COMMANDS: [&[&str]; 17] = [
    &[],
    &["ceremony"],
    &["ceremony", "plan"],
    &["ceremony", "show"],
    &["ceremony", "sign"],
    &["ceremony", "fingerprint"],
    &["sign"],
    &["trails"],
    &["head"],
    &["record"],
    &["proof"],
    &["keys"],
    &["export"],
    &["status"],
    &["completions"],
    &["man"],
    &["record", "acme.example/a"],
];

#[test]
fn every_help_text_says_how_it_may_end() {
    for command in &COMMANDS[..16] {
        let output = countersign(&[command, &["--help"][..]].concat());
        let help = text(&output.stdout);
        assert!(output.status.success(), "{command:?}: {help}");
        assert!(help.contains("Exit codes:\n   0  "), "{command:?} does not say its exit codes");
        assert_no_line_is_broken_twice(&help);
        let leaf = command.len() == 2 || !["ceremony"].contains(command.first().unwrap_or(&"ceremony"));
        assert!(!leaf || help.contains("Examples:"), "{command:?} has no example");
        let json = countersign(&[command, &["--json", "--help"][..]].concat());
        assert!(json.status.success(), "{command:?} does not take --json");
    }
}

/// A line of prose is followed by more of it only where it is full.
fn assert_no_line_is_broken_twice(help: &str) {
    let lines: Vec<&str> = help.lines().collect();
    for pair in lines.windows(2) {
        let prose = |line: &str| !line.is_empty() && !line.starts_with(' ');
        if prose(pair[0]) && prose(pair[1]) {
            assert!(pair[0].len() + pair[1].split(' ').next().unwrap_or_default().len() > 98, "{help}");
        }
        assert!(pair[0].chars().count() <= 100 || pair[0].starts_with("Usage:"), "{:?} is too long: {help}", pair[0]);
    }
}

#[test]
fn exit_codes_are_those_of_the_command() {
    let codes = |command: &[&str]| {
        let help = text(&countersign(&[command, &["--help"][..]].concat()).stdout);
        let (_, table) = help.split_once("Exit codes:\n").unwrap();
        table.lines().filter_map(|line| line.split_whitespace().next()?.parse().ok()).collect::<Vec<u8>>()
    };
    assert_eq!(codes(&[]), [0, 1, 3, 4, 5, 20, 30, 40, 50, 64]);
    assert_eq!(codes(&["ceremony", "plan"]), [0, 1, 64]);
    assert_eq!(codes(&["ceremony", "show"]), [0, 1, 50, 64]);
    assert_eq!(codes(&["trails"]), [0, 1, 4, 5, 64]);
    assert_eq!(codes(&["record"]), [0, 1, 4, 5, 40, 50, 64]);
    assert_eq!(codes(&["head"]), [0, 1, 4, 5, 20, 30, 40, 50, 64]);
}

#[test]
fn wrong_usage_is_64() {
    let wrong: [&[&str]; 9] = [
        &["nonsense"],
        &["sign", "--trail", "not an origin"],
        &["sign", "--trail", "acme.example/a", "--batch", "4097"],
        &["record", "acme.example/a"],
        &["record", "acme.example/a", "1", "--event-id", "x"],
        &["export"],
        &["export", "--csv", "x.csv"],
        &["export", "--out", "a.zip", "--csv", "x.csv", "--trail", "acme.example/a"],
        &["keys", "--at-seq", "3"],
    ];
    for args in wrong {
        let output = countersign(args);
        assert_eq!(output.status.code(), Some(64), "{args:?}: {}", text(&output.stderr));
        assert!(!output.stderr.is_empty());
    }
}

#[test]
fn completions_of_every_shell() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let output = countersign(&["completions", shell]);
        assert!(output.status.success(), "{shell}");
        let script = text(&output.stdout);
        assert!(script.contains("fingerprint") && script.contains("withhold"), "{shell} lacks commands");
    }
    let check = Command::new("bash").args(["-n", "/dev/stdin"]).stdin(std::process::Stdio::piped()).spawn();
    let mut check = check.unwrap();
    let script = countersign(&["completions", "bash"]).stdout;
    std::io::Write::write_all(&mut check.stdin.take().unwrap(), &script).unwrap();
    assert!(check.wait().unwrap().success(), "bash does not parse its completions");
}

#[test]
fn a_man_page_for_every_command() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("man1");
    let output = countersign(&["man", folder.to_str().unwrap()]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    for command in &COMMANDS[..16] {
        let name = [&["countersign"], *command].concat().join("-");
        let page =
            std::fs::read_to_string(folder.join(format!("{name}.1"))).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(page.contains(".TH"), "{name} is no man page");
        assert!(page.contains("\n.SH \"EXIT STATUS\"\n.nf\n"), "{name}: {page}");
        assert!(*command == ["ceremony"] || page.contains("\n.SH EXAMPLES\n.nf\n"), "{name}: {page}");
    }
}

#[test]
fn what_is_missing_for_a_connection_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let profile = dir.path().join("profile.toml");
    let run = |toml: &str| {
        std::fs::write(&profile, toml).unwrap();
        let output = countersign(&["trails", "--profile", profile.to_str().unwrap()]);
        (output.status.code().unwrap(), text(&output.stderr))
    };
    let (code, message) = run("");
    assert!(code == 64 && message.contains("endpoint is not set") && message.contains("--endpoint"), "{message}");
    let mut unset = Command::new(env!("CARGO_BIN_EXE_countersign"));
    let unset = unset.arg("trails").env("COUNTERSIGN_PROFILE", "").output().unwrap();
    assert_eq!(unset.status.code(), Some(64));
    assert!(text(&unset.stderr).contains("endpoint is not set"), "{}", text(&unset.stderr));
    let (code, message) = run("endpoint = \"https://127.0.0.1:1\"");
    assert!(code == 64 && message.contains("ca is not set"), "{message}");
    let (code, message) = run("endpiont = \"x\"");
    assert!(code == 64 && message.contains("endpiont") && message.contains("line 1"), "{message}");
    let (code, message) = run("endpoint = \"https://127.0.0.1:1\"\nca = \"none.pem\"");
    let beside = Path::new(profile.parent().unwrap()).join("none.pem");
    assert!(code == 1 && message.contains(beside.to_str().unwrap()), "{message}");
}

#[test]
fn a_daemon_that_is_not_there_is_unavailable() {
    let dir = tempfile::tempdir().unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    for (name, pem) in [("ca.pem", certificate.pem()), ("key.pem", key.serialize_pem())] {
        std::fs::write(dir.path().join(name), pem).unwrap();
    }
    let file = dir.path().join("profile.toml");
    // Port 1 is reserved (tcpmux): nothing listens there.
    let toml = "endpoint = \"https://127.0.0.1:1\"\nca = \"ca.pem\"\ncertificate = \"ca.pem\"\nkey = \"key.pem\"\n";
    std::fs::write(&file, toml).unwrap();
    let profile = file.to_str().unwrap();
    let output = countersign(&["status", "--profile", profile]);
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(5), "{message}");
    assert!(message.contains("https://127.0.0.1:1") && message.contains("Check that the daemon runs"), "{message}");
    // What is checked before anything is sent.
    let unpinned = countersign(&["sign", "--profile", profile, "--trail", "acme.example/a", "-"]);
    assert_eq!(unpinned.status.code(), Some(64));
    assert!(text(&unpinned.stderr).contains("no genesis fingerprint is pinned"));
    let wrong = countersign(&["sign", "--profile", profile, "--trail", "acme.example/a", "--genesis", "12", "-"]);
    assert_eq!(wrong.status.code(), Some(64));
    assert!(text(&wrong.stderr).contains("64 lower-case hexadecimal digits"));
    let upper = "AB".repeat(32);
    let wrong = countersign(&["sign", "--profile", profile, "--trail", "acme.example/a", "--genesis", &upper, "-"]);
    assert_eq!(wrong.status.code(), Some(64));
    assert!(text(&wrong.stderr).contains("in lower case"), "{}", text(&wrong.stderr));
}

#[test]
fn a_failure_is_json_where_json_is_asked_for() {
    let output = countersign(&["--json", "ceremony", "fingerprint", "/nonexistent/genesis.json"]);
    assert_eq!(output.status.code(), Some(1));
    let failure: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(failure["exit_code"], 1);
    assert!(failure["error"].as_str().unwrap().contains("/nonexistent/genesis.json"), "{failure}");
}
