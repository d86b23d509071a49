//! The daemon at the other end: connection, failures, and the keys that the pinned genesis
//! authorises.

use std::collections::HashMap;

use countersign_client::{ClientError, Refusal};
use countersign_proto::v1;
use countersign_proto::v1::audit_service_client::AuditServiceClient;
use countersign_trail::admin::{AdminState, Documents};
use countersign_trail::checkpoint::{Checkpoint, SignedCheckpoint};
use countersign_trail::document::Genesis;
use countersign_trail::hash::Hash;
use countersign_trail::keys::{Kid, PublicKey};
use countersign_trail::origin::Origin;
use tonic::transport::Channel;
use tonic_types::StatusExt as _;

use crate::exit::{Exit, Failure, Outcome, failed, usage};
use crate::profile::{ConnectArgs, Profile};

/// Domain of the daemon's `google.rpc.ErrorInfo`.
const ERROR_DOMAIN: &str = "countersign";
/// The longest answer, in bytes: a page of records with their parts.
const MAX_ANSWER_LEN: usize = 64 << 20;

/// What rustls says of a certificate that is not signed by --ca, or not of --server-name: no later try
/// will be better.
const NOT_OUR_DAEMON: [&str; 3] = ["UnknownIssuer", "BadSignature", "not valid for name"];

/// A connected daemon.
pub(crate) struct Remote {
    /// Reads trails, proofs and keys.
    pub(crate) audit: AuditServiceClient<Channel>,
    /// How it was reached, and the pinned fingerprint.
    pub(crate) profile: Profile,
}

impl Remote {
    /// Connects.
    pub(crate) async fn connect(args: &ConnectArgs) -> Outcome<Remote> {
        let profile = args.load()?;
        let channel = countersign_client::channel(&profile.connection).await.map_err(of_client)?;
        let audit = AuditServiceClient::new(channel).max_decoding_message_size(MAX_ANSWER_LEN);
        Ok(Remote { audit, profile })
    }

    /// A document, its hash checked.
    async fn document(&mut self, what: &str, hash: Hash) -> Outcome<Vec<u8>> {
        let request = v1::GetDocumentRequest { sha256: hash.as_bytes().to_vec().into() };
        let document = self.audit.get_document(request).await.map_err(|status| {
            let failure = of_status(&status);
            Failure::new(failure.exit, format!("{what} {hash}: {failure}"))
        })?;
        let bytes = document.into_inner().document.to_vec();
        let found = Hash::of(&bytes);
        if found == hash {
            Ok(bytes)
        } else {
            Err(Failure::new(
                Exit::Tampered,
                format!("{what}: the daemon's document has SHA-256 {found}, wanted {hash}"),
            ))
        }
    }

    /// The keys and trails that the pinned genesis authorises.
    pub(crate) async fn trust(&mut self) -> Outcome<Trust> {
        let fingerprint = self.profile.genesis()?;
        let genesis = self.document("the genesis document", fingerprint).await?;
        let parsed = Genesis::parse(&genesis).map_err(|error| Failure::new(Exit::Malformed, error.to_string()))?;
        let plan = self.document("the ceremony plan", parsed.plan).await?;
        let documents = Fetched(HashMap::from([(fingerprint, genesis), (parsed.plan, plan)]));
        let state = AdminState::begin(fingerprint, &documents)
            .map_err(|error| Failure::new(Exit::Tampered, format!("the genesis does not hold: {error}")))?;
        Ok(Trust { state })
    }

    /// The newest checkpoint of a trail, its signature verified.
    pub(crate) async fn head(&mut self, trust: &Trust, trail: &Origin) -> Outcome<SignedCheckpoint> {
        let request = v1::GetHeadRequest { trail: trail.to_string() };
        let answer = self.audit.get_head(request).await.map_err(|status| of_status(&status))?;
        trust.checkpoint(trail, &answer.into_inner().checkpoint)
    }
}

struct Fetched(HashMap<Hash, Vec<u8>>);

impl Documents for Fetched {
    fn document(&self, hash: &Hash) -> Option<Vec<u8>> {
        self.0.get(hash).cloned()
    }
}

/// What the pinned genesis authorises.
pub(crate) struct Trust {
    /// The admin trail as far as its genesis tells.
    pub(crate) state: AdminState,
}

impl Trust {
    /// A key that the genesis made.
    pub(crate) fn key(&self, kid: &Kid) -> Option<&PublicKey> {
        self.state.keys.get(kid).map(|entry| &entry.key)
    }

    /// The key that signs a trail's checkpoints.
    pub(crate) fn checkpoint_key(&self, trail: &Origin) -> Outcome<&PublicKey> {
        let entry = self.state.trail(trail).ok_or_else(|| self.unknown(trail))?;
        self.key(&entry.checkpoint_key).ok_or_else(|| self.unknown(trail))
    }

    /// The failure of a trail that the genesis does not name.
    pub(crate) fn unknown(&self, trail: &Origin) -> Failure {
        let known: Vec<&str> = self.state.trails.keys().map(Origin::as_str).collect();
        failed(format!("the genesis has no trail {trail}")).todo(format!(
            "It has {} and the admin trail {}.",
            known.join(", "),
            self.state.plan.admin_trail
        ))
    }

    /// A signed checkpoint of `trail`, verified.
    pub(crate) fn checkpoint(&self, trail: &Origin, bytes: &[u8]) -> Outcome<SignedCheckpoint> {
        let tampered = |problem: String| {
            Failure::new(Exit::Tampered, format!("the checkpoint of {trail} is not believed: {problem}"))
        };
        let signed = SignedCheckpoint::parse(bytes).map_err(|error| tampered(error.to_string()))?;
        let found: &Checkpoint = signed.checkpoint();
        if found.origin != *trail {
            return Err(tampered(format!("it is of {}", found.origin)));
        }
        signed.verify(self.checkpoint_key(trail)?).map_err(|error| tampered(error.to_string()))?;
        Ok(signed)
    }
}

/// The failure behind a gRPC status.
pub(crate) fn of_status(status: &tonic::Status) -> Failure {
    let own = status.get_details_error_info().filter(|info| info.domain == ERROR_DOMAIN);
    let mut message = status.message().to_owned();
    let mut source = std::error::Error::source(status);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !message.contains(&cause_text) {
            message = format!("{message}: {cause_text}");
        }
        source = cause.source();
    }
    let reason = own.map_or_else(|| "TRANSPORT".to_owned(), |info| info.reason);
    of_refusal(&Refusal { code: status.code(), reason, message, retry_after: None })
}

/// The failure behind a refusal.
pub(crate) fn of_refusal(refusal: &Refusal) -> Failure {
    use tonic::Code;
    let (exit, outcome) = match refusal.code {
        Code::Unauthenticated | Code::PermissionDenied => (Exit::Denied, "denied"),
        Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted => (Exit::Unavailable, "failed"),
        Code::InvalidArgument | Code::NotFound | Code::AlreadyExists | Code::OutOfRange => (Exit::Failed, "denied"),
        _ => (Exit::Failed, "failed"),
    };
    // The daemon knows less of the trail than we hold.
    let exit = if refusal.reason == "HEAD_MISMATCH" { Exit::Older } else { exit };
    let failure = Failure::new(exit, format!("{outcome}: {}: {}", refusal.reason, refusal.message));
    match todo_of(&refusal.reason) {
        Some(todo) => failure.todo(todo),
        None => failure,
    }
}

/// What the person at this command line can do about a reason.
fn todo_of(reason: &str) -> Option<&'static str> {
    Some(match reason {
        "UNAUTHENTICATED" | "CERTIFICATE_EXPIRED" | "CERTIFICATE_REVOKED" => {
            "Use a current client certificate of one of the genesis's client roots (--certificate, --key)."
        }
        "UNKNOWN_IDENTITY" => "Use a certificate whose SPIFFE ID stands in the roster of the genesis.",
        "NOT_GRANTED" => {
            "Use a trail that the genesis grants to this client; countersign trails lists the readable ones."
        }
        "ROLE_FORBIDS" => {
            "Use the certificate of a member whose role includes this: auditors read, gateways sign, operators see the status."
        }
        "UNKNOWN_TRAIL" => "countersign trails lists the trails.",
        "PIN_LATCHED" => "On the host: correct the PIN, then countersignd pin-clear.",
        "HEAD_MISMATCH" | "TRAIL_LATCHED" => "Keep every receipt and head, and tell the administrators.",
        "OVERLOADED" | "RATE_LIMITED" | "DRAINING" | "HSM_UNAVAILABLE" | "HSM_TIMEOUT" | "STORE_UNAVAILABLE" => {
            "Try again; an event that is sent again with its event_id is never signed twice."
        }
        _ => return None,
    })
}

/// The failure behind an error of the client library.
pub(crate) fn of_client(error: ClientError) -> Failure {
    match error {
        ClientError::Config(error) => usage(error.to_string()),
        ClientError::Connect { endpoint, problem, .. } if NOT_OUR_DAEMON.iter().any(|why| problem.contains(why)) => {
            usage(format!("what answers at {endpoint} is not the daemon that was set up: {problem}"))
                .todo("Check --ca (the authorities of the daemon's certificate) and --server-name.")
        }
        ClientError::Connect { endpoint, problem, .. } => {
            Failure::new(Exit::Unavailable, format!("cannot connect to {endpoint}: {problem}"))
                .todo("Check that the daemon runs there, and --ca, --server-name, --certificate and --key.")
        }
        ClientError::Rejected { refusal, .. } | ClientError::Exhausted { last: refusal, .. } => of_refusal(&refusal),
        ClientError::UnknownTrail(trail) => failed(format!("the pinned genesis has no trail {trail} for events"))
            .todo("countersign trails lists the trails; the admin trail takes no events."),
        ClientError::Trust(error) => {
            Failure::new(Exit::Tampered, format!("the daemon's keys are not believed: {error}"))
        }
        ClientError::Alarm(alarm) => {
            let exit = match alarm.reason.code() {
                "FORK" | "CHAIN" | "ORDER" => Exit::Fork,
                _ => Exit::Tampered,
            };
            Failure::new(exit, format!("ALARM: {alarm}")).todo("Keep this output and the receipts: they are evidence.")
        }
        other => failed(other.to_string()),
    }
}

/// Parses the origin of a trail.
pub(crate) fn origin(text: &str) -> Result<Origin, String> {
    Origin::parse(text).map_err(|error| error.to_string())
}
