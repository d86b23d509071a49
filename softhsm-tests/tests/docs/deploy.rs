//! The files of `deploy/` against each other and against the code.

use std::collections::BTreeSet;

use super::pages::{Page, book, root};

/// What is deployed, as pages.
pub(crate) fn files() -> Vec<Page> {
    ["countersignd.service", "countersignd.toml", "Dockerfile"]
        .map(|name| Page::read(&root().join("deploy").join(name)))
        .into()
}

fn text(name: &str) -> String {
    std::fs::read_to_string(root().join("deploy").join(name)).unwrap()
}

/// The values of a setting of the unit.
fn unit(setting: &str) -> Vec<String> {
    let unit = text("countersignd.service");
    let values = unit.lines().filter_map(|line| line.strip_prefix(setting)?.strip_prefix('='));
    values.flat_map(|value| value.split_whitespace()).map(str::to_owned).collect()
}

/// The values of a key of the example configuration, of every table.
fn example(key: &str) -> Vec<String> {
    let values = text("countersignd.toml");
    let values = values.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix(" = "));
    values.map(|value| value.trim_matches('"').replace('_', "")).collect()
}

#[test]
fn the_unit_fits_the_example_configuration() {
    let named: BTreeSet<String> =
        unit("LoadCredential").iter().map(|entry| entry.split(':').next().unwrap().to_owned()).collect();
    let used: BTreeSet<String> = example("pin_credential").into_iter().collect();
    assert_eq!(named, used);
    assert_eq!(used.len(), 2);
    // Everything that the daemon writes lies in a folder that the unit makes.
    let made: Vec<String> = unit("StateDirectory").iter().map(|name| format!("/var/lib/{name}")).collect();
    let text = text("countersignd.toml");
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = ")).unwrap();
    for key in ["data_dir", "head_dir", "state_dir"] {
        assert!(made.iter().any(|folder| folder == value(key).trim_matches('"')), "{key} is none of {made:?}");
    }
    for file in text.lines().filter_map(|line| line.strip_prefix("mac_key_file = ")) {
        let (folder, _) = file.trim_matches('"').rsplit_once('/').unwrap();
        assert!(made.iter().any(|made| made == folder), "{folder} is none of {made:?}");
    }
    // It gives the daemon the time that draining may take, and workers theirs.
    let seconds = |values: Vec<String>| values[0].parse::<u64>().unwrap();
    assert!(seconds(unit("TimeoutStopSec")) >= 2 * seconds(example("drain_seconds")));
    assert!(unit("ExecStart").contains(&"/etc/countersign/countersignd.toml".to_owned()));
}

#[test]
fn the_container_fits_the_example_configuration() {
    let dockerfile = text("Dockerfile");
    let exposed = dockerfile.lines().find_map(|line| line.strip_prefix("EXPOSE ")).unwrap();
    let ports = ["grpc", "operations"].map(|key| example(key)[0].rsplit(':').next().unwrap().to_owned());
    assert_eq!(exposed, ports.join(" "));
    for folder in unit("StateDirectory") {
        assert!(dockerfile.contains(&format!("/var/lib/{folder}")), "{folder}");
    }
    let toolchain = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let version = toolchain.lines().find_map(|line| line.strip_prefix("rust-version = ")).unwrap();
    assert!(dockerfile.contains(&format!("FROM rust:{}-bookworm", version.trim_matches('"'))), "{version}");
    let uid = dockerfile.lines().find_map(|line| line.strip_prefix("USER ")).unwrap();
    let (user, _) = uid.split_once(':').unwrap();
    assert!(Page::read(&book().join("operations.md")).text().contains(&format!("as user {user}")));
}

/// The privileges that the unit and the book name for workers with a user of their own are the same; that
/// they suffice is shown by `workers_with_a_user_of_their_own`.
#[test]
fn the_unit_and_the_book_name_the_same_privileges() {
    let unit = text("countersignd.service");
    let line = unit.lines().find_map(|line| line.strip_prefix("# CapabilityBoundingSet=")).unwrap();
    let operations = Page::read(&book().join("operations.md"));
    let blocks = operations.blocks("ini");
    assert!(blocks[0].text.contains(&format!("CapabilityBoundingSet={line}\n")), "{line}");
}
