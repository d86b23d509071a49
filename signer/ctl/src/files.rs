//! Files: bounded reads, and writes that never leave half a file behind.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;

use crate::exit::{Failure, Outcome, failed};

/// Reads a whole file of at most `max` bytes.
pub(crate) fn read(path: &Path, max: usize) -> Outcome<Vec<u8>> {
    let file = File::open(path).map_err(|error| io("read", path, &error))?;
    let mut bytes = Vec::new();
    let limit = max as u64 + 1;
    file.take(limit).read_to_end(&mut bytes).map_err(|error| io("read", path, &error))?;
    if bytes.len() > max {
        return Err(failed(format!("{} has more than {max} bytes", path.display())));
    }
    Ok(bytes)
}

/// Reads a whole file of UTF-8 text of at most `max` bytes.
pub(crate) fn read_text(path: &Path, max: usize) -> Outcome<String> {
    String::from_utf8(read(path, max)?).map_err(|_| failed(format!("{} is not UTF-8 text", path.display())))
}

/// Refuses a name that a file has already, unless it may be replaced.
pub(crate) fn must_be_free(path: &Path, replace: bool) -> Outcome {
    if !replace && path.exists() {
        return Err(failed(format!("{} exists", path.display())).todo("Give --force to replace it, or another name."));
    }
    Ok(())
}

/// Writes a new file and its folder entry durably. An existing one is kept, unless `replace`.
pub(crate) fn write(path: &Path, bytes: &[u8], replace: bool) -> Outcome {
    must_be_free(path, replace)?;
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let name = path.file_name().ok_or_else(|| failed(format!("{} is not a file name", path.display())))?;
    let mut part = name.to_owned();
    part.push(format!(".{}.part", std::process::id()));
    let part = parent.join(part);
    let written =
        write_synced(&part, bytes).and_then(|()| fs::rename(&part, path)).and_then(|()| File::open(parent)?.sync_all());
    written.map_err(|error| {
        let _ = fs::remove_file(&part);
        io("write", path, &error)
    })
}

fn write_synced(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// The failure of an operation on a file.
pub(crate) fn io(what: &str, path: &Path, error: &std::io::Error) -> Failure {
    failed(format!("cannot {what} {}: {error}", path.display()))
}
