//! The host's commands: what each does and says.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::CommandFactory as _;
use countersign_trail::document::MAX_DOCUMENT_LEN;
use countersign_trail::hash::Hash;
use countersign_trail::id::MemberId;
use countersignd::config::Config;
use countersignd::fsck::{self, Line};
use countersignd::genesis::CeremonyError;
use countersignd::genesis::abandon::{self, Abandoned};
use countersignd::genesis::handout::Standing;
use countersignd::genesis::init::{self, Way};
use countersignd::genesis::seal::{self, HandedIn};
use countersignd::store::files::FolderLock;
use countersignd::{backup, pin, preflight, run};
use serde::Serialize;
use serde_json::json;

use crate::cli::{Cli, Command, InitArgs};
use crate::output::{Output, raw};

/// Runs one command.
pub(crate) async fn run(config: &Config, cli: &Cli, command: &Command) -> anyhow::Result<()> {
    let output = Output { json: cli.json };
    match command {
        Command::Init(args) if args.abandon => undo(config, &read(&args.plan)?, output).await,
        Command::Init(args) => make(config, args, output).await,
        Command::Seal { genesis, signatures } => {
            let handed_in = signatures.iter().map(handed_in).collect::<anyhow::Result<_>>()?;
            let fingerprint = seal::seal(config, &read(genesis)?, handed_in).await?;
            output.show(&json!({ "genesis": fingerprint }), |_| format!("{fingerprint}\n"))
        }
        Command::Fsck { backup } => check_store(config, backup.as_deref(), output),
        Command::Backup { to } => copy_store(config, &cli.config, to, output),
        Command::PinClear { token } => {
            let cleared = pin::clear(config, token)?;
            output.show(&cleared, |cleared| format!("{cleared}\n"))
        }
        Command::ClockConfirm => {
            let _lock = FolderLock::take(&config.data_dir)?;
            let time = run::clockwatch::confirm(&config.data_dir)?;
            output.show(&json!({ "confirmed": time }), |_| {
                format!("confirmed that the clock is right at {time}; the next start records it\n")
            })
        }
        Command::MarkConfirm => {
            let confirmed = run::mark::confirm(config).await?;
            output.show(&confirmed, |confirmed| confirmed.iter().map(|one| format!("{one}\n")).collect())
        }
        Command::Completions { .. } | Command::Man { .. } | Command::HsmWorker => Ok(()),
    }
}

/// What `--check-config` says: every problem, or what was found in order.
pub(crate) fn check_config(config: &Config, cli: &Cli) -> anyhow::Result<()> {
    let path = cli.config.display();
    let problems = preflight::problems(config);
    anyhow::ensure!(problems.is_empty(), "{path}: {}", problems.join(&format!("\n{path}: ")));
    let output = Output { json: cli.json };
    output.show(&json!({ "configuration": path.to_string(), "ok": true }), |_| {
        format!(
            "{path}: ok: its keys and bounds, the certificate with its key and the revocation lists; modules and PIN files are there\n"
        )
    })
}

async fn make(config: &Config, args: &InitArgs, output: Output) -> anyhow::Result<()> {
    if output.json && args.out.is_none() {
        let problem = "--json wants --out: the document would stand between two answers";
        Cli::command().error(clap::error::ErrorKind::MissingRequiredArgument, problem).exit();
    }
    let (way, standing) = match args.resume {
        true => (Way::Resume, Standing::Same),
        false => (Way::Fresh, Standing::Nothing),
    };
    let standing = if args.force { Standing::Anything } else { standing };
    let out = args.out.as_deref().map(|path| (path, standing));
    let document = init::init(config, &read(&args.plan)?, way, out).await?;
    if out.is_none() {
        print_document(&document)?;
    }
    init::finish(config)?;
    let fingerprint = Hash::of(&document);
    let place = args.out.as_ref().map_or("standard output".to_owned(), |path| path.display().to_string());
    let said = format!(
        "genesis document: {place}\nfingerprint: {fingerprint}\nNow every administrator signs it, and `countersignd seal` takes the signatures.\n"
    );
    if out.is_none() {
        eprint!("{said}");
        return Ok(());
    }
    output.show(&json!({ "document": args.out, "fingerprint": fingerprint }), |_| said)
}

fn print_document(document: &[u8]) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    let written = out.write_all(document).and_then(|()| out.flush());
    Ok(written.map_err(|error| CeremonyError::Handout { path: "standard output".into(), error })?)
}

async fn undo(config: &Config, plan: &[u8], output: Output) -> anyhow::Result<()> {
    let abandoned = abandon::abandon(config, plan).await?;
    output.show(&abandoned, |Abandoned { destroyed, removed }| {
        let mut text = String::new();
        for key in destroyed {
            let _ = writeln!(text, "destroyed {:?} in the {} token, absence read back", key.label, key.token);
        }
        for path in removed {
            let _ = writeln!(text, "removed {}", path.display());
        }
        text
    })
}

/// One line of `fsck` as JSON.
#[derive(Serialize)]
struct Said {
    place: String,
    text: String,
}

/// Checks the store, or a backup of it, against the configured genesis.
fn check_store(config: &Config, copy: Option<&Path>, output: Output) -> anyhow::Result<()> {
    let genesis =
        config.genesis.context("the configuration has no `genesis`: set it to the fingerprint to check against")?;
    let (data, heads) = match copy {
        None => (config.data_dir.clone(), config.head_dir.clone()),
        Some(copy) => (copy.to_owned(), copy.join(backup::HEADS)),
    };
    if let Some(copy) = copy.filter(|copy| !copy.is_dir()) {
        anyhow::bail!("{} is no folder: --backup names one that `countersignd backup` made", copy.display());
    }
    let count = if output.json {
        let (mut findings, mut notes) = (Vec::new(), Vec::new());
        let count = fsck::examine(&data, &heads, genesis, &mut |line| {
            let (list, place, text) = match line {
                Line::Finding { place, problem } => (&mut findings, place, problem),
                Line::Note { place, note } => (&mut notes, place, note),
            };
            list.push(Said { place: place.to_owned(), text: text.to_owned() });
            Ok(())
        })?;
        output.show(&json!({ "findings": findings, "notes": notes, "count": count }), |_| String::new())?;
        count
    } else {
        let mut out = std::io::BufWriter::new(std::io::stdout().lock());
        let count = fsck::fsck(&data, &heads, genesis, &mut out)?;
        out.flush()?;
        count
    };
    anyhow::ensure!(count == 0, "the store has {count} findings");
    Ok(())
}

fn copy_store(config: &Config, config_file: &Path, to: &Path, output: Output) -> anyhow::Result<()> {
    let trails = backup::backup(config, config_file, to)?;
    if output.json {
        return output.show(&json!({ "folder": to, "trails": trails }), |_| String::new());
    }
    let mut text = Vec::new();
    backup::report(config, to, &trails, &mut text)?;
    raw(&text)
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let length = std::fs::metadata(path).with_context(|| path.display().to_string())?.len();
    anyhow::ensure!(length <= MAX_DOCUMENT_LEN as u64, "{}: longer than a document may be", path.display());
    std::fs::read(path).with_context(|| path.display().to_string())
}

fn handed_in((member, file): &(MemberId, PathBuf)) -> anyhow::Result<HandedIn> {
    Ok(HandedIn { member: member.clone(), armor: read(file)? })
}
