//! A whole appliance in software, its evidence, and ways to tamper with it.
#![allow(dead_code, unused_imports, reason = "each test binary uses its part")]

#[path = "../../../trail/tests/common/mod.rs"]
pub(crate) mod trail;

pub(crate) mod appliance;
pub(crate) mod files;
pub(crate) mod tampering;

pub(crate) use appliance::{Appliance, Export};
pub(crate) use files::Files;
pub(crate) use trail::ceremony::{ADMIN_TRAIL, DECISIONS, METRICS};
pub(crate) use trail::{SoftKey, origin, time};

use countersign_verify::{Check, Options, Report, Verdict, verify};

/// The check with this name of this trail (of the whole bundle, for none).
pub(crate) fn check<'a>(report: &'a Report, name: &str, trail: Option<&str>) -> &'a Check {
    let wanted = |check: &&Check| check.name == name && check.trail.as_ref().map(|trail| trail.as_str()) == trail;
    match report.checks.iter().find(wanted) {
        Some(check) => check,
        None => panic!("no check {name} of {trail:?} in {:#?}", report.checks),
    }
}

/// The names of every check with this verdict.
pub(crate) fn with_verdict(report: &Report, verdict: Verdict) -> Vec<&'static str> {
    let wanted = report.checks.iter().filter(|check| check.verdict == verdict);
    wanted.map(|check| check.name).collect()
}

pub(crate) fn failed(report: &Report) -> Vec<&'static str> {
    with_verdict(report, Verdict::Failed)
}

/// Verifies against the appliance's own genesis.
pub(crate) fn verify_pinned(appliance: &Appliance, bundle: &[u8]) -> Report {
    verify(bundle, Some(appliance.fingerprint()), &Options::default())
}
