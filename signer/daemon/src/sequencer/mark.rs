//! The admin trail against the HSM worker's mark.
//!
//! No client holds the admin trail's newest head, and the second head may have been restored together
//! with the store. The mark is a third place, and it is written before the token is asked: so it is
//! never before the store's newest signature, and never beyond the store's end.

use countersign_hsm::{Mark, Marked, Reason};
use countersign_trail::checkpoint::Checkpoint;
use countersign_trail::hash::Hash;

use super::start::{Checked, StartError};
use crate::signer::{self, TokenSigner};
use crate::store::TrailRow;

/// Refuses a store that was moved back, and a mark that was.
pub(crate) async fn check(checked: &Checked, row: &TrailRow, signer: &TokenSigner) -> Result<(), StartError> {
    let trail = row.origin.to_string();
    let mark = signer.pool().mark(&Marked::checkpoints(&row.origin)).await.map_err(|error| match error.reason() {
        Reason::MarkState => StartError::Mark { trail: trail.clone(), error },
        _ => StartError::Hsm { trail: trail.clone(), refusal: signer::refusal(error) },
    })?;
    let open = checked.open.as_ref().and_then(|(intent, _)| intent.checkpoint_text.as_deref());
    compare(trail, &checked.checkpoint, row.head.size, open, mark)
}

/// `newest` is the newest signed checkpoint; `end` the store's size, where the open intent's checkpoint
/// `open` belongs if there is one.
fn compare(
    trail: String,
    newest: &Checkpoint,
    end: u64,
    open: Option<&str>,
    mark: Option<Mark>,
) -> Result<(), StartError> {
    let Some(mark) = mark else { return Err(StartError::MarkBehind { trail, store: newest.size, mark: 0 }) };
    if mark.size > end {
        return Err(StartError::BehindMark { trail, store: end, mark: mark.size });
    }
    if mark.size < newest.size {
        return Err(StartError::MarkBehind { trail, store: newest.size, mark: mark.size });
    }
    let found = if mark.size == newest.size {
        Some(Hash::of(newest.text().as_bytes()))
    } else {
        open.filter(|_| mark.size == end).map(|text| Hash::of(text.as_bytes()))
    };
    if found == Some(mark.input) {
        return Ok(());
    }
    let store = found.map_or_else(|| "none".to_owned(), |hash| format!("the one with SHA-256 {hash}"));
    Err(StartError::OffMark { trail, size: mark.size, store, mark: mark.input })
}

#[cfg(test)]
mod tests {
    use super::*;
    use countersign_trail::origin::Origin;

    fn checkpoint(size: u64, root: u8) -> Checkpoint {
        Checkpoint { origin: Origin::parse("acme.example/admin").unwrap(), size, root: Hash::of(&[root]) }
    }

    fn mark(of: &Checkpoint) -> Option<Mark> {
        Some(Mark { of: Marked::checkpoints(&of.origin), size: of.size, input: Hash::of(of.text().as_bytes()) })
    }

    #[test]
    fn store_and_mark_must_meet() {
        let newest = checkpoint(5, 1);
        let against = |open: Option<&Checkpoint>, mark| {
            let end = open.map_or(newest.size, |open| open.size);
            let text = open.map(Checkpoint::text);
            compare("admin".to_owned(), &newest, end, text.as_deref(), mark)
        };
        let (seven, other) = (checkpoint(7, 2), checkpoint(7, 3));
        // Nothing is open; an intent is, and its signing was begun or not.
        against(None, mark(&newest)).unwrap();
        against(Some(&seven), mark(&newest)).unwrap();
        against(Some(&seven), mark(&seven)).unwrap();
        for (open, of) in [(None, checkpoint(6, 1)), (Some(&seven), checkpoint(8, 1))] {
            let refused = against(open, mark(&of)).unwrap_err();
            assert!(matches!(refused, StartError::BehindMark { .. }), "{refused}");
            assert!(refused.to_string().contains("the store was moved back"), "{refused}");
        }
        for (open, of) in [(None, checkpoint(5, 2)), (Some(&seven), other), (Some(&seven), checkpoint(6, 2))] {
            let refused = against(open, mark(&of)).unwrap_err();
            assert!(matches!(refused, StartError::OffMark { .. }), "{refused}");
            assert!(refused.to_string().contains("the store was moved back"), "{refused}");
        }
        for mark in [None, mark(&checkpoint(4, 1))] {
            let refused = against(Some(&seven), mark).unwrap_err();
            assert!(matches!(refused, StartError::MarkBehind { store: 5, .. }), "{refused}");
        }
    }
}
