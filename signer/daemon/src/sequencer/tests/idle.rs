//! Signs of life of a trail that nobody writes to, and what stands there after a silence.

use std::time::Duration;

use countersign_trail::control::{Body, GapBody};
use countersign_trail::document::Mode;
use countersign_trail::record::{Content, Record};

use super::bench::{Bench, in_time};
use super::told_store::Fault;
use crate::reason::Reason;

/// Of the test that measures heartbeats: far above what a busy machine is late by.
const MEASURED: Duration = Duration::from_millis(500);
/// Of the tests that see none.
const SHORT: Duration = Duration::from_millis(100);
/// A silence in which several of the short ones would have come.
const SILENCE: Duration = Duration::from_millis(800);

fn body(record: &Record) -> Body {
    match &record.content {
        Content::Control(control) => Body::parse(control).unwrap(),
        Content::Event(event) => panic!("{:?} is no control record", event.event_id),
    }
}

/// Waits until the trail has so many signed records.
async fn grown(bench: &Bench, size: u64) {
    bench.signed(size - 1).await.unwrap().unwrap();
}

/// The record at `at` is a gap from the record before it on.
fn assert_gap(bench: &Bench, at: u64) {
    let records = bench.records(at - 1);
    let (before, gap) = (&records[0].header, &records[1]);
    let to = gap.header.time;
    assert_eq!(body(gap), Body::Gap(GapBody { from: before.time, reason: "no-service".to_owned(), to }));
    let silent = to.as_micros() - before.time.as_micros();
    assert!(silent > 2 * SHORT.as_micros() as i64, "a gap after {silent} microseconds");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_trail_appends_heartbeats() {
    for mode in [Mode::Batch, Mode::Record] {
        let mut bench = Bench::with_heartbeat(mode, Fault::None, MEASURED).await;
        bench.sign(0).await;
        grown(&bench, 4).await;
        let records = bench.records(0);
        for pair in records[..4].windows(2) {
            let (before, beat) = (pair[0].header.time, &pair[1]);
            let Body::Heartbeat(heartbeat) = body(beat) else { panic!("{beat:?}") };
            assert_eq!(heartbeat.since, before);
            let silent = beat.header.time.as_micros() - before.as_micros();
            assert!(silent >= MEASURED.as_micros() as i64, "a heartbeat after {silent} microseconds");
        }
        // An event begins the time anew.
        let size = bench.sign(1).await + 1;
        let event = bench.records(size - 1)[0].header.time;
        grown(&bench, size + 1).await;
        let next = bench.records(size)[0].header.time;
        assert!(next.as_micros() - event.as_micros() >= MEASURED.as_micros() as i64);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_record_after_a_silence_is_a_gap() {
    let mut bench = Bench::with_heartbeat(Mode::Record, Fault::None, SHORT).await;
    bench.sign(0).await;
    in_time("a drain", bench.handle.drain()).await.unwrap();
    in_time("its end", &mut bench.task).await.unwrap().unwrap();
    let size = bench.row().head.size;
    tokio::time::sleep(SILENCE).await;
    assert_eq!(bench.row().head.size, size, "the sequencer is gone");
    bench.start().await;
    // Whether the event comes first or the next heartbeat: the gap comes before it.
    let seq = bench.sign(1).await;
    assert!(seq > size, "record {seq} is the event");
    assert_gap(&bench, size);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_token_there_is_no_heartbeat() {
    let mut bench = Bench::with_heartbeat(Mode::Batch, Fault::None, SHORT).await;
    bench.sign(0).await;
    bench.token_away().await;
    silent(&bench).await;
    let size = bench.row().head.size;
    bench.token_back().await;
    grown(&bench, size + 1).await;
    // An intent that was open when the token went is signed first, at its own place.
    assert_gap(&bench, size);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_clock_is_stopped_there_is_no_heartbeat() {
    let mut bench = Bench::with_heartbeat(Mode::Batch, Fault::None, SHORT).await;
    bench.sign(0).await;
    bench.clock.set_stopped(Some(Reason::ClockStep));
    silent(&bench).await;
    let size = bench.row().head.size;
    bench.clock.set_stopped(None);
    grown(&bench, size + 1).await;
    assert_gap(&bench, size);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_latched_trail_has_no_heartbeat() {
    let mut bench = Bench::with_heartbeat(Mode::Record, Fault::None, SHORT).await;
    bench.sign(0).await;
    in_time("a latch", bench.handle.latch(Reason::HeadMismatch)).await.unwrap();
    silent(&bench).await;
    assert_eq!(bench.row().latched.as_deref(), Some("HEAD_MISMATCH"));
    let refused = bench.offer(1, 1, None).answer(&bench).await.unwrap().unwrap_err();
    assert_eq!(refused.reason(), Reason::TrailLatched);
}

/// Nothing is appended for a while; what was on its way may still arrive.
async fn silent(bench: &Bench) {
    tokio::time::sleep(SHORT).await;
    let before = bench.row().head.size;
    tokio::time::sleep(SILENCE).await;
    assert_eq!(bench.row().head.size, before, "a record without service");
}
