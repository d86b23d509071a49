//! The batch that gathers, and who waits for it.

use std::sync::Arc;
use std::time::Duration;

use countersign_trail::control::{Body, GapBody, HeartbeatBody};
use countersign_trail::hash::Hash;
use countersign_trail::time::Timestamp;
use tokio::sync::oneshot;

use super::batch::{Item, SealedBatch};
use super::recent::Recent;
use super::{Group, GroupAnswer, Place};
use crate::reason::Refusal;
use crate::store::Head;

type ControlReply = oneshot::Sender<Result<(u64, Hash), Refusal>>;

/// Somebody who waits for a batch.
pub(super) enum Waiter {
    /// A group, with the places of its events.
    Group { places: Vec<Place>, reply: oneshot::Sender<Result<GroupAnswer, Refusal>>, permit: Arc<dyn Send + Sync> },
    /// Whoever asked for a control record, at this index of the batch.
    Control { index: usize, reply: ControlReply },
}

impl Waiter {
    /// Nothing was stored, or it is not known to be signed yet.
    pub(super) fn refuse(self, refusal: &Refusal) {
        match self {
            Waiter::Group { reply, .. } => drop(reply.send(Err(refusal.clone()))),
            Waiter::Control { reply, .. } => drop(reply.send(Err(refusal.clone()))),
        }
    }

    /// The batch is durable and signed.
    pub(super) fn answer(self, sealed: &Arc<SealedBatch>) {
        match self {
            Waiter::Group { places, reply, permit } => {
                let _ = reply.send(Ok(GroupAnswer { places, batch: Some(sealed.clone()) }));
                drop(permit);
            }
            Waiter::Control { index, reply } => {
                let place = sealed.records.get(index).map(|record| (sealed.first_seq + index as u64, record.leaf));
                if let Some(place) = place {
                    let _ = reply.send(Ok(place));
                }
            }
        }
    }
}

/// Items for the next batch, in order.
#[derive(Default)]
pub(super) struct Gathering {
    items: Vec<(Item, Timestamp)>,
    waiters: Vec<Waiter>,
    bytes: usize,
}

impl Gathering {
    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    pub(super) fn is_full(&self, max_records: usize, max_bytes: usize) -> bool {
        self.items.len() >= max_records || self.bytes >= max_bytes
    }

    /// Adds a group's events; those whose id stands in a recent record are answered by it.
    pub(super) fn add_group(
        &mut self,
        group: Group,
        now: Timestamp,
        head: &Head,
        recent: &mut Recent,
        heartbeat: Duration,
    ) {
        let mut places = Vec::with_capacity(group.events.len());
        for prepared in group.events {
            let (client, event_id) = (&prepared.event.client, &prepared.event.event_id);
            if let Some(seq) = recent.find(client, event_id) {
                places.push(Place::Repeat(seq));
                continue;
            }
            self.open(now, head, heartbeat);
            recent.add(client.clone(), event_id.clone(), head.size + self.items.len() as u64);
            places.push(Place::New(self.items.len()));
            self.bytes += prepared.weight;
            self.items.push((Item::Event(Box::new(prepared)), now));
        }
        if places.iter().any(|place| matches!(place, Place::New(_))) {
            self.waiters.push(Waiter::Group { places, reply: group.reply, permit: group.permit });
        } else {
            let _ = group.reply.send(Ok(GroupAnswer { places, batch: None }));
        }
    }

    pub(super) fn add_control(
        &mut self,
        body: Body,
        reply: ControlReply,
        now: Timestamp,
        head: &Head,
        heartbeat: Duration,
    ) {
        self.open(now, head, heartbeat);
        self.waiters.push(Waiter::Control { index: self.items.len(), reply });
        self.items.push((Item::Control(body), now));
    }

    pub(super) fn add_heartbeat(&mut self, now: Timestamp, head: &Head, heartbeat: Duration) {
        if !self.open(now, head, heartbeat) {
            self.items.push((Item::Control(Body::Heartbeat(HeartbeatBody { since: head.time })), now));
        }
    }

    /// Heartbeats make a silence of twice their time impossible while there is service: where the
    /// trail was silent longer, its first record afterwards says so. True when one was added.
    fn open(&mut self, now: Timestamp, head: &Head, heartbeat: Duration) -> bool {
        let silent = now.as_micros().saturating_sub(head.time.as_micros());
        let gap = self.items.is_empty()
            && head.size > 0
            && u128::from(silent.max(0).unsigned_abs()) > 2 * heartbeat.as_micros();
        if gap {
            let body = GapBody { from: head.time, reason: "no-service".to_owned(), to: now };
            self.items.push((Item::Control(Body::Gap(body)), now));
        }
        gap
    }

    /// Hands over what gathered.
    pub(super) fn take(&mut self) -> (Vec<(Item, Timestamp)>, Vec<Waiter>) {
        self.bytes = 0;
        (std::mem::take(&mut self.items), std::mem::take(&mut self.waiters))
    }

    /// Refuses everybody.
    pub(super) fn refuse(&mut self, refusal: &Refusal) {
        let (_, waiters) = self.take();
        waiters.into_iter().for_each(|waiter| waiter.refuse(refusal));
    }
}
