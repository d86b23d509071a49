//! `countersign sign` whose daemon dies under it: it ends by itself and says what to do.

use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, Instant};

use countersign_stage::{Binaries, Options, Stage};

/// The client gives up within its deadline of 30 seconds; anything longer is a hang.
const LIMIT: Duration = Duration::from_secs(60);
/// How often things are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

#[test]
fn sign_ends_when_its_daemon_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let stage =
        Stage::set(&folder.path().join("stage"), Binaries::beside_this().unwrap(), Options::default(), &mut |_| ());
    let stage = stage.unwrap();
    let daemon = stage.start().unwrap();
    let receipts = folder.path().join("receipts.jsonl");
    let origin = stage.options.trails[0].origin.clone();
    let mut sign = stage.countersign("gateway-1", &["sign", "--trail", &origin]);
    sign.arg("--receipts").arg(&receipts).arg("-").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = sign.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    // Without an end, so that it is the daemon's death that ends the run.
    let feeding = std::thread::spawn(move || {
        let line =
            b"{\"type\":\"llm.completion\",\"category\":\"normal\",\"decision\":\"allow\",\"result\":\"delivered\"}\n";
        while input.write_all(line).is_ok() {}
    });
    let begun = Instant::now();
    while std::fs::metadata(&receipts).map_or(0, |file| file.len()) == 0 {
        assert!(begun.elapsed() < LIMIT, "no receipt within {LIMIT:?}");
        std::thread::sleep(LOOK_EVERY);
    }
    daemon.kill().unwrap();
    let killed = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if killed.elapsed() > LIMIT {
            child.kill().unwrap();
            panic!("still running {LIMIT:?} after its daemon was gone");
        }
        std::thread::sleep(LOOK_EVERY);
    };
    feeding.join().unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(status.code(), Some(5), "{said}");
    assert!(said.contains("sent and not answered"), "{said}");
}
