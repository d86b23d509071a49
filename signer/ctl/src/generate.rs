//! `countersign completions` and `countersign man`: generated from the options themselves.

use std::fs;
use std::path::Path;

use clap::{Command, CommandFactory as _};
use clap_complete::Shell;

use crate::cli::Cli;
use crate::exit::{Outcome, failed};
use crate::files;
use crate::output::Output;

/// Prints the completions of `shell`.
pub(crate) fn completions(shell: Shell, output: Output) -> Outcome {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "countersign", &mut text);
    output.raw(&text)
}

/// Writes `countersign.1`, `countersign-sign.1` and so on.
pub(crate) fn man(folder: &Path, output: Output) -> Outcome {
    fs::create_dir_all(folder).map_err(|error| files::io("make the folder", folder, &error))?;
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let mut written = Vec::new();
    page(folder, &command, "countersign", &mut written)?;
    output.show(&written, |names| names.iter().map(|name| format!("{}\n", folder.join(name).display())).collect())
}

fn page(folder: &Path, command: &Command, name: &str, written: &mut Vec<String>) -> Outcome {
    let mut text = Vec::new();
    let page = clap_mangen::Man::new(command.clone()).title(name.to_uppercase());
    page.render(&mut text).map_err(|error| failed(format!("man page of {name}: {error}")))?;
    let file = format!("{name}.1");
    files::write(&folder.join(&file), &text, true)?;
    written.push(file);
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        self::page(folder, sub, &format!("{name}-{}", sub.get_name()), written)?;
    }
    Ok(())
}
