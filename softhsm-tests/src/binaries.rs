//! The built programs, and running them.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, bail};

/// Where the programs are: one profile's folder in the target directory.
#[derive(Clone, Debug)]
pub struct Binaries {
    folder: PathBuf,
}

impl Binaries {
    /// Those built beside the running program: its own folder, or the one above for a test.
    pub fn beside_this() -> Result<Binaries> {
        let this = std::env::current_exe().context("this program's own path")?;
        for folder in this.ancestors().skip(1).take(3) {
            if folder.join("countersignd").is_file() {
                return Ok(Binaries { folder: folder.to_owned() });
            }
        }
        bail!("countersignd is not built beside {}: run `cargo build --workspace --bins` first", this.display())
    }

    /// The same programs in a folder of their own, for users who cannot enter the folder of these: links
    /// where the file system allows, else copies.
    pub fn in_folder(&self, folder: &Path) -> Result<Binaries> {
        std::fs::create_dir_all(folder)?;
        for name in ["countersign", "countersignd", "countersign-verify"] {
            let (from, to) = (self.path(name), folder.join(name));
            let linked = std::fs::hard_link(&from, &to).or_else(|_| std::fs::copy(&from, &to).map(|_| ()));
            linked.with_context(|| from.display().to_string())?;
        }
        Ok(Binaries { folder: folder.to_owned() })
    }

    /// A program's path.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// A command for one of our programs.
    pub fn command(&self, name: &str) -> Command {
        Command::new(self.path(name))
    }
}

/// Runs a command to its end; an exit other than 0 is an error with what it printed.
pub fn run(command: &mut Command) -> Result<Output> {
    let name = Path::new(command.get_program()).display().to_string();
    let output = command.output().with_context(|| format!("cannot run {name}"))?;
    if output.status.success() {
        return Ok(output);
    }
    let printed = String::from_utf8_lossy(&output.stderr);
    bail!("{name} ended with {}: {}{}", output.status, printed.trim(), String::from_utf8_lossy(&output.stdout).trim())
}
