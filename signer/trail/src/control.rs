//! The bodies of control records: a closed schema for each type.
//!
//! | type | trail | says |
//! |---|---|---|
//! | `countersign.plan` | admin, record 0 | the plan that the ceremony follows |
//! | `countersign.genesis` | admin, record 1 | the genesis document and its signatures |
//! | `countersign.start` | admin | the daemon started |
//! | `countersign.hsm` | admin | a token's service changed |
//! | `countersign.pin` | admin | a PIN latched, or was cleared |
//! | `countersign.clock` | admin | the clock stepped, or was confirmed |
//! | `countersign.trail` | any other, record 0 | the trail begins |
//! | `countersign.heartbeat` | any | nothing else was written for a while |
//! | `countersign.gap` | any | there was no service between two times |

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::document::{Mode, TokenRole};
use crate::hash::Hash;
use crate::id::{MemberId, TypeName};
use crate::origin::Origin;
use crate::record::{Control, decimal};
use crate::time::Timestamp;

/// A trail's durable size and root when an admin record was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// RFC 6962 root at `size`.
    pub root: Hash,
    /// Number of records.
    #[serde(with = "decimal")]
    pub size: u64,
    /// The trail.
    pub trail: Origin,
}

/// `countersign.plan`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanBody {
    /// SHA-256 of the plan.
    pub plan: Hash,
}

/// One administrator's signature over the genesis document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PersonSignature {
    /// SHA-256 of the SSHSIG armour, a document.
    pub document: Hash,
    /// Fingerprint of the SSH key, as `ssh-keygen -l` prints it.
    pub key: String,
    /// Who signed.
    pub member: MemberId,
}

/// `countersign.genesis`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenesisBody {
    /// SHA-256 of the genesis document: the genesis fingerprint.
    pub genesis: Hash,
    /// Heads of the trails.
    pub heads: Vec<Head>,
    /// One per administrator, sorted by member.
    pub signatures: Vec<PersonSignature>,
}

/// A token and its serial number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenSerial {
    /// SHA-256 of the PKCS#11 library.
    pub module: Hash,
    /// Which of the two.
    pub role: TokenRole,
    /// Its serial number.
    pub serial: String,
}

/// `countersign.start`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartBody {
    /// SHA-256 of the daemon's executable.
    pub binary: Hash,
    /// SHA-256 of its configuration file.
    pub config: Hash,
    /// Heads of the trails that moved.
    pub heads: Vec<Head>,
    /// The tokens in use.
    pub tokens: Vec<TokenSerial>,
    /// The daemon's version.
    pub version: String,
}

/// `countersign.hsm`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HsmBody {
    /// Heads of the trails that moved.
    pub heads: Vec<Head>,
    /// Stable reason code, 1 to 64 bytes of A-Z, 0-9 and `_`; empty when the token is ready.
    pub reason: String,
    /// `ready` or `down`.
    pub state: String,
    /// When it changed.
    pub time: Timestamp,
    /// Which token.
    pub token: TokenRole,
}

/// `countersign.pin`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PinBody {
    /// Heads of the trails that moved.
    pub heads: Vec<Head>,
    /// `latched` or `cleared`.
    pub state: String,
    /// Which token.
    pub token: TokenRole,
}

/// `countersign.clock`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClockBody {
    /// What the wall clock should have read.
    pub expected: Timestamp,
    /// What it read.
    pub found: Timestamp,
    /// Heads of the trails that moved.
    pub heads: Vec<Head>,
    /// `stepped` or `confirmed`.
    pub state: String,
}

/// `countersign.trail`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrailBody {
    /// Sequence number of the admin record that approved the trail.
    #[serde(with = "decimal")]
    pub admin_seq: u64,
    /// The admin trail.
    pub admin_trail: Origin,
    /// How its records are signed.
    pub mode: Mode,
}

/// `countersign.heartbeat`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeartbeatBody {
    /// Time of the record before.
    pub since: Timestamp,
}

/// `countersign.gap`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GapBody {
    /// Time of the last record before.
    pub from: Timestamp,
    /// Stable reason: 1 to 32 bytes of a-z and `-`.
    pub reason: String,
    /// When service returned.
    pub to: Timestamp,
}

/// Why a control record's body is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// A type that this version does not know.
    #[error("control type {0} is unknown")]
    UnknownType(String),
    /// The body is not of its type's schema.
    #[error("body of {type_name}: {problem}")]
    Body {
        /// The type.
        type_name: String,
        /// What is wrong.
        problem: String,
    },
}

macro_rules! bodies {
    ($($(#[$doc:meta])* $variant:ident($body:ty) = $type:literal),+ $(,)?) => {
        /// A control record's body.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Body { $($(#[$doc])* $variant($body)),+ }

        impl Body {
            /// Every control type that exists.
            pub const TYPES: &'static [&'static str] = &[$($type),+];

            /// Parses the body of a control record by its type.
            ///
            /// # Errors
            /// An unknown type; unknown, missing or ill-typed members; an unknown word; a list of
            /// values in the place of an object.
            pub fn parse(control: &Control) -> Result<Body, ControlError> {
                let body = match control.type_name.as_str() {
                    $($type => Body::$variant(of(control)?),)+
                    _ => return Err(ControlError::UnknownType(control.type_name.to_string())),
                };
                // Serde takes a list of an object's values for the object.
                if body.to_control()?.body != control.body {
                    return Err(body.refused("an object is written as a list"));
                }
                Ok(body)
            }

            /// The type that goes with the body.
            pub fn type_name(&self) -> &'static str {
                match self { $(Body::$variant(_) => $type),+ }
            }

            /// As a control record's content.
            ///
            /// # Errors
            /// A word that the type does not know.
            pub fn to_control(&self) -> Result<Control, ControlError> {
                self.check()?;
                let body = match self { $(Body::$variant(body) => serde_json::to_value(body)),+ };
                Ok(Control {
                    type_name: TypeName::parse(self.type_name()).map_err(|error| self.refused(error))?,
                    body: body.map_err(|error| self.refused(error))?,
                })
            }
        }
    };
}

bodies!(
    /// Admin record 0.
    Plan(PlanBody) = "countersign.plan",
    /// Admin record 1.
    Genesis(GenesisBody) = "countersign.genesis",
    /// The daemon started.
    Start(StartBody) = "countersign.start",
    /// A token's service changed.
    Hsm(HsmBody) = "countersign.hsm",
    /// A PIN latched or was cleared.
    Pin(PinBody) = "countersign.pin",
    /// The clock stepped or was confirmed.
    Clock(ClockBody) = "countersign.clock",
    /// A trail begins.
    Trail(TrailBody) = "countersign.trail",
    /// Silence, made visible.
    Heartbeat(HeartbeatBody) = "countersign.heartbeat",
    /// No service for a while.
    Gap(GapBody) = "countersign.gap",
);

impl Body {
    /// What the types of the members cannot say.
    fn check(&self) -> Result<(), ControlError> {
        let (member, holds) = match self {
            Body::Hsm(body) => match body.state.as_str() {
                "ready" => ("reason", body.reason.is_empty()),
                "down" => ("reason", is_reason_code(&body.reason)),
                _ => ("state", false),
            },
            Body::Pin(body) => ("state", ["cleared", "latched"].contains(&&*body.state)),
            Body::Clock(body) => ("state", ["confirmed", "stepped"].contains(&&*body.state)),
            Body::Gap(body) => ("reason", is_word(&body.reason)),
            Body::Start(_) | Body::Plan(_) | Body::Genesis(_) | Body::Trail(_) | Body::Heartbeat(_) => return Ok(()),
        };
        if holds { Ok(()) } else { Err(self.refused(format!("{member} is none of those that the type knows"))) }
    }

    fn refused(&self, problem: impl ToString) -> ControlError {
        ControlError::Body { type_name: self.type_name().to_owned(), problem: problem.to_string() }
    }

    /// The heads that an admin record carries.
    pub fn heads(&self) -> &[Head] {
        match self {
            Body::Genesis(body) => &body.heads,
            Body::Start(body) => &body.heads,
            Body::Hsm(body) => &body.heads,
            Body::Pin(body) => &body.heads,
            Body::Clock(body) => &body.heads,
            Body::Plan(_) | Body::Trail(_) | Body::Heartbeat(_) | Body::Gap(_) => &[],
        }
    }
}

fn is_reason_code(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
}

fn is_word(text: &str) -> bool {
    (1..=32).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')
}

fn of<T: DeserializeOwned>(control: &Control) -> Result<T, ControlError> {
    T::deserialize(&control.body)
        .map_err(|error| ControlError::Body { type_name: control.type_name.to_string(), problem: error.to_string() })
}
