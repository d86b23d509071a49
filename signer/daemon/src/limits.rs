//! What callers may hold and offer at once: admission before a sequence number is taken.
//!
//! Nothing here waits: a call is admitted now or refused now, with a time to come back.
//! - in flight: budgets of events, of bytes and of messages for the whole daemon, of which one client
//!   holds at most its share ([`Reason::Overloaded`]);
//! - arriving: bytes of messages that are not yet decoded, with the same bounds again;
//! - rate: events a second per client, with a burst ([`Reason::RateLimited`]; GCRA).

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use countersign_trail::id::MemberId;
use governor::clock::{Clock, DefaultClock};
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

use crate::config::Limits;
use crate::reason::{Reason, Refusal};
use crate::sequencer::QUEUE_GROUPS;

/// An amount that can be taken in part and is given back.
#[derive(Debug)]
struct Budget {
    used: AtomicUsize,
    bound: usize,
}

impl Budget {
    fn new(bound: usize) -> Budget {
        Budget { used: AtomicUsize::new(0), bound }
    }

    fn try_take(&self, amount: usize) -> bool {
        let more = |used: usize| used.checked_add(amount).filter(|sum| *sum <= self.bound);
        self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_ok()
    }

    fn give_back(&self, amount: usize) {
        self.used.fetch_sub(amount, Ordering::AcqRel);
    }

    fn used(&self) -> usize {
        self.used.load(Ordering::Acquire)
    }
}

/// Events, bytes and messages in flight, of one client or of all.
#[derive(Debug)]
struct InFlight {
    records: Budget,
    bytes: Budget,
    /// A trail's queue has room for so many: without a bound of its own one client with small messages
    /// would fill it.
    messages: Budget,
}

impl InFlight {
    fn new(records: usize, bytes: usize, messages: usize) -> InFlight {
        InFlight { records: Budget::new(records), bytes: Budget::new(bytes), messages: Budget::new(messages) }
    }

    /// Takes what one message has, or nothing.
    fn try_take(&self, records: usize, bytes: usize) -> bool {
        let wanted = [(&self.records, records), (&self.bytes, bytes), (&self.messages, 1)];
        for (at, (budget, amount)) in wanted.iter().enumerate() {
            if !budget.try_take(*amount) {
                wanted[..at].iter().for_each(|(budget, amount)| budget.give_back(*amount));
                return false;
            }
        }
        true
    }

    /// Gives back what one message had.
    fn give_back(&self, records: usize, bytes: usize) {
        self.records.give_back(records);
        self.bytes.give_back(bytes);
        self.messages.give_back(1);
    }

    fn text(&self) -> String {
        let (records, bytes, messages) = (self.records.used(), self.bytes.used(), self.messages.used());
        format!("{records} events of {bytes} bytes in {messages} messages")
    }
}

struct Client<C: Clock> {
    held: Arc<InFlight>,
    arriving: Arc<Budget>,
    rate: RateLimiter<NotKeyed, InMemoryState, C, NoOpMiddleware<C::Instant>>,
}

/// Decides whether a call's events are taken in. One for the daemon; shared by reference.
pub struct Admission<C: Clock = DefaultClock> {
    total: Arc<InFlight>,
    arriving: Arc<Budget>,
    clients: HashMap<MemberId, Client<C>>,
    clock: C,
    burst: u32,
}

/// The budget that admitted events hold until it is dropped: with the answer, whatever it is.
#[derive(Debug)]
pub struct Permit {
    total: Arc<InFlight>,
    client: Arc<InFlight>,
    records: usize,
    bytes: usize,
}

impl Admission<DefaultClock> {
    /// For these clients, the gateways of the roster.
    pub fn new(limits: &Limits, clients: impl IntoIterator<Item = MemberId>) -> Admission {
        Admission::with_clock(limits, clients, DefaultClock::default())
    }
}

impl<C: Clock + Clone> Admission<C> {
    /// The same, by another clock.
    pub fn with_clock(limits: &Limits, clients: impl IntoIterator<Item = MemberId>, clock: C) -> Admission<C> {
        let share = |whole: usize| (whole as u128 * u128::from(limits.client_share_percent) / 100) as usize;
        let positive = |value: u32| NonZeroU32::new(value).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::per_second(positive(limits.rate_per_client)).allow_burst(positive(limits.burst_per_client));
        let client = |id| {
            let held = Arc::new(InFlight::new(
                share(limits.inflight_records),
                share(limits.inflight_bytes),
                share(QUEUE_GROUPS),
            ));
            let arriving = Arc::new(Budget::new(share(limits.inflight_bytes)));
            (id, Client { held, arriving, rate: RateLimiter::direct_with_clock(quota, clock.clone()) })
        };
        Admission {
            total: Arc::new(InFlight::new(limits.inflight_records, limits.inflight_bytes, QUEUE_GROUPS)),
            arriving: Arc::new(Budget::new(limits.inflight_bytes)),
            clients: clients.into_iter().map(client).collect(),
            burst: limits.burst_per_client,
            clock,
        }
    }

    /// Takes in a message of `records` events of together `bytes` bytes, or refuses all of them.
    ///
    /// # Errors
    /// OVERLOADED, RATE_LIMITED; BATCH_TOO_LARGE for more events than the burst, which could never
    /// be admitted; NOT_GRANTED for a member that is no client here.
    pub fn admit(&self, client: &MemberId, records: usize, bytes: usize) -> Result<Permit, Refusal> {
        let Some(state) = self.clients.get(client) else {
            return Err(Refusal::new(Reason::NotGranted, format_args!("{client} is not a gateway")));
        };
        if !state.held.try_take(records, bytes) {
            let message = format_args!(
                "{client} has {} in flight, and its share has no room for {records} events of {bytes} bytes more",
                state.held.text(),
            );
            return Err(Refusal::new(Reason::Overloaded, message));
        }
        if !self.total.try_take(records, bytes) {
            state.held.give_back(records, bytes);
            let message = format_args!(
                "{} are in flight, and there is no room for {records} events of {bytes} bytes more",
                self.total.text(),
            );
            return Err(Refusal::new(Reason::Overloaded, message));
        }
        let permit = Permit { total: self.total.clone(), client: state.held.clone(), records, bytes };
        // Last: what the rate has admitted cannot be given back.
        self.check_rate(client, state, records)?;
        Ok(permit)
    }

    /// What a call of this client counts its arriving messages with.
    ///
    /// # Errors
    /// NOT_GRANTED for a member that is no client here.
    pub fn arriving(&self, client: &MemberId) -> Result<Arriving, Refusal> {
        let state = self.clients.get(client);
        let state = state.ok_or_else(|| Refusal::new(Reason::NotGranted, format_args!("{client} is not a gateway")))?;
        Ok(Arriving { total: self.arriving.clone(), client: state.arriving.clone(), bytes: 0 })
    }

    fn check_rate(&self, client: &MemberId, state: &Client<C>, records: usize) -> Result<(), Refusal> {
        let Some(count) = u32::try_from(records).ok().and_then(NonZeroU32::new) else {
            return if records == 0 { Ok(()) } else { Err(self.beyond_burst(records)) };
        };
        match state.rate.check_n(count) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(not_until)) => {
                let wait = not_until.wait_time_from(self.clock.now()).max(Duration::from_millis(1));
                let message = format_args!("{client} offers more events a second than it may");
                Err(Refusal::new(Reason::RateLimited, message).retry_after(wait))
            }
            Err(_) => Err(self.beyond_burst(records)),
        }
    }

    fn beyond_burst(&self, records: usize) -> Refusal {
        let message = format_args!("{records} events at once; a client may offer {} after a pause", self.burst);
        Refusal::new(Reason::BatchTooLarge, message)
    }

    /// Events and bytes in flight.
    pub fn in_flight(&self) -> (usize, usize) {
        (self.total.records.used(), self.total.bytes.used())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.total.give_back(self.records, self.bytes);
        self.client.give_back(self.records, self.bytes);
    }
}

/// Bytes of one call's messages that are not yet decoded; given back when dropped.
#[derive(Debug)]
pub struct Arriving {
    total: Arc<Budget>,
    client: Arc<Budget>,
    bytes: usize,
}

impl Arriving {
    /// Takes `more` bytes.
    ///
    /// # Errors
    /// OVERLOADED.
    pub fn take(&mut self, more: usize) -> Result<(), Refusal> {
        if !self.client.try_take(more) {
            let used = self.client.used();
            let message =
                format_args!("{used} bytes of your messages are arriving, and there is no room for {more} more");
            return Err(Refusal::new(Reason::Overloaded, message));
        }
        if !self.total.try_take(more) {
            self.client.give_back(more);
            let used = self.total.used();
            let message = format_args!("{used} bytes of messages are arriving, and there is no room for {more} more");
            return Err(Refusal::new(Reason::Overloaded, message));
        }
        self.bytes += more;
        Ok(())
    }

    /// Gives back all but `bytes`.
    pub fn keep(&mut self, bytes: usize) {
        let spare = self.bytes.saturating_sub(bytes);
        self.total.give_back(spare);
        self.client.give_back(spare);
        self.bytes -= spare;
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        self.keep(0);
    }
}

#[cfg(test)]
mod tests;
