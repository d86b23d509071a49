//! A daemon made to commit to other facts than it was sent (a test build) is caught by the client
//! library, which rebuilds every commitment from what it sent.

#![allow(clippy::unwrap_used)] // A test may stop at the first surprise, its helpers too.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use countersign_stage::daemon::get;
use countersign_stage::{Binaries, Options, Stage};

/// How long the daemon may take until it is ready.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// How often it is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

const EVENT: &str = concat!(
    r#"{"event_id":"lie-1","type":"llm.completion","category":"normal","decision":"allow","result":"delivered","#,
    r#""facts":{"occurred_at":"2026-01-31T08:00:00.000000Z","reason_code":"allowed"}}"#,
    "\n"
);

/// Kills the daemon when the test ends, however it ends.
struct Lying(Child);

impl Drop for Lying {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(stage: &Stage) -> Lying {
    let program = stage.binaries.path("failpoints/countersignd");
    assert!(program.is_file(), "{} is missing: `make test` builds it", program.display());
    let mut command = Command::new(program);
    command.arg("--config").arg(stage.folder.join("countersignd.toml")).env("COUNTERSIGN_LIE", "1");
    command.env("SOFTHSM2_CONF", stage.folder.join("hsm/softhsm2.conf"));
    let daemon = Lying(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let begun = Instant::now();
    while !get(stage.operations_port, "/readyz").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")) {
        assert!(begun.elapsed() < READY_LIMIT, "not ready within {READY_LIMIT:?}");
        std::thread::sleep(LOOK_EVERY);
    }
    daemon
}

#[test]
fn other_facts_than_were_sent_are_caught() {
    let folder = tempfile::tempdir().unwrap();
    let stage =
        Stage::set(&folder.path().join("stage"), Binaries::beside_this().unwrap(), Options::default(), &mut |_| ());
    let stage = stage.unwrap();
    let events = folder.path().join("events.jsonl");
    std::fs::write(&events, EVENT).unwrap();
    let _daemon = start(&stage);
    for trail in &stage.options.trails {
        let receipts = folder.path().join(format!("receipts-{}.jsonl", trail.mode));
        let mut sign = stage.countersign("gateway-1", &["sign", "--trail", &trail.origin]);
        let output = sign.arg("--receipts").arg(&receipts).arg(&events).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(40), "{}: {said}", trail.origin);
        assert!(
            said.contains("ALARM: PART") && said.contains("expected commitment of part facts"),
            "{}: {said}",
            trail.origin
        );
        assert_eq!(std::fs::read_to_string(&receipts).unwrap_or_default(), "", "a receipt for a lie");
    }
}
