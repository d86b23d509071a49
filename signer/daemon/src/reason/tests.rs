use std::collections::BTreeSet;

use super::*;

const DOCS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/src/errors.md");
const BEGIN: &str = "<!-- reasons: begin -->\n";
const END: &str = "<!-- reasons: end -->";

#[test]
fn the_table_is_in_the_order_of_the_enumeration() {
    for (index, row) in TABLE.iter().enumerate() {
        assert_eq!(row.reason as usize, index, "{}", row.code);
        // SCREAMING_SNAKE of the variant's name: one name, two spellings.
        let mut name = String::new();
        for c in format!("{:?}", row.reason).chars() {
            if c.is_ascii_uppercase() && !name.is_empty() {
                name.push('_');
            }
            name.push(c.to_ascii_uppercase());
        }
        assert_eq!(row.code, name);
        assert_ne!(row.outcome, Outcome::Succeeded);
        assert!(row.meaning.ends_with('.') && row.action.ends_with('.'));
    }
    assert_eq!(TABLE.iter().map(|row| row.code).collect::<BTreeSet<_>>().len(), COUNT);
}

/// Both ways: every reason stands in the docs, and the docs have no other one.
/// `UPDATE_DOCS=1 cargo test -p countersignd docs_hold` writes the table.
#[test]
fn the_docs_hold_this_table() {
    let text = std::fs::read_to_string(DOCS).unwrap();
    let (before, rest) = text.split_once(BEGIN).unwrap();
    let (table, after) = rest.split_once(END).unwrap();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(DOCS, format!("{before}{BEGIN}{}{END}{after}", markdown_table())).unwrap();
        return;
    }
    assert_eq!(table, markdown_table(), "docs/src/errors.md is out of date");
}

#[test]
fn a_status_carries_reason_and_time() {
    let status = Refusal::new(Reason::RateLimited, "too fast").retry_after(Duration::from_millis(40)).to_status();
    assert_eq!((status.code(), status.message()), (Code::ResourceExhausted, "too fast"));
    let info = status.get_details_error_info().unwrap();
    assert_eq!((info.reason.as_str(), info.domain.as_str()), ("RATE_LIMITED", "countersign"));
    assert_eq!(status.get_details_retry_info().unwrap().retry_delay, Some(Duration::from_millis(40)));

    let status = to_status(Reason::InvalidEvent, "no type");
    assert_eq!(status.get_details_error_info().unwrap().reason, "INVALID_EVENT");
    assert!(status.get_details_retry_info().is_none());
}

#[test]
fn only_retryable_refusals_have_a_time() {
    for reason in Reason::all() {
        let refused = Refusal::from(reason).retry_after(Duration::from_micros(1)).to_refused();
        assert_eq!(refused.retry_after_ms > 0, reason.retryable(), "{reason}");
        assert_eq!(refused.code, reason.grpc_code() as i32);
        assert_eq!(refused.reason, reason.code());
    }
}

#[test]
fn messages_are_cut_at_a_character() {
    let refusal = Refusal::new(Reason::Internal, format!("x{}", "ä".repeat(MAX_MESSAGE_BYTES)));
    assert_eq!(refusal.message().len(), MAX_MESSAGE_BYTES - 1);
}
