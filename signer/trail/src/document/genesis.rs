//! The genesis: what the first ceremony made, which every administrator signs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::plan::{Plan, TokenRole, planned_keys};
use super::{DocumentError, must, parse};
use crate::base64;
use crate::dsse;
use crate::hash::Hash;
use crate::id::InstanceId;
use crate::jcs;
use crate::keys::{Algorithm, Kid, PublicKey};
use crate::origin::Origin;
use crate::signing::{MAX_PROBE_LEN, PROBE_PAYLOAD_TYPE, Position, Probe, Purpose, position_of};
use crate::time::Timestamp;

const GENESIS: &str = "countersign.genesis";

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
        let broken =
            |problem: &str| DocumentError::Rule { document: GENESIS, problem: format!("key {}: {problem}", self.kid) };
        let rule = |holds: bool, problem: &str| if holds { Ok(()) } else { Err(broken(problem)) };
        let decode = |text: &str| base64::std_decode(text).ok();
        let key = decode(&self.spki).and_then(|der| PublicKey::from_spki_der(&der).ok());
        let key = key.ok_or_else(|| broken("spki is not a public key"))?;
        rule(key.kid() == self.kid, "kid is not the thumbprint of spki")?;
        rule(key.algorithm() == self.algorithm, "algorithm is not that of spki")?;
        rule(self.origin == "generated", "origin is not \"generated\"")?;
        rule(
            hex::decode(&self.cka_id).is_ok_and(|id| (1..=64).contains(&id.len()) && hex::encode(&id) == self.cka_id),
            "cka_id is not 1 to 64 bytes in lower-case hex",
        )?;
        for (name, want) in REQUIRED_ATTRIBUTES {
            rule(self.attributes.get(name) == Some(&want), &format!("attribute {name} is not {want}"))?;
        }
        let (Some(payload), Some(signature)) = (decode(&self.probe), decode(&self.probe_signature)) else {
            return Err(broken("probe or probe_signature is not base64"));
        };
        let probe: Probe = jcs::parse_canonical(&payload, MAX_PROBE_LEN)
            .map_err(|source| DocumentError::Json { document: GENESIS, source })?;
        rule(probe.instance == *instance, "the probe is of another instance")?;
        let message = dsse::pae(PROBE_PAYLOAD_TYPE, &payload);
        let position = position_of(self.purpose, self.trail.as_ref(), &self.kid, &message);
        rule(matches!(position, Ok(Position::Probe { .. })), "the probe is not one of this key")?;
        rule(key.verify(&message, &signature).is_ok(), "the probe's signature does not verify")?;
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
        jcs::to_canonical(self).map_err(|source| DocumentError::Json { document: GENESIS, source })
    }

    /// Checks that this genesis is what `plan` asked for, nothing less and nothing more, and each
    /// key by itself.
    pub fn check(&self, plan: &Plan, plan_hash: &Hash) -> Result<Vec<PublicKey>, DocumentError> {
        let rule = |holds: bool, problem: &str| must(GENESIS, holds, || problem.to_owned());
        rule(self.v == 1 && self.document == GENESIS, "not a countersign.genesis of version 1")?;
        rule(self.plan == *plan_hash, "names another plan")?;
        rule(self.instance == plan.instance, "names another instance than the plan")?;
        let mut kids: Vec<Kid> = self.keys.iter().map(|key| key.kid).collect();
        kids.dedup();
        rule(kids.len() == self.keys.len() && kids.is_sorted(), "keys are not sorted by kid, each once")?;
        let mut made: Vec<KeySlot> = self.keys.iter().map(slot_of).collect();
        let mut planned = planned_slots(plan);
        made.sort();
        planned.sort();
        rule(made == planned, "the keys are not the ones that the plan asks for")?;
        let mut origins: Vec<&Origin> = plan.trails.iter().map(|t| &t.origin).chain([&plan.admin_trail]).collect();
        origins.sort();
        rule(self.records.iter().map(|r| &r.trail).eq(origins), "records do not name each trail once, sorted")?;
        let tokens: Vec<_> = self.tokens.iter().map(|t| (t.role, &t.label, &t.serial)).collect();
        let want = [
            (TokenRole::Admin, &plan.admin_token.label, &plan.admin_token.serial),
            (TokenRole::Record, &plan.record_token.label, &plan.record_token.serial),
        ];
        rule(tokens == want, "tokens are not the plan's")?;
        self.keys.iter().map(|key| key.check(&self.instance)).collect()
    }

    /// The leaf hash of a trail's record 0.
    pub fn first_leaf(&self, trail: &Origin) -> Option<Hash> {
        self.records.iter().find(|record| record.trail == *trail).map(|record| record.leaf_hash)
    }
}

/// What a key is for: purpose, trail (empty: the instance), algorithm, token.
type KeySlot = (Purpose, String, &'static str, TokenRole);

fn slot_of(key: &GenesisKey) -> KeySlot {
    let trail = key.trail.as_ref().map(ToString::to_string).unwrap_or_default();
    (key.purpose, trail, key.algorithm.name(), key.token)
}

fn planned_slots(plan: &Plan) -> Vec<KeySlot> {
    let slot = |(purpose, trail, algorithm, token): (Purpose, Option<Origin>, Algorithm, TokenRole)| {
        (purpose, trail.map(|t| t.to_string()).unwrap_or_default(), algorithm.name(), token)
    };
    planned_keys(plan).into_iter().map(slot).collect()
}
