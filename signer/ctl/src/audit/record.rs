//! `countersign record`: one record or several, decoded and checked.

use countersign_proto::v1;
use countersign_proto::v1::list_records_request::Select;
use countersign_trail::base64;
use countersign_trail::dsse;
use countersign_trail::keys::PublicKey;
use countersign_trail::note::KeyId;
use countersign_trail::record::Link;
use countersign_trail::tlog_proof::TlogProof;
use serde::Serialize;
use serde_json::Value;

use super::stored::{self, Checked, Part, PartState};
use crate::cli::{MAX_LIMIT, RecordArgs};
use crate::exit::{Outcome, failed, usage};
use crate::files;
use crate::output::{Output, fields, plain_lines, table};
use crate::remote::{Remote, Trust};

/// The most records that one page of an answer carries: with their parts, at most 100 MiB, of which
/// the message bound lets through what fits.
const PAGE: u32 = 50;

/// A record as it is shown.
#[derive(Serialize)]
struct View {
    /// The record itself, as JSON.
    record: Value,
    leaf_hash: String,
    /// How it was checked: `signature` or `inclusion`, or both.
    checked: Vec<&'static str>,
    /// Size of the checkpoint under which it is proven.
    proven_to_size: u64,
    /// Record mode: in wire form, base64.
    signature: Option<String>,
    parts: Vec<PartView>,
}

#[derive(Serialize)]
struct PartView {
    name: String,
    state: PartState,
    commitment: String,
    media_type: Option<String>,
    /// Length in bytes.
    length: Option<usize>,
    /// JSON parts as JSON.
    json: Option<Value>,
    /// Parts that are text.
    text: Option<String>,
    /// All other parts.
    base64: Option<String>,
}

/// The records of a query that may have several.
#[derive(Serialize)]
struct List {
    records: Vec<View>,
    /// Whether more records match than `--limit` lets through.
    more: bool,
}

/// `countersign record`.
pub(crate) async fn run(args: &RecordArgs, output: Output) -> Outcome {
    let select = select(args)?;
    let files = [&args.signed_bytes, &args.signature, &args.bytes];
    let wants_one = files.into_iter().any(Option::is_some);
    for path in files.into_iter().flatten() {
        files::must_be_free(path, args.force)?;
    }
    let mut remote = Remote::connect(&args.connect).await?;
    let trust = remote.trust().await?;
    let (found, more) = fetch(&mut remote, &trust, args, select).await?;
    let is_list = args.seq.is_none() && args.event_id.is_none();
    if found.is_empty() && (wants_one || !is_list) {
        return Err(failed(format!("no such record in {}", args.trail))
            .todo("countersign trails shows the sizes; an event_id belongs to one client (--client)."));
    }
    if wants_one && found.len() != 1 {
        return Err(usage(format!(
            "{} records were found, and --signed-bytes, --signature and --bytes are of one",
            found.len()
        ))
        .todo("Name the record by its sequence number."));
    }
    let mut views = Vec::new();
    for checked in &found {
        let proof = stored::prove(&mut remote, &trust, &args.trail, checked.record.header.seq, checked.leaf).await?;
        if wants_one {
            write_files(args, &trust, checked, &proof)?;
        }
        views.push(view(checked, &proof)?);
    }
    if !is_list {
        return views.iter().try_for_each(|view| output.show(view, one_text));
    }
    if more && !output.json {
        eprintln!("{}", more_text(args, &views));
    }
    output.show(&List { records: views, more }, |list| match list.records.as_slice() {
        [one] => one_text(one),
        several => list_text(several),
    })
}

/// Says that the list was cut, and how to get the rest.
fn more_text(args: &RecordArgs, views: &[View]) -> String {
    let shown = if views.len() == 1 { "1 record".to_owned() } else { format!("{} records", views.len()) };
    let mut text = format!("{shown} shown, there are more: --limit N (at most {MAX_LIMIT})");
    if let (None, Some(last)) = (&args.request_id, views.last()) {
        text.push_str(&format!(", or --from {}", last.record["time"].as_str().unwrap_or("-")));
    }
    text
}

/// What the arguments ask for.
fn select(args: &RecordArgs) -> Outcome<Select> {
    let window = args.from.is_some() || args.to.is_some();
    let given = [args.seq.is_some(), args.event_id.is_some(), args.request_id.is_some(), window];
    if given.iter().filter(|given| **given).count() != 1 {
        return Err(usage("which record is not clear")
            .todo("Give exactly one of SEQ, --event-id, --request-id, and a window by --from and --to."));
    }
    if let (Some(from), Some(to)) = (args.from, args.to)
        && from > to
    {
        return Err(usage(format!("--from {from} is after --to {to}")).todo("Exchange the two."));
    }
    Ok(match (&args.seq, &args.event_id, &args.request_id) {
        (Some(seq), _, _) => Select::FromSeq(*seq),
        (_, Some(event_id), _) => Select::EventId(event_id.clone()),
        (_, _, Some(request_id)) => Select::RequestId(request_id.clone()),
        _ => Select::Window(v1::TimeWindow { from: text_of(args.from), to: text_of(args.to) }),
    })
}

fn text_of(time: Option<countersign_trail::time::Timestamp>) -> String {
    time.map(|time| time.to_string()).unwrap_or_default()
}

/// The records that match, at most `--limit`, and whether there are more.
async fn fetch(remote: &mut Remote, trust: &Trust, args: &RecordArgs, select: Select) -> Outcome<(Vec<Checked>, bool)> {
    // One more than is shown tells whether there are more.
    let wanted = if args.seq.is_some() { 1 } else { args.limit + 1 };
    let mut request = v1::ListRecordsRequest {
        trail: args.trail.to_string(),
        select: Some(select),
        client: args.client.as_ref().map(ToString::to_string).unwrap_or_default(),
        page_size: wanted.min(PAGE),
        page_token: String::new(),
        with_parts: true,
    };
    let mut found = Vec::new();
    loop {
        let page = stored::page(remote, request.clone()).await?;
        for record in &page.records {
            if found.len() < wanted as usize && args.seq.is_none_or(|seq| seq == record.seq) {
                found.push(stored::check(trust, &args.trail, record)?);
            }
        }
        if page.next_page_token.is_empty() || found.len() >= wanted as usize || args.seq.is_some() {
            let more = args.seq.is_none() && found.len() >= wanted as usize;
            found.truncate(args.limit as usize);
            return Ok((found, more));
        }
        request.page_token = page.next_page_token;
    }
}

/// Writes what was signed, and the signature over it, for other tools.
fn write_files(args: &RecordArgs, trust: &Trust, checked: &Checked, proof: &TlogProof) -> Outcome {
    let (signed, signature) = match &checked.signature {
        Some(signature) => (dsse::pae(dsse::RECORD, &checked.bytes), signature.clone()),
        None => {
            let key = trust.checkpoint_key(&args.trail)?;
            (proof.checkpoint().note().text().as_bytes().to_vec(), note_signature(proof, args.trail.as_str(), key)?)
        }
    };
    for (path, bytes) in [(&args.signed_bytes, &signed), (&args.signature, &signature), (&args.bytes, &checked.bytes)] {
        if let Some(path) = path {
            files::write(path, bytes, args.force)?;
        }
    }
    Ok(())
}

fn note_signature(proof: &TlogProof, name: &str, key: &PublicKey) -> Outcome<Vec<u8>> {
    let id = KeyId::of(name, key);
    let line = proof.checkpoint().note().signatures().iter().find(|line| line.key_id() == id && line.name() == name);
    line.map(|line| line.signature().to_vec())
        .ok_or_else(|| failed("the checkpoint has no signature of the trail's key"))
}

fn view(checked: &Checked, proof: &TlogProof) -> Outcome<View> {
    let record =
        serde_json::from_slice(&checked.bytes).map_err(|error| failed(format!("the record is no JSON: {error}")))?;
    let mut how = vec!["inclusion"];
    if checked.signature.is_some() {
        how.insert(0, "signature");
    }
    Ok(View {
        record,
        leaf_hash: checked.leaf.to_string(),
        checked: how,
        proven_to_size: proof.checkpoint().checkpoint().size,
        signature: checked.signature.as_deref().map(base64::std_encode),
        parts: checked.parts.iter().map(part_view).collect(),
    })
}

fn part_view(part: &Part) -> PartView {
    let mut view = PartView {
        name: part.name.to_string(),
        state: part.state(),
        commitment: part.commitment.to_string(),
        media_type: None,
        length: None,
        json: None,
        text: None,
        base64: None,
    };
    if let Some(content) = &part.content {
        view.media_type = Some(content.media_type.clone());
        view.length = Some(content.data.len());
        let is_json = content.media_type == "application/json" || content.media_type.ends_with("+json");
        if let Some(json) = is_json.then(|| serde_json::from_slice(&content.data).ok()).flatten() {
            view.json = Some(json);
        } else if let Ok(text) = std::str::from_utf8(&content.data) {
            view.text = Some(text.to_owned());
        } else {
            view.base64 = Some(base64::std_encode(&content.data));
        }
    }
    view
}

fn one_text(view: &View) -> String {
    let member = |name: &str| match &view.record[name] {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        Value::Array(items) if items.iter().all(Value::is_string) => {
            items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ")
        }
        other => other.to_string(),
    };
    let mut rows = vec![
        ("Record", format!("{} of {}", member("seq"), member("trail"))),
        ("Checked", format!("{}, under the checkpoint of size {}", view.checked.join(" and "), view.proven_to_size)),
        ("Time", member("time")),
        ("Type", format!("{} ({}, {})", member("type"), member("kind"), member("category"))),
    ];
    if member("kind") == "event" {
        rows.push(("Decision", format!("{}, {}", member("decision"), member("result"))));
        rows.push(("Client", member("client")));
        rows.push(("Event id", member("event_id")));
        for link in serde_json::from_value::<Vec<Link>>(view.record["links"].clone()).unwrap_or_default() {
            rows.push((
                "Link",
                format!("{} record {} of {}, leaf hash {}", link.rel, link.seq, link.trail, link.leaf_hash),
            ));
        }
    }
    rows.push(("Leaf hash", view.leaf_hash.clone()));
    rows.push(("Previous", member("prev")));
    rows.push(("Keys", member("kids")));
    let mut text = fields(&rows);
    if let Some(body) = view.record.get("body") {
        let body = serde_json::to_string_pretty(body).unwrap_or_default();
        text.push_str(&format!("\nBody\n{}\n", plain_lines(&body)));
    }
    for part in &view.parts {
        text.push_str(&part_text(part));
    }
    text
}

fn part_text(part: &PartView) -> String {
    let (Some(media_type), Some(length)) = (&part.media_type, part.length) else {
        return format!("\nPart {}: withheld, commitment {}\n", part.name, part.commitment);
    };
    let content = match (&part.json, &part.text) {
        (Some(json), _) => serde_json::to_string_pretty(json).unwrap_or_default(),
        (None, Some(text)) => text.clone(),
        (None, None) => part.base64.clone().unwrap_or_default(),
    };
    let head = format!("Part {}: {media_type}, {length} bytes, matches its commitment", part.name);
    format!("\n{}\n{}\n", plain_lines(&head), plain_lines(&content))
}

fn list_text(views: &[View]) -> String {
    let member = |view: &View, name: &str| view.record[name].as_str().unwrap_or("-").to_owned();
    let columns = ["seq", "time", "type", "decision", "result", "client", "event_id"];
    let rows: Vec<Vec<String>> = views
        .iter()
        .map(|view| {
            let mut row: Vec<String> = columns.iter().map(|name| member(view, name)).collect();
            row.push(view.checked.join("+"));
            row
        })
        .collect();
    table(&["SEQ", "TIME", "TYPE", "DECISION", "RESULT", "CLIENT", "EVENT ID", "CHECKED"], &rows)
}
