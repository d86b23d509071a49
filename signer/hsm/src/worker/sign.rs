//! Signs one message: purpose, position, mark and guard first, then the token.

use countersign_trail::ecdsa;
use countersign_trail::hash::Hash;
use countersign_trail::keys::{Algorithm, ED25519_SIGNATURE_LEN};
use countersign_trail::signing::{Position, Purpose, position_of};
use cryptoki::error::Error;
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::eddsa::{EddsaParams, EddsaSignatureScheme};
use cryptoki::object::ObjectHandle;
use cryptoki::session::Session;

use super::engine::{BoundKey, Lookup, look};
use super::keys::KeyTrouble;
use super::session::SessionThread;
use crate::config::MAX_MESSAGE_BYTES;
use crate::error::{Halt, HsmError, Reason};
use crate::ladder::MAX_ATTEMPTS;
use crate::mark::{self, Mark, Marked};
use crate::protocol::WireItem;
use crate::sync::lock;

/// Why the token gave no signature.
pub(super) enum SignTrouble {
    /// A call failed; the ladder says what follows.
    Call(Error),
    /// It answered something that is no signature.
    Form(HsmError),
}

/// One signature in wire form: Ed25519 over the whole message; ECDSA over its SHA-256, hashed
/// here, with low S.
pub(super) fn raw_sign(
    session: &Session,
    algorithm: Algorithm,
    key: ObjectHandle,
    message: &[u8],
) -> Result<Vec<u8>, SignTrouble> {
    match algorithm {
        Algorithm::Ed25519 => {
            let mechanism = Mechanism::Eddsa(EddsaParams::new(EddsaSignatureScheme::Pure));
            let signature = session.sign(&mechanism, key, message).map_err(SignTrouble::Call)?;
            if signature.len() == ED25519_SIGNATURE_LEN {
                return Ok(signature);
            }
            let text = format!("an Ed25519 signature of {} bytes", signature.len());
            Err(SignTrouble::Form(HsmError::new(Reason::BadSignature, text)))
        }
        Algorithm::EcdsaP256 => {
            // CKM_ECDSA cuts an over-long digest silently; this one has exactly 32 bytes.
            let digest = Hash::of(message).to_bytes();
            let raw = session.sign(&Mechanism::Ecdsa, key, &digest).map_err(SignTrouble::Call)?;
            ecdsa::raw_to_der_low_s(&raw).map_err(|error| SignTrouble::Form(HsmError::new(Reason::BadSignature, error)))
        }
    }
}

impl SessionThread {
    /// Signs one item, or says why not.
    pub(super) fn sign(&mut self, item: &WireItem) -> Result<Vec<u8>, HsmError> {
        let message = &item.message.0;
        if message.len() > MAX_MESSAGE_BYTES {
            let text = format!("a message of {} bytes, at most {MAX_MESSAGE_BYTES}", message.len());
            return Err(HsmError::new(Reason::TooLarge, text));
        }
        let key = self.engine.key(&item.kid)?;
        let position = position_of(key.binding.purpose, key.binding.trail.as_ref(), &item.kid, message)
            .map_err(|error| HsmError::new(Reason::PurposeMismatch, error))?;
        let recovery = match &item.recovery {
            None => false,
            Some(proof) if self.engine.mac.check(proof)? => true,
            Some(_) => {
                let text = format!("the MAC that came with {position} does not hold");
                return Err(HsmError::new(Reason::RecoveryRefused, text));
            }
        };
        self.handle_of(&key)?;
        let input = Hash::of(message);
        // The mark first: what it refuses must not stand in the guard's way of the right input.
        let marked = match (key.binding.purpose, &position) {
            (Purpose::AdminCheckpoint, Position::Checkpoint { origin, size }) => {
                Some((Marked::checkpoints(origin), *size))
            }
            (Purpose::Evidence, Position::Statement { kid, number }) => Some((Marked::statements(kid), *number)),
            _ => None,
        };
        if let Some((of, size)) = marked {
            let mark = Mark { of, size, input };
            mark::begin(&self.engine.config.state_dir, &self.engine.mac, mark)?;
        }
        lock(&self.engine.guard).admit(&position, input, recovery)?;
        self.sign_admitted(&key, message)
    }

    /// The key's handle; a key that was refused before is looked for again.
    fn handle_of(&mut self, key: &BoundKey) -> Result<ObjectHandle, HsmError> {
        if let Lookup::Found(handle) = &*lock(&key.lookup) {
            return Ok(*handle);
        }
        let limit = self.engine.config.slow_deadline();
        let error = match self.timed(limit, |session| look(session, &key.binding, &key.public)) {
            Ok(handle) => {
                *lock(&key.lookup) = Lookup::Found(handle);
                return Ok(handle);
            }
            Err(KeyTrouble::Refused(error)) => error,
            Err(KeyTrouble::Call(error)) => {
                self.recover(&error, None)?;
                HsmError::new(Reason::HsmUnavailable, "the key could not be looked for; repeat")
            }
        };
        Err(error)
    }

    fn sign_admitted(&mut self, key: &BoundKey, message: &[u8]) -> Result<Vec<u8>, HsmError> {
        let algorithm = key.public.algorithm();
        let limit = self.engine.config.call_deadline;
        let mut text = String::new();
        for _ in 0..MAX_ATTEMPTS {
            let handle = self.handle_of(key)?;
            match self.timed(limit, |session| raw_sign(session, algorithm, handle, message)) {
                Ok(signature) => return Ok(signature),
                Err(SignTrouble::Form(error)) => return Err(error),
                Err(SignTrouble::Call(error)) => {
                    text = crate::ladder::judge(&error).1;
                    self.recover(&error, Some(key))?;
                }
            }
        }
        let text = format!("{MAX_ATTEMPTS} attempts failed, the last: {text}");
        self.engine.halt(Halt::replace(HsmError::new(Reason::HsmUnavailable, text)))
    }
}
