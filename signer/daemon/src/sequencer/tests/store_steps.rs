//! A store that fails every step twice, that is full, and that somebody else writes to; a second head that
//! cannot be written.

use countersign_trail::checkpoint::SignedCheckpoint;
use countersign_trail::control::{Body, HeartbeatBody};
use countersign_trail::document::Mode;
use countersign_trail::dsse;
use countersign_trail::hash::Hash;
use countersign_trail::record::Record;
use countersign_trail::signing::RECORD_PAYLOAD_TYPE;
use countersign_trail::tree::{CompactRange, leaf_hash};

use super::bench::{Bench, NO, in_time};
use super::told_store::{FAILURES, Fault, Seen};
use crate::reason::Reason;
use crate::store::files::{HeadFile, SecondHead};

const EVENTS: u64 = 6;
/// Rounds in which one event is offered while another one is signed.
const ROUNDS: u64 = 20;

/// Signs events one after another, and checks what the store has in the end.
async fn all_are_signed_once(mode: Mode, fault: Fault) -> Bench {
    let mut bench = Bench::new(mode, fault).await;
    let mut places = Vec::new();
    for n in 0..EVENTS {
        places.push(bench.sign(n).await);
    }
    for n in 0..EVENTS {
        assert_eq!(bench.sign(n).await, places[n as usize], "a repeat is the same record");
    }
    assert_eq!(places, (0..EVENTS).collect::<Vec<_>>(), "a failed step spends no number twice, and none in vain");
    assert_eq!(bench.checkpoint().await, EVENTS);
    assert_whole(&bench, EVENTS);
    bench
}

/// The chain, every record's own signature in record mode, and checkpoints that hold, the newest
/// over everything.
fn assert_whole(bench: &Bench, size: u64) {
    let row = bench.row();
    assert_eq!((row.head.size, row.signed), (size, size));
    let reader = bench.store.store.reader();
    let mut range = CompactRange::empty();
    let (mut prev, mut notes) = (Hash::of(b"plan"), 0);
    for record in reader.read(|snapshot| snapshot.records(NO, 0, size)).unwrap() {
        assert_eq!(Record::parse(&record.bytes).unwrap().header.prev, prev);
        match (&bench.record_key, &record.signature) {
            (Some(key), Some(signature)) => {
                key.verify(&dsse::pae(RECORD_PAYLOAD_TYPE, &record.bytes), signature).unwrap();
            }
            (None, None) => {}
            (key, signature) => panic!("record {}: {signature:?} by {key:?}", record.seq),
        }
        prev = leaf_hash(&record.bytes);
        range.push(prev).unwrap();
        let note = reader.read(|snapshot| snapshot.checkpoint_covering(NO, range.size())).unwrap().unwrap();
        let signed = SignedCheckpoint::parse(&note.note).unwrap();
        let checkpoint = signed.verify(&bench.key).unwrap();
        if checkpoint.size == range.size() {
            assert_eq!(checkpoint.root, range.root());
            notes += 1;
        }
    }
    let newest = reader.read(|snapshot| snapshot.newest_checkpoint(NO)).unwrap().unwrap();
    assert_eq!(newest.size, size, "a checkpoint covers everything");
    assert!(notes > 0);
}

/// Every step that was stored had failed before, as often as it had to.
fn assert_each_failed(bench: &Bench) {
    assert_eq!(bench.restarts, 1, "what is known not to be stored needs no restart");
    let seen = bench.store.seen.borrow();
    for (step, _) in seen.iter().filter(|(_, failed)| !failed) {
        let count = seen.iter().filter(|(other, _)| other == step).count();
        assert_eq!(count, FAILURES + 1, "{step:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_is_not_persisted_is_refused_and_can_be_repeated() {
    for mode in [Mode::Batch, Mode::Record] {
        assert_each_failed(&all_are_signed_once(mode, Fault::NotStored).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_may_be_lost_is_recovered_by_a_restart() {
    for mode in [Mode::Batch, Mode::Record] {
        let bench = all_are_signed_once(mode, Fault::Lost).await;
        assert_eq!(bench.restarts, 1 + bench.store.failures(), "each failure, and nothing else");
        assert!(bench.restarts > 2 * FAILURES * EVENTS as usize, "each intent and each outcome, twice");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_failed_but_is_persisted_is_recovered_by_a_restart() {
    for mode in [Mode::Batch, Mode::Record] {
        let bench = all_are_signed_once(mode, Fault::Persisted).await;
        assert_eq!(bench.restarts, 1 + bench.store.failures(), "each failure, and nothing else");
        assert!(bench.restarts > 2 * EVENTS as usize, "each intent and each outcome, once: then it is there");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_store_refuses_new_work_and_takes_it_when_there_is_room() {
    for mode in [Mode::Batch, Mode::Record] {
        // Every refusal on the way is STORE_FULL: `Bench::sign` takes no other.
        assert_each_failed(&all_are_signed_once(mode, Fault::Full).await);
    }
}

/// The outcome of one batch and the intent of the next share a step; where that fails for room, the
/// outcome is tried again alone, and the events of the intent are refused.
#[tokio::test(flavor = "multi_thread")]
async fn without_room_an_outcome_is_tried_again_alone() {
    for mode in [Mode::Batch, Mode::Record] {
        let mut bench = Bench::new(mode, Fault::FullTogether).await;
        let mut n = 0;
        let refused = loop {
            assert!(n < 2 * ROUNDS, "no outcome ever met the next intent");
            let (size, steps) = (bench.row().signed, bench.store.seen.borrow().len());
            let first = bench.offer(n, size, None);
            bench.store.more_than(steps).await;
            let second = bench.offer(n + 1, size, None);
            assert_eq!(first.answer(&bench).await.unwrap().unwrap(), size, "what is in flight is answered");
            n += 2;
            if let Err(refusal) = second.answer(&bench).await.unwrap() {
                break refusal;
            }
        };
        assert_eq!(refused.reason(), Reason::StoreFull, "{refused}");
        assert_eq!((bench.stored(n - 1), bench.row().head.size), (None, n - 1), "a refusal has no number");
        let seen = bench.store.seen.borrow().clone();
        let at = seen.iter().position(|(_, failed)| *failed).unwrap();
        let alone = Seen { intent: None, ..seen[at].0.clone() };
        assert_eq!(seen[at + 1], (alone, false), "after {seen:?}");
        assert_eq!(bench.sign(n - 1).await, n - 1, "new work is taken again");
        bench.checkpoint().await;
        assert_whole(&bench, n);
        assert_eq!(bench.restarts, 1);
    }
}

/// A head that is not the expected one: nothing of what lost is signed, and the sequencer ends.
#[tokio::test(flavor = "multi_thread")]
async fn who_lost_the_race_signs_nothing_and_ends() {
    for mode in [Mode::Batch, Mode::Record] {
        let mut bench = Bench::new(mode, Fault::None).await;
        assert_eq!(bench.sign(0).await, 0);
        bench.checkpoint().await;
        bench.rival(100).await;
        assert_eq!(bench.offer(1, 1, None).answer(&bench).await, None, "nobody is told that it is signed");
        let ended = in_time("its end", &mut bench.task).await.unwrap().unwrap_err();
        assert!(ended.problem.contains("another writer"), "{ended}");
        let row = bench.row();
        assert_eq!((row.head.size, row.signed, bench.stored(1)), (2, 1, None));
        // The rival's record is signed at this place: the workers, which were there all the time,
        // would refuse it had they signed the other.
        bench.start().await;
        bench.signed(1).await.unwrap().unwrap();
        assert_eq!(bench.sign(100).await, 1);
        assert_eq!(bench.sign(1).await, 2);
        bench.checkpoint().await;
        assert_whole(&bench, 3);
    }
}

/// What is signed is not released before the second head has it: without that nobody is answered, and the
/// sequencer ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_head_that_cannot_be_written_ends_the_writer() {
    for mode in [Mode::Batch, Mode::Record] {
        let mut bench = Bench::new(mode, Fault::None).await;
        assert_eq!(bench.sign(0).await, 0);
        bench.checkpoint().await;
        bench.handle.drain().await.unwrap();
        let head = HeadFile::path(bench.dir.path(), "a");
        let good = head.with_extension("good");
        std::fs::rename(&head, &good).unwrap();
        std::os::unix::fs::symlink("/dev/full", &head).unwrap();
        bench.start().await;
        assert_eq!(bench.offer(1, 1, None).answer(&bench).await, None, "nobody is told that it is signed");
        let ended = in_time("its end", &mut bench.task).await.unwrap().unwrap_err();
        assert!(ended.problem.contains("the second head was not written: No space left"), "{ended}");
        let row = bench.row();
        assert_eq!((row.head.size, row.signed), (2, 1), "its intent is durable, its signature is not");
        // Over a file that can be written, the next start finishes it.
        std::fs::rename(&good, &head).unwrap();
        bench.start().await;
        bench.signed(1).await.unwrap().unwrap();
        assert_eq!(bench.sign(1).await, 1, "a repeat is the same record");
        bench.checkpoint().await;
        assert_whole(&bench, 2);
        let (_, second) = HeadFile::open(bench.dir.path(), "a", false).unwrap();
        assert_eq!(second, Some(SecondHead::at(2, bench.row().head.leaf)));
    }
}

/// Polls a request once, which puts it into the sequencer's queue.
async fn asked<T: std::fmt::Debug>(mut request: std::pin::Pin<&mut impl Future<Output = T>>) {
    tokio::select! {
        biased;
        early = &mut request => panic!("{early:?} while the store holds"),
        () = std::future::ready(()) => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_an_outcome_waits_for_room_nobody_waits_behind_it() {
    let mut bench = Bench::new(Mode::Batch, Fault::FullAtTheEnd).await;
    bench.store.hold();
    let first = bench.offer(0, 0, None);
    bench.store.more_than(0).await;
    bench.store.let_one_go();
    bench.store.more_than(1).await;
    // The outcome is on its way into the store; what is asked for now is not signed after it.
    let second = bench.offer(1, 0, None);
    let (handle, body) = (bench.handle.clone(), Body::Heartbeat(HeartbeatBody { since: bench.clock.now() }));
    let mut control = std::pin::pin!(handle.control(body));
    asked(control.as_mut()).await;
    let mut checkpoint = std::pin::pin!(handle.checkpoint());
    asked(checkpoint.as_mut()).await;
    bench.store.let_go();
    assert_eq!(in_time("a refusal", control).await.unwrap_err().reason(), Reason::StoreFull);
    assert_eq!(in_time("an answer", checkpoint).await.unwrap(), 0, "nothing is signed yet that it would have to cover");
    assert_eq!(second.answer(&bench).await.unwrap().unwrap_err().reason(), Reason::StoreFull);
    assert_eq!(first.answer(&bench).await.unwrap().unwrap(), 0, "what is in flight is answered");
    assert_eq!(bench.sign(1).await, 1);
    assert_eq!(bench.restarts, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_store_keeps_nobody_waiting_for_a_checkpoint() {
    let bench = Bench::new(Mode::Batch, Fault::Full).await;
    bench.store.hold();
    let first = bench.offer(0, 0, None);
    bench.store.more_than(0).await;
    // Both are taken together once the first is refused; then the intent is refused that the
    // checkpoint was to cover.
    let second = bench.offer(1, 0, None);
    let mut checkpoint = std::pin::pin!(bench.handle.checkpoint());
    asked(checkpoint.as_mut()).await;
    bench.store.let_go();
    for offered in [first, second] {
        assert_eq!(offered.answer(&bench).await.unwrap().unwrap_err().reason(), Reason::StoreFull);
    }
    assert_eq!(in_time("an answer", checkpoint).await.unwrap(), 0);
}
