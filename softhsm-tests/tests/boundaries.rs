//! The crates' boundaries, as Cargo resolves them: the formats depend on no system, and the verifier on no
//! network, HSM or database.
#![cfg(test)]

use std::collections::BTreeSet;
use std::process::Command;

/// What asks a system for something: randomness, files, sockets, threads, time.
const SYSTEM: [&str; 10] =
    ["getrandom", "libc", "rustix", "linux-raw-sys", "mio", "socket2", "tokio", "cc", "windows-sys", "wasm-bindgen"];
/// Networks, HSMs, databases, and cryptography that is not written in Rust.
const SERVICE: [&str; 15] = [
    "tokio",
    "tonic",
    "prost",
    "hyper",
    "axum",
    "h2",
    "rustls",
    "aws-lc-rs",
    "aws-lc-sys",
    "ring",
    "rusqlite",
    "libsqlite3-sys",
    "cryptoki",
    "cryptoki-sys",
    "getrandom",
];

/// The packages that a crate is built from, by name; build scripts and tests apart.
fn packages(of: &str, target: &[&str]) -> BTreeSet<String> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["tree", "--locked", "--offline", "--edges", "normal", "--prefix", "none", "--package", of]);
    let output = cargo.args(target).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

fn assert_none(found: &BTreeSet<String>, unwanted: &[&str]) {
    let met: Vec<&&str> = unwanted.iter().filter(|name| found.contains(**name)).collect();
    assert!(met.is_empty(), "{met:?}");
    assert!(found.len() > 20 && found.contains("sha2"), "{found:?}");
}

/// Also where there is no system at all.
#[test]
fn the_formats_depend_on_no_system() {
    for target in [&[][..], &["--target", "wasm32-unknown-unknown"]] {
        let found = packages("countersign-trail", target);
        assert_none(&found, &SERVICE);
        assert_none(&found, &SYSTEM);
    }
}

#[test]
fn the_verifier_depends_on_no_network_hsm_or_database() {
    let found = packages("countersign-verify", &[]);
    assert_none(&found, &SERVICE);
    let ours: BTreeSet<&str> =
        found.iter().map(String::as_str).filter(|name| name.starts_with("countersign")).collect();
    assert_eq!(ours, BTreeSet::from(["countersign-trail", "countersign-verify"]));
}

/// That the lists above would be met where they should be.
#[test]
fn the_daemon_depends_on_all_of_it() {
    let found = packages("countersignd", &[]);
    for name in ["tokio", "tonic", "hyper", "rusqlite", "cryptoki", "rustls", "libc", "rustix"] {
        assert!(found.contains(name), "{name}");
    }
}
