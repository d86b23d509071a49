//! The keys of a pool: bound and unbound, generated and destroyed.

use std::collections::BTreeMap;
use std::sync::Arc;

use countersign_trail::keys::{Kid, PublicKey};

use super::{Pool, unexpected};
use crate::config::{GeneratedKey, KeyBinding, KeySpec, ListedObject, MAX_KEYS};
use crate::error::{HsmError, Reason};
use crate::protocol::{Answer, Call};
use crate::sync::lock;

impl Pool {
    /// Allows keys to be used from now on, once every worker that is up has found them; also in
    /// workers that start later. A kid never changes its purpose or trail.
    ///
    /// # Errors
    /// [`Reason::KeyMissing`], [`Reason::KeyExtractable`], [`Reason::KeyMismatch`] and so on: then
    /// none of them is bound. [`Reason::HsmUnavailable`] when no worker is up.
    pub async fn bind_keys(&self, keys: Vec<KeyBinding>) -> Result<(), HsmError> {
        self.refuse_if_down()?;
        let _one_at_a_time = self.inner.binding.lock().await;
        let kids: Vec<Kid> = keys.iter().map(|key| key.kid).collect();
        let before = {
            let mut bound = lock(&self.inner.context.keys);
            let mut new = BTreeMap::clone(&bound.1);
            insert_keys(&mut new, keys.clone())?;
            let before = std::mem::replace(&mut bound.1, Arc::new(new));
            bound.0 += 1;
            before
        };
        let outcome = self.bind_everywhere(&keys).await;
        if outcome.is_err() {
            {
                let mut bound = lock(&self.inner.context.keys);
                *bound = (bound.0 + 1, Arc::clone(&before));
            }
            let new = kids.into_iter().filter(|kid| !before.contains_key(kid)).collect();
            self.unbind_everywhere(new).await;
        }
        outcome
    }

    async fn bind_everywhere(&self, keys: &[KeyBinding]) -> Result<(), HsmError> {
        let mut bound = Err(HsmError::new(Reason::HsmUnavailable, "no worker is up to bind the keys"));
        for slot in self.inner.context.board.up() {
            match self.call(slot, Call::Bind(keys.to_vec()), true).await {
                Ok(Answer::Bound { refused }) => match refused.into_iter().next() {
                    Some((_, error)) => return Err(error),
                    None => bound = Ok(()),
                },
                Ok(_) => return Err(unexpected()),
                // It takes the keys along when it comes up again.
                Err(error) if error.reason() == Reason::HsmUnavailable => {}
                Err(error) => return Err(error),
            }
        }
        bound
    }

    /// Takes keys out of use, in this pool at once and in the workers.
    pub async fn unbind_keys(&self, kids: &[Kid]) {
        let _one_at_a_time = self.inner.binding.lock().await;
        {
            let mut bound = lock(&self.inner.context.keys);
            bound.0 += 1;
            Arc::make_mut(&mut bound.1).retain(|kid, _| !kids.contains(kid));
        }
        self.unbind_everywhere(kids.to_vec()).await;
    }

    async fn unbind_everywhere(&self, kids: Vec<Kid>) {
        for slot in self.inner.context.board.up() {
            // A worker that ends meanwhile has forgotten them anyway.
            let _ = self.call(slot, Call::Unbind(kids.clone()), false).await;
            let gone: Vec<_> = kids.iter().map(|kid| (*kid, None)).collect();
            self.inner.context.board.note_keys(slot, &gone);
        }
    }

    /// Makes a key pair in the token: sensitive, not extractable, found again in another session,
    /// proven by a probe, on stable storage. Its label is `pending:<instance>:<name>` until
    /// [`Pool::finalize_key`]. It is not bound.
    ///
    /// # Errors
    /// [`Reason::HsmUnavailable`] when no worker is up or it ended meanwhile (then
    /// [`Pool::sweep_pending`] removes what is left), [`Reason::HsmRejected`] when the token does
    /// not make such keys.
    pub async fn generate(&self, spec: KeySpec) -> Result<GeneratedKey, HsmError> {
        match self.administer(Call::Generate(Box::new(spec))).await? {
            Answer::Generated(key) => Ok(*key),
            _ => Err(unexpected()),
        }
    }

    /// Gives a generated key its final label, `countersign:<instance>:<name>`. Repeating is fine.
    ///
    /// # Errors
    /// [`Reason::KeyMissing`], [`Reason::KeyMismatch`] when it has another name.
    pub async fn finalize_key(&self, cka_id: &[u8], instance: &str, name: &str) -> Result<(), HsmError> {
        let (instance, name) = (instance.to_owned(), name.to_owned());
        let call = Call::Finalize { cka_id: cka_id.to_vec(), instance, name };
        self.done(call).await
    }

    /// Destroys both objects of a key and reads back their absence in another session. Unbind it
    /// first. Repeating is fine.
    ///
    /// # Errors
    /// [`Reason::HsmRejected`] when the token keeps it, or the objects are not ours.
    pub async fn destroy_key(&self, cka_id: &[u8]) -> Result<(), HsmError> {
        self.done(Call::Destroy { cka_id: cka_id.to_vec() }).await
    }

    /// Destroys every object whose label says that its generation was never made final, and lists
    /// them.
    ///
    /// # Errors
    /// As [`Pool::list_objects`].
    pub async fn sweep_pending(&self, instance: &str) -> Result<Vec<ListedObject>, HsmError> {
        self.listed(Call::Sweep { instance: instance.to_owned() }).await
    }

    /// Every key object in the token with a label of ours, pending or final, of any instance.
    ///
    /// # Errors
    /// [`Reason::TooLarge`] beyond 4,096 objects; [`Reason::HsmUnavailable`].
    pub async fn list_objects(&self) -> Result<Vec<ListedObject>, HsmError> {
        self.listed(Call::List).await
    }

    pub(super) async fn done(&self, call: Call) -> Result<(), HsmError> {
        match self.administer(call).await? {
            Answer::Done => Ok(()),
            _ => Err(unexpected()),
        }
    }

    async fn listed(&self, call: Call) -> Result<Vec<ListedObject>, HsmError> {
        match self.administer(call).await? {
            Answer::Listed(objects) => Ok(objects),
            _ => Err(unexpected()),
        }
    }

    /// One change or listing of the token's objects at a time, always by the first worker that is
    /// up: a file token that is written by several processes can miss the others' objects.
    pub(super) async fn administer(&self, call: Call) -> Result<Answer, HsmError> {
        let _one_at_a_time = self.inner.administration.lock().await;
        let slot = self.inner.context.board.up().first().copied().unwrap_or(0);
        self.call(slot, call, true).await
    }
}

pub(super) fn insert_keys(keys: &mut BTreeMap<Kid, KeyBinding>, new: Vec<KeyBinding>) -> Result<(), HsmError> {
    for key in new {
        public_key(&key)?;
        if let Some(old) = keys.get(&key.kid)
            && *old != key
        {
            let text = format!("{} is bound already, otherwise", key.kid);
            return Err(HsmError::new(Reason::KeyMismatch, text));
        }
        keys.insert(key.kid, key);
    }
    if keys.len() > MAX_KEYS {
        return Err(HsmError::new(Reason::TooLarge, format!("{} keys, at most {MAX_KEYS}", keys.len())));
    }
    Ok(())
}

pub(super) fn public_key(key: &KeyBinding) -> Result<PublicKey, HsmError> {
    let public = PublicKey::from_spki_der(&key.public_key)
        .map_err(|error| HsmError::new(Reason::KeyMismatch, format!("{}: {error}", key.kid)))?;
    if public.kid() != key.kid {
        let text = format!("{}: the public key's thumbprint is {}", key.kid, public.kid());
        return Err(HsmError::new(Reason::KeyMismatch, text));
    }
    Ok(public)
}
