//! Tampering with what stands beside the records, and what records may not say, also where the
//! manifest was made anew.
#![cfg(test)]

mod common;

use common::files::folder;
use common::tampering::{MANIFESTS, pack, refused, tampered};
use common::{ADMIN_TRAIL, Appliance, DECISIONS, check, failed, verify_pinned};
use countersign_trail::evidence::{MANIFEST_FILE, PartLine, parse_parts, write_parts};
use countersign_trail::hash::Hash;
use countersign_trail::keys::Algorithm;
use countersign_verify::{Outcome, Verdict, text};

#[test]
fn parts_are_held_against_the_commitments() {
    let appliance = Appliance::with_records(Algorithm::Ed25519, 6);
    let name = format!("{}parts/000.p/6", folder(DECISIONS));
    let change = |change: &dyn Fn(&mut Vec<PartLine>)| {
        let mut files = appliance.files();
        let mut parts = parse_parts(files.get(&name)).unwrap();
        change(&mut parts);
        *files.get_mut(&name) = write_parts(&parts);
        files
    };
    let altered = change(&|parts| {
        let PartLine::Given { data, .. } = &mut parts[3] else { panic!("facts of record 2") };
        data.push(b' ');
    });
    let report = tampered(&appliance, &altered, &["parts"]);
    let broken = report.first_broken.unwrap();
    assert_eq!((broken.seq, broken.check), (2, "parts"));
    assert!(broken.expected.is_some() && broken.actual.is_some() && broken.expected != broken.actual);
    let renamed = change(&|parts| {
        if let PartLine::Given { name, .. } = &mut parts[3] {
            *name = countersign_trail::id::PartName::parse("extra").unwrap();
        }
    });
    let report = tampered(&appliance, &renamed, &["parts"]);
    assert_eq!(report.first_broken.unwrap().seq, 2);
    let invented = change(&|parts| {
        let name = countersign_trail::id::PartName::parse("review").unwrap();
        let media_type = None;
        parts.push(PartLine::Withheld { seq: 5, name, media_type });
    });
    let report = tampered(&appliance, &invented, &["parts"]);
    assert_eq!(report.first_broken.unwrap().seq, 5);
    let missing = change(&|parts| drop(parts.remove(3)));
    let report = refused(&appliance, &missing, Outcome::Incomplete, &["parts"]);
    assert!(check(&report, "parts", Some(DECISIONS)).detail.contains("record 2: part facts is neither"));
    let mut disordered = appliance.files();
    let mut parts = parse_parts(disordered.get(&name)).unwrap();
    parts.swap(0, 1);
    *disordered.get_mut(&name) = write_parts(&parts);
    refused(&appliance, &disordered, Outcome::Malformed, &["parts"]);
}

#[test]
fn key_files_are_held_against_the_admin_trail() {
    let appliance = Appliance::with_records(Algorithm::Ed25519, 2);
    for (file, name) in [("keys.json", "keys-file"), ("jwks.json", "jwks"), ("vkeys.txt", "vkeys")] {
        let mut files = appliance.files();
        files.get_mut(file)[20] ^= 1;
        tampered(&appliance, &files, &[name]);
    }
    let mut files = appliance.files();
    let pem = files.0.iter().find(|(name, _)| name.ends_with(".pem")).unwrap().0.clone();
    files.get_mut(&pem)[40] ^= 1;
    tampered(&appliance, &files, &["pem"]);
    files.remove(&pem);
    refused(&appliance, &files, Outcome::Malformed, &["pem"]);
}

#[test]
fn documents_are_held_against_their_names_and_the_admin_trail() {
    let appliance = Appliance::with_records(Algorithm::Ed25519, 2);
    let files = appliance.files();
    let documents: Vec<String> =
        files.0.iter().map(|(name, _)| name.clone()).filter(|name| name.starts_with("documents/")).collect();
    assert_eq!(documents.len(), 6);
    for name in &documents {
        let mut changed = files.clone();
        changed.get_mut(name)[10] ^= 1;
        let mut removed = files.clone();
        removed.remove(name);
        for manifest in MANIFESTS {
            let report = verify_pinned(&appliance, &pack(&appliance, &changed, manifest));
            assert_eq!(report.exit_code, 40, "{}", text::render(&report));
            assert!(failed(&report).contains(&"documents"), "{}", text::render(&report));
            let report = verify_pinned(&appliance, &pack(&appliance, &removed, manifest));
            assert_eq!(report.exit_code, 40, "{}", text::render(&report));
        }
    }
    let mut added = files.clone();
    let content = b"not named".to_vec();
    let name = format!("documents/{}", Hash::of(&content));
    added.0.push((name, content));
    added.0.sort_by_key(|(name, _)| !name.starts_with("documents/"));
    added.0[..7].sort();
    tampered(&appliance, &added, &["documents-named"]);
}

#[test]
fn a_missing_administrator_is_found() {
    let mut ceremony = common::trail::Ceremony::new();
    let mut signatures = ceremony.signatures();
    signatures.remove(1);
    let seal = ceremony.seal(signatures);
    let appliance = Appliance::sealed_by(ceremony, &seal);
    // The writer replays the admin trail itself, and refuses: the evidence is made of another's.
    let whole = Appliance::new();
    let mut files = whole.files();
    assert!(std::panic::catch_unwind(|| appliance.state()).is_err());
    let record = appliance.records(ADMIN_TRAIL)[1].bytes.clone();
    files.set_records(ADMIN_TRAIL, &[appliance.records(ADMIN_TRAIL)[0].bytes.clone(), record]);
    files.remake_hashes(ADMIN_TRAIL);
    *files.get_mut(&format!("{}checkpoint", folder(ADMIN_TRAIL))) = appliance.checkpoint(ADMIN_TRAIL, 2).to_bytes();
    files.0.retain(|(name, _)| !name.starts_with("documents/"));
    let store = appliance.ceremony.store.0.iter();
    let documents = store.map(|(hash, bytes)| (format!("documents/{hash}"), bytes.clone()));
    files.0.splice(0..0, documents);
    let key = appliance.evidence_key();
    let report = verify_pinned(&appliance, &files.pack_signed(key, key.kid()));
    assert_eq!(report.exit_code, 40);
    assert!(failed(&report).contains(&"genesis-signatures"), "{}", text::render(&report));
    assert!(check(&report, "genesis-signatures", None).detail.contains("signature of bob"));
    let sealed = check(&report, "genesis-sealed", None);
    assert_eq!(
        (sealed.verdict, sealed.detail.as_str()),
        (Verdict::Failed, "record 1 is refused, so the genesis is not sealed")
    );
    assert!(report.trails.iter().all(|trail| trail.proven.is_none()), "{}", text::render(&report));
}

#[test]
fn a_missing_or_foreign_manifest_is_malformed() {
    let appliance = Appliance::with_records(Algorithm::Ed25519, 2);
    let mut files = appliance.files();
    files.remove(MANIFEST_FILE);
    let report = verify_pinned(&appliance, &files.pack());
    assert_eq!((report.exit_code, failed(&report)), (50, vec!["manifest"]));
    let mut foreign = appliance.files();
    foreign.0.insert(0, ("readme.txt".to_owned(), b"hello".to_vec()));
    refused(&appliance, &foreign, Outcome::Malformed, &["layout"]);
    let mut moved = appliance.files();
    moved.0.swap(0, 1);
    refused(&appliance, &moved, Outcome::Malformed, &["layout"]);
    let mut doubled = appliance.files();
    let mut tile = doubled.0.iter().find(|(name, _)| name.contains("metrics/tile/0")).unwrap().clone();
    tile.0 = tile.0.replace("000.p/2", "001.p/2");
    let at = doubled.0.iter().position(|(name, _)| name.contains("metrics/parts")).unwrap();
    doubled.0.insert(at, tile);
    tampered(&appliance, &doubled, &["files", "tiles"]);
}

/// An archive is opened in spite of wrong checksums, and of nothing else.
#[test]
fn wrong_checksums_hide_no_other_change() {
    let appliance = Appliance::with_records(Algorithm::Ed25519, 2);
    let bundle = appliance.bundle();
    let find = |needle: &[u8]| {
        let found = bundle.windows(needle.len()).position(|window| window == needle);
        found.unwrap()
    };
    let content = find(b"-----BEGIN PUBLIC KEY");
    let mut damaged = bundle.clone();
    damaged[content] ^= 1;
    let report = verify_pinned(&appliance, &damaged);
    assert_eq!(report.exit_code, 40);
    assert_eq!(failed(&report), ["archive", "pem", "manifest"]);
    // The date in the header of a later file, too.
    let header = find(b"vkeys.txt") - 30;
    damaged[header + 12] ^= 1;
    let report = verify_pinned(&appliance, &damaged);
    assert_eq!((report.exit_code, failed(&report)), (50, vec!["archive"]));
}
