//! Probes: proof that a worker signs, checked in software.

use std::time::{SystemTime, UNIX_EPOCH};

use countersign_trail::dsse;
use countersign_trail::hash::Hash;
use countersign_trail::id::InstanceId;
use countersign_trail::jcs;
use countersign_trail::keys::{Kid, PublicKey};
use countersign_trail::signing::Probe;
use countersign_trail::time::Timestamp;

use crate::error::{HsmError, Reason};
use crate::mac::random;
use crate::protocol::Answer;

/// The payload of a probe with a fresh nonce.
pub(crate) fn payload(instance: &InstanceId, kid: &Kid, time: Timestamp) -> Result<Vec<u8>, HsmError> {
    let mut nonce = [0; 32];
    random(&mut nonce)?;
    let probe = Probe { instance: instance.clone(), kid: *kid, nonce: Hash::from_bytes(nonce), time };
    jcs::to_canonical(&probe).map_err(|error| HsmError::new(Reason::HsmRejected, format!("probe: {error}")))
}

/// The bytes that are signed for a probe made now.
pub(crate) fn message(instance: &InstanceId, kid: &Kid) -> Result<Vec<u8>, HsmError> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let micros = i64::try_from(since.as_micros()).unwrap_or(i64::MAX);
    let time = Timestamp::from_micros(micros).map_err(|error| HsmError::new(Reason::Io, error))?;
    Ok(dsse::pae(dsse::PROBE, &payload(instance, kid, time)?))
}

/// Whether the answer to a request with this one message is a signature that verifies.
pub(crate) fn check(public: &PublicKey, message: &[u8], answer: Answer) -> Result<(), HsmError> {
    let none = || HsmError::new(Reason::Protocol, "a probe was not answered by a signature");
    let Answer::Signed { first: 0, mut results } = answer else { return Err(none()) };
    let signature = results.pop().ok_or_else(none)??;
    public
        .verify(message, &signature.0)
        .map_err(|error| HsmError::new(Reason::BadSignature, format!("the probe of {}: {error}", public.kid())))
}
