//! The documentation is held against the programs: commands exist with the options that are shown,
//! what is marked to be run is run on a live appliance, and every link leads somewhere.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops at what it did not expect")]

#[path = "docs/claims.rs"]
mod claims;
#[path = "docs/commands.rs"]
mod commands;
#[path = "docs/deploy.rs"]
mod deploy;
#[path = "docs/host.rs"]
mod host;
#[path = "docs/pages.rs"]
mod pages;
mod support;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use countersign_stage::{Binaries, Options, Stage, talk};

use commands::{Checker, simple_commands};
use host::{Host, operations_script};
use pages::{Page, book, every_page, root};

/// Events that the auditing page reads from each trail: more than the sequence number it shows.
const EVENTS: usize = 40;
/// The daemon ends by itself within this, once it is told to.
const STOP_LIMIT: Duration = Duration::from_secs(60);

#[test]
fn every_command_that_is_shown_exists_with_its_options() {
    let checker = Checker::new(Binaries::beside_this().unwrap());
    let mut problems = Vec::new();
    let mut checked = 0;
    for page in every_page() {
        for block in page.blocks("sh") {
            for command in simple_commands(&block.text) {
                checked += 1;
                if let Err(problem) = checker.check(&command) {
                    problems.push(format!("{}, block at line {}: {command:?}: {problem}", page.name, block.line));
                }
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert!(checked > 40, "only {checked} commands were found: are blocks still marked ```sh?");
}

#[test]
fn the_checker_refuses_what_does_not_exist() {
    let checker = Checker::new(Binaries::beside_this().unwrap());
    for wrong in [
        "countersign exprot --out evidence.zip",
        "countersign export --outt evidence.zip",
        "countersign ceremony sing genesis.json",
        "countersignd --config c.toml inti",
        "countersignd --config c.toml init --pln plan.json",
        "countersign-verify evidence.zip --genessis 00",
        "make quikstart",
        "runuser -u countersign -- countersignd --config c.toml fskc",
    ] {
        let command = simple_commands(wrong).pop().unwrap();
        assert!(checker.check(&command).is_err(), "{wrong}");
    }
}

#[test]
fn the_ceremony_runs_as_it_is_written() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("appliance");
    let stage = Stage::prepare(&folder, Binaries::beside_this().unwrap(), Options::default(), &mut |_| ()).unwrap();
    std::fs::remove_file(stage.folder.join("plan.json")).unwrap();
    run_page(&stage, &book().join("ceremony.md"));
    run_page(&stage, &book().join("formats/signatures.md"));
    let daemon = stage.start().unwrap();
    daemon.stop().unwrap();
}

#[test]
fn an_audit_runs_as_it_is_written() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("appliance");
    let stage = Stage::set(&folder, Binaries::beside_this().unwrap(), Options::default(), &mut |_| ()).unwrap();
    let daemon = stage.start().unwrap();
    let events = std::fs::read_to_string(root().join("softhsm-tests/testdata/gateway-events.jsonl")).unwrap();
    let some: Vec<&str> = events.lines().take(EVENTS).collect();
    std::fs::write(stage.folder.join("events.jsonl"), some.join("\n") + "\n").unwrap();
    for trail in &stage.options.trails {
        let receipts = stage.folder.join(format!("receipts-{}-{}.jsonl", trail.mode, trail.algorithm));
        let mut sign = stage.countersign("gateway-1", &["sign", "--trail", &trail.origin, "--receipts"]);
        let status = sign.arg(receipts).arg(stage.folder.join("events.jsonl")).status().unwrap();
        assert!(status.success());
    }
    run_page(&stage, &book().join("auditing.md"));
    daemon.stop().unwrap();
}

#[test]
fn operations_run_as_they_are_written() {
    if support::left_out() {
        return;
    }
    assert!(
        Host::possible(),
        "the commands of operations.md need root and a system of their own (unshare --mount --net --pid). Where that \
         cannot be, {}=1 leaves this test out.",
        support::ENV_NO_ROOT
    );
    let output = Host::set().run(&operations_script());
    let (said, shown) = (String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout));
    assert!(output.status.success(), "ended with {}:\n{shown}\n{said}", output.status);
    // `countersign trails`, last of all: the daemon that was installed, stopped, copied and checked serves.
    assert!(shown.contains("demo.example/record/ecdsa-p256"), "{shown}");
}

#[test]
fn what_the_quickstart_says_can_be_done_can_be() {
    let (_folder, stage) = support::sealed(Options::default());
    let mut daemon = stage.start().unwrap();
    std::fs::write(stage.folder.join(talk::PID_FILE), format!("{}\n", daemon.pid())).unwrap();
    for (_, command) in talk::commands(&stage, Path::new(support::SAMPLE)) {
        let mut shell = Command::new("sh");
        shell.args(["-euc", &command]).env("XDG_STATE_HOME", stage.folder.join("state"));
        support::done(&mut shell);
    }
    assert!(daemon.wait_exit(STOP_LIMIT).unwrap().success(), "{}", daemon.log_end());
}

/// A block of commands is run by one of the tests above, or is of `make` alone, which is run whole.
#[test]
fn every_block_of_commands_is_run() {
    let run = ["ceremony.md", "formats/signatures.md", "auditing.md", "operations.md", "configuration.md"];
    let run: Vec<_> = run.iter().map(|name| book().join(name)).collect();
    let mut blocks = 0;
    for page in every_page() {
        let all = page.blocks("sh");
        let marked: Vec<usize> = page.blocks("sh,run").iter().map(|block| block.line).collect();
        blocks += all.len();
        for block in all {
            let of_make = simple_commands(&block.text).iter().all(|words| words[0] == "make");
            let is_run = marked.contains(&block.line) && run.contains(&page.path);
            assert!(of_make || is_run, "{}, line {}: nothing runs this block", page.name, block.line);
        }
    }
    assert!(blocks > 20, "only {blocks} blocks were found");
}

#[test]
fn every_command_that_is_mentioned_exists_with_its_options() {
    let checker = Checker::new(Binaries::beside_this().unwrap());
    let mut problems = Vec::new();
    let mut checked = 0;
    for page in every_page().into_iter().chain(deploy::files()) {
        for mention in page.mentions() {
            for command in simple_commands(&mention.text) {
                checked += usize::from(command.len() > 1);
                if let Err(problem) = checker.check(&command) {
                    problems.push(format!("{}, line {}: {command:?}: {problem}", page.name, mention.line));
                }
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert!(checked > 20, "only {checked} commands were found");
}

#[test]
fn the_summary_lists_every_page() {
    let summary = Page::read(&book().join("SUMMARY.md"));
    let listed: Vec<String> = summary.links().into_iter().map(|link| link.target).collect();
    let mut missing: Vec<String> = Vec::new();
    for page in every_page() {
        let Ok(name) = page.path.strip_prefix(book()) else { continue };
        let name = name.to_str().unwrap().to_owned();
        if name != "SUMMARY.md" && listed.iter().filter(|target| **target == name).count() != 1 {
            missing.push(name);
        }
    }
    assert!(missing.is_empty(), "not listed once in SUMMARY.md: {missing:?}");
}

#[test]
fn every_relative_link_leads_somewhere() {
    let mut broken = Vec::new();
    let mut followed = 0;
    for page in every_page() {
        for link in page.links() {
            if link.target.contains("://") {
                continue;
            }
            followed += 1;
            let (file, anchor) = link.target.split_once('#').unwrap_or((&link.target, ""));
            let target = if file.is_empty() { page.path.clone() } else { page.path.parent().unwrap().join(file) };
            let found = target.exists() && (anchor.is_empty() || Page::read(&target).has_anchor(anchor));
            if !found {
                broken.push(format!("{}, line {}: {}", page.name, link.line, link.target));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    assert!(followed > 30, "only {followed} links were found");
}

/// Runs the blocks of a page that are marked ```sh,run, in their order, in one shell, in the
/// appliance's folder and with our programs first in the path.
fn run_page(stage: &Stage, path: &Path) {
    let page = Page::read(path);
    let blocks: Vec<String> = page.blocks("sh,run").into_iter().map(|block| block.text).collect();
    assert!(!blocks.is_empty(), "{}: no block is marked ```sh,run", page.name);
    let programs = stage.binaries.path("countersign");
    let mut path = programs.parent().unwrap().as_os_str().to_owned();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    let output = Command::new("sh")
        .args(["-eux", "-c", &blocks.join("\n")])
        .current_dir(&stage.folder)
        .env("PATH", path)
        .env("SOFTHSM2_CONF", stage.folder.join("hsm/softhsm2.conf"))
        .env("XDG_STATE_HOME", stage.folder.join("state"))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{} ended with {}:\n{}\n{}",
        page.name,
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
