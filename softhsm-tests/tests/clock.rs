//! A clock that stepped: nothing is issued, over restarts, until an operator confirms the clock.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops at what it did not expect")]

mod trouble;

use countersign_stage::Daemon;
use countersign_stage::binaries::run;
use tokio::runtime::Runtime;
use trouble::{GATEWAY, Scene, event, wait_for};

/// Left in the data folder by a daemon that found a step.
const STEPPED: &str = "data/clock-stepped";
const CONFIRMED: &str = "data/clock-confirmed";

/// What the admin trail says of the clock, oldest first.
fn said(scene: &Scene) -> Vec<String> {
    let of_clock = scene.admin_records().into_iter().filter(|record| record["type"] == "countersign.clock");
    of_clock.map(|record| record["body"]["state"].as_str().unwrap().to_owned()).collect()
}

/// Starts the daemon, which must serve and refuse every event.
fn assert_stopped(scene: &Scene, runtime: &Runtime, name: &str) -> Daemon {
    let daemon = scene.stage.spawn().unwrap();
    wait_for("the listener", || daemon.readyz().is_ok());
    let hasty = runtime.block_on(scene.hasty(GATEWAY));
    for trail in scene.trails() {
        let error = runtime.block_on(hasty.sign(&trail, event(name))).expect_err("the clock stepped");
        assert_eq!(error.reason(), "CLOCK_STEP", "{trail}: {error}");
    }
    daemon
}

fn assert_signs(scene: &Scene, runtime: &Runtime, name: &str) {
    let patient = runtime.block_on(scene.patient(GATEWAY));
    for trail in scene.trails() {
        runtime.block_on(patient.sign(&trail, event(name))).unwrap();
    }
}

#[test]
fn a_step_of_the_clock_stops_issuing_until_it_is_confirmed() {
    let scene = Scene::set();
    let runtime = Runtime::new().unwrap();
    let exists = |marker: &str| scene.stage.folder.join(marker).exists();

    // A confirmation that no step asked for is gone with the next start.
    run(&mut scene.stage.countersignd(&["clock-confirm"])).unwrap();
    let daemon = scene.stage.start().unwrap();
    assert_signs(&scene, &runtime, "steady");
    assert!(!exists(CONFIRMED) && said(&scene).is_empty());
    daemon.stop().unwrap();

    // As a daemon that found a step leaves the folder.
    std::fs::write(scene.stage.folder.join(STEPPED), "").unwrap();
    let daemon = assert_stopped(&scene, &runtime, "stepped");
    assert_eq!(said(&scene), ["stepped"]);
    daemon.stop().unwrap();
    // A restart alone does not clear it.
    let daemon = assert_stopped(&scene, &runtime, "restarted");
    assert_eq!(said(&scene), ["stepped"; 2]);
    // Nor can a running daemon be confirmed.
    let beside = scene.stage.countersignd(&["clock-confirm"]).output().unwrap();
    assert!(!beside.status.success() && !exists(CONFIRMED));
    daemon.stop().unwrap();

    run(&mut scene.stage.countersignd(&["clock-confirm"])).unwrap();
    let daemon = scene.stage.start().unwrap();
    // What was refused has cost nothing: it is signed now.
    for name in ["stepped", "restarted", "confirmed"] {
        assert_signs(&scene, &runtime, name);
    }
    assert_eq!(said(&scene), ["stepped", "stepped", "confirmed"]);
    assert!(!exists(STEPPED) && !exists(CONFIRMED));
    daemon.stop().unwrap();
}
