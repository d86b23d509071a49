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

use crate::exit::{Outcome, usage};
use crate::files;

/// The longest ceremony file: 1,024 members with a kilobyte each.
pub(crate) const MAX_CEREMONY_FILE: usize = 1 << 20;

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
        toml::from_str(&text).map_err(|error| {
            usage(format!("{}: {}", path.display(), error.to_string().trim_end()))
                .todo("hsm-config/ceremony.example.toml shows every key.")
        })
    }
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
