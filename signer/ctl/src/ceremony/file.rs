//! The ceremony file: TOML that people write, from which the plan is made.
//!
//! `hsm-config/ceremony.example.toml` is the commented example. Paths in it are relative to the
//! file's own folder. Unknown keys are refused with their line.

use std::path::{Path, PathBuf};

use countersign_trail::document::{Mode, Role};
use countersign_trail::hash::Hash;
use countersign_trail::id::{InstanceId, MemberId};
use countersign_trail::keys::Algorithm;
use countersign_trail::origin::Origin;
use countersign_trail::sshsig::SshPublicKey;
use serde::Deserialize;
use toml::de::{DeTable, DeValue};

use crate::exit::{Outcome, usage};
use crate::files;

/// The longest ceremony file: 1,024 members with a kilobyte each.
pub(crate) const MAX_CEREMONY_FILE: usize = 1 << 20;

/// The keys whose value is a list. Anywhere else serde would take a list for a table, its values for
/// the keys in their order.
const LISTS: &[&str] = &[
    "client_roots",
    "trails",
    "members",
    "members.spiffe_ids",
    "members.ssh_keys",
    "members.ssh_key_files",
    "members.grants",
];

/// A ceremony file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CeremonyFile {
    /// The appliance's name: `[a-z][a-z0-9-]{0,63}`.
    pub(crate) instance: InstanceId,
    /// Origin of the admin trail.
    pub(crate) admin_trail: Origin,
    /// Algorithm of the admin trail's checkpoint key: `ed25519` (default) or `ecdsa-p256`.
    #[serde(default = "ed25519")]
    pub(crate) admin_algorithm: Algorithm,
    /// Algorithm of the key that signs evidence: `ed25519` (default) or `ecdsa-p256`.
    #[serde(default = "ed25519")]
    pub(crate) evidence_algorithm: Algorithm,
    /// How many administrators beside the proposer must approve a change; at least 2 (default).
    #[serde(default = "two")]
    pub(crate) approvals: u32,
    /// PEM files with the certification authorities of client certificates, 1 to 16 certificates.
    pub(crate) client_roots: Vec<PathBuf>,
    /// Fingerprint of the genesis that this one follows, where one was lost.
    pub(crate) predecessor: Option<Hash>,
    /// The two tokens.
    pub(crate) tokens: Tokens,
    /// The trails, 1 to 64.
    #[serde(default)]
    pub(crate) trails: Vec<TrailSection>,
    /// Everyone and everything that may talk to the appliance.
    #[serde(default)]
    pub(crate) members: Vec<MemberSection>,
}

/// `[tokens]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tokens {
    /// Holds the key of the admin trail.
    pub(crate) admin: TokenSection,
    /// Holds every other key.
    pub(crate) record: TokenSection,
}

/// `[tokens.admin]` and `[tokens.record]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TokenSection {
    /// CKA_LABEL of the token.
    pub(crate) label: String,
    /// Its serial number as the PKCS#11 module reports it; or by `--admin-serial`,
    /// `--record-serial`.
    pub(crate) serial: Option<String>,
}

/// `[[trails]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TrailSection {
    /// Its name.
    pub(crate) origin: Origin,
    /// `record` or `batch`; never changes.
    pub(crate) mode: Mode,
    /// Algorithm of its checkpoint key: `ed25519` (default) or `ecdsa-p256`.
    #[serde(default = "ed25519")]
    pub(crate) checkpoint_algorithm: Algorithm,
    /// Algorithm of its record key; wanted in record mode, refused in batch mode.
    pub(crate) record_algorithm: Option<Algorithm>,
}

/// `[[members]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MemberSection {
    /// `[a-z][a-z0-9-]{0,63}`.
    pub(crate) id: MemberId,
    /// For people who read it.
    pub(crate) name: String,
    /// `administrator`, `auditor`, `gateway` or `operator`.
    pub(crate) role: Role,
    /// SPIFFE IDs of its client certificates, 1 to 8.
    pub(crate) spiffe_ids: Vec<String>,
    /// OpenSSH public keys, one line each; administrators only.
    #[serde(default)]
    pub(crate) ssh_keys: Vec<String>,
    /// OpenSSH public key files (`.pub`), one key each; administrators only.
    #[serde(default)]
    pub(crate) ssh_key_files: Vec<PathBuf>,
    /// Trails that a gateway may write.
    #[serde(default)]
    pub(crate) grants: Vec<Origin>,
}

fn ed25519() -> Algorithm {
    Algorithm::Ed25519
}

fn two() -> u32 {
    countersign_trail::document::MIN_APPROVALS
}

impl CeremonyFile {
    /// Reads a ceremony file.
    pub(crate) fn read(path: &Path) -> Outcome<CeremonyFile> {
        let text = files::read_text(path, MAX_CEREMONY_FILE)?;
        let refused = |problem: &str| {
            usage(format!("{}: {problem}", path.display())).todo("hsm-config/ceremony.example.toml shows every key.")
        };
        match misplaced_list(&text) {
            Some(problem) => Err(refused(&problem)),
            None => toml::from_str(&text).map_err(|error| refused(error.to_string().trim_end())),
        }
    }
}

/// What is wrong with the first list that is not the value of one of [`LISTS`], and where it stands.
fn misplaced_list(text: &str) -> Option<String> {
    let (key, offset) = list_in_table(DeTable::parse(text).ok()?.get_ref(), "")?;
    let before = &text[..text.floor_char_boundary(offset)];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let (line, column) = (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1);
    Some(format!("line {line}, column {column}: {key}: is a list, where a value or a table belongs"))
}

/// The dotted key of the list, and its byte offset.
fn list_in_table(table: &DeTable<'_>, before: &str) -> Option<(String, usize)> {
    table.iter().find_map(|(name, value)| {
        let key = format!("{before}{}", name.get_ref());
        match value.get_ref() {
            DeValue::Array(_) if !LISTS.contains(&key.as_str()) => Some((key, name.span().start)),
            DeValue::Array(items) => items.iter().find_map(|item| match item.get_ref() {
                DeValue::Array(_) => Some((key.clone(), item.span().start)),
                DeValue::Table(inner) => list_in_table(inner, &format!("{key}.")),
                _ => None,
            }),
            DeValue::Table(inner) => list_in_table(inner, &format!("{key}.")),
            _ => None,
        }
    })
}

impl MemberSection {
    /// The member's SSH keys, from the lines and then from the files.
    pub(crate) fn keys(&self, folder: &Path) -> Outcome<Vec<SshPublicKey>> {
        let mut keys = Vec::new();
        for line in &self.ssh_keys {
            let key = SshPublicKey::parse(line.trim());
            keys.push(key.map_err(|error| usage(format!("member {}: ssh_keys: {error}", self.id)))?);
        }
        for file in &self.ssh_key_files {
            let path = folder.join(file);
            let text = files::read_text(&path, countersign_trail::sshsig::LINE_MAX + 1)?;
            let key = SshPublicKey::parse(text.trim_end()).map_err(|error| {
                usage(format!("member {}: {}: {error}", self.id, path.display()))
                    .todo("Give the public key file, the one that ends in .pub.")
            })?;
            keys.push(key);
        }
        Ok(keys)
    }
}
