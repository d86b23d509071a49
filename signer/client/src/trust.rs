//! Whose signatures count: from a pinned fingerprint or pinned keys to the keys of each trail.

use std::collections::HashMap;
use std::sync::Arc;

use countersign_proto::v1;
use countersign_proto::v1::audit_service_client::AuditServiceClient;
use countersign_trail::admin::{AdminState, Documents, TrailEntry};
use countersign_trail::document::{Genesis, MAX_DOCUMENT_LEN, Mode};
use countersign_trail::hash::Hash;
use countersign_trail::id::MemberId;
use countersign_trail::keys::{Kid, PublicKey};
use countersign_trail::origin::Origin;
use tonic::transport::Channel;

use crate::config::{ClientConfig, Pin, Trust};
use crate::connect::{self, Faults};
use crate::error::{ClientError, TrustError};
use crate::keys::TrustedKey;
use crate::retry::Retry;

/// The trusted keys of one trail.
pub(crate) struct TrailTrust {
    pub(crate) origin: Arc<Origin>,
    pub(crate) mode: Mode,
    /// Those that may vouch for its records: record keys in record mode, checkpoint keys in batch
    /// mode.
    pub(crate) keys: Vec<TrustedKey>,
}

impl TrailTrust {
    pub(crate) fn key(&self, kid: &Kid) -> Option<&TrustedKey> {
        self.keys.iter().find(|key| key.kid() == *kid)
    }
}

/// Who we are, and whose signatures count.
pub(crate) struct Trusted {
    pub(crate) member: MemberId,
    pub(crate) trails: HashMap<String, Arc<TrailTrust>>,
}

/// Fetches what the configured trust needs and checks it.
pub(crate) async fn establish(
    channel: &Channel,
    config: &ClientConfig,
    faults: &Faults,
) -> Result<Trusted, ClientError> {
    let retry = || Retry::new(config, faults);
    let audit = AuditServiceClient::new(channel.clone()).max_decoding_message_size(4 * MAX_DOCUMENT_LEN);
    match &config.trust {
        Trust::Genesis(fingerprint) => {
            let spiffe_id = connect::spiffe_id(&config.connection)?;
            let (genesis, plan) = fetch_genesis(&audit, retry, *fingerprint).await?;
            Ok(from_genesis(*fingerprint, [genesis, plan], &spiffe_id, config.member.as_ref())?)
        }
        Trust::Pinned(pins) => {
            let member = config.member.clone().ok_or(TrustError::MemberMissing)?;
            let listed = retry()
                .run(|_| {
                    let mut audit = audit.clone();
                    async move { audit.list_keys(v1::ListKeysRequest::default()).await }
                })
                .await
                .map_err(|error| fetch_error("the list of keys", error))?;
            Ok(Trusted { member, trails: from_pins(pins, &listed.into_inner().keys)? })
        }
    }
}

fn fetch_error(what: &'static str, error: ClientError) -> ClientError {
    match error {
        ClientError::Rejected { refusal, .. } | ClientError::Exhausted { last: refusal, .. } => {
            TrustError::Fetch { what, refusal }.into()
        }
        other => other,
    }
}

async fn fetch_genesis(
    audit: &AuditServiceClient<Channel>,
    retry: impl Fn() -> Retry,
    fingerprint: Hash,
) -> Result<(Vec<u8>, Vec<u8>), ClientError> {
    let genesis = fetch(audit, retry(), "the genesis document", fingerprint).await?;
    let plan = Genesis::parse(&genesis).map_err(TrustError::from)?.plan;
    let plan = fetch(audit, retry(), "the plan", plan).await?;
    Ok((genesis, plan))
}

async fn fetch(
    audit: &AuditServiceClient<Channel>,
    mut retry: Retry,
    what: &'static str,
    wanted: Hash,
) -> Result<Vec<u8>, ClientError> {
    let request = v1::GetDocumentRequest { sha256: wanted.as_bytes().to_vec().into() };
    let answer = retry.run(|_| {
        let (mut audit, request) = (audit.clone(), request.clone());
        async move { audit.get_document(request).await }
    });
    let answer = answer.await.map_err(|error| fetch_error(what, error))?;
    let document = answer.into_inner().document.to_vec();
    let found = Hash::of(&document);
    if found == wanted { Ok(document) } else { Err(TrustError::Hash { what, wanted, found }.into()) }
}

struct Given(HashMap<Hash, Vec<u8>>);

impl Documents for Given {
    fn document(&self, hash: &Hash) -> Option<Vec<u8>> {
        self.0.get(hash).cloned()
    }
}

/// The keys of a genesis whose documents are at hand.
pub(crate) fn from_genesis(
    fingerprint: Hash,
    documents: [Vec<u8>; 2],
    spiffe_id: &str,
    configured: Option<&MemberId>,
) -> Result<Trusted, TrustError> {
    let documents = Given(documents.into_iter().map(|document| (Hash::of(&document), document)).collect());
    let state = AdminState::begin(fingerprint, &documents)?;
    let ours = state.plan.members.iter().find(|member| member.spiffe_ids.iter().any(|id| id == spiffe_id));
    let member = ours.ok_or_else(|| TrustError::NotEnrolled(spiffe_id.to_owned()))?.id.clone();
    if let Some(configured) = configured.filter(|configured| **configured != member) {
        return Err(TrustError::OtherMember { roster: member.to_string(), configured: configured.to_string() });
    }
    let trust = |(origin, entry): (&Origin, &TrailEntry)| {
        let kid = entry.record_key.unwrap_or(entry.checkpoint_key);
        let key = state.keys.get(&kid).ok_or(TrustError::PinMissing(kid))?;
        let keys = vec![trusted(key.key.clone())?];
        Ok((origin.to_string(), Arc::new(TrailTrust { origin: Arc::new(origin.clone()), mode: entry.mode, keys })))
    };
    let trails: Result<_, TrustError> = state.trails.iter().map(trust).collect();
    Ok(Trusted { member, trails: trails? })
}

fn trusted(key: PublicKey) -> Result<TrustedKey, TrustError> {
    let kid = key.kid().to_string();
    let refused = || TrustError::Key { kid, problem: "not a key that signatures can be checked with".to_owned() };
    TrustedKey::new(key).ok_or_else(refused)
}

/// The pinned keys, with what the daemon says that each is for.
pub(crate) fn from_pins(pins: &[Pin], listed: &[v1::Key]) -> Result<HashMap<String, Arc<TrailTrust>>, TrustError> {
    let mut records: HashMap<String, Vec<TrustedKey>> = HashMap::new();
    let mut checkpoints: HashMap<String, Vec<TrustedKey>> = HashMap::new();
    for pin in pins {
        let kid = pin.kid();
        let text = kid.to_string();
        let entry = listed.iter().find(|key| key.kid == text).ok_or(TrustError::PinMissing(kid))?;
        let problem = |problem: String| TrustError::Key { kid: text.clone(), problem };
        let key = PublicKey::from_spki_der(&entry.spki).map_err(|error| problem(error.to_string()))?;
        if key.kid() != kid {
            return Err(problem(format!("its spki is of key {}", key.kid())));
        }
        match entry.purpose.as_str() {
            "record" => records.entry(entry.trail.clone()).or_default().push(trusted(key)?),
            "checkpoint" => {
                checkpoints.entry(entry.trail.clone()).or_default().push(trusted(key)?);
            }
            // Keys of the instance and of the admin trail vouch for no record of a gateway.
            _ => {}
        }
    }
    let mut trails = HashMap::new();
    // A trail with a record key is one in record mode: its checkpoint key vouches for no record.
    let of_record = records.into_iter().map(|(name, keys)| (name, Mode::Record, keys));
    let of_batch = checkpoints.into_iter().map(|(name, keys)| (name, Mode::Batch, keys));
    for (name, mode, keys) in of_record.chain(of_batch) {
        let problem = |error: String| TrustError::Key { kid: keys[0].kid().to_string(), problem: error };
        let origin = Arc::new(Origin::parse(&name).map_err(|error| problem(error.to_string()))?);
        trails.entry(name).or_insert_with(|| Arc::new(TrailTrust { origin, mode, keys }));
    }
    Ok(trails)
}
