//! `countersign export`: the evidence bundle, or one trail as CSV.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use countersign_proto::v1;
use countersign_trail::hash::Hash;
use serde::Serialize;

use super::csv;
use crate::cli::ExportArgs;
use crate::exit::{Outcome, usage};
use crate::files;
use crate::output::{Output, fields};
use crate::progress::Progress;
use crate::remote::{Remote, of_status};

#[derive(Serialize)]
struct View {
    file: PathBuf,
    bytes: u64,
    /// Names of the parts whose contents were left out.
    withheld: Vec<String>,
    /// The fingerprint to verify it against, where one is pinned.
    genesis: Option<Hash>,
    /// The command that verifies it.
    verify: String,
}

/// `countersign export`.
pub(crate) async fn run(args: &ExportArgs, output: Output) -> Outcome {
    if [&args.out, &args.csv].into_iter().flatten().any(|path| path.as_os_str() == "-") {
        return Err(usage("what is exported cannot go to standard output: it gets its name when it is whole")
            .todo("Give the name of a file."));
    }
    match (&args.out, &args.csv) {
        (Some(out), None) => bundle(args, out, output).await,
        (None, Some(out)) => csv::run(args, out, output).await,
        _ => Err(usage("what to export is not clear")
            .todo("Give --out evidence.zip for the evidence bundle, or --csv FILE with one --trail.")),
    }
}

async fn bundle(args: &ExportArgs, out: &Path, output: Output) -> Outcome {
    files::must_be_free(out, args.force)?;
    let mut remote = Remote::connect(&args.connect).await?;
    let withheld: Vec<String> = args.withhold.iter().map(ToString::to_string).collect();
    let request =
        v1::ExportRequest { trails: args.trail.iter().map(ToString::to_string).collect(), withhold: withheld.clone() };
    let mut stream = remote.audit.export(request).await.map_err(|status| of_status(&status))?.into_inner();
    let mut part = Partial::create(out)?;
    let progress = Progress::bytes(args.progress, "export");
    let mut bytes = 0u64;
    while let Some(message) = stream.message().await.map_err(|status| of_status(&status))? {
        part.write(&message.chunk)?;
        bytes += message.chunk.len() as u64;
        progress.at(bytes);
    }
    progress.done();
    part.keep()?;
    let genesis = remote.profile.pinned();
    let fingerprint = genesis.map_or("FINGERPRINT".to_owned(), |hash| hash.to_string());
    let verify = format!("countersign-verify {} --genesis {fingerprint}", out.display());
    output.show(&View { file: out.to_owned(), bytes, withheld, genesis, verify }, |view| {
        let withheld = if view.withheld.is_empty() { "nothing".to_owned() } else { view.withheld.join(", ") };
        fields(&[
            ("Evidence", view.file.display().to_string()),
            ("Bytes", view.bytes.to_string()),
            ("Withheld", withheld),
            ("Verify it with", view.verify.clone()),
        ])
    })
}

/// A file that gets its name when it is whole and durable.
pub(crate) struct Partial {
    file: Option<File>,
    part: PathBuf,
    name: PathBuf,
}

impl Partial {
    /// Begins a file that will be `name`.
    pub(crate) fn create(name: &Path) -> Outcome<Partial> {
        let mut part = name.as_os_str().to_owned();
        part.push(format!(".{}.part", std::process::id()));
        let part = PathBuf::from(part);
        let file = File::create_new(&part).map_err(|error| files::io("write", &part, &error))?;
        Ok(Partial { file: Some(file), part, name: name.to_owned() })
    }

    /// Appends.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Outcome {
        let part = &self.part;
        match &mut self.file {
            Some(file) => file.write_all(bytes).map_err(|error| files::io("write", part, &error)),
            None => Ok(()),
        }
    }

    /// Makes the file durable under its name.
    pub(crate) fn keep(mut self) -> Outcome {
        let Some(file) = self.file.take() else {
            return Ok(());
        };
        let folder = self.name.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let kept = file
            .sync_all()
            .and_then(|()| fs::rename(&self.part, &self.name))
            .and_then(|()| File::open(folder)?.sync_all());
        kept.map_err(|error| files::io("write", &self.name, &error))
    }
}

impl Drop for Partial {
    /// What is not whole does not stay.
    fn drop(&mut self) {
        if self.file.is_some() {
            let _ = fs::remove_file(&self.part);
        }
    }
}
