//! The worker's guard: no two different inputs for one position.
//!
//! A scope is a position without its number: `record acme.example/a`, `checkpoint acme.example/a`,
//! `statement <kid>`. Within a scope the guard remembers the SHA-256 of the input for the last
//! 65,536 positions by number; the identical input again is fine, another one is refused. Below
//! that window a number passes only as recovery, and those are remembered too, up to a bound.
//! Scopes are shared by all keys of the worker, so a rotation opens no gap. An entry is made before
//! the token is asked. A new worker starts with an empty guard: across restarts it is the daemon's
//! durable intents, the MAC over them, and for admin checkpoints the mark, that keep inputs apart.

use std::collections::{BTreeMap, HashMap, VecDeque};

use countersign_trail::hash::Hash;
use countersign_trail::signing::Position;

use crate::error::{HsmError, Reason};

/// Positions remembered per scope, by number.
pub(crate) const WINDOW: u64 = 65_536;
/// Positions below the window that one worker takes per scope; a restart begins again. 65,536 are
/// far more than an intent holds.
const MAX_RECOVERED: usize = 65_536;
/// Probe nonces remembered.
const MAX_PROBES: usize = 65_536;
/// Scopes: each is bound to a key (by its trail, or its kid), and keys come and go.
const MAX_SCOPES: usize = 4096;

#[derive(Default)]
struct Scope {
    highest: u64,
    /// The window: numbers above `highest - WINDOW`. At most [`WINDOW`] entries of 40 bytes.
    recent: BTreeMap<u64, Hash>,
    recovered: BTreeMap<u64, Hash>,
}

/// The guard of one worker.
#[derive(Default)]
pub(crate) struct Guard {
    scopes: HashMap<String, Scope>,
    probes: HashMap<Hash, Hash>,
    /// The nonces in `probes`, oldest first.
    probe_order: VecDeque<Hash>,
}

impl Guard {
    /// Takes `input` (the SHA-256 of the message) for `position`, or says why not. `recovery` is
    /// true when a valid proof came with it.
    pub(crate) fn admit(&mut self, position: &Position, input: Hash, recovery: bool) -> Result<(), HsmError> {
        let scope = match position {
            Position::Probe { nonce } => return self.admit_probe(*nonce, input),
            Position::Record { trail, .. } => format!("record {trail}"),
            Position::Checkpoint { origin, .. } => format!("checkpoint {origin}"),
            Position::Statement { kid, .. } => format!("statement {kid}"),
        };
        let Some(number) = position.number() else {
            return Err(HsmError::new(Reason::PurposeMismatch, "a position without a number"));
        };
        if self.scopes.len() >= MAX_SCOPES && !self.scopes.contains_key(&scope) {
            return Err(HsmError::new(Reason::TooLarge, format!("more than {MAX_SCOPES} scopes")));
        }
        let verdict = self.scopes.entry(scope).or_default().admit(number, input, recovery);
        verdict.map_err(|reason| {
            let text = match reason {
                Reason::PositionConflict => "another input was signed for",
                Reason::PositionStale => "without proof of recovery, too far below the newest:",
                _ => "too many recovered positions before",
            };
            HsmError::new(reason, format!("{text} {position}"))
        })
    }

    fn admit_probe(&mut self, nonce: Hash, input: Hash) -> Result<(), HsmError> {
        match self.probes.get(&nonce) {
            Some(known) if *known == input => return Ok(()),
            Some(_) => {
                let text = "another probe was signed with this nonce";
                return Err(HsmError::new(Reason::PositionConflict, text));
            }
            None => {}
        }
        if self.probe_order.len() >= MAX_PROBES
            && let Some(oldest) = self.probe_order.pop_front()
        {
            self.probes.remove(&oldest);
        }
        self.probe_order.push_back(nonce);
        self.probes.insert(nonce, input);
        Ok(())
    }
}

impl Scope {
    fn admit(&mut self, number: u64, input: Hash, recovery: bool) -> Result<(), Reason> {
        let known = self.recent.get(&number).or_else(|| self.recovered.get(&number));
        match known {
            Some(known) if *known == input => return Ok(()),
            Some(_) => return Err(Reason::PositionConflict),
            None => {}
        }
        if number < self.floor() {
            if !recovery {
                return Err(Reason::PositionStale);
            }
            if self.recovered.len() >= MAX_RECOVERED {
                return Err(Reason::TooLarge);
            }
            self.recovered.insert(number, input);
            return Ok(());
        }
        self.recent.insert(number, input);
        if number > self.highest {
            self.highest = number;
            let floor = self.floor();
            while self.recent.first_key_value().is_some_and(|(lowest, _)| *lowest < floor) {
                self.recent.pop_first();
            }
        }
        Ok(())
    }

    /// The lowest number in the window.
    fn floor(&self) -> u64 {
        self.highest.saturating_sub(WINDOW - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use countersign_trail::origin::Origin;

    fn record(trail: &str, seq: u64) -> Position {
        Position::Record { trail: Origin::parse(trail).unwrap(), seq }
    }

    fn input(n: u8) -> Hash {
        Hash::of(&[n])
    }

    fn reason(result: Result<(), HsmError>) -> Reason {
        result.unwrap_err().reason()
    }

    #[test]
    fn a_position_takes_one_input() {
        let mut guard = Guard::default();
        let position = record("acme.example/a", 5);
        guard.admit(&position, input(1), false).unwrap();
        guard.admit(&position, input(1), false).unwrap();
        assert_eq!(reason(guard.admit(&position, input(2), false)), Reason::PositionConflict);
        assert_eq!(reason(guard.admit(&position, input(2), true)), Reason::PositionConflict);
        guard.admit(&record("acme.example/b", 5), input(2), false).unwrap();
        let checkpoint = Position::Checkpoint { origin: Origin::parse("acme.example/a").unwrap(), size: 5 };
        guard.admit(&checkpoint, input(2), false).unwrap();
    }

    #[test]
    fn the_window_remembers_65_536_positions_and_forgets_none_of_them() {
        let mut guard = Guard::default();
        for seq in 0..WINDOW + 10 {
            guard.admit(&record("acme.example/a", seq), input(1), false).unwrap();
        }
        for seq in 10..WINDOW + 10 {
            let result = guard.admit(&record("acme.example/a", seq), input(2), true);
            assert_eq!(reason(result), Reason::PositionConflict, "{seq}");
        }
        let result = guard.admit(&record("acme.example/a", 9), input(1), false);
        assert_eq!(reason(result), Reason::PositionStale);
        assert_eq!(guard.scopes["record acme.example/a"].recent.len() as u64, WINDOW);
    }

    #[test]
    fn below_the_window_only_recovery_passes_and_only_one_input() {
        let mut guard = Guard::default();
        guard.admit(&record("acme.example/a", u64::MAX), input(1), false).unwrap();
        let old = record("acme.example/a", 7);
        assert_eq!(reason(guard.admit(&old, input(1), false)), Reason::PositionStale);
        guard.admit(&old, input(1), true).unwrap();
        guard.admit(&old, input(1), true).unwrap();
        assert_eq!(reason(guard.admit(&old, input(2), true)), Reason::PositionConflict);
    }

    #[test]
    fn probes_go_by_nonce_and_are_bounded() {
        let mut guard = Guard::default();
        let probe = |n: u32| Position::Probe { nonce: Hash::of(&n.to_le_bytes()) };
        guard.admit(&probe(0), input(1), false).unwrap();
        guard.admit(&probe(0), input(1), false).unwrap();
        assert_eq!(reason(guard.admit(&probe(0), input(2), false)), Reason::PositionConflict);
        for n in 1..=u32::try_from(MAX_PROBES).unwrap() {
            guard.admit(&probe(n), input(1), false).unwrap();
        }
        assert_eq!(guard.probes.len(), MAX_PROBES);
        assert_eq!(guard.probe_order.len(), MAX_PROBES);
    }
}
