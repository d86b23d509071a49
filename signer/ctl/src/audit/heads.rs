//! The heads that this person has seen, so that a second history of a trail is noticed.
//!
//! In the folder `heads` of the state ([`crate::state`]), one file a trail: its newest verified checkpoint as it was signed. A checkpoint that contradicts it
//! is kept beside it, as evidence, in a file that ends in `.fork`.

use countersign_proto::v1;
use countersign_trail::checkpoint::{Checkpoint, SignedCheckpoint};
use countersign_trail::hash::Hash;
use countersign_trail::note::MAX_NOTE_LEN;
use countersign_trail::origin::Origin;
use countersign_trail::tree::verify_consistency;
use tonic::Code;

use crate::exit::{Exit, Failure, Outcome, failed};
use crate::files;
use crate::remote::{Remote, Trust, of_status};
use crate::state::Folder;

/// What a new head is to the last one that was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Seen {
    /// None was seen before.
    First,
    /// The same head.
    Same,
    /// It continues the last one: proven.
    Continues,
    /// It is older, and the last one continues it: proven.
    Older,
}

/// The folder of one appliance's heads, locked while it is open.
pub(crate) struct Heads(Folder);

impl Heads {
    /// Opens the folder and waits for other runs that hold it.
    pub(crate) fn open(fingerprint: Hash) -> Outcome<Heads> {
        Folder::open(fingerprint, "heads").map(Heads)
    }

    /// Checks a verified head of `trail` against the last one seen, in whichever direction, and
    /// remembers the newer one.
    pub(crate) async fn check(
        &self,
        remote: &mut Remote,
        trust: &Trust,
        trail: &Origin,
        new: &SignedCheckpoint,
    ) -> Outcome<Seen> {
        let path = self.0.path(trail.path_segment());
        if !path.exists() {
            files::write(&path, &new.to_bytes(), true)?;
            return Ok(Seen::First);
        }
        let last = files::read(&path, MAX_NOTE_LEN)?;
        let last = trust.checkpoint(trail, &last).map_err(|failure| {
            failed(format!("{}: {failure}", path.display()))
                .todo("The remembered head was changed on this machine; compare it with a copy before you remove it.")
        })?;
        let (last, head) = (last.checkpoint(), new.checkpoint());
        if last.size == head.size {
            return if last.root == head.root {
                Ok(Seen::Same)
            } else {
                Err(self.fork(trail, last, new, "two roots at one size"))
            };
        }
        let (old, newer) = if last.size < head.size { (last, head) } else { (head, last) };
        let hashes = proof(remote, trail, old, newer).await?;
        if let Err(error) = verify_consistency(old.size, newer.size, &hashes, old.root, newer.root) {
            return Err(self.fork(trail, last, new, &error.to_string()));
        }
        if last.size > head.size {
            return Ok(Seen::Older);
        }
        files::write(&path, &new.to_bytes(), true)?;
        Ok(Seen::Continues)
    }

    /// Keeps the contradicting checkpoint; the alarm has both sides in it.
    fn fork(&self, trail: &Origin, last: &Checkpoint, new: &SignedCheckpoint, problem: &str) -> Failure {
        let head = new.checkpoint();
        let kept = self.0.path(format!("{}.{}-{:.16}.fork", trail.path_segment(), head.size, head.root.to_string()));
        let where_kept = match files::write(&kept, &new.to_bytes(), true) {
            Ok(()) => {
                format!("both are kept: {} and {}", self.0.path(trail.path_segment()).display(), kept.display())
            }
            Err(failure) => format!("the new one could not be kept: {failure}"),
        };
        let message = format!(
            "ALARM: fork of {trail}: {problem}\n  seen before: size {}, root {}\n  now given:   size {}, root {}\n  {where_kept}",
            last.size, last.root, head.size, head.root
        );
        Failure::new(Exit::Fork, message).todo("The trail has two histories, both signed. Keep both checkpoints and tell the administrators and the auditors.")
    }
}

/// The consistency proof between two sizes.
async fn proof(remote: &mut Remote, trail: &Origin, old: &Checkpoint, new: &Checkpoint) -> Outcome<Vec<Hash>> {
    let request = v1::GetConsistencyRequest { trail: trail.to_string(), old_size: old.size, new_size: new.size };
    let answer = remote.audit.get_consistency(request).await.map_err(|status| {
        let unproven = matches!(status.code(), Code::InvalidArgument | Code::NotFound | Code::OutOfRange | Code::FailedPrecondition);
        let failure = of_status(&status);
        if !unproven {
            return failure;
        }
        let message = format!("the daemon does not prove that size {} continues size {} of {trail}: {failure}", new.size, old.size);
        Failure::new(Exit::Older, message)
            .todo("The trail may have lost its end, for instance by a restored backup. Keep the remembered head and tell the administrators.")
    })?;
    let parse = |hash: &[u8]| {
        Hash::try_from(hash)
            .map_err(|error| Failure::new(Exit::Malformed, format!("consistency proof of {trail}: {error}")))
    };
    answer.into_inner().hashes.iter().map(|hash| parse(hash)).collect()
}
