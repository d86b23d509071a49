//! The life of a key in the token: generated, made final, destroyed, swept, listed.
//!
//! A generation that is killed half-way leaves objects behind. So a key is first labelled
//! `pending:<instance>:<name>` and only a caller that has recorded it makes it final
//! (`countersign:<instance>:<name>`); what is still pending at a start is swept.
//!
//! Calls about the mark are here too: a mark begins with the keys.

use countersign_trail::dsse;
use countersign_trail::id::InstanceId;
use countersign_trail::keys::Algorithm;
use countersign_trail::time::TimeError;
use cryptoki::error::Error;
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;

use super::keys::{self, ED25519_PARAMS, KeyTrouble, P256_PARAMS};
use super::session::SessionThread;
use super::sign::{SignTrouble, raw_sign};
use crate::config::{CKA_ID_BYTES, GeneratedKey, KeySpec, ListedObject, TokenConfig};
use crate::error::{HsmError, Reason};
use crate::files;
use crate::ladder;
use crate::mac::random;
use crate::mark;
use crate::probe;
use crate::protocol::{Answer, Call};

/// Most objects of ours that a token may hold; beyond it listing and sweeping refuse.
const MAX_OBJECTS: usize = 4096;
/// Longest name of a key, in bytes.
const MAX_NAME_BYTES: usize = 200;
const PENDING: &str = "pending";
const FINAL: &str = "countersign";

/// Why an administrative call failed.
enum Trouble {
    Call(Error),
    Refused(HsmError),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Trouble {
        Trouble::Call(error)
    }
}

impl From<HsmError> for Trouble {
    fn from(error: HsmError) -> Trouble {
        Trouble::Refused(error)
    }
}

impl From<KeyTrouble> for Trouble {
    fn from(trouble: KeyTrouble) -> Trouble {
        match trouble {
            KeyTrouble::Call(error) => Trouble::Call(error),
            KeyTrouble::Refused(error) => Trouble::Refused(error),
        }
    }
}

impl From<SignTrouble> for Trouble {
    fn from(trouble: SignTrouble) -> Trouble {
        match trouble {
            SignTrouble::Call(error) => Trouble::Call(error),
            SignTrouble::Form(error) => Trouble::Refused(error),
        }
    }
}

impl SessionThread {
    /// One administrative call. It is never repeated by itself: the caller sees what the token
    /// holds and decides.
    pub(super) fn admin(&mut self, call: Call) -> Result<Answer, HsmError> {
        let limit = self.engine.config.slow_deadline();
        let result = self.timed(limit, |session| self.act(session, call));
        result.or_else(|trouble| match trouble {
            Trouble::Refused(error) => Err(error),
            Trouble::Call(error) => {
                self.recover(&error, None)?;
                let (remedy, text) = ladder::judge(&error);
                Err(ladder::failure(remedy, &text))
            }
        })
    }

    fn act(&self, session: &Session, call: Call) -> Result<Answer, Trouble> {
        let config = &self.engine.config;
        match call {
            Call::Bind(bindings) => match self.engine.bind(session, bindings) {
                Ok(refused) => Ok(Answer::Bound { refused }),
                Err(halt) => self.engine.halt(halt),
            },
            Call::Generate(spec) => {
                let fresh = self.engine.token.try_open_session()?;
                let key = generate(session, &fresh, &spec, config)?;
                Ok(Answer::Generated(Box::new(key)))
            }
            Call::Finalize { cka_id, instance, name } => {
                finalize(session, &cka_id, &instance, &name)?;
                sync(config)?;
                Ok(Answer::Done)
            }
            Call::Destroy { cka_id } => {
                destroy(session, &cka_id)?;
                sync(config)?;
                let fresh = self.engine.token.try_open_session()?;
                absent(&fresh, &cka_id)?;
                Ok(Answer::Done)
            }
            Call::Sweep { instance } => {
                let swept = sweep(session, &instance)?;
                sync(config)?;
                Ok(Answer::Listed(swept))
            }
            Call::List => Ok(Answer::Listed(ours(session)?.into_iter().map(|(_, object)| object).collect())),
            Call::Mark(of) => Ok(Answer::Marked(mark::get(&config.state_dir, &self.engine.mac, &of)?)),
            Call::CreateMark => {
                if let Some((_, object)) = ours(session)?.first() {
                    let text = format!("the token holds {:?}: its mark is not made anew", object.label);
                    return Err(HsmError::new(Reason::HsmRejected, text).into());
                }
                mark::create(&config.state_dir, &self.engine.mac)?;
                Ok(Answer::Done)
            }
            Call::ConfirmMark(mark) => {
                mark::confirm(&config.state_dir, &self.engine.mac, mark)?;
                Ok(Answer::Done)
            }
            Call::Start(_) | Call::Unbind(_) | Call::Sign(_) | Call::Mac(_) | Call::CheckMac(_) => {
                Err(HsmError::new(Reason::Protocol, "not a call for a session").into())
            }
        }
    }
}

fn sync(config: &TokenConfig) -> Result<(), HsmError> {
    config.sync_dir.as_deref().map_or(Ok(()), files::sync_tree)
}

fn label(state: &str, instance: &str, name: &str) -> Result<Vec<u8>, HsmError> {
    InstanceId::parse(instance).map_err(|error| HsmError::new(Reason::HsmRejected, error))?;
    let fits = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'/' | b'-');
    if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.bytes().all(fits) {
        let text = format!("a key's name has 1 to {MAX_NAME_BYTES} characters of a-z 0-9 . _ / -");
        return Err(HsmError::new(Reason::HsmRejected, text));
    }
    Ok(format!("{state}:{instance}:{name}").into_bytes())
}

/// Makes a key pair in the token and proves it: attributes read back, found again in `fresh`,
/// probe signed and verified, files synced.
fn generate(session: &Session, fresh: &Session, spec: &KeySpec, config: &TokenConfig) -> Result<GeneratedKey, Trouble> {
    let label = label(PENDING, &spec.instance, &spec.name)?;
    let rejected = |error: &dyn std::fmt::Display| HsmError::new(Reason::HsmRejected, error);
    let instance = InstanceId::parse(&spec.instance).map_err(|error| rejected(&error))?;
    let time = spec.time.parse().map_err(|error: TimeError| rejected(&error))?;
    let mut cka_id = vec![0; CKA_ID_BYTES];
    random(&mut cka_id)?;
    // Also makes a file token take notice of what other processes wrote: one that writes first
    // never sees it (SoftHSM 2.6.1).
    if !keys::find_all(session, ObjectClass::PRIVATE_KEY, &cka_id)?.is_empty() {
        let text = "the random CKA_ID is in use";
        return Err(HsmError::new(Reason::KeyAmbiguous, text).into());
    }
    let (mechanism, params) = match spec.algorithm {
        Algorithm::Ed25519 => (Mechanism::EccEdwardsKeyPairGen, ED25519_PARAMS.to_vec()),
        Algorithm::EcdsaP256 => (Mechanism::EccKeyPairGen, P256_PARAMS.to_vec()),
    };
    let public = [
        Attribute::Token(true),
        Attribute::Private(false),
        Attribute::Verify(true),
        Attribute::Encrypt(false),
        Attribute::Wrap(false),
        Attribute::EcParams(params),
        Attribute::Id(cka_id.clone()),
        Attribute::Label(label.clone()),
    ];
    let private = [
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Sign(true),
        Attribute::Decrypt(false),
        Attribute::Unwrap(false),
        Attribute::Derive(false),
        Attribute::Id(cka_id.clone()),
        Attribute::Label(label),
    ];
    session.generate_key_pair(&mechanism, &public, &private)?;
    sync(config)?;
    let found = keys::find(fresh, &cka_id)?;
    if found.public.algorithm() != spec.algorithm {
        let text = format!("asked for {}, the token made {}", spec.algorithm, found.public.algorithm());
        return Err(HsmError::new(Reason::KeyMismatch, text).into());
    }
    let probe_payload = probe::payload(&instance, &found.public.kid(), time)?;
    let message = dsse::pae(dsse::PROBE, &probe_payload);
    let probe_signature = raw_sign(fresh, spec.algorithm, found.handle, &message)?;
    if let Err(error) = found.public.verify(&message, &probe_signature) {
        return Err(HsmError::new(Reason::BadSignature, format!("the probe: {error}")).into());
    }
    Ok(GeneratedKey {
        kid: found.public.kid(),
        public_key: found.public.spki_der(),
        cka_id,
        attributes: found.attributes,
        probe_payload,
        probe_signature,
    })
}

/// Both objects of `cka_id`, which must carry a label of ours.
fn pair(session: &Session, cka_id: &[u8]) -> Result<Vec<(ObjectHandle, ListedObject)>, Trouble> {
    let mut pair = Vec::new();
    for (class, private) in [(ObjectClass::PRIVATE_KEY, true), (ObjectClass::PUBLIC_KEY, false)] {
        for handle in keys::find_all(session, class, cka_id)? {
            let object = describe(session, handle, private)?;
            if !is_ours(&object.label) {
                let text = format!("an object with this CKA_ID is labelled {:?}, not ours", object.label);
                return Err(HsmError::new(Reason::HsmRejected, text).into());
            }
            pair.push((handle, object));
        }
    }
    Ok(pair)
}

/// Gives both objects the final label; done already is fine.
fn finalize(session: &Session, cka_id: &[u8], instance: &str, name: &str) -> Result<(), Trouble> {
    let (pending, done) = (label(PENDING, instance, name)?, label(FINAL, instance, name)?);
    let objects = pair(session, cka_id)?;
    if !matches!(objects.as_slice(), [(_, a), (_, b)] if a.private && !b.private) {
        let text = format!("{} objects with this CKA_ID, not one key pair", objects.len());
        return Err(HsmError::new(Reason::KeyMissing, text).into());
    }
    for (handle, object) in objects {
        let current = object.label.as_bytes();
        if current == pending {
            session.update_attributes(handle, &[Attribute::Label(done.clone())])?;
        } else if current != done {
            let text = format!("the key is labelled {:?}", object.label);
            return Err(HsmError::new(Reason::KeyMismatch, text).into());
        }
        if describe(session, handle, object.private)?.label.as_bytes() != done {
            return Err(HsmError::new(Reason::KeyMismatch, "the token kept the old label").into());
        }
    }
    Ok(())
}

/// Destroys both objects, the private one first. Nothing left to destroy is fine.
fn destroy(session: &Session, cka_id: &[u8]) -> Result<(), Trouble> {
    for (handle, _) in pair(session, cka_id)? {
        session.destroy_object(handle)?;
    }
    Ok(())
}

fn absent(session: &Session, cka_id: &[u8]) -> Result<(), Trouble> {
    let left = pair(session, cka_id)?.len();
    if left > 0 {
        let text = format!("{left} objects are still there after they were destroyed");
        return Err(HsmError::new(Reason::HsmRejected, text).into());
    }
    Ok(())
}

/// Destroys every pending object of the instance; returns what was there.
fn sweep(session: &Session, instance: &str) -> Result<Vec<ListedObject>, Trouble> {
    InstanceId::parse(instance).map_err(|error| HsmError::new(Reason::HsmRejected, error))?;
    let prefix = format!("{PENDING}:{instance}:");
    let mut swept = Vec::new();
    for (handle, object) in ours(session)? {
        if object.label.starts_with(&prefix) {
            session.destroy_object(handle)?;
            swept.push(object);
        }
    }
    Ok(swept)
}

/// Every key object with a label of ours.
fn ours(session: &Session) -> Result<Vec<(ObjectHandle, ListedObject)>, Trouble> {
    let mut objects = Vec::new();
    for (class, private) in [(ObjectClass::PRIVATE_KEY, true), (ObjectClass::PUBLIC_KEY, false)] {
        for handle in session.find_objects(&[Attribute::Class(class), Attribute::Token(true)])? {
            let object = describe(session, handle, private)?;
            if is_ours(&object.label) {
                objects.push((handle, object));
            }
            if objects.len() > MAX_OBJECTS {
                let text = format!("the token holds more than {MAX_OBJECTS} objects of ours");
                return Err(HsmError::new(Reason::TooLarge, text).into());
            }
        }
    }
    Ok(objects)
}

fn is_ours(label: &str) -> bool {
    let rest = label.strip_prefix(PENDING).or_else(|| label.strip_prefix(FINAL));
    rest.is_some_and(|rest| rest.starts_with(':'))
}

fn describe(session: &Session, handle: ObjectHandle, private: bool) -> Result<ListedObject, Error> {
    let mut object = ListedObject { label: String::new(), cka_id: Vec::new(), private };
    for value in session.get_attributes(handle, &[AttributeType::Label, AttributeType::Id])? {
        match value {
            Attribute::Label(label) => object.label = String::from_utf8_lossy(&label).into_owned(),
            Attribute::Id(id) => object.cka_id = id,
            _ => {}
        }
    }
    Ok(object)
}
