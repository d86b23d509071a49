//! Events that nobody waits for any more.

use std::time::{Duration, Instant};

use countersign_trail::document::Mode;

use super::bench::{Bench, PATIENCE};
use super::told_store::Fault;
use crate::reason::Reason;

/// How long a caller waits whose event stays in the queue.
const PATIENT_FOR: Duration = Duration::from_millis(50);

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_deadline_in_the_queue_is_dropped_unsigned() {
    for mode in [Mode::Batch, Mode::Record] {
        let mut bench = Bench::new(mode, Fault::None).await;
        // The store holds the first intent, and with it the sequencer.
        bench.store.hold();
        let first = bench.offer(0, 0, None);
        bench.store.more_than(0).await;
        let deadline = Instant::now() + PATIENT_FOR;
        let expired = bench.offer(1, 0, Some(deadline));
        let alive = bench.offer(2, 0, Some(Instant::now() + PATIENCE));
        tokio::time::sleep_until(deadline.into()).await;
        bench.store.let_go();

        let refused = expired.answer(&bench).await.unwrap().unwrap_err();
        assert_eq!(refused.reason(), Reason::DeadlineExceeded, "{refused}");
        assert_eq!(first.answer(&bench).await.unwrap().unwrap(), 0);
        assert_eq!(alive.answer(&bench).await.unwrap().unwrap(), 1, "the dropped event has no number");
        assert_eq!(bench.stored(1), None);
        assert_eq!(bench.sign(1).await, 2, "the repeat is an event like any other");
        assert_eq!(bench.row().signed, 3);
    }
}
