//! `countersign trails` and `countersign status`.

use countersign_proto::v1;
use serde::Serialize;

use crate::cli::OverviewArgs;
use crate::exit::Outcome;
use crate::output::{Output, fields, table};
use crate::remote::{Remote, of_status};

/// A trail as the daemon tells it.
#[derive(Serialize)]
struct TrailView {
    origin: String,
    mode: String,
    size: u64,
    root: String,
    last_time: String,
    kids: Vec<String>,
    state: String,
    stopped: String,
}

impl TrailView {
    fn of(trail: &v1::Trail) -> TrailView {
        TrailView {
            origin: trail.origin.clone(),
            mode: trail.mode.clone(),
            size: trail.size,
            root: hex::encode(&trail.root),
            last_time: trail.last_time.clone(),
            kids: trail.kids.clone(),
            state: trail.state.clone(),
            stopped: trail.stopped.clone(),
        }
    }

    /// The state in one word, and why nothing is signed in an open trail.
    fn state(&self) -> String {
        match self.state.as_str() {
            "open" if !self.stopped.is_empty() => format!("stopped: {}", self.stopped),
            state => state.to_owned(),
        }
    }
}

fn trail_table(trails: &[TrailView]) -> String {
    let rows: Vec<Vec<String>> = trails
        .iter()
        .map(|trail| {
            vec![
                trail.origin.clone(),
                trail.mode.clone(),
                trail.size.to_string(),
                trail.last_time.clone(),
                trail.state(),
            ]
        })
        .collect();
    table(&["TRAIL", "MODE", "SIZE", "LAST RECORD", "STATE"], &rows)
}

/// `countersign trails`: as the daemon tells it, unchecked; `head` checks.
pub(crate) async fn trails(args: &OverviewArgs, output: Output) -> Outcome {
    let mut remote = Remote::connect(&args.connect).await?;
    let answer = remote.audit.list_trails(v1::ListTrailsRequest {}).await.map_err(|status| of_status(&status))?;
    let trails: Vec<TrailView> = answer.into_inner().trails.iter().map(TrailView::of).collect();
    output.show(&trails, |trails| trail_table(trails))
}

/// What the daemon is doing.
#[derive(Serialize)]
struct StatusView {
    instance: String,
    version: String,
    genesis: String,
    genesis_is_the_pinned_one: Option<bool>,
    started_at: String,
    tokens: Vec<TokenView>,
    trails: Vec<TrailView>,
    clients: Vec<ClientView>,
}

#[derive(Serialize)]
struct TokenView {
    role: String,
    serial: String,
    state: String,
    reason: String,
    workers: u32,
}

#[derive(Serialize)]
struct ClientView {
    client: String,
    offered: u64,
    signed: u64,
    denied: u64,
    failed: u64,
}

impl ClientView {
    fn has_any(&self) -> bool {
        [self.offered, self.signed, self.denied, self.failed].iter().any(|count| *count > 0)
    }
}

/// `countersign status`.
pub(crate) async fn status(args: &OverviewArgs, output: Output) -> Outcome {
    let mut remote = Remote::connect(&args.connect).await?;
    let answer = remote.audit.get_status(v1::GetStatusRequest {}).await.map_err(|status| of_status(&status))?;
    let status = answer.into_inner();
    let genesis = hex::encode(&status.genesis);
    let token = |token: &v1::TokenStatus| TokenView {
        role: token.role.clone(),
        serial: token.serial.clone(),
        state: token.state.clone(),
        reason: token.reason.clone(),
        workers: token.workers,
    };
    let client = |client: &v1::ClientCounts| ClientView {
        client: client.client.clone(),
        offered: client.offered,
        signed: client.signed,
        denied: client.denied,
        failed: client.failed,
    };
    let view = StatusView {
        genesis_is_the_pinned_one: remote.profile.pinned().map(|pinned| pinned.to_string() == genesis),
        instance: status.instance,
        version: status.version,
        genesis,
        started_at: status.started_at,
        tokens: status.tokens.iter().map(token).collect(),
        trails: status.trails.iter().map(TrailView::of).collect(),
        clients: status.clients.iter().map(client).collect(),
    };
    output.show(&view, status_text)
}

fn status_text(view: &StatusView) -> String {
    let pinned = match view.genesis_is_the_pinned_one {
        Some(true) => " (the pinned one)",
        Some(false) => " (NOT THE PINNED ONE)",
        None => "",
    };
    let mut text = fields(&[
        ("Instance", view.instance.clone()),
        ("Version", view.version.clone()),
        ("Genesis", format!("{}{pinned}", view.genesis)),
        ("Started", view.started_at.clone()),
    ]);
    let tokens: Vec<Vec<String>> = view
        .tokens
        .iter()
        .map(|token| {
            vec![
                token.role.clone(),
                token.serial.clone(),
                token.state.clone(),
                token.reason.clone(),
                token.workers.to_string(),
            ]
        })
        .collect();
    text.push_str("\nTokens\n");
    text.push_str(&table(&["TOKEN", "SERIAL", "STATE", "REASON", "WORKERS"], &tokens));
    text.push_str("\nTrails\n");
    text.push_str(&trail_table(&view.trails));
    let counts = |client: &ClientView| {
        let in_flight = client.offered.saturating_sub(client.signed + client.denied + client.failed);
        let mut row = vec![client.client.clone()];
        row.extend(
            [client.offered, client.signed, client.denied, client.failed, in_flight].map(|count| count.to_string()),
        );
        row
    };
    // Every member has a row, and most of them never send an event.
    let clients: Vec<Vec<String>> = view.clients.iter().filter(|client| client.has_any()).map(counts).collect();
    if clients.is_empty() {
        text.push_str("\nNo events since the start\n");
        return text;
    }
    text.push_str("\nEvents since the start\n");
    text.push_str(&table(&["CLIENT", "OFFERED", "SIGNED", "DENIED", "FAILED", "IN FLIGHT"], &clients));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_clients_with_events_have_a_row() {
        let client =
            |name: &str, denied| ClientView { client: name.to_owned(), offered: denied, signed: 0, denied, failed: 0 };
        let mut view = StatusView {
            instance: "demo-1".to_owned(),
            version: String::new(),
            genesis: String::new(),
            genesis_is_the_pinned_one: None,
            started_at: String::new(),
            tokens: Vec::new(),
            trails: Vec::new(),
            clients: vec![client("alice", 0), client("gw-1", 2)],
        };
        let text = status_text(&view);
        assert!(text.contains("\nEvents since the start\n") && text.contains("\ngw-1 "), "{text}");
        assert!(!text.contains("alice"), "{text}");
        view.clients.pop();
        assert!(status_text(&view).ends_with("\nNo events since the start\n"));
    }
}
