//! The newest receipt of each trail, kept between runs: it goes out with the first request of the
//! next run, so that a daemon which lost records meanwhile (a restored backup) is found out.

use std::path::PathBuf;

use countersign_client::Client;
use countersign_trail::hash::Hash;
use countersign_trail::origin::Origin;
use countersign_trail::receipt::{MAX_RECEIPT_LEN, Receipt};

use crate::exit::{Exit, Outcome, failed};
use crate::files;
use crate::remote::of_client;
use crate::state::Folder;

/// Gives the client the newest receipt of the trail that is kept, if there is one.
pub(super) fn hold(client: &Client, fingerprint: Hash, trail: &Origin) -> Outcome {
    let (_folder, path) = file(fingerprint, trail)?;
    let Some(kept) = read(&path)? else { return Ok(()) };
    client.hold(&kept).map_err(|error| {
        let failure = of_client(error);
        let message = format!("the kept receipt {}: {failure}", path.display());
        match failure.exit {
            exit @ (Exit::Fork | Exit::Tampered) => crate::exit::Failure::new(exit, message),
            _ => failed(message).todo("Compare it with another copy, then move it away."),
        }
    })
}

/// Keeps the newest receipt that the client holds, unless a newer one is kept already.
pub(super) fn keep(client: &Client, fingerprint: Hash, trail: &Origin) -> Outcome {
    let Some(newest) = client.newest(trail.as_str()) else { return Ok(()) };
    let (_folder, path) = file(fingerprint, trail)?;
    let kept = read(&path)?.and_then(|kept| Receipt::parse(&kept).ok());
    if kept.is_some_and(|kept| kept.record.header.seq >= newest.seq) {
        return Ok(());
    }
    files::write(&path, &newest.to_json().map_err(|error| failed(error.to_string()))?, true)
}

/// The locked folder, and the trail's file in it.
fn file(fingerprint: Hash, trail: &Origin) -> Outcome<(Folder, PathBuf)> {
    let folder = Folder::open(fingerprint, "receipts")?;
    let path = folder.path(trail.path_segment());
    Ok((folder, path))
}

fn read(path: &std::path::Path) -> Outcome<Option<Vec<u8>>> {
    if path.exists() { files::read(path, MAX_RECEIPT_LEN).map(Some) } else { Ok(None) }
}
