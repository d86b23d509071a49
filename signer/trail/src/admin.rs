//! The admin trail, replayed: from the pinned genesis fingerprint to the keys, roster and trails.
//!
//! Daemon and verifier run this same code. Nothing in the records is believed before the document
//! that they name has the pinned hash and every administrator of its plan has signed it.

use std::collections::{BTreeMap, BTreeSet};

use crate::chain::{Chain, ChainError};
use crate::control::{Body, ControlError, GenesisBody, Head};
use crate::document::{DocumentError, Genesis, Member, Mode, Plan, TokenRole};
use crate::hash::Hash;
use crate::id::MemberId;
use crate::keys::{Kid, PublicKey};
use crate::origin::Origin;
use crate::record::{Content, Record};
use crate::signing::Purpose;
use crate::sshsig::{self, Act, SshSigError};
use crate::time::Timestamp;

/// Where documents come from.
pub trait Documents {
    /// The bytes whose SHA-256 is `hash`. The caller of this trait checks the hash itself.
    fn document(&self, hash: &Hash) -> Option<Vec<u8>>;
}

/// Why the admin trail is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdminError {
    /// A document that is named is not there.
    #[error("{what} {hash} is missing")]
    MissingDocument {
        /// What it is.
        what: &'static str,
        /// Its name.
        hash: Hash,
    },
    /// A document's bytes do not have the hash that names them.
    #[error("{what} has SHA-256 {found}, not {expected}")]
    DocumentHash {
        /// What it is.
        what: &'static str,
        /// The hash that names it.
        expected: Hash,
        /// The hash of its bytes.
        found: Hash,
    },
    /// A document breaks its rules.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// A record does not continue the trail.
    #[error("admin trail: {0}")]
    Chain(#[from] ChainError),
    /// A control record's body is refused.
    #[error("admin record {at}: {source}")]
    Control {
        /// Where it stands.
        at: u64,
        /// What is wrong.
        source: ControlError,
    },
    /// A record says what it may not say there.
    #[error("admin record {at}: {problem}")]
    Rule {
        /// Where it stands.
        at: u64,
        /// Which rule, with the offending value.
        problem: String,
    },
    /// An administrator's signature is missing, foreign or does not verify.
    #[error("signature of {member} over the genesis document: {problem}")]
    Signature {
        /// Whose.
        member: MemberId,
        /// What is wrong.
        problem: String,
    },
    /// The trail ends before the genesis record.
    #[error("the admin trail has {0} records: the genesis is not sealed")]
    NotSealed(u64),
}

impl AdminError {
    /// The named check that failed.
    pub fn check(&self) -> &'static str {
        match self {
            AdminError::MissingDocument { .. } | AdminError::DocumentHash { .. } => "documents",
            AdminError::Document(_) => "genesis",
            AdminError::Chain(_) => "admin-chain",
            AdminError::Control { .. } | AdminError::Rule { .. } => "admin-records",
            AdminError::Signature { .. } => "genesis-signatures",
            AdminError::NotSealed(_) => "genesis-sealed",
        }
    }
}

/// A key and what the admin trail says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyEntry {
    /// The key itself.
    pub key: PublicKey,
    /// What it is for.
    pub purpose: Purpose,
    /// Its trail; none for the evidence key.
    pub trail: Option<Origin>,
    /// Where its private half lives.
    pub token: TokenRole,
    /// CKA_ID there.
    pub cka_id: Vec<u8>,
    /// The first sequence number that it vouches for.
    pub from_seq: u64,
    /// When it came into force.
    pub from_time: Timestamp,
}

/// A trail and the keys in force in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrailEntry {
    /// How its records are signed.
    pub mode: Mode,
    /// Its checkpoint key.
    pub checkpoint_key: Kid,
    /// Its record key, in record mode.
    pub record_key: Option<Kid>,
    /// What record 0 has as `prev`.
    pub first_prev: Hash,
    /// Leaf hash of record 0, as the genesis names it.
    pub first_leaf: Hash,
}

impl TrailEntry {
    /// The kids that a record of the trail names.
    pub fn record_kids(&self) -> Vec<Kid> {
        vec![self.record_key.unwrap_or(self.checkpoint_key)]
    }
}

/// A head that an admin record carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotedHead {
    /// The admin record.
    pub admin_seq: u64,
    /// What it says.
    pub head: Head,
}

/// The admin trail up to some record.
#[derive(Clone, Debug)]
pub struct AdminState {
    /// The genesis fingerprint.
    pub fingerprint: Hash,
    /// The plan that the genesis follows.
    pub plan: Plan,
    /// The genesis document.
    pub genesis: Genesis,
    /// Every key that ever was.
    pub keys: BTreeMap<Kid, KeyEntry>,
    /// Every trail but the admin trail.
    pub trails: BTreeMap<Origin, TrailEntry>,
    /// The admin trail's own entry.
    pub admin: TrailEntry,
    /// Heads of trails that admin records carry, in order.
    pub heads: Vec<NotedHead>,
    /// Every document that the trail names.
    pub documents: BTreeSet<Hash>,
    chain: Chain,
    sealed: bool,
}

/// Fetches a document and checks that its bytes have the hash that names it.
fn fetch(documents: &impl Documents, what: &'static str, hash: Hash) -> Result<Vec<u8>, AdminError> {
    let bytes = documents.document(&hash).ok_or(AdminError::MissingDocument { what, hash })?;
    let found = Hash::of(&bytes);
    if found == hash { Ok(bytes) } else { Err(AdminError::DocumentHash { what, expected: hash, found }) }
}

impl AdminState {
    /// Begins from the pinned fingerprint: the genesis document, its plan, and every key's proof.
    pub fn begin(fingerprint: Hash, documents: &impl Documents) -> Result<AdminState, AdminError> {
        let genesis = Genesis::parse(&fetch(documents, "the genesis document", fingerprint)?)?;
        let plan_hash = genesis.plan;
        let plan = Plan::parse(&fetch(documents, "the plan", plan_hash)?)?;
        let public_keys = genesis.check(&plan, &plan_hash)?;
        let keys = genesis.keys.iter().zip(public_keys).map(|(made, key)| {
            let entry = KeyEntry {
                key,
                purpose: made.purpose,
                trail: made.trail.clone(),
                token: made.token,
                cka_id: hex::decode(&made.cka_id).unwrap_or_default(),
                from_seq: 0,
                from_time: genesis.created,
            };
            (made.kid, entry)
        });
        let keys: BTreeMap<Kid, KeyEntry> = keys.collect();
        let admin_leaf = first_leaf(&genesis, &plan.admin_trail)?;
        let mut trails = BTreeMap::new();
        for trail in &plan.trails {
            let entry = trail_entry(&keys, &genesis, &trail.origin, trail.mode, admin_leaf)?;
            trails.insert(trail.origin.clone(), entry);
        }
        let admin = trail_entry(&keys, &genesis, &plan.admin_trail, Mode::Batch, plan_hash)?;
        let chain = Chain::new(plan.admin_trail.clone(), plan_hash);
        let documents = BTreeSet::from([fingerprint, plan_hash]);
        let heads = Vec::new();
        Ok(AdminState { fingerprint, plan, genesis, keys, trails, admin, heads, documents, chain, sealed: false })
    }

    /// Applies the next admin record; gives its leaf hash.
    ///
    /// # Errors
    /// [`AdminError`]. The state is then of no further use: the record may count as appended.
    pub fn apply(&mut self, bytes: &[u8], documents: &impl Documents) -> Result<Hash, AdminError> {
        let (record, leaf) = self.chain.append(bytes)?;
        let at = record.header.seq;
        let body = self.body_of(&record)?;
        let rule = |holds: bool, problem: String| {
            if holds { Ok(()) } else { Err(AdminError::Rule { at, problem }) }
        };
        match (at, &body) {
            (0, Body::Plan(plan)) => {
                rule(plan.plan == self.genesis.plan, format!("names plan {}", plan.plan))?;
                let want = self.admin.first_leaf;
                rule(leaf == want, format!("has leaf hash {leaf}, the genesis names {want}"))?;
            }
            (1, Body::Genesis(genesis)) => {
                rule(genesis.genesis == self.fingerprint, format!("seals genesis {}", genesis.genesis))?;
                self.check_seal(genesis, documents)?;
                self.sealed = true;
            }
            (
                2..,
                Body::Start(_) | Body::Hsm(_) | Body::Pin(_) | Body::Clock(_) | Body::Heartbeat(_) | Body::Gap(_),
            ) => {}
            _ => rule(false, format!("{} may not stand here", body.type_name()))?,
        }
        self.note_heads(at, body.heads())?;
        Ok(leaf)
    }

    fn body_of(&self, record: &Record) -> Result<Body, AdminError> {
        let at = record.header.seq;
        if record.header.kids != self.admin.record_kids() {
            return Err(AdminError::Rule { at, problem: "does not name the admin key in force".to_owned() });
        }
        match &record.content {
            Content::Control(control) => Body::parse(control).map_err(|source| AdminError::Control { at, source }),
            Content::Event(_) => Err(AdminError::Rule { at, problem: "is an event".to_owned() }),
        }
    }

    fn note_heads(&mut self, at: u64, heads: &[Head]) -> Result<(), AdminError> {
        for head in heads {
            let before = self.heads.iter().rev().find(|noted| noted.head.trail == head.trail);
            let grows = before.is_none_or(|noted| noted.head.size < head.size);
            if !self.trails.contains_key(&head.trail) || !grows || head.size == 0 {
                let problem = format!("head of {} at size {} is of no trail, or does not grow", head.trail, head.size);
                return Err(AdminError::Rule { at, problem });
            }
            self.heads.push(NotedHead { admin_seq: at, head: head.clone() });
        }
        Ok(())
    }

    /// Every administrator of the plan has signed the genesis document with an enrolled key.
    fn check_seal(&mut self, body: &GenesisBody, documents: &impl Documents) -> Result<(), AdminError> {
        let genesis = fetch(documents, "the genesis document", self.fingerprint)?;
        let signers: Vec<&MemberId> = body.signatures.iter().map(|signature| &signature.member).collect();
        if !signers.windows(2).all(|pair| pair[0] < pair[1]) {
            return Err(AdminError::Rule {
                at: 1,
                problem: "signatures are not sorted by member, each once".to_owned(),
            });
        }
        let administrators: Vec<&Member> = self.plan.administrators().collect();
        for signature in &body.signatures {
            let refused = |problem: String| AdminError::Signature { member: signature.member.clone(), problem };
            let member = administrators.iter().find(|member| member.id == signature.member);
            let member = member.ok_or_else(|| refused("is not an administrator of the plan".to_owned()))?;
            let armor = fetch(documents, "a signature", signature.document)?;
            let key = check_genesis_signature(member, &armor, &genesis).map_err(refused)?;
            if key != signature.key {
                return Err(refused(format!("is by key {key}, the record names {}", signature.key)));
            }
            self.documents.insert(signature.document);
        }
        match administrators.iter().find(|member| !signers.contains(&&member.id)) {
            None => Ok(()),
            Some(member) => Err(AdminError::Signature { member: member.id.clone(), problem: "is missing".to_owned() }),
        }
    }

    /// Whether record 1, the genesis with its signatures, has been applied.
    pub fn require_sealed(&self) -> Result<(), AdminError> {
        if self.sealed { Ok(()) } else { Err(AdminError::NotSealed(self.chain.size())) }
    }

    /// The admin trail as far as it was applied.
    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    /// A trail's entry, the admin trail's included.
    pub fn trail(&self, origin: &Origin) -> Option<&TrailEntry> {
        if *origin == self.plan.admin_trail { Some(&self.admin) } else { self.trails.get(origin) }
    }

    /// The instance's key for statements.
    pub fn evidence_key(&self) -> Option<&KeyEntry> {
        self.keys.values().find(|entry| entry.purpose == Purpose::Evidence)
    }
}

/// Verifies an administrator's SSHSIG over the genesis document under one of the member's enrolled
/// keys, and gives that key's fingerprint.
pub fn check_genesis_signature(member: &Member, armor: &[u8], genesis: &[u8]) -> Result<String, String> {
    let armor = std::str::from_utf8(armor).map_err(|_| "is not text".to_owned())?;
    let mut last = "the member has no key".to_owned();
    for key in &member.ssh_keys {
        match sshsig::verify_sshsig(armor, key, Act::Genesis, genesis) {
            Ok(_) => return Ok(key.fingerprint()),
            Err(SshSigError::UnknownNamespace(found)) => {
                last = format!("its namespace is {found:?}; a genesis is signed with -n {}", Act::Genesis.namespace());
            }
            Err(error) => last = error.to_string(),
        }
    }
    Err(last)
}

fn first_leaf(genesis: &Genesis, origin: &Origin) -> Result<Hash, AdminError> {
    genesis.first_leaf(origin).ok_or_else(|| AdminError::Rule { at: 0, problem: format!("no record 0 for {origin}") })
}

fn trail_entry(
    keys: &BTreeMap<Kid, KeyEntry>,
    genesis: &Genesis,
    origin: &Origin,
    mode: Mode,
    first_prev: Hash,
) -> Result<TrailEntry, AdminError> {
    let key_for = |wanted: &[Purpose]| {
        let of_trail = |entry: &&KeyEntry| entry.trail.as_ref() == Some(origin) && wanted.contains(&entry.purpose);
        keys.values().find(of_trail).map(|entry| entry.key.kid())
    };
    let missing = || AdminError::Rule { at: 0, problem: format!("no checkpoint key for {origin}") };
    Ok(TrailEntry {
        mode,
        checkpoint_key: key_for(&[Purpose::Checkpoint, Purpose::AdminCheckpoint]).ok_or_else(missing)?,
        record_key: key_for(&[Purpose::Record]),
        first_prev,
        first_leaf: first_leaf(genesis, origin)?,
    })
}
