//! Who may do what: the roster of the genesis, deny by default.
//!
//! | operation | gateway | auditor | administrator | operator |
//! |---|---|---|---|---|
//! | sign | its grants | no | no | no |
//! | trails, heads, proofs, records | its grants | all | all | no |
//! | stored parts | its own | all | none | no |
//! | keys, documents | yes | yes | yes | no |
//! | export | no | yes | no | no |
//! | status | no | yes | yes | yes |
//!
//! The configuration has no say in it.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use countersign_trail::admin::AdminState;
use countersign_trail::document::{Plan, Role};
use countersign_trail::id::MemberId;
use countersign_trail::origin::Origin;
use countersign_trail::time::Timestamp;

use crate::peer::Peer;
use crate::reason::{Reason, Refusal};

/// Why a caller is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// No client certificate: the call did not come through the TLS listener.
    #[error("the call carries no client identity")]
    Unauthenticated,
    /// The roster does not know the SPIFFE ID.
    #[error("{spiffe_id} stands in no roster entry")]
    UnknownIdentity {
        /// The ID of the client certificate, at most 2,048 bytes.
        spiffe_id: String,
    },
    /// The gateway has no grant for the trail, which may or may not exist.
    #[error("{member} has no grant for {trail}")]
    NotGranted {
        /// The caller.
        member: MemberId,
        /// What it asked for.
        trail: Origin,
    },
    /// The role does not include the operation.
    #[error("{member} is {role}, which may not {operation}")]
    RoleForbids {
        /// The caller.
        member: MemberId,
        /// Its role, with article.
        role: &'static str,
        /// The operation, as a verb.
        operation: &'static str,
    },
    /// The certificate's end of validity has passed since the handshake.
    #[error("the client certificate expired at {not_after}")]
    CertificateExpired {
        /// When.
        not_after: Timestamp,
    },
    /// A revocation list names the certificate.
    #[error("the client certificate, or its issuer's, with serial number {serial} is revoked")]
    CertificateRevoked {
        /// Serial number in hexadecimal.
        serial: String,
    },
}

impl Denied {
    /// The stable reason.
    pub fn reason(&self) -> Reason {
        match self {
            Denied::Unauthenticated => Reason::Unauthenticated,
            Denied::UnknownIdentity { .. } => Reason::UnknownIdentity,
            Denied::NotGranted { .. } => Reason::NotGranted,
            Denied::RoleForbids { .. } => Reason::RoleForbids,
            Denied::CertificateExpired { .. } => Reason::CertificateExpired,
            Denied::CertificateRevoked { .. } => Reason::CertificateRevoked,
        }
    }
}

impl From<Denied> for Refusal {
    fn from(denied: Denied) -> Refusal {
        Refusal::new(denied.reason(), &denied)
    }
}

/// An authenticated member of the roster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Its id in the roster, which records are stamped with.
    pub id: MemberId,
    /// Its one role.
    pub role: Role,
}

/// Whose stored parts a caller may read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parts {
    /// Everybody's.
    All,
    /// Those of records that this client wrote.
    Of(MemberId),
    /// Nobody's.
    None,
}

impl Parts {
    /// Whether the parts of a record of `client` may be read; control records have no client and no
    /// parts.
    pub fn include(&self, client: Option<&MemberId>) -> bool {
        match self {
            Parts::All => true,
            Parts::Of(own) => client == Some(own),
            Parts::None => false,
        }
    }
}

/// A caller that may read, and how much.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reader {
    /// Who.
    pub caller: Caller,
    /// Whose stored parts.
    pub parts: Parts,
}

struct Entry {
    caller: Caller,
    grants: Arc<BTreeSet<Origin>>,
}

/// The roster, by SPIFFE ID and by member.
pub struct Access {
    entries: HashMap<String, Entry>,
    grants: HashMap<MemberId, Arc<BTreeSet<Origin>>>,
}

impl Access {
    /// The roster in force after the admin trail has been replayed.
    pub fn new(state: &AdminState) -> Access {
        Access::from_plan(&state.plan)
    }

    /// The roster of a checked plan.
    pub fn from_plan(plan: &Plan) -> Access {
        let (mut entries, mut all) = (HashMap::new(), HashMap::new());
        for member in &plan.members {
            let grants: Arc<BTreeSet<Origin>> = Arc::new(member.grants.iter().cloned().collect());
            for spiffe_id in &member.spiffe_ids {
                let caller = Caller { id: member.id.clone(), role: member.role };
                entries.insert(spiffe_id.clone(), Entry { caller, grants: grants.clone() });
            }
            all.insert(member.id.clone(), grants);
        }
        Access { entries, grants: all }
    }

    /// The member with this SPIFFE ID.
    pub fn member(&self, spiffe_id: &str) -> Option<&MemberId> {
        self.entries.get(spiffe_id).map(|entry| &entry.caller.id)
    }

    /// Whether a member's grants hold `trail`: which records its events may link to.
    pub fn is_granted(&self, client: &MemberId, trail: &Origin) -> bool {
        self.grants.get(client).is_some_and(|grants| grants.contains(trail))
    }

    fn entry(&self, peer: Option<&Peer>, now: Timestamp) -> Result<&Entry, Denied> {
        let peer = peer.ok_or(Denied::Unauthenticated)?;
        peer.check(now)?;
        let unknown = || Denied::UnknownIdentity { spiffe_id: peer.spiffe_id().to_owned() };
        self.entries.get(peer.spiffe_id()).ok_or_else(unknown)
    }

    /// Is the caller a gateway? What it may write to is [`Access::authorise_write`]'s question.
    ///
    /// # Errors
    /// Any [`Denied`] but [`Denied::NotGranted`].
    pub fn authorise_gateway(&self, peer: Option<&Peer>, now: Timestamp) -> Result<Caller, Denied> {
        self.gateway(peer, now).map(|entry| entry.caller.clone())
    }

    fn gateway(&self, peer: Option<&Peer>, now: Timestamp) -> Result<&Entry, Denied> {
        let entry = self.entry(peer, now)?;
        match entry.caller.role {
            Role::Gateway => Ok(entry),
            Role::Auditor | Role::Administrator | Role::Operator => Err(entry.forbidden("sign")),
        }
    }

    /// May the caller append to `trail`? Ask again for each message of a stream.
    ///
    /// # Errors
    /// Any [`Denied`].
    pub fn authorise_write(&self, peer: Option<&Peer>, now: Timestamp, trail: &Origin) -> Result<Caller, Denied> {
        self.gateway(peer, now)?.granted(trail)
    }

    /// May the caller read heads, proofs and records of `trail` (the admin trail too), and whose
    /// parts?
    ///
    /// # Errors
    /// Any [`Denied`].
    pub fn authorise_read(&self, peer: Option<&Peer>, now: Timestamp, trail: &Origin) -> Result<Reader, Denied> {
        let entry = self.entry(peer, now)?;
        let caller = entry.caller.clone();
        match caller.role {
            Role::Gateway => {
                let caller = entry.granted(trail)?;
                Ok(Reader { parts: Parts::Of(caller.id.clone()), caller })
            }
            Role::Auditor => Ok(Reader { caller, parts: Parts::All }),
            Role::Administrator => Ok(Reader { caller, parts: Parts::None }),
            Role::Operator => Err(entry.forbidden("read trails")),
        }
    }

    /// Whether a list of trails shows `trail` to the caller.
    pub fn may_list(&self, peer: Option<&Peer>, now: Timestamp, trail: &Origin) -> bool {
        self.authorise_read(peer, now, trail).is_ok()
    }

    /// May the caller read keys, documents and the list of trails (of which it sees those that
    /// [`Access::may_list`] says)?
    ///
    /// # Errors
    /// Any [`Denied`] but [`Denied::NotGranted`].
    pub fn authorise_keys(&self, peer: Option<&Peer>, now: Timestamp) -> Result<Caller, Denied> {
        let entry = self.entry(peer, now)?;
        match entry.caller.role {
            Role::Gateway | Role::Auditor | Role::Administrator => Ok(entry.caller.clone()),
            Role::Operator => Err(entry.forbidden("read keys and documents")),
        }
    }

    /// May the caller export evidence bundles?
    ///
    /// # Errors
    /// Any [`Denied`] but [`Denied::NotGranted`].
    pub fn authorise_export(&self, peer: Option<&Peer>, now: Timestamp) -> Result<Caller, Denied> {
        let entry = self.entry(peer, now)?;
        match entry.caller.role {
            Role::Auditor => Ok(entry.caller.clone()),
            Role::Gateway | Role::Administrator | Role::Operator => Err(entry.forbidden("export evidence")),
        }
    }

    /// May the caller read the daemon's status?
    ///
    /// # Errors
    /// Any [`Denied`] but [`Denied::NotGranted`].
    pub fn authorise_status(&self, peer: Option<&Peer>, now: Timestamp) -> Result<Caller, Denied> {
        let entry = self.entry(peer, now)?;
        match entry.caller.role {
            Role::Auditor | Role::Administrator | Role::Operator => Ok(entry.caller.clone()),
            Role::Gateway => Err(entry.forbidden("read the status")),
        }
    }
}

impl Entry {
    fn granted(&self, trail: &Origin) -> Result<Caller, Denied> {
        if self.grants.contains(trail) {
            Ok(self.caller.clone())
        } else {
            Err(Denied::NotGranted { member: self.caller.id.clone(), trail: trail.clone() })
        }
    }

    fn forbidden(&self, operation: &'static str) -> Denied {
        let role = match self.caller.role {
            Role::Administrator => "an administrator",
            Role::Auditor => "an auditor",
            Role::Gateway => "a gateway",
            Role::Operator => "an operator",
        };
        Denied::RoleForbids { member: self.caller.id.clone(), role, operation }
    }
}

#[cfg(test)]
mod tests;
