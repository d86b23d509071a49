//! Why a configuration is refused.

use std::path::{Path, PathBuf};

use super::{MAX_FILE_BYTES, locate};

/// Why a configuration is refused, and where.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is longer than [`MAX_FILE_BYTES`].
    #[error("{}: longer than {MAX_FILE_BYTES} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The text is not TOML of the expected shape, or a value lies outside its bounds.
    #[error("{file}{place}{key}{problem}", place = place(*.line, *.column), key = named(.key))]
    Value {
        /// `FILE:`, or empty for a text without a file.
        file: String,
        /// Line, from 1; 0 where the key is absent and so stands nowhere.
        line: usize,
        /// Column in characters, from 1; 0 with line 0.
        column: usize,
        /// The key with its tables, such as `limits.message_bytes`; empty at the top.
        key: String,
        /// What is wrong and what is allowed.
        problem: String,
    },
}

fn place(line: usize, column: usize) -> String {
    if line == 0 { String::new() } else { format!("line {line}, column {column}: ") }
}

fn named(key: &str) -> String {
    if key.is_empty() { String::new() } else { format!("{key}: ") }
}

/// What serde says is expected, without the names of our types.
fn in_words(message: &str) -> String {
    let Some((before, expected)) = message.rsplit_once(", expected ") else { return message.to_owned() };
    let words = match expected {
        "u16" => "a whole number from 0 to 65535",
        "u32" => "a whole number from 0 to 4294967295",
        "u64" | "usize" => "a whole number that is not negative",
        _ if expected.starts_with("struct ") => "a table",
        _ => expected,
    };
    format!("{before}, expected {words}")
}

impl ConfigError {
    /// From the parser, which knows the place.
    pub(super) fn toml(text: &str, key: &str, error: &toml::de::Error) -> ConfigError {
        let (line, column) = error.span().map_or((0, 0), |span| locate::position(text, span.start));
        // serde_path_to_error calls the top of the document ".".
        let key = if key == "." { "" } else { key };
        let problem = in_words(error.message());
        ConfigError::Value { file: String::new(), line, column, key: key.to_owned(), problem }
    }

    /// For a value of another shape, at a byte offset.
    pub(super) fn shape(text: &str, offset: usize, key: &str, problem: &str) -> ConfigError {
        let (line, column) = locate::position(text, offset);
        ConfigError::Value { file: String::new(), line, column, key: key.to_owned(), problem: problem.to_owned() }
    }

    /// For a value that parsed and is refused.
    pub(super) fn bounds(text: &str, key: &str, problem: String) -> ConfigError {
        let (line, column) = locate::key(text, key).unwrap_or((0, 0));
        ConfigError::Value { file: String::new(), line, column, key: key.to_owned(), problem }
    }

    pub(super) fn in_file(mut self, path: &Path) -> ConfigError {
        if let ConfigError::Value { file, .. } = &mut self {
            *file = format!("{}: ", path.display());
        }
        self
    }
}
