//! ListKeys: every public key that the admin trail ever named.

use countersign_proto::v1::{Key, ListKeysRequest, ListKeysResponse};
use countersign_trail::admin::KeyEntry;
use countersign_trail::keys::Kid;
use countersign_trail::note::VerifierKey;
use countersign_trail::origin::Origin;
use countersign_trail::signing::Purpose;
use countersign_trail::time::Timestamp;

use super::Audit;
use crate::appliance::no_origin;
use crate::peer::Peer;
use crate::reason::{Reason, Refusal};

/// Which keys are asked for, checked. Every filter that is given must hold.
#[derive(Debug, Default, PartialEq, Eq)]
struct Filter {
    kid: Option<Kid>,
    trail: Option<Origin>,
    at_seq: Option<u64>,
    at_time: Option<Timestamp>,
}

impl Audit {
    pub(super) fn list_keys(
        &self,
        peer: Option<&Peer>,
        request: &ListKeysRequest,
    ) -> Result<ListKeysResponse, Refusal> {
        self.appliance.access.authorise_keys(peer, self.appliance.clock.now())?;
        let filter = Filter::of(request)?;
        if filter.trail.is_some() {
            self.appliance.trail(&request.trail)?;
        }
        let keys = self.appliance.admin.keys.values().filter(|entry| filter.takes(entry));
        Ok(ListKeysResponse { keys: keys.map(key).collect() })
    }
}

impl Filter {
    fn of(request: &ListKeysRequest) -> Result<Filter, Refusal> {
        let invalid = |message: String| Refusal::new(Reason::InvalidRequest, message);
        let given = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let kid = given(&request.kid)
            .map(|text| text.parse())
            .transpose()
            .map_err(|error| invalid(format!("kid: {error}")))?;
        let trail = given(&request.trail).map(|text| Origin::parse(&text)).transpose();
        let trail = trail.map_err(no_origin)?;
        let at_time = given(&request.at_time).map(|text| text.parse()).transpose();
        let at_time = at_time.map_err(|error| invalid(format!("at_time: {error}")))?;
        if request.at_seq.is_some() && trail.is_none() {
            return Err(invalid("at_seq is a place in a trail: name the trail too".to_owned()));
        }
        Ok(Filter { kid, trail, at_seq: request.at_seq, at_time })
    }

    fn takes(&self, entry: &KeyEntry) -> bool {
        self.kid.is_none_or(|kid| entry.key.kid() == kid)
            && self.trail.as_ref().is_none_or(|trail| entry.trail.as_ref() == Some(trail))
            && self.at_seq.is_none_or(|seq| entry.from_seq <= seq)
            && self.at_time.is_none_or(|time| entry.from_time <= time)
    }
}

fn key(entry: &KeyEntry) -> Key {
    let signs_checkpoints = matches!(entry.purpose, Purpose::Checkpoint | Purpose::AdminCheckpoint);
    let trail = entry.trail.as_ref();
    let vkey =
        trail.filter(|_| signs_checkpoints).and_then(|trail| VerifierKey::new(trail.as_str(), entry.key.clone()).ok());
    Key {
        kid: entry.key.kid().to_string(),
        algorithm: entry.key.algorithm().name().to_owned(),
        purpose: entry.purpose.word().to_owned(),
        trail: trail.map(ToString::to_string).unwrap_or_default(),
        // No control record changes a key's state yet: those of the genesis are in force.
        state: "active".to_owned(),
        spki: entry.key.spki_der().into(),
        from_seq: entry.from_seq,
        from_time: entry.from_time.to_string(),
        vkey: vkey.map(|vkey| vkey.to_string()).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(request: ListKeysRequest) -> String {
        let refusal = Filter::of(&request).unwrap_err();
        assert_eq!(refusal.reason(), Reason::InvalidRequest);
        refusal.message().to_owned()
    }

    #[test]
    fn bad_filters_are_named() {
        let base = ListKeysRequest::default;
        assert!(refused(ListKeysRequest { kid: "x".to_owned(), ..base() }).starts_with("kid: "));
        assert!(refused(ListKeysRequest { trail: "X".to_owned(), ..base() }).starts_with("trail: "));
        assert!(refused(ListKeysRequest { at_time: "today".to_owned(), ..base() }).starts_with("at_time: "));
        assert!(refused(ListKeysRequest { at_seq: Some(0), ..base() }).starts_with("at_seq "));
        assert_eq!(Filter::of(&base()), Ok(Filter::default()));
    }
}
