use std::path::PathBuf;

use bytes::Bytes;
use countersign_trail::hash::Hash;
use countersign_trail::origin::Origin;
use countersign_trail::time::Timestamp;
use rusqlite::Connection;

use super::*;
use crate::store::sqlite::statements::{self, Clients};
use crate::store::sqlite::{FILE_NAME, schema};
use crate::store::{Append, Head, Outcome, SignedNote, TrailNo, TrailRow};

/// Of the store whose outcomes are measured. Their rows stand one trail after the other, so that all
/// but the last are inserted in the middle of the table.
const TRAILS: TrailNo = 5;
const ROUNDS: u64 = 3;
/// A signed checkpoint with the longest origin (200 bytes) in its text and in its key's name.
const NOTE_BYTES: usize = 700;

fn blocks(path: &Path) -> (u64, u64) {
    let metadata = std::fs::metadata(path).unwrap();
    (metadata.len(), metadata.blocks() * 512)
}

#[test]
fn the_reserve_has_its_blocks_and_gives_them_up_by_shares() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(RESERVE_NAME);
    let mut reserve = Reserve::open(dir.path(), 2).unwrap();
    assert!(reserve.is_whole() && reserve.refusal().is_none() && reserve.patience().is_none());
    assert!(*reserve.log_moves().allowed());
    let (length, allocated) = blocks(&path);
    assert!(length == 2 * RESERVE_PER_TRAIL && allocated >= length, "{length} bytes, {allocated} of them on the disk");

    assert!(reserve.give_up());
    let (length, allocated) = blocks(&path);
    assert_eq!(length, RESERVE_PER_TRAIL);
    assert!(allocated < length + (1 << 16), "{allocated} bytes are still on the disk");
    assert!(matches!(reserve.refusal(), Some(AppendError::Full(_))), "new work is refused");
    assert!(reserve.patience().is_some());
    assert!(!*reserve.log_moves().allowed(), "the log does not take what was given up");
    assert!(reserve.give_up() && !reserve.give_up(), "two shares for two trails");
    assert_eq!(blocks(&path).0, 0);

    // There is room on this disk: it is whole again in its own time.
    let begun = Instant::now();
    while !reserve.is_whole() {
        assert!(begun.elapsed() < Duration::from_secs(60));
        std::thread::sleep(reserve.patience().unwrap());
        reserve.tend();
    }
    assert!(reserve.refusal().is_none() && *reserve.log_moves().allowed());
    assert!(blocks(&path).1 >= 2 * RESERVE_PER_TRAIL);
    reserve.add_trail();
    assert!(reserve.is_whole() && blocks(&path).1 >= 3 * RESERVE_PER_TRAIL);
}

#[test]
fn a_reserve_without_blocks_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(RESERVE_NAME);
    // What a copy that leaves holes out makes of it.
    File::create(&path).unwrap().set_len(2 * RESERVE_PER_TRAIL).unwrap();
    assert!(blocks(&path).1 < RESERVE_PER_TRAIL);
    assert!(Reserve::open(dir.path(), 2).unwrap().is_whole());
    assert!(blocks(&path).1 >= 2 * RESERVE_PER_TRAIL);
}

/// What a transaction adds to the write-ahead log, in bytes.
fn added(log: &PathBuf, connection: &Connection, work: impl FnOnce(&Connection)) -> u64 {
    let before = std::fs::metadata(log).unwrap().len();
    let transaction = connection.unchecked_transaction().unwrap();
    work(&transaction);
    transaction.commit().unwrap();
    std::fs::metadata(log).unwrap().len() - before
}

#[test]
fn the_largest_outcome_a_checkpoint_and_a_latch_fit_a_share() {
    let dir = tempfile::tempdir().unwrap();
    let connection = schema::create(&dir.path().join(FILE_NAME)).unwrap();
    let log = dir.path().join(format!("{FILE_NAME}-wal"));
    let name = |no| Origin::parse(&format!("{}.example/a", format!("t{no}").repeat(60))).unwrap();
    for no in 1..=TRAILS {
        let head = Head { size: 0, leaf: Hash::of(b""), time: Timestamp::EPOCH };
        statements::add_trail(&connection, &TrailRow { no, origin: name(no), head, signed: 0, latched: None }).unwrap();
    }
    let note = |size| SignedNote { size, note: Bytes::from(vec![b'n'; NOTE_BYTES]) };
    let mut most = 0;
    for round in 0..ROUNDS {
        for trail in 1..=TRAILS {
            let count = MAX_BATCH_ITEMS as u64;
            let first_seq = round * count;
            connection
                .execute(
                    "INSERT INTO intents VALUES (?1, ?2, ?3, zeroblob(32), 0, ?4, zeroblob(32))",
                    rusqlite::params![trail, first_seq as i64, count as i64, "t".repeat(NOTE_BYTES)],
                )
                .unwrap();
            let signatures = vec![Bytes::from(vec![0x30; 72]); MAX_BATCH_ITEMS];
            let outcome = Outcome { first_seq, count, signatures, checkpoint: Some(note(first_seq + count - 1)) };
            let step = Append { trail, outcome: Some(outcome), intent: None, checkpoint: None };
            let checkpoint = Append { trail, outcome: None, intent: None, checkpoint: Some(note(first_seq + count)) };
            let mut bytes = 0;
            for step in [&step, &checkpoint] {
                bytes += added(&log, &connection, |connection| {
                    statements::apply(connection, &mut Clients::default(), step).unwrap();
                });
            }
            bytes += added(&log, &connection, |connection| statements::latch(connection, trail, "REASON").unwrap());
            most = most.max(bytes);
        }
    }
    eprintln!("at most {most} bytes of {RESERVE_PER_TRAIL}");
    assert!(most <= RESERVE_PER_TRAIL, "{most} bytes, a share has {RESERVE_PER_TRAIL}");
    assert!(most > RESERVE_PER_TRAIL / 4, "{most} bytes: is this the largest outcome?");
}
