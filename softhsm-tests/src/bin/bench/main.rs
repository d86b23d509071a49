//! What the token can do, and what we do with it, in one run: ratios count, not figures.
//!
//! `bench FOLDER [SECONDS [WORDS]]`: each measurement lasts SECONDS (default 5); with WORDS, such as
//! `record ed25519`, only trails that have all of them in mode and algorithm.

mod load;
mod raw;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use countersign_stage::{Binaries, Options, Stage, Trail};
use load::Gateway;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        // A process of its own, so that SOFTHSM2_CONF is in its environment from the start.
        ["raw", label, pin_file, algorithm, sessions, seconds] => {
            raw::child(label, Path::new(pin_file), algorithm, sessions, seconds)
        }
        [folder] => bench(Path::new(folder), 5, &[]),
        [folder, seconds, ref words @ ..] => {
            seconds.parse().context("SECONDS").and_then(|seconds| bench(Path::new(folder), seconds, words))
        }
        _ => {
            eprintln!("usage: bench FOLDER [SECONDS [WORDS]]");
            return ExitCode::from(64);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn bench(folder: &Path, seconds: u64, words: &[&str]) -> Result<()> {
    if folder.exists() {
        std::fs::remove_dir_all(folder)?;
    }
    let time = Duration::from_secs(seconds);
    let trails = [("record", "ed25519"), ("record", "ecdsa-p256"), ("batch", "ed25519"), ("batch", "ecdsa-p256")];
    let options =
        Options { trails: trails.map(|(mode, algorithm)| Trail::new(mode, algorithm)).to_vec(), ..Options::default() };
    let stage = Stage::set(folder, Binaries::beside_this()?, options, &mut |text| eprintln!("{text}"))?;
    println!("raw token, signatures a second");
    let mut best = Vec::new();
    for algorithm in ["ed25519", "ecdsa-p256"] {
        let rates = raw::rates(&stage, algorithm, seconds)?;
        let fastest = rates.iter().map(|(_, rate)| *rate).fold(0.0, f64::max);
        let text: Vec<String> = rates.iter().map(|(sessions, rate)| format!("{sessions} sessions {rate:.0}")).collect();
        println!("  {algorithm:<11} {}   best {fastest:.0}", text.join(", "));
        best.push((algorithm, fastest));
    }
    let daemon = stage.start()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    println!("ours, over mTLS with durable commits, records a second, and the ratio to the raw token");
    println!("(gateways that read their answers, then such as check each one, on the same processors)");
    for trail in stage.options.trails.iter().filter(|trail| words.iter().all(|word| trail.origin.contains(word))) {
        let raw = best.iter().find(|(algorithm, _)| *algorithm == trail.algorithm).map_or(1.0, |(_, rate)| *rate);
        for (gateway, clients) in [Gateway::Reads, Gateway::Checks]
            .into_iter()
            .flat_map(|gateway| [1, 8, 64].map(|clients| (gateway, clients)))
        {
            let result = runtime.block_on(load::stream(&stage, trail, gateway, clients, time))?;
            println!(
                "  {:<6} {:<11} {clients:>2} gateways {:<6} {:>8.0}   ratio {:>5.2}   p50 {:>7.2} ms  p99 {:>7.2} ms",
                trail.mode,
                trail.algorithm,
                format!("{gateway:?}").to_lowercase(),
                result.rate,
                result.rate / raw,
                result.p50,
                result.p99
            );
        }
        let idle = runtime.block_on(load::idle(&stage, trail, time))?;
        println!(
            "  {:<6} {:<11} one Sign at a time, checked               p50 {:>7.2} ms  p99 {:>7.2} ms",
            trail.mode, trail.algorithm, idle.p50, idle.p99
        );
    }
    daemon.stop()
}
