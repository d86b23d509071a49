//! Commands as they are shown, held against the help of the programs and the Makefile.

use std::cell::RefCell;
use std::collections::HashMap;

use countersign_stage::Binaries;
use countersign_stage::binaries::run;

use super::pages::root;

/// Our programs that have subcommands or options to be checked.
const PROGRAMS: [&str; 3] = ["countersign", "countersignd", "countersign-verify"];

/// The words of each simple command of a script, without assignments and redirections.
pub(crate) fn simple_commands(script: &str) -> Vec<Vec<String>> {
    let mut commands: Vec<Vec<String>> = vec![Vec::new()];
    for line in script.replace("\\\n", " ").lines() {
        split_line(line, &mut commands);
        commands.push(Vec::new());
    }
    commands.iter_mut().for_each(drop_redirections);
    commands.retain(|words| !words.is_empty());
    commands
}

/// Takes out `> FILE`, `>FILE`, `2>FILE`, `< FILE`.
fn drop_redirections(words: &mut Vec<String>) {
    let mut file_follows = false;
    words.retain(|word| {
        let sign = word.trim_start_matches(|c: char| c.is_ascii_digit());
        let redirection = sign.starts_with(['>', '<']);
        let dropped = redirection || file_follows;
        file_follows = redirection && sign.trim_start_matches(['>', '<']).is_empty();
        !dropped
    });
}

/// Splits a line at white space, `|`, `;` and `&`, outside quotes and `$(…)`; a `#` word ends it. The
/// inside of `$(…)` stays with the word that it is in.
fn split_line(line: &str, commands: &mut Vec<Vec<String>>) {
    let (mut word, mut quote, mut depth) = (String::new(), None, 0_u32);
    for c in line.chars().chain([' ']) {
        let plain = quote.is_none() && depth == 0;
        match c {
            '\'' | '"' if quote == Some(c) => quote = None,
            '\'' | '"' if quote.is_none() => quote = Some(c),
            '(' if word.ends_with('$') || depth > 0 => depth += 1,
            ')' if depth > 0 => depth -= 1,
            '#' if plain && word.is_empty() => return,
            '|' | ';' | '&' if plain => {
                take(&mut word, commands);
                commands.push(Vec::new());
                continue;
            }
            _ if plain && c.is_whitespace() => {
                take(&mut word, commands);
                continue;
            }
            _ => {}
        }
        if !matches!(c, '\'' | '"') {
            word.push(c);
        }
    }
}

fn take(word: &mut String, commands: &mut [Vec<String>]) {
    let word = std::mem::take(word);
    let Some(command) = commands.last_mut() else { return };
    let name = word.split_once('=').map(|(name, _)| name);
    let assignment = command.is_empty()
        && name.is_some_and(|name| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'));
    if !word.is_empty() && !assignment {
        command.push(word);
    }
}

/// What a program's help says.
#[derive(Clone)]
struct Help {
    text: String,
}

impl Help {
    fn subcommands(&self) -> Vec<&str> {
        let listed = self.text.split("\nCommands:\n").nth(1).unwrap_or_default();
        let lines = listed.lines().take_while(|line| !line.trim().is_empty());
        // Continued descriptions are indented further.
        lines
            .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
            .filter_map(|line| line.split_whitespace().next())
            .collect()
    }

    /// The line that declares an option: none if there is no such option.
    fn option(&self, flag: &str) -> Option<&str> {
        self.text
            .lines()
            .map(str::trim_start)
            .find(|line| line.starts_with('-') && line.split([' ', ',', '=']).take(3).any(|word| word == flag))
    }
}

/// Checks commands.
pub(crate) struct Checker {
    binaries: Binaries,
    makefile: String,
    asked: RefCell<HashMap<String, Help>>,
}

impl Checker {
    /// Over the built programs and the repository's Makefile.
    pub(crate) fn new(binaries: Binaries) -> Checker {
        let makefile = std::fs::read_to_string(root().join("Makefile")).unwrap();
        Checker { binaries, makefile, asked: RefCell::default() }
    }

    /// Whether the command exists with its options; other people's programs pass.
    pub(crate) fn check(&self, words: &[String]) -> Result<(), String> {
        let words = without_launcher(words);
        let Some(first) = words.first() else { return Ok(()) };
        let program = first.rsplit('/').next().unwrap_or(first);
        if program == "make" {
            return self.check_make(&words[1..]);
        }
        if PROGRAMS.contains(&program) { self.check_ours(program, &words[1..]) } else { Ok(()) }
    }

    fn check_make(&self, words: &[String]) -> Result<(), String> {
        let known = |target: &str| self.makefile.lines().any(|line| line.starts_with(&format!("{target}:")));
        let mut targets = words.iter().filter(|word| !word.contains('='));
        targets.find(|target| !known(target)).map_or(Ok(()), |target| Err(format!("the Makefile has no {target}")))
    }

    fn check_ours(&self, program: &str, words: &[String]) -> Result<(), String> {
        let mut path = vec![program.to_owned()];
        let mut help = self.help(&path);
        let mut at = 0;
        while let Some(word) = words.get(at) {
            at += 1;
            if word.starts_with('-') && word != "-" {
                let flag = word.split('=').next().unwrap_or(word);
                let declared = help.option(flag).ok_or_else(|| format!("{} has no {flag}", path.join(" ")))?;
                // An option that takes a value says so by `<`.
                if declared.contains('<') && !word.contains('=') {
                    at += 1;
                }
            } else if help.subcommands().contains(&word.as_str()) {
                path.push(word.clone());
                help = self.help(&path);
            } else if !takes_arguments(&help.text) {
                return Err(format!("{} has no command {word}", path.join(" ")));
            }
        }
        Ok(())
    }

    fn help(&self, path: &[String]) -> Help {
        let mut asked = self.asked.borrow_mut();
        let help = asked.entry(path.join(" ")).or_insert_with(|| {
            let mut command = self.binaries.command(&path[0]);
            let output = run(command.args(&path[1..]).arg("--help")).unwrap();
            Help { text: String::from_utf8(output.stdout).unwrap() }
        });
        help.clone()
    }
}

/// Whether a program takes anything that is neither an option nor a command.
fn takes_arguments(help: &str) -> bool {
    help.contains("\nArguments:\n")
}

/// The command that a launcher starts: what follows `sudo`, the options of `systemd-run`, or the `--` of
/// `runuser`.
fn without_launcher(words: &[String]) -> &[String] {
    let mut at = 0;
    if words.first().is_some_and(|word| word == "runuser") {
        at = words.iter().position(|word| word == "--").map_or(words.len(), |end| end + 1);
    }
    if words.first().is_some_and(|word| word == "sudo" || word == "systemd-run") {
        at = 1;
        while words.get(at).is_some_and(|word| word.starts_with('-')) {
            at += if words[at] == "-p" { 2 } else { 1 };
        }
    }
    &words[at..]
}
