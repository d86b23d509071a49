//! The plan: what the first ceremony shall make, reviewed before any key exists.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{DocumentError, must, parse, sorted_unique};
use crate::base64;
use crate::hash::Hash;
use crate::id::{InstanceId, MemberId};
use crate::jcs;
use crate::keys::Algorithm;
use crate::origin::Origin;
use crate::signing::Purpose;
use crate::sshsig::SshPublicKey;
use crate::time::Timestamp;

/// The most trails of one appliance: an admin record carries a head for each that moved.
pub const MAX_TRAILS: usize = 64;
/// The most members of a roster.
pub const MAX_MEMBERS: usize = 1024;
/// The fewest approvals that a quorum may ask for.
pub const MIN_APPROVALS: u32 = 2;
/// The most client certification authorities.
pub const MAX_CLIENT_ROOTS: usize = 16;

/// The tag that a certificate in DER begins with.
const DER_SEQUENCE: u8 = 0x30;

const PLAN: &str = "countersign.plan";

/// A member's one role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Signs documents with SSH keys.
    Administrator,
    /// Reads trails, proofs and evidence.
    Auditor,
    /// A machine that reports decisions.
    Gateway,
    /// Runs the daemon; reads its status.
    Operator,
}

/// How a trail's records are signed. Never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Every record carries its own HSM signature.
    Record,
    /// Every batch closes with a signed checkpoint.
    Batch,
}

impl Mode {
    /// The word in documents and on the wire.
    pub fn word(self) -> &'static str {
        match self {
            Mode::Record => "record",
            Mode::Batch => "batch",
        }
    }
}

/// The two tokens of an appliance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TokenRole {
    /// Holds the keys of the admin trail.
    Admin,
    /// Holds the keys that sign records, checkpoints and evidence.
    Record,
}

impl TokenRole {
    /// The word in documents, logs and metrics.
    pub fn word(self) -> &'static str {
        match self {
            TokenRole::Admin => "admin",
            TokenRole::Record => "record",
        }
    }
}

/// A person or a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// Trails that a gateway may write, sorted; empty for every other role.
    pub grants: Vec<Origin>,
    /// Unique in the roster, for ever.
    pub id: MemberId,
    /// For people who read it, 1 to 200 bytes.
    pub name: String,
    /// Its one role.
    pub role: Role,
    /// SPIFFE IDs of its client certificates, 1 to 8.
    pub spiffe_ids: Vec<String>,
    /// OpenSSH public keys without comment; 1 to 8 for an administrator, none for the others.
    pub ssh_keys: Vec<SshPublicKey>,
}

/// A trail to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrailPlan {
    /// Algorithm of its checkpoint key.
    pub checkpoint_algorithm: Algorithm,
    /// How its records are signed.
    pub mode: Mode,
    /// Its name.
    pub origin: Origin,
    /// Algorithm of its record key; in record mode only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub record_algorithm: Option<Algorithm>,
}

/// A token to be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenPlan {
    /// CKA_LABEL of the token.
    pub label: String,
    /// Its serial number, as the module reports it.
    pub serial: String,
}

/// The reviewable input of the first ceremony.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Algorithm of the admin trail's checkpoint key.
    pub admin_algorithm: Algorithm,
    /// The token of the admin trail's key.
    pub admin_token: TokenPlan,
    /// Name of the admin trail.
    pub admin_trail: Origin,
    /// How many administrators beside the proposer must approve a change.
    pub approvals: u32,
    /// Certification authorities of client certificates: DER in base64.
    pub client_roots: Vec<String>,
    /// When the plan was written.
    pub created: Timestamp,
    /// `countersign.plan`.
    pub document: String,
    /// Algorithm of the evidence key.
    pub evidence_algorithm: Algorithm,
    /// The appliance's name.
    pub instance: InstanceId,
    /// Everyone and everything that may talk to it, by id.
    pub members: Vec<Member>,
    /// 32 random bytes: no two plans are alike.
    pub nonce: Hash,
    /// Fingerprint of the genesis that this one follows, where one was lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub predecessor: Option<Hash>,
    /// The token of every other key.
    pub record_token: TokenPlan,
    /// The trails, by origin.
    pub trails: Vec<TrailPlan>,
    /// 1.
    pub v: u64,
}

impl Plan {
    /// Parses a plan and checks its rules.
    pub fn parse(bytes: &[u8]) -> Result<Plan, DocumentError> {
        let plan: Plan = parse(PLAN, bytes)?;
        plan.check()?;
        Ok(plan)
    }

    /// The plan's bytes.
    pub fn to_bytes(&self) -> Result<Vec<u8>, DocumentError> {
        jcs::to_canonical(self).map_err(|source| DocumentError::Json { document: PLAN, source })
    }

    /// Administrators, in the roster's order.
    pub fn administrators(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.role == Role::Administrator)
    }

    /// The rules between members of a plan.
    pub fn check(&self) -> Result<(), DocumentError> {
        let rule = |holds: bool, problem: &str| must(PLAN, holds, || problem.to_owned());
        rule(self.v == 1, "v is not 1")?;
        rule(self.document == PLAN, "document is not countersign.plan")?;
        rule(!self.trails.is_empty() && self.trails.len() <= MAX_TRAILS, "wants 1 to 64 trails")?;
        rule(self.members.len() <= MAX_MEMBERS, "more than 1,024 members")?;
        rule(
            !self.client_roots.is_empty() && self.client_roots.len() <= MAX_CLIENT_ROOTS,
            "wants 1 to 16 client_roots",
        )?;
        for (at, root) in self.client_roots.iter().enumerate() {
            let rule = |holds: bool, problem: &str| must(PLAN, holds, || format!("client_roots[{at}] {problem}"));
            let der = base64::std_decode(root);
            rule(der.is_ok_and(|der| der.starts_with(&[DER_SEQUENCE])), "is not DER in base64")?;
            rule(!self.client_roots[..at].contains(root), "stands twice")?;
        }
        rule(
            sorted_unique(self.trails.iter().map(|t| t.origin.as_str())),
            "trails are not sorted by origin, each once",
        )?;
        rule(sorted_unique(self.members.iter().map(|m| m.id.as_str())), "members are not sorted by id, each once")?;
        for trail in &self.trails {
            let rule = |holds: bool, problem: &str| must(PLAN, holds, || format!("trail {}: {problem}", trail.origin));
            rule(trail.origin != self.admin_trail, "has the admin trail's origin")?;
            let wants_record_key = trail.mode == Mode::Record;
            rule(
                trail.record_algorithm.is_some() == wants_record_key,
                "record_algorithm stands with a record-mode trail and with no other",
            )?;
        }
        for (name, token) in [("admin_token", &self.admin_token), ("record_token", &self.record_token)] {
            let holds = is_short_text(&token.label, 32) && is_short_text(&token.serial, 32);
            must(PLAN, holds, || format!("{name} wants label and serial, 1 to 32 bytes without control characters"))?;
        }
        rule(self.admin_token != self.record_token, "admin_token and record_token are the same token")?;
        self.check_members()
    }

    fn check_members(&self) -> Result<(), DocumentError> {
        let mut identities = BTreeSet::new();
        for member in &self.members {
            let id = &member.id;
            let rule = |holds: bool, problem: &str| must(PLAN, holds, || format!("member {id}: {problem}"));
            rule(is_short_text(&member.name, 200), "name wants 1 to 200 bytes without control characters")?;
            let administrator = member.role == Role::Administrator;
            let keys = member.ssh_keys.len();
            rule(
                if administrator { (1..=8).contains(&keys) } else { keys == 0 },
                "1 to 8 ssh_keys for an administrator, none for others",
            )?;
            rule((1..=8).contains(&member.spiffe_ids.len()), "wants 1 to 8 spiffe_ids")?;
            rule(member.role == Role::Gateway || member.grants.is_empty(), "only a gateway has grants")?;
            rule(sorted_unique(member.grants.iter().map(Origin::as_str)), "grants are not sorted, each once")?;
            for grant in &member.grants {
                must(PLAN, self.trails.iter().any(|t| t.origin == *grant), || {
                    format!("member {id}: a grant for {grant}, which the plan does not make")
                })?;
            }
            for spiffe_id in &member.spiffe_ids {
                rule(is_spiffe_id(spiffe_id), "a spiffe_id that is not spiffe://trust-domain/path")?;
                rule(identities.insert(spiffe_id.clone()), "a spiffe_id that stands twice in the roster")?;
            }
            for key in &member.ssh_keys {
                rule(identities.insert(key.to_string()), "an ssh key that stands twice in the roster")?;
            }
        }
        // A change of one administrator's keys is proposed by a second and approved by others.
        let administrators = self.administrators().count();
        let met = self.approvals >= MIN_APPROVALS && administrators as u64 >= u64::from(self.approvals) + 2;
        must(PLAN, met, || {
            format!(
                "{} approvals of {administrators} administrators: wants at least 2, and 2 administrators more than approvals",
                self.approvals
            )
        })
    }
}

fn is_short_text(text: &str, max: usize) -> bool {
    (1..=max).contains(&text.len()) && !text.chars().any(char::is_control)
}

/// Whether `text` is a SPIFFE ID with a path (SPIFFE-ID standard, section 2), at most 2,048 bytes.
pub fn is_spiffe_id(text: &str) -> bool {
    let Some((domain, path)) = text.strip_prefix("spiffe://").and_then(|rest| rest.split_once('/')) else {
        return false;
    };
    let domain_ok = (1..=255).contains(&domain.len())
        && domain.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b));
    let segment_ok = |segment: &str| {
        !matches!(segment, "" | "." | "..") && segment.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
    };
    text.len() <= 2048 && domain_ok && path.split('/').all(segment_ok)
}

/// The keys that a plan asks for.
pub fn planned_keys(plan: &Plan) -> Vec<(Purpose, Option<Origin>, Algorithm, TokenRole)> {
    let mut keys = vec![
        (Purpose::AdminCheckpoint, Some(plan.admin_trail.clone()), plan.admin_algorithm, TokenRole::Admin),
        (Purpose::Evidence, None, plan.evidence_algorithm, TokenRole::Record),
    ];
    for trail in &plan.trails {
        let origin = Some(trail.origin.clone());
        keys.push((Purpose::Checkpoint, origin.clone(), trail.checkpoint_algorithm, TokenRole::Record));
        if let Some(algorithm) = trail.record_algorithm {
            keys.push((Purpose::Record, origin, algorithm, TokenRole::Record));
        }
    }
    keys
}
