//! What the daemon reads beside events: its configuration, headers of calls, page tokens, the second
//! head's file, certificates of clients; and the ceremony file of the command line.
//!
//! Parts of programs: this one compiles their sources. The first byte of an input chooses the parser.
#![no_main]

#[path = "../../../signer/daemon/src"]
#[allow(dead_code, reason = "the daemon's")]
mod daemon {
    pub mod access;
    pub mod config;
    pub mod logging;
    pub mod peer;
    pub mod reason;

    pub mod service {
        pub mod timeout;

        pub mod audit {
            pub mod page;
        }
    }

    pub mod store {
        pub mod files;
    }

    pub mod tls {
        mod identity;

        /// The SPIFFE ID of a certificate.
        pub fn client(der: &[u8]) -> Option<String> {
            Some(identity::read(&[der.into()]).ok()?.spiffe_id)
        }
    }
}

#[path = "../../../signer/ctl/src"]
#[allow(dead_code, reason = "the command line's")]
mod ctl {
    pub mod exit;
    pub mod files;

    pub mod ceremony {
        pub mod file;
    }
}

use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use countersign_fuzz::root;
use countersign_trail::document::is_spiffe_id;
use libfuzzer_sys::fuzz_target;

use ctl::ceremony::file::CeremonyFile;
use ctl::{exit, files};
use daemon::config::{Config, ConfigError};
use daemon::logging::TraceContext;
use daemon::service::audit::page::Query;
use daemon::service::timeout;
use daemon::store::files::HeadFile;
use daemon::{access, config, logging, peer, reason};

fn query() -> Query {
    Query::of(&[b"acme.example/x", b"seq"])
}

fn seeds() {
    let read = |path: &str| std::fs::read(root().join(path)).unwrap();
    let seed = |kind: u8, bytes: &[u8]| countersign_fuzz::seed([[&[kind], bytes].concat()]);
    let settings = read("deploy/countersignd.toml");
    // Settings that may be left out stand behind `# `.
    let all: String = String::from_utf8_lossy(&settings)
        .lines()
        .map(|line| line.strip_prefix("# ").filter(|rest| rest.contains(" = ")).unwrap_or(line).to_owned() + "\n")
        .collect();
    assert!(Config::parse(&String::from_utf8_lossy(&settings), Path::new("/")).is_ok());
    seed(0, &settings);
    seed(0, all.as_bytes());
    let ceremony = read("hsm-config/ceremony.example.toml");
    seed(1, &ceremony);
    seed(2, b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    seed(2, b"01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00-more");
    seed(3, query().token(7).as_bytes());
    for timeout in ["99999999H", "0n", "1S", "250m", "7u", "5M"] {
        seed(4, timeout.as_bytes());
    }
    let (mut file, _) = HeadFile::open(folder(), "seed", true).unwrap();
    for size in 1..3 {
        file.write(head(size)).unwrap();
        seed(5, &std::fs::read(folder().join("seed.head")).unwrap());
    }
    seed(6, include_bytes!("../client.der"));
    assert!(daemon::tls::client(include_bytes!("../client.der")).is_some());
}

fn head(size: u64) -> daemon::store::files::SecondHead {
    daemon::store::files::SecondHead::at(size, countersign_trail::hash::Hash::of(&size.to_be_bytes()))
}

fn folder() -> &'static Path {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    FOLDER.get_or_init(|| tempfile::tempdir().unwrap()).path()
}

fuzz_target!(init: seeds(), |bytes: &[u8]| {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    let text = std::str::from_utf8(bytes);
    match (kind, text) {
        (0, Ok(text)) => configuration(text),
        (1, Ok(text)) => ceremony(text),
        (2, Ok(text)) => {
            if let Some(trace) = TraceContext::parse(text) {
                assert_eq!((&text[3..35], &text[36..52]), (trace.trace_id.as_str(), trace.parent_id.as_str()));
            }
        }
        (3, Ok(text)) => match query().parse(text) {
            Ok(Some(next)) => assert_eq!(query().token(next), text),
            parsed => assert_eq!(parsed.is_ok(), text.is_empty()),
        },
        (4, Ok(text)) => {
            if let Some(timeout) = timeout::parse(text) {
                assert!(timeout <= Duration::from_secs(99_999_999 * 3600) && text.len() <= 9 && text.is_ascii());
            }
        }
        (5, _) => second_head(bytes),
        (6, _) => assert!(daemon::tls::client(bytes).is_none_or(|id| is_spiffe_id(&id))),
        _ => {}
    }
});

/// A refusal names a place that the file has, and what is accepted keeps its bounds.
fn configuration(text: &str) {
    match Config::parse(text, Path::new("/etc/countersignd")) {
        Ok(config) => {
            assert!(config.data_dir.is_absolute() && config.tls.key.is_absolute());
            assert_ne!(config.data_dir, config.head_dir);
            assert!((1..=16).contains(&config.record_token.workers) && (1..=3600).contains(&config.tls.reload_seconds));
        }
        Err(ConfigError::Value { line, column, problem, .. }) => {
            assert!(!problem.is_empty());
            assert_eq!(line == 0, column == 0);
            // The end of the file may be the place.
            assert!(line <= text.matches('\n').count() + 1);
            let longest = text.split('\n').nth(line.saturating_sub(1)).map_or(0, |line| line.chars().count());
            assert!(column <= longest + 1, "column {column} of line {line}");
        }
        Err(error) => panic!("{error}"),
    }
}

fn ceremony(text: &str) {
    let Ok(file) = toml::from_str::<CeremonyFile>(text) else { return };
    for member in file.members.iter().filter(|member| member.ssh_key_files.is_empty()) {
        if let Ok(keys) = member.keys(Path::new("/")) {
            assert_eq!(keys.len(), member.ssh_keys.len());
            let begins = |(key, line): (&countersign_trail::sshsig::SshPublicKey, &String)| {
                line.trim().starts_with(&key.to_string())
            };
            assert!(keys.iter().zip(&member.ssh_keys).all(begins));
        }
    }
}

/// Whatever is in the file: a head that is written next is the one that is read.
fn second_head(bytes: &[u8]) {
    std::fs::write(folder().join("head.head"), bytes).unwrap();
    let (mut file, found) = HeadFile::open(folder(), "head", false).unwrap();
    let next = head(found.map_or(1, |found| found.size.wrapping_add(1)));
    file.write(next).unwrap();
    assert_eq!(HeadFile::open(folder(), "head", false).unwrap().1, Some(next));
}
