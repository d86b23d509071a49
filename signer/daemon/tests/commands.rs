//! The command line itself: help, exit codes, completions, man pages.
#![cfg(test)]

use std::fs;
use std::io::Write;
use std::process::{Command, Output, Stdio};

const COMMANDS: [&str; 10] =
    ["", "init", "seal", "fsck", "backup", "pin-clear", "clock-confirm", "mark-confirm", "completions", "man"];

fn countersignd(args: &[&str]) -> Output {
    let args = args.iter().filter(|arg| !arg.is_empty());
    Command::new(env!("CARGO_BIN_EXE_countersignd")).args(args).stdin(Stdio::null()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn every_help_text_has_an_example_and_the_exit_codes() {
    for command in COMMANDS {
        let output = countersignd(&[command, "--json", "--help"]);
        let help = text(&output.stdout);
        assert!(output.status.success(), "{command}: {help}");
        assert!(help.contains("Exit codes: 0 done, 1 refused or failed"), "{command} does not say its exit codes");
        assert!(help.contains("Examples:\n  countersignd "), "{command} has no example");
    }
}

#[test]
fn wrong_usage_is_2() {
    let wrong: [&[&str]; 7] = [
        &["nonsense"],
        &["pin-clear", "--token", "foo"],
        &["seal", "--genesis", "genesis.json", "--signature", "x.sig"],
        &["seal", "--genesis", "genesis.json", "--signature", "Not A Member=x.sig"],
        &["init", "--plan", "plan.json", "--resume", "--abandon"],
        &["init", "--plan", "plan.json", "--force"],
        &["completions", "tcsh"],
    ];
    for args in wrong {
        let output = countersignd(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", text(&output.stderr));
        assert!(!output.stderr.is_empty());
    }
    let said = text(&countersignd(wrong[2]).stderr);
    assert!(said.contains("a signature is given as MEMBER=FILE"), "{said}");
}

#[test]
fn a_failure_is_one_object_with_json() {
    let output = countersignd(&["--config", "none.toml", "fsck", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let said: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(said["exit_code"], 1);
    assert_eq!(said["error"], "none.toml: No such file or directory (os error 2)");
}

#[test]
fn completions_know_every_command() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let output = countersignd(&["completions", shell]);
        assert!(output.status.success(), "{shell}");
        let script = text(&output.stdout);
        assert!(script.contains("clock-confirm") && script.contains("abandon"), "{shell} lacks commands");
    }
    let mut check = Command::new("bash").args(["-n", "/dev/stdin"]).stdin(Stdio::piped()).spawn().unwrap();
    let script = countersignd(&["completions", "bash"]).stdout;
    check.stdin.take().unwrap().write_all(&script).unwrap();
    assert!(check.wait().unwrap().success(), "bash does not parse its completions");
}

#[test]
fn man_pages_are_of_every_command() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("man1");
    let output = countersignd(&["man", folder.to_str().unwrap()]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    for command in COMMANDS {
        let name = if command.is_empty() { "countersignd".to_owned() } else { format!("countersignd-{command}") };
        let path = folder.join(format!("{name}.1"));
        let page = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(page.contains(".TH"), "{name} is no man page");
        assert_ne!(fs::metadata(path).unwrap().permissions().mode() & 0o044, 0, "nobody else can read {name}");
    }
    assert_eq!(fs::read_dir(folder).unwrap().count(), COMMANDS.len(), "pages of hidden commands");
}
