//! What people can do with a stage whose daemon runs, as lines for their shell.

use std::path::{Path, PathBuf};

use crate::stage::Stage;

/// The daemon's process id, in the stage's folder: written by whoever leaves the daemon running.
pub const PID_FILE: &str = "countersignd.pid";

/// Who may do what, and the command, `events` being the gateway's; the first line of each role names it.
/// They are run where the paths lead, in this order: the last stops the daemon.
pub fn commands(stage: &Stage, events: &Path) -> Vec<(&'static str, String)> {
    let at = |name: &str| shown(&stage.folder.join(name));
    let program = |name: &str| shown(&stage.binaries.path(name));
    let (sign, verify) = (program("countersign"), program("countersign-verify"));
    let (gateway, auditor) = (at("gateway-1.profile.toml"), at("auditor-1.profile.toml"));
    let (trail, evidence) = (&stage.options.trails[0].origin, at("evidence.zip"));
    let events = shown(events);
    vec![
        ("as a gateway:", format!("{sign} sign --profile {gateway} --trail {trail} {events}")),
        ("as an administrator:", format!("{sign} ceremony show {} --plan {}", at("genesis.json"), at("plan.json"))),
        ("as an auditor:", format!("{sign} trails --profile {auditor}")),
        ("", format!("{sign} record --profile {auditor} {trail} 1")),
        ("", format!("{sign} proof --profile {auditor} {trail} 1")),
        ("", format!("{sign} export --profile {auditor} --force --out {evidence}")),
        ("", format!("{verify} {evidence} --genesis {}", stage.fingerprint)),
        ("as an operator:", format!("{sign} status --profile {}", at("operator-1.profile.toml"))),
        ("stop it:", format!("kill $(cat {})", at(PID_FILE))),
    ]
}

/// A path as a person would type it: relative to where they stand, where that is shorter.
pub fn shown(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
    path.strip_prefix(&here).unwrap_or(path).display().to_string()
}
