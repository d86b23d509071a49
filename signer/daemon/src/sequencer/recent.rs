//! Event ids of the newest records: what a reader's snapshot may not have shown.

use std::collections::{HashMap, VecDeque};

use countersign_trail::id::{EventId, MemberId};

/// How many records back the memory goes: several of the largest batches, so that a group is only
/// sent back to look again when its look-up lies seconds in the past. About 200 bytes each.
const KEPT: usize = 65_536;

/// Remembers which (client, event id) the newest records have.
#[derive(Debug)]
pub(super) struct Recent {
    by_id: HashMap<(MemberId, EventId), u64>,
    order: VecDeque<(MemberId, EventId, u64)>,
    /// Every record from here on is remembered.
    floor: u64,
}

impl Recent {
    /// Remembers nothing yet; records before `size` must be looked up in the store.
    pub(super) fn new(size: u64) -> Recent {
        Recent { by_id: HashMap::new(), order: VecDeque::new(), floor: size }
    }

    /// Whether a look-up in a snapshot of `signed` records, together with this memory, misses none.
    pub(super) fn covers(&self, signed: u64) -> bool {
        signed >= self.floor
    }

    /// The record of an event id, if it is among the newest.
    pub(super) fn find(&self, client: &MemberId, event_id: &EventId) -> Option<u64> {
        self.by_id.get(&(client.clone(), event_id.clone())).copied()
    }

    /// Remembers a new record.
    pub(super) fn add(&mut self, client: MemberId, event_id: EventId, seq: u64) {
        self.by_id.insert((client.clone(), event_id.clone()), seq);
        self.order.push_back((client, event_id, seq));
        if self.order.len() > KEPT
            && let Some((client, event_id, seq)) = self.order.pop_front()
        {
            self.by_id.remove(&(client, event_id));
            self.floor = self.floor.max(seq + 1);
        }
    }

    /// Forgets records from `seq` on: their batch was not stored.
    pub(super) fn forget_from(&mut self, seq: u64) {
        while self.order.back().is_some_and(|(_, _, at)| *at >= seq) {
            if let Some((client, event_id, _)) = self.order.pop_back() {
                self.by_id.remove(&(client, event_id));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floor_follows_what_is_forgotten() {
        let id = |n: u64| (MemberId::parse("gw").unwrap(), EventId::parse(&format!("e{n}")).unwrap());
        let mut recent = Recent::new(10);
        assert!(recent.covers(10) && !recent.covers(9));
        for seq in 10..10 + KEPT as u64 + 5 {
            let (client, event) = id(seq);
            recent.add(client, event, seq);
        }
        assert!(!recent.covers(14) && recent.covers(15));
        let (client, event) = id(12);
        assert_eq!(recent.find(&client, &event), None);
        let last = 10 + KEPT as u64 + 4;
        let (client, event) = id(last);
        assert_eq!(recent.find(&client, &event), Some(last));
        recent.forget_from(last);
        assert_eq!(recent.find(&client, &event), None);
        assert!(recent.covers(15));
    }
}
