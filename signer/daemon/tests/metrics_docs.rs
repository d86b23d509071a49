//! The table of metrics in operations.md, against what is scraped.
#![cfg(test)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use countersign_trail::document::TokenRole;
use countersign_trail::id::MemberId;
use countersign_trail::origin::Origin;
use countersignd::metrics::{HsmState, Metrics, RefusedConnection, Stage};
use countersignd::reason::Outcome;

const DOCS: &str = include_str!("../../../docs/src/operations.md");
/// Histograms: what is appended to their name, and the label of a bucket.
const HISTOGRAM: [&str; 3] = ["_bucket", "_sum", "_count"];
const BUCKET: &str = "le";

/// Every metric once, so that every label shows.
fn scraped() -> BTreeMap<String, BTreeSet<String>> {
    let member = MemberId::parse("a").unwrap();
    let trail = Origin::parse("acme.example/x").unwrap();
    let metrics = Metrics::new([member.clone()], [trail.clone()]);
    metrics.operation("Sign", Ok(()));
    metrics.offered(&member, 1);
    metrics.records(Some(&trail), &member, Outcome::Succeeded, 1);
    metrics.stage(Stage::Hsm, Duration::from_millis(1));
    metrics.batch(1);
    metrics.in_flight((1, 1));
    metrics.hsm_state(TokenRole::Record, HsmState::Ready);
    metrics.tls_reload(Outcome::Succeeded);
    metrics.connection_refused(RefusedConnection::Total);
    let text = metrics.encode();
    let histograms: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" histogram")).collect();
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, labels) =
            line.rsplit_once(' ').unwrap().0.split_once('{').unwrap_or((line.split(' ').next().unwrap(), ""));
        let parts = histograms.iter().find(|whole| HISTOGRAM.iter().any(|part| name == format!("{whole}{part}")));
        let labels = labels.trim_end_matches('}').split("\",").filter_map(|label| label.split_once('='));
        let labels = labels.map(|(label, _)| label.to_owned()).filter(|label| label != BUCKET);
        found.entry(parts.map_or(name, |whole| whole).to_owned()).or_default().extend(labels);
    }
    found
}

#[test]
fn the_docs_name_every_metric_with_its_labels() {
    let rows = DOCS.lines().filter(|line| line.starts_with("| `countersign_"));
    let quoted = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<BTreeSet<_>>();
    let documented: BTreeMap<String, BTreeSet<String>> = rows
        .map(|row| {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            assert!(cells.len() == 6 && !cells[3].is_empty() && !cells[4].is_empty(), "{row}");
            (cells[1].trim_matches('`').to_owned(), quoted(cells[2]))
        })
        .collect();
    assert_eq!(documented, scraped(), "docs/src/operations.md is out of date");
}
