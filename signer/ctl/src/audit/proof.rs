//! `countersign proof`: a C2SP tlog-proof that is checked alone, offline.

use countersign_proto::v1;
use countersign_proto::v1::list_records_request::Select;
use serde::Serialize;

use super::stored;
use crate::cli::ProofArgs;
use crate::exit::{Outcome, failed};
use crate::files;
use crate::output::{Output, fields};
use crate::remote::Remote;

#[derive(Serialize)]
struct View {
    trail: String,
    seq: u64,
    leaf_hash: String,
    size: u64,
    root: String,
    kid: String,
    proof: String,
}

/// Fetches a record and its proof, and verifies both.
pub(crate) async fn run(args: &ProofArgs, output: Output) -> Outcome {
    for path in [&args.out, &args.record].into_iter().flatten() {
        files::must_be_free(path, args.force)?;
    }
    let mut remote = Remote::connect(&args.connect).await?;
    let trust = remote.trust().await?;
    let request = v1::ListRecordsRequest {
        trail: args.trail.to_string(),
        select: Some(Select::FromSeq(args.seq)),
        page_size: 1,
        ..v1::ListRecordsRequest::default()
    };
    let page = stored::page(&mut remote, request).await?;
    let record = page.records.first().filter(|record| record.seq == args.seq).ok_or_else(|| {
        failed(format!("{} has no record {}", args.trail, args.seq)).todo("countersign trails shows the sizes.")
    })?;
    let checked = stored::check(&trust, &args.trail, record)?;
    let proof = stored::prove(&mut remote, &trust, &args.trail, args.seq, checked.leaf).await?;
    if let Some(out) = &args.out {
        files::write(out, &proof.to_bytes(), args.force)?;
    }
    if let Some(out) = &args.record {
        files::write(out, &checked.bytes, args.force)?;
    }
    let checkpoint = proof.checkpoint().checkpoint();
    let view = View {
        trail: args.trail.to_string(),
        seq: args.seq,
        leaf_hash: checked.leaf.to_string(),
        size: checkpoint.size,
        root: checkpoint.root.to_string(),
        kid: trust.checkpoint_key(&args.trail)?.kid().to_string(),
        proof: String::from_utf8_lossy(&proof.to_bytes()).into_owned(),
    };
    let bare = args.out.is_none();
    output.show(&view, |view| if bare { view.proof.clone() } else { text(view) })
}

fn text(view: &View) -> String {
    fields(&[
        ("Record", format!("{} of {}", view.seq, view.trail)),
        ("Leaf hash", view.leaf_hash.clone()),
        ("Proven under", format!("the checkpoint of size {}, root {}", view.size, view.root)),
        ("Signed by", format!("{} (verified)", view.kid)),
    ])
}
