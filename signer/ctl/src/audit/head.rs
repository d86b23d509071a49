//! `countersign head`.

use countersign_trail::hash::Hash;
use serde::Serialize;

use super::heads::{Heads, Seen};
use crate::cli::HeadArgs;
use crate::exit::Outcome;
use crate::files;
use crate::output::{Output, fields};
use crate::remote::Remote;

#[derive(Serialize)]
struct View {
    trail: String,
    size: u64,
    root: Hash,
    kid: String,
    seen: Seen,
    checkpoint: String,
}

/// Fetches a trail's newest checkpoint, verifies it, and holds it against the last one seen.
pub(crate) async fn run(args: &HeadArgs, output: Output) -> Outcome {
    if let Some(out) = &args.out {
        files::must_be_free(out, args.force)?;
    }
    let mut remote = Remote::connect(&args.connect).await?;
    let trust = remote.trust().await?;
    let head = remote.head(&trust, &args.trail).await?;
    let heads = Heads::open(trust.state.fingerprint)?;
    let seen = heads.check(&mut remote, &trust, &args.trail, &head).await?;
    if let Some(out) = &args.out {
        files::write(out, &head.to_bytes(), args.force)?;
    }
    let view = View {
        trail: args.trail.to_string(),
        size: head.checkpoint().size,
        root: head.checkpoint().root,
        kid: trust.checkpoint_key(&args.trail)?.kid().to_string(),
        seen,
        checkpoint: String::from_utf8_lossy(&head.to_bytes()).into_owned(),
    };
    output.show(&view, text)
}

fn text(view: &View) -> String {
    let seen = match view.seen {
        Seen::First => "first head of this trail seen here",
        Seen::Same => "the same as the last one seen",
        Seen::Continues => "continues the last one seen (consistency proven)",
        Seen::Older => "OLDER than the last one seen, which continues it (consistency proven)",
    };
    fields(&[
        ("Trail", view.trail.clone()),
        ("Size", view.size.to_string()),
        ("Root", view.root.to_string()),
        ("Signed by", format!("{} (verified)", view.kid)),
        ("History", seen.to_owned()),
    ])
}
