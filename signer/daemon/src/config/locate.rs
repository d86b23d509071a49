//! Where something stands in the file.

use toml::de::{DeTable, DeValue};

/// Line and column, from 1, the column in characters, of a byte offset.
pub(super) fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = &text[..text.floor_char_boundary(offset)];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// Where the value of a dotted key stands; None when the file does not have it.
pub(super) fn key(text: &str, dotted: &str) -> Option<(usize, usize)> {
    let document = DeTable::parse(text).ok()?;
    let mut table = document.get_ref();
    let mut start = None;
    let mut parts = dotted.split('.').peekable();
    while let Some(part) = parts.next() {
        let (name, value) = table.iter().find(|(name, _)| name.get_ref() == part)?;
        start = Some(name.span().start);
        match value.get_ref() {
            DeValue::Table(inner) => table = inner,
            _ if parts.peek().is_some() => return None,
            _ => {}
        }
    }
    start.map(|start| position(text, start))
}

/// The dotted key and the byte offset of the first list that is not at one of the keys `allowed`.
pub(super) fn list(text: &str, allowed: &[&str]) -> Option<(String, usize)> {
    list_in(DeTable::parse(text).ok()?.get_ref(), "", allowed)
}

fn list_in(table: &DeTable<'_>, before: &str, allowed: &[&str]) -> Option<(String, usize)> {
    table.iter().find_map(|(name, value)| {
        let key = format!("{before}{}", name.get_ref());
        match value.get_ref() {
            DeValue::Array(_) if !allowed.contains(&key.as_str()) => Some((key, name.span().start)),
            DeValue::Table(inner) => list_in(inner, &format!("{key}."), allowed),
            _ => None,
        }
    })
}
