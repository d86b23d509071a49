//! kill -9 at any moment, of the daemon and of its workers, the token taken away, and a clean end:
//! whatever was answered stays true, nothing is signed twice differently, and service returns by itself.
//!
//! COUNTERSIGN_KILLS sets the number of kills of the main test; without it a short run of
//! [`SHORT_RUN`] is made, and `make crash` makes one of 120.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops at what it did not expect")]

mod trouble;

use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use countersign_stage::Daemon;
use rusqlite::{Connection, OpenFlags};
use rustix::process::Signal;
use tokio::runtime::Runtime;
use trouble::{Chance, GATEWAY, Load, PATIENCE, Scene, assert_whole, event, kill_process, wait_for, workers};

/// Kills of a run that nobody asked to be longer.
const SHORT_RUN: u64 = 12;
/// Longest pause between an answer and the kill, in milliseconds: several batches.
const UNDER_LOAD_MS: u64 = 120;
/// A start takes about as long as this, in milliseconds: kills during recovery fall within.
const STARTING_MS: u64 = 600;
/// A call that the daemon can only refuse is refused within this.
const FAST: Duration = Duration::from_secs(1);
/// A clean end takes no longer: the unit's TimeoutStopSec.
const STOPPED_WITHIN: Duration = Duration::from_secs(45);

#[test]
fn kill_9_at_random_moments_loses_nothing_and_repeats_nothing() {
    let kills = std::env::var("COUNTERSIGN_KILLS").ok().map_or(SHORT_RUN, |text| text.parse().expect("a number"));
    eprintln!("{kills} kills; COUNTERSIGN_KILLS sets their number, `make crash` has 120");
    let mut chance = Chance::new("kill_9_at_random_moments_loses_nothing_and_repeats_nothing");
    let scene = Scene::set();
    let runtime = Runtime::new().unwrap();
    let mut daemon = scene.stage.start().unwrap();
    let load = runtime.block_on(Load::start(&scene));
    for _ in 0..kills {
        load.wait_progress();
        chance.pause(UNDER_LOAD_MS);
        match chance.below(4) {
            // A worker alone: the daemon replaces it.
            0 => {
                let workers = workers(&daemon);
                kill_process(workers[usize::try_from(chance.below(workers.len() as u64)).unwrap()]);
            }
            // The daemon, and once more while it recovers from that.
            1 => {
                daemon.kill().unwrap();
                let starting = scene.stage.spawn().unwrap();
                chance.pause(STARTING_MS);
                starting.kill().unwrap();
                daemon = scene.stage.start().unwrap();
            }
            _ => {
                daemon.kill().unwrap();
                daemon = scene.stage.start().unwrap();
            }
        }
    }
    load.wait_progress();
    runtime.block_on(async { assert_whole(&scene, &load.finish().await).await });
    daemon.stop().unwrap();
}

#[test]
fn a_token_taken_away_is_survived_without_a_restart() {
    let mut chance = Chance::new("a_token_taken_away_is_survived_without_a_restart");
    let scene = Scene::set();
    let runtime = Runtime::new().unwrap();
    let daemon = scene.stage.start().unwrap();
    let hasty = runtime.block_on(scene.hasty(GATEWAY));
    let load = runtime.block_on(Load::start(&scene));
    let (tokens, away) = (scene.stage.folder.join("hsm/tokens"), scene.stage.folder.join("hsm/tokens.away"));
    for round in 0..3 {
        load.wait_progress();
        chance.pause(UNDER_LOAD_MS);
        std::fs::rename(&tokens, &away).unwrap();
        wait_for("not ready", || !daemon.readyz().unwrap().starts_with("HTTP/1.1 200"));
        for trail in scene.trails() {
            for n in 0..5 {
                let begun = Instant::now();
                let refused = runtime.block_on(hasty.sign(&trail, event(&format!("away-{round}-{n}"))));
                let error = refused.expect_err("the token is away");
                assert_eq!(error.reason(), "HSM_UNAVAILABLE", "{error}");
                assert!(begun.elapsed() < FAST, "refused after {:?}: {error}", begun.elapsed());
            }
        }
        chance.pause(UNDER_LOAD_MS);
        std::fs::rename(&away, &tokens).unwrap();
    }
    load.wait_progress();
    runtime.block_on(async { assert_whole(&scene, &load.finish().await).await });
    daemon.stop().unwrap();
}

/// The daemon that can be told where to die: built with `--features failpoints` into a folder of its
/// own beside the usual one.
fn failing_daemon(scene: &Scene) -> PathBuf {
    let path = scene.stage.binaries.path("failpoints/countersignd");
    assert!(path.is_file(), "{} is missing: `make test` builds it", path.display());
    path
}

fn spawn_failing(scene: &Scene, point: &str, pass: u64) -> Child {
    let log = File::options().create(true).append(true).open(scene.stage.folder.join("countersignd.log")).unwrap();
    let mut command = scene.as_daemon(&failing_daemon(scene));
    command.env("COUNTERSIGN_FAIL_AT", format!("{point}:{pass}"));
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
}

/// Waits for the death that it was told to die.
fn wait_killed(scene: &Scene, child: &mut Child, what: &str) {
    let log = scene.stage.folder.join("countersignd.log");
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            let log = std::fs::read_to_string(&log).unwrap_or_default();
            let end = &log[log.len().saturating_sub(3_000)..];
            return assert_eq!(status.signal(), Some(9), "{what}: {status}\n{end}");
        }
        if begun.elapsed() > PATIENCE {
            child.kill().unwrap();
            panic!("{what}: not passed within {PATIENCE:?}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// What a power cut at each step of a batch leaves behind.
#[test]
fn kill_9_at_each_fail_point_is_recovered() {
    let mut chance = Chance::new("kill_9_at_each_fail_point_is_recovered");
    let scene = Scene::set();
    let runtime = Runtime::new().unwrap();
    let mut daemon: Daemon = scene.stage.start().unwrap();
    let load = runtime.block_on(Load::start(&scene));
    for point in ["intent", "sign", "verify", "commit", "release"] {
        // The first passes are the start's own admin record and what recovery signs again.
        for pass in [1, 2 + chance.below(4), 8 + chance.below(40)] {
            load.wait_progress();
            daemon.kill().unwrap();
            let mut failing = spawn_failing(&scene, point, pass);
            wait_killed(&scene, &mut failing, &format!("{point}:{pass}"));
            daemon = scene.stage.start().unwrap();
        }
    }
    load.wait_progress();
    runtime.block_on(async { assert_whole(&scene, &load.finish().await).await });
    daemon.stop().unwrap();
}

/// SIGTERM under load: nothing that was taken is left open, and every trail closes with a checkpoint.
#[test]
fn sigterm_under_load_leaves_nothing_open() {
    let mut chance = Chance::new("sigterm_under_load_leaves_nothing_open");
    let scene = Scene::set();
    let runtime = Runtime::new().unwrap();
    let mut daemon = scene.stage.start().unwrap();
    let load = runtime.block_on(Load::start(&scene));
    for round in 0..5 {
        load.wait_progress();
        chance.pause(UNDER_LOAD_MS);
        daemon.signal(Signal::TERM).unwrap();
        let status = daemon.wait_exit(STOPPED_WITHIN).unwrap();
        assert_eq!(status.code(), Some(0), "{}", daemon.log_end());
        assert_closed(&scene, &format!("stop {round}"));
        daemon = scene.stage.start().unwrap();
    }
    load.wait_progress();
    runtime.block_on(async { assert_whole(&scene, &load.finish().await).await });
    let log = std::fs::read_to_string(scene.stage.folder.join("countersignd.log")).unwrap();
    let late = log.lines().find(|line| line.contains("drained"));
    assert_eq!(late, None, "a drain was given up");
    daemon.stop().unwrap();
}

/// As the store is before a start: all that it holds is signed, under a checkpoint.
fn assert_closed(scene: &Scene, when: &str) {
    let path = scene.stage.folder.join("data/store.db");
    let store = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE).unwrap();
    let query = "SELECT origin, size, signed, (SELECT max(size) FROM checkpoints WHERE trail = trails.no), \
                 (SELECT count(*) FROM intents WHERE trail = trails.no) FROM trails";
    let mut query = store.prepare(query).unwrap();
    let row = |row: &rusqlite::Row<'_>| Ok((row.get::<_, String>(0)?, [1, 2, 3, 4].map(|at| row.get::<_, i64>(at))));
    let rows: Vec<_> = query.query_map([], row).unwrap().map(|row| row.unwrap()).collect();
    assert_eq!(rows.len(), scene.trails().len() + 1);
    for (origin, [size, signed, checkpoint, open]) in rows {
        let [size, signed, checkpoint, open] = [size, signed, checkpoint, open].map(|number| number.unwrap());
        assert_eq!((signed, checkpoint, open), (size, size, 0), "{when}, {origin} of {size} records");
    }
}
