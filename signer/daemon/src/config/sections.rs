//! The tables whose values have bounds. Each field is declared once: type, default, bounds, docs.

use serde::Deserialize;

/// A value outside its bounds.
#[derive(Debug)]
pub(super) struct OutOfBounds {
    pub(super) key: String,
    pub(super) problem: String,
}

impl OutOfBounds {
    pub(super) fn new(key: &str, problem: &str) -> OutOfBounds {
        OutOfBounds { key: key.to_owned(), problem: problem.to_owned() }
    }
}

pub(super) fn in_range(key: &str, value: u64, min: u64, max: u64) -> Result<(), OutOfBounds> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(OutOfBounds::new(key, &format!("{value} is not allowed; allowed are {min} to {max}")))
}

/// Declares a table: for each key its docs, type, default and bounds. The docs get the numbers.
macro_rules! bounded {
    ($(#[$doc:meta])* $name:ident {
        $($(#[$key_doc:meta])* $key:ident: $type:ty = $default:literal, $min:literal to $max:literal;)+
    }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name {
            $(
                $(#[$key_doc])*
                #[doc = concat!("Default ", stringify!($default), ", allowed ", stringify!($min), " to ", stringify!($max), ".")]
                pub $key: $type,
            )+
        }

        impl Default for $name {
            fn default() -> $name {
                $name { $($key: $default,)+ }
            }
        }

        impl $name {
            /// Every key of the table with its default and its bounds.
            pub const KEYS: &[(&str, u64, u64, u64)] = &[$((stringify!($key), $default, $min, $max),)+];

            pub(super) fn check(&self, table: &str) -> Result<(), OutOfBounds> {
                $(in_range(&format!("{table}.{}", stringify!($key)), self.$key as u64, $min, $max)?;)+
                Ok(())
            }
        }
    };
}

bounded! {
    /// Bounds on what callers may ask for and hold. Beyond them calls are refused, before a
    /// sequence number is taken.
    Limits {
        /// Longest encoded gRPC message, in bytes.
        message_bytes: usize = 8_388_608, 4_194_304 to 67_108_864;
        /// Most events of one call or stream message.
        batch_records: usize = 4_096, 1 to 4_096;
        /// Most events in the daemon whose answers have not left, of all callers together.
        inflight_records: usize = 65_536, 1 to 1_048_576;
        /// Most bytes of such events, as encoded; and as many again of messages that have not come whole.
        inflight_bytes: usize = 268_435_456, 8_388_608 to 17_179_869_184;
        /// Most of both budgets that one client may hold, in per cent.
        client_share_percent: u32 = 50, 1 to 100;
        /// Most concurrent calls and streams of one connection.
        streams_per_connection: u32 = 128, 1 to 1_024;
        /// Most connections, those in handshake included.
        connections: usize = 1_024, 1 to 65_536;
        /// Most connections of one member; identities that stand in no roster entry share one such
        /// allowance.
        connections_per_client: usize = 128, 1 to 65_536;
        /// Events a second that one client may offer, over a longer time.
        rate_per_client: u32 = 200_000, 1 to 10_000_000;
        /// Events that one client may offer at once, after a pause. At least `batch_records`.
        burst_per_client: u32 = 400_000, 1 to 20_000_000;
        /// Longest TLS handshake, in milliseconds.
        handshake_ms: u64 = 5_000, 100 to 60_000;
        /// Idle time after which the daemon asks a connection for a sign of life (HTTP/2 PING), in
        /// seconds.
        keepalive_seconds: u64 = 30, 1 to 3_600;
        /// How long it waits for that sign before it closes the connection, in seconds.
        keepalive_timeout_seconds: u64 = 10, 1 to 600;
        /// Age at which a connection is asked to go away, its calls being finished, in seconds.
        max_connection_age_seconds: u64 = 86_400, 10 to 2_592_000;
        /// Longest wait for calls in flight when the daemon is told to stop, in seconds.
        drain_seconds: u64 = 20, 1 to 600;
    }
}

impl Limits {
    /// The bounds that depend on each other.
    pub(super) fn check_relations(&self, table: &str) -> Result<(), OutOfBounds> {
        let fail = |key: &str, problem: String| Err(OutOfBounds::new(&format!("{table}.{key}"), &problem));
        let share = |whole: usize| whole as u128 * u128::from(self.client_share_percent) / 100;
        if share(self.inflight_records) < self.batch_records as u128 {
            return fail(
                "inflight_records",
                format!(
                    "{} % of {} is less than one batch of batch_records = {}",
                    self.client_share_percent, self.inflight_records, self.batch_records,
                ),
            );
        }
        if share(self.inflight_bytes) < self.message_bytes as u128 {
            return fail(
                "inflight_bytes",
                format!(
                    "{} % of {} is less than one message of message_bytes = {}",
                    self.client_share_percent, self.inflight_bytes, self.message_bytes,
                ),
            );
        }
        if (self.burst_per_client as usize) < self.batch_records {
            return fail(
                "burst_per_client",
                format!("{} is less than one batch of batch_records = {}", self.burst_per_client, self.batch_records,),
            );
        }
        Ok(())
    }
}

bounded! {
    /// When a batch is full. While one is signed and committed, the next gathers.
    Batch {
        /// Most records.
        max_records: usize = 8_192, 1 to 8_192;
        /// Most bytes of records and parts.
        max_bytes: usize = 16_777_216, 4_194_304 to 67_108_864;
        /// Longest signing time that the records of a record-mode batch may need at the token's
        /// measured rate, in milliseconds.
        signing_ms: u64 = 50, 1 to 10_000;
    }
}

bounded! {
    /// Checkpoints of record-mode trails. (Batch-mode trails have one per batch.)
    Checkpoint {
        /// Longest time between a record and the checkpoint that covers it, in milliseconds.
        interval_ms: u64 = 1_000, 10 to 1_000;
    }
}

bounded! {
    /// Signs of life of idle trails.
    Heartbeat {
        /// Idle time after which a trail gets a heartbeat record, in seconds.
        interval_seconds: u64 = 3_600, 1 to 3_600;
    }
}

bounded! {
    /// What counts as a step of the clock. A step stops issuing until it is confirmed.
    Clock {
        /// Largest difference between the wall clock's advance and the monotonic clock's, in
        /// seconds.
        max_step_seconds: u64 = 300, 1 to 300;
        /// At start: how far the clock may lie beyond the last record, in days.
        max_gap_days: u64 = 7, 1 to 3_660;
    }
}
