//! Whole evidence through the verifier: whatever is changed in it, it is never valid, and the report
//! can be printed.
//!
//! An input is a script of changes; its first byte says of what: of the files, which are packed again
//! with right checksums, or of the archive's bytes.
#![no_main]

use std::sync::OnceLock;

use countersign_fuzz::Change;
use countersign_trail::archive::ArchiveWriter;
use countersign_trail::hash::Hash;
use countersign_trail::keys::Algorithm;
use countersign_verify::{KnownHead, KnownReceipt, Options, Outcome, Report, text, verify};
use libfuzzer_sys::fuzz_target;

#[path = "../../../signer/verify/tests/common/mod.rs"]
mod common;

use common::{Appliance, DECISIONS, METRICS};

/// Kinds of changes of the files beyond those of [`Change::apply`].
const MOVED: u8 = 200;
const RENAMED: u8 = 220;
const REMOVED: u8 = 240;

struct Genuine {
    fingerprint: Hash,
    files: Vec<(String, Vec<u8>)>,
    bundle: Vec<u8>,
    options: Options<'static>,
}

fn genuine() -> &'static Genuine {
    static GENUINE: OnceLock<Genuine> = OnceLock::new();
    GENUINE.get_or_init(|| {
        let appliance = Appliance::with_records(Algorithm::Ed25519, 3);
        let receipts = [DECISIONS, METRICS].map(|trail| appliance.receipt(trail, 1).to_bytes().unwrap());
        let head = appliance.checkpoint(METRICS, 2).to_bytes();
        let options = Options {
            heads: KnownHead::parse_file("head", &head).unwrap(),
            receipts: KnownReceipt::parse_file("receipts", &receipts.join(&b'\n')).unwrap(),
            threads: 1,
            ..Options::default()
        };
        let (files, bundle) = (appliance.files().0, appliance.bundle());
        let genuine = Genuine { fingerprint: appliance.fingerprint(), files, bundle, options };
        assert_eq!(report(&genuine, &genuine.bundle).outcome, Outcome::Valid);
        genuine
    })
}

fn report(genuine: &Genuine, bundle: &[u8]) -> Report {
    verify(bundle, Some(genuine.fingerprint), &genuine.options)
}

/// The archive of files, with right checksums; none for names that no archive takes.
fn pack(files: &[(String, Vec<u8>)]) -> Option<Vec<u8>> {
    let mut writer = ArchiveWriter::new();
    let mut bytes = Vec::new();
    for (name, content) in files {
        let (header, content) = writer.push(name, content).ok()?;
        bytes.extend(header);
        bytes.extend_from_slice(content);
    }
    bytes.extend(writer.finish());
    Some(bytes)
}

fn changed_files(genuine: &Genuine, changes: &[Change]) -> Option<Vec<u8>> {
    let mut files = genuine.files.clone();
    for change in changes {
        let at = change.which % files.len();
        match change.kind {
            MOVED..RENAMED => {
                let file = files.remove(at);
                files.insert(change.at % (files.len() + 1), file);
            }
            RENAMED..REMOVED => {
                let mut name = files[at].0.clone().into_bytes();
                Change { kind: change.value, ..*change }.apply(&mut name);
                files[at].0 = String::from_utf8(name).ok()?;
            }
            REMOVED.. if files.len() > 1 => drop(files.remove(at)),
            _ => change.apply(&mut files[at].1),
        }
    }
    pack(&files)
}

fn seeds() {
    // A change of each file, a move, a new name, a removal; and changes of the archive's bytes.
    let files = 0..genuine().files.len() as u8;
    let mut seeds: Vec<Vec<u8>> = files.map(|file| vec![0, 2, 0, file, 0, 9, 1]).collect();
    seeds.extend([MOVED, RENAMED, REMOVED].map(|kind| vec![0, kind, 0, 3, 0, 5, 0]));
    seeds.extend((0..8).map(|at| vec![1, 2, 0, 0, at * 32, 17, 3]));
    seeds.extend([vec![0], vec![1]]);
    countersign_fuzz::seed(seeds);
}

fuzz_target!(init: seeds(), |bytes: &[u8]| {
    let Some((kind, script)) = bytes.split_first() else { return };
    let genuine = genuine();
    let changes = Change::script(script, 4);
    let bundle = if kind % 2 == 0 {
        let Some(bundle) = changed_files(genuine, &changes) else { return };
        bundle
    } else {
        let mut bundle = genuine.bundle.clone();
        changes.iter().for_each(|change| change.apply(&mut bundle));
        bundle
    };
    let report = report(genuine, &bundle);
    assert_eq!(report.outcome == Outcome::Valid, bundle == genuine.bundle);
    assert!(!text::render(&report).chars().any(|c| c.is_control() && c != '\n'));
    assert_eq!(serde_json::to_value(&report).unwrap()["exit_code"], report.exit_code);
});
