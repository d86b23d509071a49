//! Completions and man pages of a program, from its own options. `countersign` includes this file.

use std::io;

use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};

/// The completions of `shell`.
pub(crate) fn completions(mut command: Command, shell: Shell) -> Vec<u8> {
    let name = command.get_name().to_owned();
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut text);
    text
}

/// The man pages by file name, one for each command that is not hidden: `NAME.1`, `NAME-COMMAND.1`.
///
/// # Errors
/// None in practice: pages are written to memory.
pub(crate) fn pages(command: Command) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut command = command.disable_help_subcommand(true);
    command.build();
    let mut pages = Vec::new();
    add(&command, command.get_name(), &mut pages)?;
    Ok(pages)
}

fn add(command: &Command, name: &str, pages: &mut Vec<(String, Vec<u8>)>) -> io::Result<()> {
    pages.push((format!("{name}.1"), page(command, name)?));
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        add(sub, &format!("{name}-{}", sub.get_name()), pages)?;
    }
    Ok(())
}

/// One page. What stands below the options in the help text comes here in three places: its prose
/// under DESCRIPTION, its examples and its exit codes in sections of their own.
fn page(command: &Command, name: &str) -> io::Result<Vec<u8>> {
    let man = Man::new(command.clone()).title(name.to_uppercase());
    let below = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let heading = |line: &str| line == "Examples:" || line == "Exit codes:";
    let sections = below.lines().position(heading).unwrap_or(usize::MAX);
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    write(below.lines().take(sections), &mut page)?;
    man.render_options_section(&mut page)?;
    if command.get_subcommands().any(|sub| !sub.is_hide_set()) {
        man.render_subcommands_section(&mut page)?;
    }
    write(below.lines().skip(sections), &mut page)?;
    man.render_version_section(&mut page)?;
    Ok(page)
}

/// Writes lines of a help text: a line that is indented stands as it is, an empty one parts
/// paragraphs.
fn write<'a>(lines: impl Iterator<Item = &'a str>, page: &mut Vec<u8>) -> io::Result<()> {
    let mut roff = Roff::new();
    let mut as_it_is = false;
    roff.control("PP", []);
    for line in lines {
        let indented = line.starts_with(' ');
        if indented != as_it_is {
            roff.control(if indented { "nf" } else { "fi" }, []);
            as_it_is = indented;
        }
        match line {
            "Examples:" => roff.control("SH", ["EXAMPLES"]),
            "Exit codes:" => roff.control("SH", ["EXIT STATUS"]),
            "" => roff.control("PP", []),
            line => roff.text([roman(line)]),
        };
    }
    if as_it_is {
        roff.control("fi", []);
    }
    roff.to_writer(page)
}
