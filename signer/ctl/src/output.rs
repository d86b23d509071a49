//! What is printed: tables and lines for people, or JSON.

use std::fmt::Write as _;
use std::io::{self, Write};

use serde::Serialize;

use crate::exit::{Outcome, failed};

/// Where and in which form a command prints its result.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    /// JSON instead of text for people.
    pub(crate) json: bool,
}

impl Output {
    /// Prints `value` as JSON, or what `text` makes of it.
    pub(crate) fn show<T: Serialize>(self, value: &T, text: impl FnOnce(&T) -> String) -> Outcome {
        if self.json { self.line(&to_json(value)?) } else { self.raw(text(value).as_bytes()) }
    }

    /// Prints one line.
    pub(crate) fn line(self, line: &str) -> Outcome {
        self.raw(format!("{line}\n").as_bytes())
    }

    /// Prints bytes as they are. A reader that went away is no failure.
    pub(crate) fn raw(self, bytes: &[u8]) -> Outcome {
        let mut stdout = io::stdout().lock();
        match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            written => written.map_err(|error| failed(format!("cannot write to standard output: {error}"))),
        }
    }
}

/// `value` as indented JSON.
pub(crate) fn to_json<T: Serialize>(value: &T) -> Outcome<String> {
    serde_json::to_string_pretty(value).map_err(|error| failed(format!("cannot write JSON: {error}")))
}

/// `text` without anything that could steer a terminal: control characters are written as escapes,
/// and so are the marks that change the direction of text.
pub(crate) fn plain(text: &str) -> String {
    let steers = |c: char| {
        c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if steers(c) { out.extend(c.escape_unicode()) } else { out.push(c) }
    }
    out
}

/// [`plain`], line by line: the line feeds stay.
pub(crate) fn plain_lines(text: &str) -> String {
    text.split('\n').map(plain).collect::<Vec<_>>().join("\n")
}

/// Rows under headings, in columns two spaces apart.
pub(crate) fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|cell| plain(cell)).collect()).collect();
    let mut widths: Vec<usize> = headings.iter().map(|heading| heading.chars().count()).collect();
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = String::new();
    let mut push = |cells: &[String]| {
        let mut line = String::new();
        for (cell, width) in cells.iter().zip(&widths) {
            let _ = write!(line, "{cell:<width$}  ");
        }
        out.push_str(line.trim_end());
        out.push('\n');
    };
    push(&headings.iter().map(|heading| (*heading).to_owned()).collect::<Vec<_>>());
    for row in &rows {
        push(row);
    }
    out
}

/// Named values, one a line, the names in one column.
pub(crate) fn fields(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let mut out = String::new();
    for (name, value) in rows {
        let _ = writeln!(out, "{name:<width$}  {}", plain(value));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_printed_steers_a_terminal() {
        assert_eq!(plain("a\u{1b}[2Jb\n"), "a\\u{1b}[2Jb\\u{a}");
        assert_eq!(plain("a\u{202e}b"), "a\\u{202e}b");
        assert_eq!(plain("Zoë 世界"), "Zoë 世界");
        assert!(!table(&["A"], &[vec!["\u{7}".to_owned()]]).contains('\u{7}'));
    }

    #[test]
    fn columns_stand_under_their_headings() {
        let text = table(&["A", "LONG"], &[vec!["xxx".to_owned(), "1".to_owned()]]);
        assert_eq!(text, "A    LONG\nxxx  1\n");
    }
}
