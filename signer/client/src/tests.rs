//! The client against a real server that fails as a script says.

mod calls;
mod connecting;
mod streams;

use std::time::Duration;

use countersign_proto::v1;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::testing::plain_event;

/// An error of the daemon, with a reason; `retry` milliseconds later it may be repeated.
fn refusal(code: Code, reason: &str, retry: Option<u64>) -> Status {
    let mut details = ErrorDetails::with_error_info(reason, crate::retry::ERROR_DOMAIN, []);
    if let Some(millis) = retry {
        details.set_retry_info(Some(Duration::from_millis(millis)));
    }
    Status::with_error_details(code, "as the script says", details)
}

fn refused(reason: &str, retry_after_ms: u64) -> v1::Refused {
    v1::Refused { code: Code::Unavailable.into(), reason: reason.to_owned(), message: String::new(), retry_after_ms }
}

/// So many events without event_ids.
fn events(count: usize) -> Vec<v1::Event> {
    vec![plain_event(""); count]
}
