//! `countersignd completions` and `countersignd man`: generated from the options themselves.

use std::fs;
use std::path::Path;

use anyhow::Context as _;
use clap::{Command, CommandFactory as _};
use clap_complete::Shell;

use crate::cli::Cli;
use crate::output::{Output, raw};

/// Prints the completions of `shell`.
pub(crate) fn completions(shell: Shell) -> anyhow::Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "countersignd", &mut text);
    raw(&text)
}

/// Writes `countersignd.1`, `countersignd-init.1` and so on.
pub(crate) fn man(folder: &Path, output: Output) -> anyhow::Result<()> {
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let mut written = Vec::new();
    page(folder, &command, "countersignd", &mut written)?;
    output.show(&written, |names| names.iter().map(|name| format!("{}\n", folder.join(name).display())).collect())
}

fn page(folder: &Path, command: &Command, name: &str, written: &mut Vec<String>) -> anyhow::Result<()> {
    let mut text = Vec::new();
    clap_mangen::Man::new(command.clone()).title(name.to_uppercase()).render(&mut text)?;
    let path = folder.join(format!("{name}.1"));
    fs::write(&path, text).with_context(|| path.display().to_string())?;
    written.push(format!("{name}.1"));
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        self::page(folder, sub, &format!("{name}-{}", sub.get_name()), written)?;
    }
    Ok(())
}
