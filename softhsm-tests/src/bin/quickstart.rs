//! The main job, end to end: a gateway's decisions signed in an HSM, exported, verified offline.
//!
//! `quickstart FOLDER EVENTS [--keep] [--every-algorithm]`

use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, ensure};
use countersign_stage::binaries::run;
use countersign_stage::talk::{self, shown};
use countersign_stage::{Binaries, Options, Stage, Trail};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (flags, places): (Vec<&str>, Vec<&str>) =
        arguments.iter().map(String::as_str).partition(|argument| argument.starts_with("--"));
    let known = flags.iter().all(|flag| ["--keep", "--every-algorithm"].contains(flag));
    let ([folder, events], true) = (&places[..], known) else {
        eprintln!("usage: quickstart FOLDER EVENTS [--keep] [--every-algorithm]");
        return ExitCode::from(64);
    };
    let mut options = Options::default();
    if flags.contains(&"--every-algorithm") {
        options.trails = vec![
            Trail::new("batch", "ed25519"),
            Trail::new("batch", "ecdsa-p256"),
            Trail::new("record", "ed25519"),
            Trail::new("record", "ecdsa-p256"),
        ];
    }
    match quickstart(Path::new(folder), Path::new(events), options, flags.contains(&"--keep")) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("quickstart: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn quickstart(folder: &Path, events: &Path, options: Options, keep: bool) -> Result<()> {
    let events = events.canonicalize().with_context(|| events.display().to_string())?;
    clear(folder)?;
    let mut step = 0;
    let mut say = |text: &str| {
        step += 1;
        println!("[{step:>2}] {text}");
    };
    let binaries = Binaries::beside_this()?;
    let stage = Stage::set(folder, binaries, options, &mut say)?;
    say("starting countersignd");
    let daemon = stage.start()?;
    std::fs::write(stage.folder.join(talk::PID_FILE), format!("{}\n", daemon.pid()))?;
    let mut rates = Vec::new();
    for trail in &stage.options.trails {
        say(&format!("signing every event of {} into {} ({} mode) over mTLS", name(&events), trail.origin, trail.mode));
        let receipts = stage.folder.join(format!("receipts-{}-{}.jsonl", trail.mode, trail.algorithm));
        let mut sign = stage.countersign("gateway-1", &["--json", "sign", "--progress", "--trail", &trail.origin]);
        let output = sign.arg("--receipts").arg(receipts).arg(&events).stderr(Stdio::inherit()).output()?;
        ensure!(output.status.success(), "countersign sign ended with {}", output.status);
        rates.push((trail.origin.clone(), serde_json::from_slice::<serde_json::Value>(&output.stdout)?));
    }
    say("exporting the evidence");
    let evidence = stage.folder.join("evidence.zip");
    run(stage.countersign("auditor-1", &["export", "--out"]).arg(&evidence))?;
    if keep {
        std::mem::forget(daemon);
    } else {
        say("stopping the daemon");
        daemon.stop()?;
        std::fs::remove_file(stage.folder.join(talk::PID_FILE))?;
    }
    say("verifying the evidence offline, against the pinned genesis fingerprint");
    let verdict = verify(&stage, &evidence)?;
    println!("\nevidence:    {}\nfingerprint: {}", shown(&evidence), stage.fingerprint);
    for (origin, figures) in &rates {
        println!("{origin}: {}", rate_line(figures));
    }
    println!("{verdict}");
    if keep {
        println!("\nThe daemon is still running. Talk to it:\n");
        for (who, command) in talk::commands(&stage, &events) {
            println!("{who:<21}{command}");
        }
    }
    Ok(())
}

/// Removes what an earlier run left, its daemon included.
fn clear(folder: &Path) -> Result<()> {
    if let Ok(pid) = std::fs::read_to_string(folder.join(talk::PID_FILE)) {
        let command = std::fs::read_to_string(format!("/proc/{}/cmdline", pid.trim())).unwrap_or_default();
        if command.contains("countersignd") {
            run(Command::new("kill").arg(pid.trim()))?;
            while Path::new(&format!("/proc/{}/cmdline", pid.trim())).exists() {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
        }
    }
    match std::fs::remove_dir_all(folder) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| folder.display().to_string()),
    }
}

/// The verifier's one line; an exit other than 0 is a failure.
fn verify(stage: &Stage, evidence: &Path) -> Result<String> {
    let mut command = stage.binaries.command("countersign-verify");
    let output = command.arg(evidence).args(["--genesis", &stage.fingerprint]).output()?;
    let printed = String::from_utf8(output.stdout)?;
    ensure!(output.status.success(), "countersign-verify ended with {}:\n{printed}", output.status);
    Ok(printed.lines().next().unwrap_or_default().to_owned())
}

fn rate_line(figures: &serde_json::Value) -> String {
    let number = |key: &str| figures.get(key).and_then(serde_json::Value::as_f64).unwrap_or_default();
    format!(
        "{} records, {:.0} a second, p50 {:.1} ms, p99 {:.1} ms for a message",
        number("signed"),
        number("rate_per_second"),
        number("p50_ms"),
        number("p99_ms")
    )
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
