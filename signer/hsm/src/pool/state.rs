//! What is known about a pool's workers, and the one state that follows from it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use countersign_trail::keys::Kid;
use tokio::sync::watch;

use crate::error::{HsmError, Reason};
use crate::sync::lock;

/// The state of a pool, as the daemon shows and records it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PoolState {
    /// No worker has come up or failed yet.
    Starting,
    /// Every worker has signed a probe and every bound key is usable.
    Ready,
    /// Some worker is up. Calls for the others wait for them.
    Degraded {
        /// Workers that are up.
        up: u16,
        /// Why not all is well.
        reason: HsmError,
    },
    /// No worker is up: calls fail at once.
    Down {
        /// Why.
        reason: HsmError,
        /// True when nothing is tried again before an operator acts and the daemon starts anew.
        latched: bool,
    },
}

impl PoolState {
    /// One word for metrics: `starting`, `ready`, `degraded`, `down`, `latched`.
    pub fn word(&self) -> &'static str {
        match self {
            PoolState::Starting => "starting",
            PoolState::Ready => "ready",
            PoolState::Degraded { .. } => "degraded",
            PoolState::Down { latched: false, .. } => "down",
            PoolState::Down { latched: true, .. } => "latched",
        }
    }
}

/// What has happened since the start, for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PoolCounters {
    /// Changes of [`PoolState`]'s word.
    pub transitions: u64,
    /// Worker processes started.
    pub workers_started: u64,
    /// Worker processes that came up: logged in, keys found, probe verified.
    pub workers_up: u64,
    /// Worker processes that ended, for whatever reason.
    pub workers_ended: u64,
    /// Calls refused because the backlog was full.
    pub overloaded: u64,
}

/// One worker slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SlotState {
    Starting,
    /// With the bound keys that it cannot use, and why.
    Up(Vec<(Kid, HsmError)>),
    Down(HsmError),
}

/// What every slot task follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Order {
    /// Keep a worker running.
    Run,
    /// Start nothing again; calls fail with this.
    Latched(HsmError),
    /// End.
    Close,
}

/// The board on which every slot task writes its own entry.
pub(super) struct Board {
    name: String,
    slots: Mutex<Vec<(SlotState, Option<u32>)>>,
    state: watch::Sender<PoolState>,
    order: watch::Sender<Order>,
    transitions: AtomicU64,
    pub(super) workers_started: AtomicU64,
    pub(super) workers_up: AtomicU64,
    pub(super) workers_ended: AtomicU64,
    pub(super) overloaded: AtomicU64,
}

impl Board {
    pub(super) fn new(name: String, workers: u16) -> Board {
        Board {
            name,
            slots: Mutex::new(vec![(SlotState::Starting, None); usize::from(workers)]),
            state: watch::Sender::new(PoolState::Starting),
            order: watch::Sender::new(Order::Run),
            transitions: AtomicU64::new(0),
            workers_started: AtomicU64::new(0),
            workers_up: AtomicU64::new(0),
            workers_ended: AtomicU64::new(0),
            overloaded: AtomicU64::new(0),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn state(&self) -> watch::Receiver<PoolState> {
        self.state.subscribe()
    }

    /// `Run` becomes `Latched`, once, by the first worker that ends latched; anything becomes
    /// `Close`.
    pub(super) fn order(&self) -> watch::Receiver<Order> {
        self.order.subscribe()
    }

    pub(super) fn latch(&self, error: HsmError) {
        self.order.send_if_modified(|order| {
            let first = *order == Order::Run;
            if first {
                *order = Order::Latched(error);
            }
            first
        });
        self.publish(&lock(&self.slots));
    }

    pub(super) fn close(&self) {
        self.order.send_replace(Order::Close);
        self.publish(&lock(&self.slots));
    }

    pub(super) fn set_pid(&self, slot: usize, pid: Option<u32>) {
        lock(&self.slots)[slot].1 = pid;
    }

    pub(super) fn pids(&self) -> Vec<Option<u32>> {
        lock(&self.slots).iter().map(|slot| slot.1).collect()
    }

    /// Sets a slot's state; false when it was the same before.
    pub(super) fn set(&self, slot: usize, state: SlotState) -> bool {
        let mut slots = lock(&self.slots);
        let changed = slots[slot].0 != state;
        slots[slot].0 = state;
        self.publish(&slots);
        changed
    }

    /// The slots that are up.
    pub(super) fn up(&self) -> Vec<usize> {
        let slots = lock(&self.slots);
        let up = slots.iter().enumerate().filter(|(_, (slot, _))| matches!(slot, SlotState::Up(_)));
        up.map(|(index, _)| index).collect()
    }

    /// Notes what became of keys in one worker: usable, unbound (both None), or not usable.
    pub(super) fn note_keys(&self, slot: usize, found: &[(Kid, Option<HsmError>)]) {
        let mut slots = lock(&self.slots);
        if let SlotState::Up(refused) = &mut slots[slot].0 {
            refused.retain(|(kid, _)| !found.iter().any(|(other, _)| other == kid));
            refused.extend(found.iter().filter_map(|(kid, error)| Some((*kid, error.clone()?))));
        }
        self.publish(&slots);
    }

    /// The bound keys that some worker cannot use.
    pub(super) fn refused(&self) -> Vec<(Kid, HsmError)> {
        let slots = lock(&self.slots);
        let refused = slots.iter().filter_map(|(slot, _)| match slot {
            SlotState::Up(refused) => Some(refused.clone()),
            SlotState::Starting | SlotState::Down(_) => None,
        });
        refused.flatten().collect()
    }

    fn publish(&self, slots: &[(SlotState, Option<u32>)]) {
        let new = summary(slots, &self.order.borrow());
        self.state.send_if_modified(|state| {
            if *state == new {
                return false;
            }
            if state.word() != new.word() {
                self.transitions.fetch_add(1, Ordering::Relaxed);
                // A wanted end is one line of the pool's, not trouble.
                if *self.order.borrow() != Order::Close {
                    log_transition(&self.name, state, &new);
                }
            }
            *state = new;
            true
        });
    }

    /// The error of a call that cannot be taken now; None when it can, or may soon.
    pub(super) fn refusal(&self) -> Option<HsmError> {
        match &*self.state.borrow() {
            PoolState::Starting | PoolState::Ready | PoolState::Degraded { .. } => None,
            PoolState::Down { reason, latched } => Some(self.down(reason, *latched)),
        }
    }

    fn down(&self, reason: &HsmError, latched: bool) -> HsmError {
        let word = match (latched, reason.reason()) {
            (false, _) => Reason::HsmUnavailable,
            (true, Reason::PinLatched | Reason::PinState) => Reason::PinLatched,
            (true, _) => Reason::HsmLatched,
        };
        HsmError::new(word, format!("{} HSM is down: {reason}", self.name))
    }

    pub(super) fn counters(&self) -> PoolCounters {
        PoolCounters {
            transitions: self.transitions.load(Ordering::Relaxed),
            workers_started: self.workers_started.load(Ordering::Relaxed),
            workers_up: self.workers_up.load(Ordering::Relaxed),
            workers_ended: self.workers_ended.load(Ordering::Relaxed),
            overloaded: self.overloaded.load(Ordering::Relaxed),
        }
    }
}

fn log_transition(name: &str, old: &PoolState, new: &PoolState) {
    match new {
        PoolState::Starting | PoolState::Ready => {
            tracing::info!(pool = name, from = old.word(), to = new.word(), "HSM state");
        }
        PoolState::Degraded { reason, .. } | PoolState::Down { reason, .. } => {
            tracing::warn!(pool = name, from = old.word(), to = new.word(), %reason, "HSM state");
        }
    }
}

fn summary(slots: &[(SlotState, Option<u32>)], order: &Order) -> PoolState {
    match order {
        Order::Run => {}
        Order::Latched(reason) => {
            return PoolState::Down { reason: reason.clone(), latched: true };
        }
        Order::Close => {
            let reason = HsmError::new(Reason::HsmUnavailable, "the pool is closed");
            return PoolState::Down { reason, latched: false };
        }
    }
    let up = slots.iter().filter(|(slot, _)| matches!(slot, SlotState::Up(_))).count();
    let starting = slots.iter().any(|(slot, _)| *slot == SlotState::Starting);
    let trouble = slots.iter().find_map(|(slot, _)| match slot {
        SlotState::Down(error) => Some(error.clone()),
        SlotState::Up(refused) => refused.first().map(|(_, error)| error.clone()),
        SlotState::Starting => None,
    });
    match (up, trouble) {
        (0, Some(reason)) => PoolState::Down { reason, latched: false },
        (0, None) => PoolState::Starting,
        (_, None) if !starting => PoolState::Ready,
        (up, trouble) => PoolState::Degraded {
            up: u16::try_from(up).unwrap_or(u16::MAX),
            reason: trouble.unwrap_or_else(|| HsmError::new(Reason::HsmUnavailable, "workers are starting")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_follows_from_the_slots() {
        let gone = HsmError::new(Reason::TokenMissing, "gone");
        let board = Board::new("record".to_owned(), 2);
        let state = board.state();
        let word = || state.borrow().word();
        assert_eq!(word(), "starting");
        board.set(0, SlotState::Up(Vec::new()));
        assert_eq!(word(), "degraded");
        board.set(1, SlotState::Up(Vec::new()));
        assert_eq!(word(), "ready");
        board.set(1, SlotState::Down(gone.clone()));
        assert_eq!(word(), "degraded");
        assert!(board.refusal().is_none());
        board.set(0, SlotState::Down(gone.clone()));
        assert_eq!(word(), "down");
        assert_eq!(board.refusal().unwrap().reason(), Reason::HsmUnavailable);
        board.set(0, SlotState::Up(Vec::new()));
        board.set(1, SlotState::Up(vec![(Kid::from_bytes([1; 32]), gone.clone())]));
        assert_eq!(word(), "degraded");
        board.latch(HsmError::new(Reason::PinLatched, "refused"));
        board.latch(gone);
        assert_eq!(word(), "latched");
        assert_eq!(board.refusal().unwrap().reason(), Reason::PinLatched);
        assert_eq!(board.counters().transitions, 6);
    }
}
