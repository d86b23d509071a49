use governor::clock::FakeRelativeClock;
use proptest::prelude::*;

use super::*;

fn id(text: &str) -> MemberId {
    MemberId::parse(text).unwrap()
}

fn limits() -> Limits {
    Limits {
        inflight_records: 100,
        inflight_bytes: 1_000,
        client_share_percent: 60,
        rate_per_client: 10,
        burst_per_client: 200,
        ..Limits::default()
    }
}

fn admission(limits: &Limits) -> (Admission<FakeRelativeClock>, FakeRelativeClock) {
    let clock = FakeRelativeClock::default();
    (Admission::with_clock(limits, [id("a"), id("b")], clock.clone()), clock)
}

fn reason(result: Result<Permit, Refusal>) -> Reason {
    result.unwrap_err().reason()
}

#[test]
fn one_client_cannot_take_it_all() {
    let (admission, _) = admission(&limits());
    let held = admission.admit(&id("a"), 60, 0).unwrap();
    assert_eq!(reason(admission.admit(&id("a"), 1, 0)), Reason::Overloaded);
    let other = admission.admit(&id("b"), 40, 600).unwrap();
    // Now the whole is used up, though b's share is not.
    assert_eq!(reason(admission.admit(&id("b"), 1, 0)), Reason::Overloaded);
    drop(held);
    let refusal = admission.admit(&id("b"), 1, 1).unwrap_err();
    assert_eq!(refusal.retry(), Reason::Overloaded.default_retry_after());
    assert_eq!(admission.in_flight(), (40, 600));
    drop(other);
    assert_eq!(admission.in_flight(), (0, 0));
}

#[test]
fn a_refusal_holds_nothing() {
    let (admission, _) = admission(&limits());
    for (records, bytes) in [(61, 0), (0, 601), (1, usize::MAX), (usize::MAX, 1)] {
        assert_eq!(reason(admission.admit(&id("a"), records, bytes)), Reason::Overloaded);
    }
    assert_eq!(reason(admission.admit(&id("c"), 1, 1)), Reason::NotGranted);
    assert_eq!(admission.in_flight(), (0, 0));
    drop(admission.admit(&id("a"), 60, 600).unwrap());
}

#[test]
fn the_rate_says_when_to_come_back() {
    let (admission, clock) = admission(&Limits { burst_per_client: 20, ..limits() });
    drop(admission.admit(&id("a"), 20, 0).unwrap());
    let refusal = admission.admit(&id("a"), 5, 0).unwrap_err();
    assert_eq!((refusal.reason(), refusal.retry()), (Reason::RateLimited, Some(Duration::from_millis(500))));
    assert_eq!(admission.in_flight(), (0, 0));
    // Another client is not slowed down.
    drop(admission.admit(&id("b"), 20, 0).unwrap());
    clock.advance(Duration::from_millis(499));
    assert_eq!(reason(admission.admit(&id("a"), 5, 0)), Reason::RateLimited);
    clock.advance(Duration::from_millis(1));
    drop(admission.admit(&id("a"), 5, 0).unwrap());
    // More than the burst could never pass, so the caller is not told to wait.
    assert_eq!(reason(admission.admit(&id("b"), 21, 0)), Reason::BatchTooLarge);
}

#[test]
fn small_messages_have_a_share_of_the_queue() {
    let limits =
        Limits { inflight_records: 100_000, rate_per_client: 1_000_000, burst_per_client: 1_000_000, ..limits() };
    let (admission, _) = admission(&limits);
    let share = QUEUE_GROUPS * 60 / 100;
    let mut held: Vec<Permit> = (0..share).map(|_| admission.admit(&id("a"), 1, 0).unwrap()).collect();
    assert_eq!(reason(admission.admit(&id("a"), 1, 0)), Reason::Overloaded);
    let _other: Vec<Permit> = (share..QUEUE_GROUPS).map(|_| admission.admit(&id("b"), 1, 0).unwrap()).collect();
    assert_eq!(reason(admission.admit(&id("b"), 1, 0)), Reason::Overloaded);
    held.pop();
    admission.admit(&id("b"), 1, 0).unwrap();
    held.clear();
    admission.admit(&id("a"), 1, 0).unwrap();
}

#[test]
fn arriving_bytes_have_a_share_of_their_own() {
    let (admission, _) = admission(&limits());
    let _decoded = admission.admit(&id("a"), 1, 500).unwrap();
    let (mut one, mut other) = (admission.arriving(&id("a")).unwrap(), admission.arriving(&id("a")).unwrap());
    one.take(300).unwrap();
    one.take(300).unwrap();
    assert_eq!(other.take(1).unwrap_err().reason(), Reason::Overloaded, "the share is 600");
    let mut b = admission.arriving(&id("b")).unwrap();
    b.take(400).unwrap();
    assert_eq!(b.take(1).unwrap_err().reason(), Reason::Overloaded, "all have 1,000");
    one.keep(200);
    other.take(400).unwrap();
    drop((one, other, b));
    admission.arriving(&id("b")).unwrap().take(600).unwrap();
    assert_eq!(admission.arriving(&id("nobody")).unwrap_err().reason(), Reason::NotGranted);
}

proptest! {
    /// Whatever is asked and dropped in whatever order, the bounds hold and nothing leaks.
    #[test]
    fn bounds_hold(steps in prop::collection::vec((any::<bool>(), 0usize..80, 0usize..800, 0usize..4), 1..60)) {
        let limits = Limits { rate_per_client: 1_000_000, burst_per_client: 1_000_000, ..limits() };
        let (admission, _) = admission(&limits);
        let mut held: Vec<Permit> = Vec::new();
        for (first, records, bytes, drops) in steps {
            held.extend(admission.admit(&id(if first { "a" } else { "b" }), records, bytes));
            let (in_records, in_bytes) = admission.in_flight();
            prop_assert!(in_records <= 100 && in_bytes <= 1_000);
            prop_assert_eq!(in_records, held.iter().map(|permit| permit.records).sum::<usize>());
            held.truncate(held.len().saturating_sub(drops));
        }
        held.clear();
        prop_assert_eq!(admission.in_flight(), (0, 0));
    }
}
