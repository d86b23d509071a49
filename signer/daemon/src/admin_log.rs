//! What the daemon itself writes into the admin trail: starts, changes of a token's service, PINs.
//!
//! Every such record carries the heads of the trails that moved since the admin record before, so
//! that the two orders can be compared.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use countersign_hsm::PoolState;
use countersign_trail::admin::AdminState;
use countersign_trail::control::{Body, ClockBody, Head, HsmBody, PinBody, StartBody, TokenSerial};
use countersign_trail::document::TokenRole;
use countersign_trail::hash::Hash;
use countersign_trail::origin::Origin;
use tokio::sync::Mutex;

use crate::reason::{Reason, Refusal};
use crate::sequencer::TrailHandle;
use crate::signer;
use crate::store::ReadError;
use crate::store::sqlite::SqliteStore;
use crate::store::tree::StoredTree;
use crate::timekeeper::Timekeeper;

/// Time between attempts to record a transition.
const REPEAT_EVERY: std::time::Duration = std::time::Duration::from_millis(500);

/// Heads of the trails as stored, for an admin record that is written before their sequencers run.
pub fn stored_heads(store: &SqliteStore, state: &AdminState) -> Result<Vec<Head>, ReadError> {
    store.reader().read(|snapshot| {
        let mut heads = Vec::new();
        for row in snapshot.trails()? {
            if !state.trails.contains_key(&row.origin) {
                continue;
            }
            let frontier = StoredTree::new(snapshot, row.no).frontier(row.signed);
            let damaged = |error: crate::store::tree::TreeReadError| ReadError::Damaged {
                what: format!("the tree of {}", row.origin),
                problem: error.to_string(),
            };
            heads.push(Head { root: frontier.map_err(damaged)?.root(), size: row.signed, trail: row.origin });
        }
        heads.sort_by(|a, b| a.trail.cmp(&b.trail));
        Ok(heads)
    })
}

/// The one writer of daemon-made admin records.
pub struct AdminLog {
    admin: TrailHandle,
    trails: Vec<TrailHandle>,
    clock: Arc<Timekeeper>,
    /// Sizes that admin records carry already. Held while a record is written, so that heads grow
    /// from record to record.
    noted: Mutex<BTreeMap<Origin, u64>>,
}

impl AdminLog {
    /// Over the admin trail's sequencer and those of every other trail.
    pub fn new(state: &AdminState, admin: TrailHandle, trails: Vec<TrailHandle>, clock: Arc<Timekeeper>) -> AdminLog {
        let noted = state.heads.iter().map(|noted| (noted.head.trail.clone(), noted.head.size)).collect();
        AdminLog { admin, trails, clock, noted: Mutex::new(noted) }
    }

    /// Writes a record with the heads of the trails that moved.
    async fn write(&self, body: impl FnOnce(Vec<Head>) -> Body) -> Result<u64, Refusal> {
        let mut noted = self.noted.lock().await;
        let mut heads = Vec::new();
        for trail in &self.trails {
            let origin = &trail.facts().origin;
            let now = trail.now();
            if now.head.size > noted.get(origin).copied().unwrap_or(0) {
                heads.push(Head { root: now.root, size: now.head.size, trail: origin.clone() });
            }
        }
        heads.sort_by(|a, b| a.trail.cmp(&b.trail));
        let sizes: Vec<(Origin, u64)> = heads.iter().map(|head| (head.trail.clone(), head.size)).collect();
        let before = self.admin.now().head.size;
        let seq = match (self.admin.control(body(heads)).await, self.admin.now().head.size) {
            (Ok((seq, _)), _) => seq,
            // Its intent is durable: it is signed as soon as the token can, and must not be there twice.
            (Err(_), size) if size > before => size - 1,
            (Err(error), _) => return Err(error),
        };
        noted.extend(sizes);
        Ok(seq)
    }

    /// The daemon started.
    pub async fn start(&self, config: Hash, tokens: Vec<TokenSerial>) -> Result<u64, Refusal> {
        let binary = hash_file(&std::env::current_exe().map_err(internal)?)?;
        let version = env!("CARGO_PKG_VERSION").to_owned();
        self.write(|heads| Body::Start(StartBody { binary, config, heads, tokens, version })).await
    }

    /// The clock stepped or was confirmed; the heads of `body` are filled in.
    pub async fn clock(&self, body: ClockBody) -> Result<u64, Refusal> {
        self.write(|heads| Body::Clock(ClockBody { heads, ..body })).await
    }

    /// A PIN latched or was cleared.
    pub async fn pin(&self, token: TokenRole, state: &str) -> Result<u64, Refusal> {
        let state = state.to_owned();
        self.write(|heads| Body::Pin(PinBody { heads, state, token })).await
    }

    /// Records each change between ready and down of a token, for as long as its pool lives. While
    /// the admin token itself is away a change waits for its return; of those that come meanwhile
    /// the newest follows.
    pub async fn watch(self: Arc<Self>, token: TokenRole, mut states: tokio::sync::watch::Receiver<PoolState>) {
        // Ready, and latched: the reason of a token that is down may change without a transition.
        let mut recorded = (true, false);
        loop {
            let (now, reason) = match &*states.borrow_and_update() {
                PoolState::Ready | PoolState::Degraded { .. } => ((true, false), ""),
                PoolState::Starting => (recorded, ""),
                PoolState::Down { reason, latched } => {
                    ((false, *latched), signer::refusal(reason.clone()).reason().code())
                }
            };
            if now != recorded {
                self.transition(token, now.0, reason).await;
                recorded = now;
            }
            if states.changed().await.is_err() {
                return;
            }
        }
    }

    /// Writes a transition's record, however long that takes.
    async fn transition(&self, token: TokenRole, ready: bool, reason: &str) {
        let (time, state) = (self.clock.now(), if ready { "ready" } else { "down" });
        let mut pin_latched = reason == Reason::PinLatched.code();
        loop {
            let written = match pin_latched {
                true => self.pin(token, "latched").await.map(|_| None),
                false => {
                    let (state, reason) = (state.to_owned(), reason.to_owned());
                    self.write(|heads| Body::Hsm(HsmBody { heads, reason, state, time, token })).await.map(Some)
                }
            };
            match written {
                Ok(None) => pin_latched = false,
                Ok(Some(seq)) => {
                    tracing::warn!(token = token.word(), ready, reason, admin_seq = seq, "the token's service changed");
                    return;
                }
                Err(error) => {
                    tracing::warn!(token = token.word(), %error, "the change of the token's service is not recorded yet");
                    tokio::time::sleep(REPEAT_EVERY).await;
                }
            }
        }
    }
}

fn internal(error: std::io::Error) -> Refusal {
    Refusal::new(Reason::Internal, error)
}

/// SHA-256 of a file, read in pieces.
fn hash_file(path: &Path) -> Result<Hash, Refusal> {
    use sha2::Digest;
    let mut file = std::fs::File::open(path).map_err(internal)?;
    let mut digest = sha2::Sha256::new();
    std::io::copy(&mut file, &mut HashWriter(&mut digest)).map_err(internal)?;
    Ok(Hash::from_bytes(digest.finalize().into()))
}

struct HashWriter<'d>(&'d mut sha2::Sha256);

impl std::io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        sha2::Digest::update(self.0, bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
