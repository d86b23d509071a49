//! Logging to standard error, and trace context from callers.
//!
//! A log line names reasons, trails, members, sizes and times: never content, PINs or keys.

use std::io::IsTerminal;

use tonic::metadata::MetadataMap;
use tracing::Span;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{LevelFilter, ParseError};

use crate::config::{Log, LogFormat};
use crate::peer::Peer;

/// Why logging cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// `log.filter` is not a list of directives.
    #[error("log.filter: {0}")]
    Filter(#[from] FilterError),
    /// Logging has been set up before in this process.
    #[error("logging was set up twice")]
    Twice,
}

/// Why a filter is refused.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// A directive does not parse.
    #[error(transparent)]
    Directive(#[from] ParseError),
    /// A word that is no level: it would be taken for a target's name, and silence everything else.
    #[error("{0:?} is no level; allowed are error, warn, info, debug, trace and off, or target=level")]
    Level(String),
}

/// Begins to log as configured. Once per process.
///
/// # Errors
/// A filter that does not parse, or a second call.
pub fn init(config: &Log) -> Result<(), LogError> {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter(&config.filter)?)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let done = match config.format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(true).with_span_list(false).try_init(),
    };
    done.map_err(|_| LogError::Twice)
}

/// Parses the directives of `log.filter`.
///
/// # Errors
/// A directive that is not `level` or `target=level`.
pub fn filter(directives: &str) -> Result<EnvFilter, FilterError> {
    let words = directives.split(',').map(str::trim).filter(|word| !word.is_empty());
    if let Some(word) = words.filter(|word| !word.contains('=')).find(|word| word.parse::<LevelFilter>().is_err()) {
        return Err(FilterError::Level(word.to_owned()));
    }
    Ok(EnvFilter::builder().parse(directives)?)
}

/// A caller's place in its own trace (W3C Trace Context, `traceparent`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext {
    /// 32 lower-case hexadecimal digits, not all zero.
    pub trace_id: String,
    /// 16 lower-case hexadecimal digits, not all zero.
    pub parent_id: String,
}

impl TraceContext {
    /// From a call's metadata; None where there is none or it breaks the standard, which says to
    /// ignore it then.
    pub fn of(metadata: &MetadataMap) -> Option<TraceContext> {
        let mut values = metadata.get_all("traceparent").iter();
        let value = values.next()?;
        if values.next().is_some() {
            return None;
        }
        TraceContext::parse(value.to_str().ok()?)
    }

    /// Parses a `traceparent`: version, trace-id, parent-id, trace-flags. A later version may have
    /// more behind them.
    pub fn parse(text: &str) -> Option<TraceContext> {
        const LEN: usize = 2 + 1 + 32 + 1 + 16 + 1 + 2;
        let (known, rest) = text.split_at_checked(LEN)?;
        let parts: Vec<&str> = known.split('-').collect();
        let [version, trace_id, parent_id, flags] = parts.as_slice() else { return None };
        let is_hex =
            |text: &str, len: usize| text.len() == len && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let is_id = |text: &str, len: usize| is_hex(text, len) && text.bytes().any(|b| b != b'0');
        let version_ok =
            is_hex(version, 2) && *version != "ff" && (rest.is_empty() || (*version != "00" && rest.starts_with('-')));
        if version_ok && is_id(trace_id, 32) && is_id(parent_id, 16) && is_hex(flags, 2) {
            Some(TraceContext { trace_id: (*trace_id).to_owned(), parent_id: (*parent_id).to_owned() })
        } else {
            None
        }
    }
}

/// The span of one call: operation, SPIFFE ID and connection of the caller, its trace context.
pub fn call_span(operation: &'static str, metadata: &MetadataMap, peer: Option<&Peer>) -> Span {
    let trace = TraceContext::of(metadata);
    tracing::info_span!(
        "call",
        operation,
        peer = peer.map(Peer::spiffe_id),
        connection = peer.map(Peer::connection),
        trace_id = trace.as_ref().map(|trace| trace.trace_id.as_str()),
        parent_id = trace.as_ref().map(|trace| trace.parent_id.as_str()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const PARENT: &str = "00f067aa0ba902b7";

    #[test]
    fn the_standards_example_parses() {
        let want = TraceContext { trace_id: TRACE.to_owned(), parent_id: PARENT.to_owned() };
        for text in [format!("00-{TRACE}-{PARENT}-01"), format!("01-{TRACE}-{PARENT}-00-more")] {
            assert_eq!(TraceContext::parse(&text), Some(want.clone()), "{text}");
        }
    }

    #[test]
    fn anything_else_is_ignored() {
        let zero = "0".repeat(32);
        for text in [
            String::new(),
            "é".repeat(40),
            format!("ff-{TRACE}-{PARENT}-01"),
            format!("00-{TRACE}-{PARENT}-01-more"),
            format!("00-{TRACE}-{PARENT}-01x"),
            format!("01-{TRACE}-{PARENT}-01x"),
            format!("00-{}-{PARENT}-01", TRACE.to_uppercase()),
            format!("00-{zero}-{PARENT}-01"),
            format!("00-{TRACE}-{}-01", &zero[..16]),
            format!("00-{TRACE}{PARENT}--01-"),
        ] {
            assert_eq!(TraceContext::parse(&text), None, "{text}");
        }
    }

    #[test]
    fn two_headers_are_none() {
        let value = format!("00-{TRACE}-{PARENT}-01");
        let mut metadata = MetadataMap::new();
        metadata.append("traceparent", value.parse().unwrap());
        assert!(TraceContext::of(&metadata).is_some());
        metadata.append("traceparent", value.parse().unwrap());
        assert_eq!(TraceContext::of(&metadata), None);
    }

    #[test]
    fn filters_are_checked() {
        for known in ["info,countersignd=debug,h2=off", "WARN", "h2=off, trace", ""] {
            assert!(filter(known).is_ok(), "{known}");
        }
        assert!(filter("countersignd=loud").is_err());
        for typo in ["inof", "info,debgu", "countersignd", "warning"] {
            let error = filter(typo).unwrap_err().to_string();
            assert!(error.contains("is no level; allowed are error, warn, info"), "{error}");
        }
    }
}
