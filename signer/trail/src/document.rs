//! The documents that people review and sign: the ceremony plan and the genesis.
//!
//! A document is canonical JSON, named by the SHA-256 of its bytes, kept in a content-addressed
//! table and exported whole. People's signatures (SSHSIG armour) are documents too.

use std::collections::{BTreeMap, BTreeSet};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::base64;
use crate::dsse;
use crate::hash::Hash;
use crate::id::{InstanceId, MemberId};
use crate::jcs::{self, JcsError};
use crate::keys::{Algorithm, Kid, PublicKey};
use crate::origin::Origin;
use crate::signing::{PROBE_PAYLOAD_TYPE, Position, Purpose, position_of};
use crate::sshsig::SshPublicKey;
use crate::time::Timestamp;

/// The longest document, in bytes.
pub const MAX_DOCUMENT_LEN: usize = 1 << 20;
/// The most trails of one appliance: an admin record carries a head for each that moved.
pub const MAX_TRAILS: usize = 64;
/// The most members of a roster.
pub const MAX_MEMBERS: usize = 1024;
/// The fewest approvals that a quorum may ask for.
pub const MIN_APPROVALS: u32 = 2;
/// The most client certification authorities.
pub const MAX_CLIENT_ROOTS: usize = 16;

const PLAN: &str = "countersign.plan";
const GENESIS: &str = "countersign.genesis";

/// Why a document is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// Not canonical JSON of the document's shape.
    #[error("{document}: {source}")]
    Json {
        /// Which document.
        document: &'static str,
        /// What is wrong.
        source: JcsError,
    },
    /// A rule between its members is broken.
    #[error("{document}: {problem}")]
    Rule {
        /// Which document.
        document: &'static str,
        /// Which rule, with the offending value.
        problem: String,
    },
}

fn parse<T: DeserializeOwned>(document: &'static str, bytes: &[u8]) -> Result<T, DocumentError> {
    jcs::parse_canonical(bytes, MAX_DOCUMENT_LEN)
        .map_err(|source| DocumentError::Json { document, source })
}

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
    /// Trails that a gateway may write; empty for every other role.
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
        jcs::to_canonical(self).map_err(|source| DocumentError::Json {
            document: PLAN,
            source,
        })
    }

    /// Administrators, in the roster's order.
    pub fn administrators(&self) -> impl Iterator<Item = &Member> {
        self.members
            .iter()
            .filter(|member| member.role == Role::Administrator)
    }

    /// The rules between members of a plan.
    pub fn check(&self) -> Result<(), DocumentError> {
        let rule = |holds: bool, problem: &str| must(PLAN, holds, || problem.to_owned());
        rule(self.v == 1, "v is not 1")?;
        rule(self.document == PLAN, "document is not countersign.plan")?;
        rule(
            !self.trails.is_empty() && self.trails.len() <= MAX_TRAILS,
            "wants 1 to 64 trails",
        )?;
        rule(self.members.len() <= MAX_MEMBERS, "more than 1,024 members")?;
        rule(
            !self.client_roots.is_empty() && self.client_roots.len() <= MAX_CLIENT_ROOTS,
            "wants 1 to 16 client_roots",
        )?;
        for root in &self.client_roots {
            rule(
                base64::std_decode(root).is_ok_and(|der| der.starts_with(&[0x30])),
                "a client root is not DER in base64",
            )?;
        }
        rule(
            sorted_unique(self.trails.iter().map(|t| t.origin.as_str())),
            "trails are not sorted by origin, each once",
        )?;
        rule(
            sorted_unique(self.members.iter().map(|m| m.id.as_str())),
            "members are not sorted by id, each once",
        )?;
        for trail in &self.trails {
            rule(
                trail.origin != self.admin_trail,
                "a trail has the admin trail's origin",
            )?;
            let wants_record_key = trail.mode == Mode::Record;
            rule(
                trail.record_algorithm.is_some() == wants_record_key,
                "record_algorithm stands with a record-mode trail and with no other",
            )?;
        }
        for token in [&self.admin_token, &self.record_token] {
            rule(
                is_short_text(&token.label, 32) && is_short_text(&token.serial, 32),
                "a token wants label and serial",
            )?;
        }
        rule(
            self.admin_token != self.record_token,
            "admin_token and record_token are the same token",
        )?;
        self.check_members()
    }

    fn check_members(&self) -> Result<(), DocumentError> {
        let mut identities = BTreeSet::new();
        for member in &self.members {
            let id = &member.id;
            let rule = |holds: bool, problem: &str| {
                must(PLAN, holds, || format!("member {id}: {problem}"))
            };
            rule(
                is_short_text(&member.name, 200),
                "name wants 1 to 200 bytes without control characters",
            )?;
            let administrator = member.role == Role::Administrator;
            let keys = member.ssh_keys.len();
            rule(
                if administrator {
                    (1..=8).contains(&keys)
                } else {
                    keys == 0
                },
                "1 to 8 ssh_keys for an administrator, none for others",
            )?;
            rule(
                (1..=8).contains(&member.spiffe_ids.len()),
                "wants 1 to 8 spiffe_ids",
            )?;
            rule(
                member.role == Role::Gateway || member.grants.is_empty(),
                "only a gateway has grants",
            )?;
            for grant in &member.grants {
                rule(
                    self.trails.iter().any(|t| t.origin == *grant),
                    "a grant for a trail that the plan does not make",
                )?;
            }
            for spiffe_id in &member.spiffe_ids {
                rule(
                    is_spiffe_id(spiffe_id),
                    "a spiffe_id that is not spiffe://trust-domain/path",
                )?;
                rule(
                    identities.insert(spiffe_id.clone()),
                    "a spiffe_id that stands twice in the roster",
                )?;
            }
            for key in &member.ssh_keys {
                rule(
                    identities.insert(key.to_string()),
                    "an ssh key that stands twice in the roster",
                )?;
            }
        }
        // A change of one administrator's keys is proposed by a second and approved by others.
        let administrators = self.administrators().count();
        let met = self.approvals >= MIN_APPROVALS && administrators >= self.approvals as usize + 2;
        must(PLAN, met, || {
            format!(
                "{} approvals of {administrators} administrators: wants at least 2, and 2 administrators more than approvals",
                self.approvals
            )
        })
    }
}

fn must(
    document: &'static str,
    holds: bool,
    problem: impl FnOnce() -> String,
) -> Result<(), DocumentError> {
    if holds {
        Ok(())
    } else {
        Err(DocumentError::Rule {
            document,
            problem: problem(),
        })
    }
}

fn sorted_unique<'a>(names: impl Iterator<Item = &'a str>) -> bool {
    let names: Vec<&str> = names.collect();
    names.windows(2).all(|pair| pair[0] < pair[1])
}

fn is_short_text(text: &str, max: usize) -> bool {
    (1..=max).contains(&text.len()) && !text.chars().any(char::is_control)
}

/// Whether `text` is a SPIFFE ID with a path (SPIFFE-ID standard, section 2), at most 2,048 bytes.
pub fn is_spiffe_id(text: &str) -> bool {
    let Some((domain, path)) = text
        .strip_prefix("spiffe://")
        .and_then(|rest| rest.split_once('/'))
    else {
        return false;
    };
    let domain_ok = (1..=255).contains(&domain.len())
        && domain
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b));
    let segment_ok = |segment: &str| {
        !matches!(segment, "" | "." | "..")
            && segment
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
    };
    text.len() <= 2048 && domain_ok && path.split('/').all(segment_ok)
}

/// A key that the ceremony made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenesisKey {
    /// Its algorithm.
    pub algorithm: Algorithm,
    /// Attributes read back from the token.
    pub attributes: BTreeMap<String, bool>,
    /// CKA_ID, lower-case hex.
    pub cka_id: String,
    /// RFC 7638 thumbprint.
    pub kid: Kid,
    /// `generated`: made in the token, never outside it.
    pub origin: String,
    /// The probe's payload in base64.
    pub probe: String,
    /// The signature over the probe's DSSE encoding, in base64.
    pub probe_signature: String,
    /// What it is for.
    pub purpose: Purpose,
    /// SubjectPublicKeyInfo in base64.
    pub spki: String,
    /// Where it lives.
    pub token: TokenRole,
    /// Its trail; none for the evidence key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trail: Option<Origin>,
}

/// What each key's attributes must read back as.
pub const REQUIRED_ATTRIBUTES: [(&str, bool); 6] = [
    ("always_sensitive", true),
    ("extractable", false),
    ("local", true),
    ("never_extractable", true),
    ("sensitive", true),
    ("sign", true),
];

impl GenesisKey {
    /// Checks the key by itself: kid, attributes and probe.
    pub fn check(&self, instance: &InstanceId) -> Result<PublicKey, DocumentError> {
        let broken = |problem: &str| DocumentError::Rule {
            document: GENESIS,
            problem: format!("key {}: {problem}", self.kid),
        };
        let rule = |holds: bool, problem: &str| if holds { Ok(()) } else { Err(broken(problem)) };
        let decode = |text: &str| base64::std_decode(text).ok();
        let key = decode(&self.spki).and_then(|der| PublicKey::from_spki_der(&der).ok());
        let key = key.ok_or_else(|| broken("spki is not a public key"))?;
        rule(key.kid() == self.kid, "kid is not the thumbprint of spki")?;
        rule(
            key.algorithm() == self.algorithm,
            "algorithm is not that of spki",
        )?;
        rule(self.origin == "generated", "origin is not \"generated\"")?;
        rule(
            hex::decode(&self.cka_id).is_ok_and(|id| !id.is_empty() && id.len() <= 64),
            "cka_id is not 1 to 64 bytes in hex",
        )?;
        for (name, want) in REQUIRED_ATTRIBUTES {
            rule(
                self.attributes.get(name) == Some(&want),
                &format!("attribute {name} is not {want}"),
            )?;
        }
        let (Some(payload), Some(signature)) = (decode(&self.probe), decode(&self.probe_signature))
        else {
            return Err(broken("probe or probe_signature is not base64"));
        };
        let probe: crate::signing::Probe =
            jcs::parse_canonical(&payload, crate::signing::MAX_PROBE_LEN).map_err(|source| {
                DocumentError::Json {
                    document: GENESIS,
                    source,
                }
            })?;
        rule(
            probe.instance == *instance,
            "the probe is of another instance",
        )?;
        let message = dsse::pae(PROBE_PAYLOAD_TYPE, &payload);
        let position = position_of(self.purpose, self.trail.as_ref(), &self.kid, &message);
        rule(
            matches!(position, Ok(Position::Probe { .. })),
            "the probe is not one of this key",
        )?;
        rule(
            key.verify(&message, &signature).is_ok(),
            "the probe's signature does not verify",
        )?;
        Ok(key)
    }
}

/// The first record of a trail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FirstRecord {
    /// RFC 6962 leaf hash of record 0.
    pub leaf_hash: Hash,
    /// The trail.
    pub trail: Origin,
}

/// A token as its module described it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenFacts {
    /// Firmware version.
    pub firmware: String,
    /// CKA_LABEL.
    pub label: String,
    /// Manufacturer.
    pub manufacturer: String,
    /// Model.
    pub model: String,
    /// SHA-256 of the PKCS#11 library.
    pub module: Hash,
    /// Which of the two.
    pub role: TokenRole,
    /// Serial number.
    pub serial: String,
}

/// The first ceremony's result. Its SHA-256 is the genesis fingerprint, the one thing that an
/// auditor pins; it never changes, whatever rotates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Genesis {
    /// When the keys were made.
    pub created: Timestamp,
    /// `countersign.genesis`.
    pub document: String,
    /// The appliance's name.
    pub instance: InstanceId,
    /// Every key, sorted by kid.
    pub keys: Vec<GenesisKey>,
    /// SHA-256 of the plan.
    pub plan: Hash,
    /// Record 0 of every trail, the admin trail's included, sorted by origin.
    pub records: Vec<FirstRecord>,
    /// The tokens: admin, record.
    pub tokens: Vec<TokenFacts>,
    /// 1.
    pub v: u64,
}

impl Genesis {
    /// Parses a genesis document; [`Genesis::check`] holds it against its plan.
    pub fn parse(bytes: &[u8]) -> Result<Genesis, DocumentError> {
        parse(GENESIS, bytes)
    }

    /// The document's bytes.
    pub fn to_bytes(&self) -> Result<Vec<u8>, DocumentError> {
        jcs::to_canonical(self).map_err(|source| DocumentError::Json {
            document: GENESIS,
            source,
        })
    }

    /// Checks that this genesis is what `plan` asked for, nothing less and nothing more, and each
    /// key by itself.
    pub fn check(&self, plan: &Plan, plan_hash: &Hash) -> Result<Vec<PublicKey>, DocumentError> {
        let rule = |holds: bool, problem: &str| must(GENESIS, holds, || problem.to_owned());
        rule(
            self.v == 1 && self.document == GENESIS,
            "not a countersign.genesis of version 1",
        )?;
        rule(self.plan == *plan_hash, "names another plan")?;
        rule(
            self.instance == plan.instance,
            "names another instance than the plan",
        )?;
        let mut kids: Vec<Kid> = self.keys.iter().map(|key| key.kid).collect();
        kids.dedup();
        rule(
            kids.len() == self.keys.len() && kids.is_sorted(),
            "keys are not sorted by kid, each once",
        )?;
        let mut made: Vec<KeySlot> = self.keys.iter().map(slot_of).collect();
        let mut planned = planned_slots(plan);
        made.sort();
        planned.sort();
        rule(
            made == planned,
            "the keys are not the ones that the plan asks for",
        )?;
        let mut origins: Vec<&Origin> = plan
            .trails
            .iter()
            .map(|t| &t.origin)
            .chain([&plan.admin_trail])
            .collect();
        origins.sort();
        rule(
            self.records.iter().map(|r| &r.trail).eq(origins),
            "records do not name each trail once, sorted",
        )?;
        let tokens: Vec<_> = self
            .tokens
            .iter()
            .map(|t| (t.role, &t.label, &t.serial))
            .collect();
        let want = [
            (
                TokenRole::Admin,
                &plan.admin_token.label,
                &plan.admin_token.serial,
            ),
            (
                TokenRole::Record,
                &plan.record_token.label,
                &plan.record_token.serial,
            ),
        ];
        rule(tokens == want, "tokens are not the plan's")?;
        self.keys
            .iter()
            .map(|key| key.check(&self.instance))
            .collect()
    }

    /// The leaf hash of a trail's record 0.
    pub fn first_leaf(&self, trail: &Origin) -> Option<Hash> {
        self.records
            .iter()
            .find(|record| record.trail == *trail)
            .map(|record| record.leaf_hash)
    }
}

/// What a key is for: purpose, trail (empty: the instance), algorithm, token.
type KeySlot = (Purpose, String, &'static str, TokenRole);

fn slot_of(key: &GenesisKey) -> KeySlot {
    let trail = key
        .trail
        .as_ref()
        .map(ToString::to_string)
        .unwrap_or_default();
    (key.purpose, trail, key.algorithm.name(), key.token)
}

/// The keys that a plan asks for.
pub fn planned_keys(plan: &Plan) -> Vec<(Purpose, Option<Origin>, Algorithm, TokenRole)> {
    let mut keys = vec![
        (
            Purpose::AdminCheckpoint,
            Some(plan.admin_trail.clone()),
            plan.admin_algorithm,
            TokenRole::Admin,
        ),
        (
            Purpose::Evidence,
            None,
            plan.evidence_algorithm,
            TokenRole::Record,
        ),
    ];
    for trail in &plan.trails {
        let origin = Some(trail.origin.clone());
        keys.push((
            Purpose::Checkpoint,
            origin.clone(),
            trail.checkpoint_algorithm,
            TokenRole::Record,
        ));
        if let Some(algorithm) = trail.record_algorithm {
            keys.push((Purpose::Record, origin, algorithm, TokenRole::Record));
        }
    }
    keys
}

fn planned_slots(plan: &Plan) -> Vec<KeySlot> {
    let slot =
        |(purpose, trail, algorithm, token): (Purpose, Option<Origin>, Algorithm, TokenRole)| {
            (
                purpose,
                trail.map(|t| t.to_string()).unwrap_or_default(),
                algorithm.name(),
                token,
            )
        };
    planned_keys(plan).into_iter().map(slot).collect()
}
