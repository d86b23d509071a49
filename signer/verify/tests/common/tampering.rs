//! Tampered evidence under manifests by different hands.

use countersign_trail::keys::Algorithm;
use countersign_verify::{Outcome, Report, text};

use super::{Appliance, Files, SoftKey, failed, verify_pinned};

/// Who signs the manifest of tampered evidence.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Manifest {
    /// Nobody: it is as it was.
    Left,
    /// Someone with a key of their own, under its own kid or under the genuine one.
    Rogue { genuine_kid: bool },
    /// The genuine evidence key, in the hands of whoever runs the daemon.
    Genuine,
}

pub(crate) const MANIFESTS: [Manifest; 4] =
    [Manifest::Left, Manifest::Rogue { genuine_kid: false }, Manifest::Rogue { genuine_kid: true }, Manifest::Genuine];

pub(crate) fn pack(appliance: &Appliance, files: &Files, manifest: Manifest) -> Vec<u8> {
    let genuine = appliance.evidence_key();
    let rogue = SoftKey::new(Algorithm::Ed25519, 99);
    match manifest {
        Manifest::Left => files.pack(),
        Manifest::Rogue { genuine_kid: false } => files.pack_signed(&rogue, rogue.kid()),
        Manifest::Rogue { genuine_kid: true } => files.pack_signed(&rogue, genuine.kid()),
        Manifest::Genuine => files.pack_signed(genuine, genuine.kid()),
    }
}

/// Checks that evidence is refused with this outcome under every manifest, and that under a genuine
/// one it is these checks that refuse it.
pub(crate) fn refused(appliance: &Appliance, files: &Files, outcome: Outcome, checks: &[&str]) -> Report {
    let mut last = None;
    for manifest in MANIFESTS {
        let report = verify_pinned(appliance, &pack(appliance, files, manifest));
        let expected = if manifest == Manifest::Genuine { outcome } else { Outcome::Tampered };
        assert_eq!(report.outcome, expected, "{manifest:?}\n{}", text::render(&report));
        let by_manifest = failed(&report).into_iter().any(|name| name.starts_with("manifest"));
        assert_eq!(by_manifest, manifest != Manifest::Genuine, "{}", text::render(&report));
        last = Some(report);
    }
    let report = last.unwrap();
    for name in checks {
        assert!(failed(&report).contains(name), "{name}:\n{}", text::render(&report));
    }
    report
}

pub(crate) fn tampered(appliance: &Appliance, files: &Files, checks: &[&str]) -> Report {
    refused(appliance, files, Outcome::Tampered, checks)
}
