//! `countersign export --csv`: one trail as a flat table for spreadsheets.
//!
//! Every record is checked, and all of them together are held against the trail's signed head
//! before the file gets its name. The table itself is no evidence: it carries no signatures.

use std::path::{Path, PathBuf};

use countersign_proto::v1;
use countersign_proto::v1::list_records_request::Select;
use countersign_trail::tree::CompactRange;
use serde::Serialize;

use super::export::Partial;
use super::{flat, stored};
use crate::cli::ExportArgs;
use crate::exit::{Exit, Failure, Outcome, failed, usage};
use crate::files;
use crate::output::{Output, fields};
use crate::progress::Progress;
use crate::remote::Remote;

/// Records of one page. Facts and subject are short; request and response may have a mebibyte each.
const PAGE: u32 = 50;

#[derive(Serialize)]
struct View {
    file: PathBuf,
    trail: String,
    records: u64,
    root: String,
}

/// Writes the table of one trail.
pub(crate) async fn run(args: &ExportArgs, out: &Path, output: Output) -> Outcome {
    let [trail] = args.trail.as_slice() else {
        return Err(usage("--csv is of one trail").todo("Give exactly one --trail."));
    };
    if !args.withhold.is_empty() {
        return Err(usage("--withhold goes with --out: the table never holds request or response")
            .todo("Leave --withhold out."));
    }
    files::must_be_free(out, args.force)?;
    let mut remote = Remote::connect(&args.connect).await?;
    let trust = remote.trust().await?;
    let head = remote.head(&trust, trail).await?;
    let head = head.checkpoint();
    let mut part = Partial::create(out)?;
    part.write(&line(flat::COLUMNS.iter().map(|name| (*name).to_owned()))?)?;
    let progress = Progress::records(args.progress, "export", head.size);
    let mut tree = CompactRange::empty();
    while tree.size() < head.size {
        let request = v1::ListRecordsRequest {
            trail: trail.to_string(),
            select: Some(Select::FromSeq(tree.size())),
            page_size: PAGE,
            with_parts: true,
            ..v1::ListRecordsRequest::default()
        };
        let page = stored::page(&mut remote, request).await?;
        let before = tree.size();
        for record in page.records.iter().take_while(|record| record.seq < head.size) {
            if record.seq != tree.size() {
                return Err(missing(tree.size(), &format!("record {} came instead", record.seq)));
            }
            let checked = stored::check(&trust, trail, record)?;
            part.write(&line(flat::row(&checked).into_iter())?)?;
            tree.push(checked.leaf).map_err(|error| failed(error.to_string()))?;
        }
        if tree.size() == before {
            return Err(missing(before, "the daemon gave none"));
        }
        progress.at(tree.size());
    }
    progress.done();
    if tree.root() != head.root {
        let message = format!(
            "the records of {trail} have root {}, its signed head of size {} says {}",
            tree.root(),
            head.size,
            head.root
        );
        return Err(Failure::new(Exit::Tampered, message)
            .todo("Nothing was written. Export the evidence and verify it with countersign-verify."));
    }
    part.keep()?;
    let view = View { file: out.to_owned(), trail: trail.to_string(), records: head.size, root: head.root.to_string() };
    output.show(&view, |view| {
        fields(&[
            ("Table", view.file.display().to_string()),
            ("Records", format!("{} of {}, all of them under its signed head", view.records, view.trail)),
            ("Root", view.root.clone()),
        ])
    })
}

fn missing(seq: u64, problem: &str) -> Failure {
    Failure::new(Exit::Tampered, format!("record {seq} is missing: {problem}")).todo("Nothing was written.")
}

/// One line of CSV (RFC 4180), its formulas disarmed.
fn line(cells: impl Iterator<Item = String>) -> Outcome<Vec<u8>> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(cells.map(flat::disarm)).map_err(|error| failed(format!("CSV: {error}")))?;
    writer.into_inner().map_err(|error| failed(format!("CSV: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_quoted_and_disarmed() {
        let cells = ["=1+1", "a,b", "say \"hi\"", "two\nlines", "plain"].map(str::to_owned);
        let text = String::from_utf8(line(cells.into_iter()).unwrap()).unwrap();
        assert_eq!(text, "'=1+1,\"a,b\",\"say \"\"hi\"\"\",\"two\nlines\",plain\n");
    }
}
