//! Gives a reason to the refusals of the gRPC framework itself.
//!
//! Length, compression and Protobuf encoding of a request are checked before any service sees it,
//! and those errors carry a gRPC code alone. All of them are the caller's: [`with_reason`] adds the
//! reason to answers that are nothing but a status, [`refusal`] does so for a stream of requests.
//! Errors of our own services carry a reason already and pass unchanged.

use axum::http::Response;
use tonic::{Code, Status};

use crate::reason::{Reason, Refusal};

const DETAILS: &str = "grpc-status-details-bin";
const STATUS: &str = "grpc-status";
const MESSAGE: &str = "grpc-message";

/// The refusal of a request that the framework could not decode. None for any other status, such as
/// that of a connection that ended.
pub fn refusal(status: &Status) -> Option<Refusal> {
    let reason = match status.code() {
        Code::OutOfRange => Reason::MessageTooLarge,
        // Broken Protobuf (invalid UTF-8 too), a broken frame, a frame cut short, no message.
        Code::Internal => Reason::InvalidRequest,
        // A compressed request, which is named; a method that does not exist comes without a word.
        Code::Unimplemented if !status.message().is_empty() => Reason::InvalidRequest,
        _ => return None,
    };
    status.details().is_empty().then(|| Refusal::new(reason, status.message()))
}

/// Adds the reason to an answer that is nothing but the framework's status; for
/// `tower::util::MapResponseLayer` around every service.
pub fn with_reason<B>(mut response: Response<B>) -> Response<B> {
    let headers = response.headers_mut();
    let refused = match headers.contains_key(DETAILS) {
        true => None,
        false => Status::from_header_map(headers).and_then(|status| refusal(&status)),
    };
    if let Some(refusal) = refused {
        let plain = headers.clone();
        headers.remove(STATUS);
        headers.remove(MESSAGE);
        // A status that cannot be written as headers: the framework's own is better than none.
        if refusal.to_status().add_header(headers).is_err() {
            *headers = plain;
        }
    }
    response
}
