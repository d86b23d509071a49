//! `countersign completions` and `countersign man`: generated from the options themselves.

use std::fs;
use std::path::Path;

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::cli::Cli;
use crate::exit::{Outcome, failed};
use crate::files;
use crate::manual;
use crate::output::Output;

/// Prints the completions of `shell`.
pub(crate) fn completions(shell: Shell, output: Output) -> Outcome {
    output.raw(&manual::completions(Cli::command(), shell))
}

/// Writes `countersign.1`, `countersign-sign.1` and so on.
pub(crate) fn man(folder: &Path, output: Output) -> Outcome {
    fs::create_dir_all(folder).map_err(|error| files::io("make the folder", folder, &error))?;
    let pages = manual::pages(Cli::command()).map_err(|error| failed(format!("man pages: {error}")))?;
    for (name, text) in &pages {
        files::write(&folder.join(name), text, true)?;
    }
    let written: Vec<&String> = pages.iter().map(|(name, _)| name).collect();
    output.show(&written, |names| names.iter().map(|name| format!("{}\n", folder.join(name).display())).collect())
}
