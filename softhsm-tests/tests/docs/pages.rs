//! Pages of the documentation: their code blocks, links and headings.

use std::path::{Path, PathBuf};

/// A page.
pub(crate) struct Page {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// Its path within the repository.
    pub(crate) name: String,
    text: String,
}

/// A fenced block.
pub(crate) struct Block {
    /// Line of its fence, from 1.
    pub(crate) line: usize,
    /// What it holds.
    pub(crate) text: String,
}

/// A link.
pub(crate) struct Link {
    /// Its line, from 1.
    pub(crate) line: usize,
    /// Where it leads.
    pub(crate) target: String,
}

/// The repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The book's sources.
pub(crate) fn book() -> PathBuf {
    root().join("docs/src")
}

/// README.md, SECURITY.md and every page of the book.
pub(crate) fn every_page() -> Vec<Page> {
    let mut paths = vec![root().join("README.md"), root().join("SECURITY.md")];
    let mut folders = vec![book()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                paths.push(path);
            }
        }
    }
    paths.sort();
    paths.iter().map(|path| Page::read(path)).collect()
}

impl Page {
    /// Reads a page.
    pub(crate) fn read(path: &Path) -> Page {
        let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let name = path.strip_prefix(root()).unwrap_or(path).display().to_string();
        Page { path: path.to_owned(), name, text }
    }

    /// All of it.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Fenced blocks whose language is `language`, or `language` with attributes.
    pub(crate) fn blocks(&self, language: &str) -> Vec<Block> {
        let mut blocks = Vec::new();
        let mut open: Option<(bool, Block)> = None;
        for (number, line) in self.text.lines().enumerate() {
            match (&mut open, line.strip_prefix("```")) {
                (None, Some(info)) => {
                    let wanted =
                        info == language || info.strip_prefix(language).is_some_and(|rest| rest.starts_with(','));
                    open = Some((wanted, Block { line: number + 1, text: String::new() }));
                }
                (Some(_), Some(_)) => blocks.extend(open.take().filter(|(wanted, _)| *wanted).map(|(_, block)| block)),
                (Some((_, block)), None) => block.text.extend([line, "\n"]),
                (None, None) => {}
            }
        }
        assert!(open.is_none(), "{}: a block is not closed", self.name);
        blocks
    }

    /// The lines outside fenced blocks, with their numbers.
    fn prose(&self) -> impl Iterator<Item = (usize, &str)> {
        let mut fenced = false;
        self.text.lines().enumerate().filter_map(move |(number, line)| {
            let fence = line.starts_with("```");
            fenced ^= fence;
            (!fenced && !fence).then_some((number + 1, line))
        })
    }

    /// What stands in back quotes outside fenced blocks, and begins as a command: with one of our programs
    /// or `make`, and a word after it.
    pub(crate) fn mentions(&self) -> Vec<Block> {
        let mut mentions = Vec::new();
        for (line, text) in self.prose() {
            for quoted in text.split('`').skip(1).step_by(2) {
                let (first, _) = quoted.split_once(' ').unwrap_or_default();
                if ["countersign", "countersignd", "countersign-verify", "make"].contains(&first) {
                    mentions.push(Block { line, text: quoted.to_owned() });
                }
            }
        }
        mentions
    }

    /// Links `[text](target)`.
    pub(crate) fn links(&self) -> Vec<Link> {
        let mut links = Vec::new();
        for (line, text) in self.prose() {
            for after in text.split("](").skip(1) {
                let target = after.split(')').next().unwrap_or_default();
                links.push(Link { line, target: target.to_owned() });
            }
        }
        links
    }

    /// Whether a heading has this anchor, made as mdbook makes it.
    pub(crate) fn has_anchor(&self, anchor: &str) -> bool {
        self.prose().filter(|(_, line)| line.starts_with('#')).any(|(_, line)| {
            let title = line.trim_start_matches('#').trim().to_lowercase();
            let kept = title.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
            kept.map(|c| if c == ' ' { '-' } else { c }).eq(anchor.chars())
        })
    }
}
