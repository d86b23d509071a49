//! The enumerations of a record: each value is one lower-case word.

use serde::{Deserialize, Serialize};

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$vdoc])* #[serde(rename = $word)] $variant,)+
        }

        impl $name {
            /// Every value, in the order of the interface definition.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word that stands in records.
            pub fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }

            /// The value of a word.
            pub fn from_word(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|value| value.word() == word)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.word())
            }
        }
    };
}

words!(
    /// What retention and filters go by.
    Category {
        /// A request was blocked.
        Block = "block",
        /// Content was redacted.
        Redaction = "redaction",
        /// A person was asked.
        Escalation = "escalation",
        /// Nothing out of the ordinary.
        Normal = "normal",
        /// Money.
        Cost = "cost",
        /// Authentication and authorisation.
        Auth = "auth",
        /// A change of configuration; every control record.
        Config = "config",
    }
);
words!(
    /// What the gateway's policy said.
    Decision {
        /// Let it pass.
        Allow = "allow",
        /// Stop it.
        Block = "block",
        /// Let it pass without some content.
        Redact = "redact",
        /// Ask a person.
        Escalate = "escalate",
        /// No policy was asked.
        None = "none",
    }
);
words!(
    /// What then happened.
    EventResult {
        /// The answer reached the caller.
        Delivered = "delivered",
        /// The request was stopped.
        Blocked = "blocked",
        /// Delivered without some content.
        Redacted = "redacted",
        /// Handed to a person.
        Escalated = "escalated",
        /// Something broke.
        Failed = "failed",
        /// Not known yet.
        Pending = "pending",
    }
);
