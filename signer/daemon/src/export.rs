//! The evidence exporter: one forward pass over the store, into a bounded channel of chunks.
//!
//! An export fixes its sizes first: a checkpoint over what is signed is taken of the admin trail,
//! then of every exported trail. Everything after that is read in short transactions, a tile at a
//! time, checked against those checkpoints, and sent on. The manifest comes last: its number is
//! durable before the evidence key signs it, and it is signed only when every record led to the
//! root of its checkpoint.
//!
//! Memory: names and digests of the files ([`BundleWriter`]), one tile with its parts, and
//! [`CHUNKS_AHEAD`] chunks that wait for the caller. A tile's parts are at most 256 times 1 MiB.
//!
//! - `trail`: the files of one trail.

mod trail;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use countersign_hsm::Marked;
use countersign_proto::event::PARTS;
use countersign_trail::admin::{AdminError, AdminState};
use countersign_trail::archive::ArchiveError;
use countersign_trail::checkpoint::{CheckpointError, SignedCheckpoint};
use countersign_trail::document::MAX_TRAILS;
use countersign_trail::dsse;
use countersign_trail::evidence::{BundleWriter, EvidenceError};
use countersign_trail::hash::Hash;
use countersign_trail::id::PartName;
use countersign_trail::keys::Kid;
use countersign_trail::origin::Origin;
use countersign_trail::part::MAX_PARTS;
use countersign_trail::signing::STATEMENT_PAYLOAD_TYPE;
use countersign_trail::tiles::TILE_WIDTH;
use tokio::runtime::Handle;
use tokio::sync::mpsc::error::SendTimeoutError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::appliance::Appliance;
use crate::documents::StoredDocuments;
use crate::reason::{Reason, Refusal};
use crate::sequencer::TrailHandle;
use crate::signer::refusal;
use crate::store::sqlite::reader::Reader;
use crate::store::{AppendError, ReadError, SignedNote, Store};

/// Exports at once; a further one is refused as OVERLOADED.
pub const MAX_EXPORTS: usize = 2;
/// Largest chunk, in bytes.
pub const CHUNK_BYTES: usize = 1 << 20;
/// Chunks that wait for the caller.
pub const CHUNKS_AHEAD: usize = 4;
/// An export whose caller takes no chunk for so long is given up.
const STALL: Duration = Duration::from_secs(60);

/// The chunks of a bundle in order; an error is the last item.
pub type Chunks = mpsc::Receiver<Result<Bytes, Refusal>>;
/// Asked before each chunk: may the caller still export?
pub type Guard = Box<dyn Fn() -> Result<(), Refusal> + Send>;

/// What an export is to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// Trails beside the admin trail, which is always in it.
    pub trails: BTreeSet<Origin>,
    /// Names of parts whose content is left out.
    pub withhold: BTreeSet<PartName>,
}

impl Selection {
    /// Checks the names that a caller gave; no trail means every trail.
    ///
    /// # Errors
    /// UNKNOWN_TRAIL; INVALID_REQUEST for more than 65 trails or 16 parts, or for a name that no
    /// part has.
    pub fn parse(appliance: &Appliance, trails: &[String], withhold: &[String]) -> Result<Selection, Refusal> {
        bounded("trails", trails.len(), MAX_TRAILS + 1)?;
        bounded("withhold", withhold.len(), MAX_PARTS)?;
        let admin = &appliance.admin.plan.admin_trail;
        let mut chosen = BTreeSet::new();
        for name in trails {
            chosen.insert(appliance.trail(name)?.facts().origin.clone());
        }
        if trails.is_empty() {
            chosen.extend(appliance.trails.keys().cloned());
        }
        chosen.remove(admin);
        Ok(Selection { trails: chosen, withhold: withhold.iter().map(|name| part(name)).collect::<Result<_, _>>()? })
    }
}

/// A part that there is: what a mistyped name was to withhold would be disclosed.
fn part(name: &str) -> Result<PartName, Refusal> {
    let no_part = || {
        let message = format!("withhold: {name:?} is no part; parts are {}", PARTS.join(", "));
        Refusal::new(Reason::InvalidRequest, message)
    };
    PartName::parse(name).ok().filter(|part| PARTS.contains(&part.as_str())).ok_or_else(no_part)
}

fn bounded(field: &str, found: usize, max: usize) -> Result<(), Refusal> {
    if found <= max {
        return Ok(());
    }
    Err(Refusal::new(Reason::InvalidRequest, format!("{field} has {found} entries; at most {max} are allowed")))
}

/// Why an export ends before its end.
#[derive(Debug, thiserror::Error)]
enum ExportError {
    /// Somebody said no, with a reason that the caller may hear.
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Append(#[from] AppendError),
    #[error(transparent)]
    Bundle(#[from] EvidenceError),
    #[error(transparent)]
    Admin(#[from] AdminError),
    #[error("a stored checkpoint: {0}")]
    Checkpoint(#[from] CheckpointError),
    /// The store does not lead to its own signed heads.
    #[error("{trail}: {problem}; run `countersignd fsck`")]
    Damaged { trail: Origin, problem: String },
}

impl ExportError {
    /// What the caller hears; the rest stands in the log.
    fn into_refusal(self) -> Refusal {
        use EvidenceError::{Archive, TooManyFiles};
        match self {
            ExportError::Refused(refusal) => refusal,
            ExportError::Bundle(
                error @ (TooManyFiles | Archive(ArchiveError::TooLarge | ArchiveError::TooManyEntries)),
            ) => Refusal::new(Reason::InvalidRequest, error),
            ExportError::Append(AppendError::Full(_)) => Refusal::from(Reason::StoreFull),
            ExportError::Read(ReadError::Engine(_)) | ExportError::Append(_) => {
                tracing::error!(error = %self, "an export failed");
                Refusal::new(Reason::StoreUnavailable, "the store did not give or take what the export needs")
            }
            error => {
                tracing::error!(%error, "an export failed: nothing was signed");
                Refusal::new(
                    Reason::Internal,
                    "what is stored does not lead to its signed heads; the daemon's log says more",
                )
            }
        }
    }
}

/// Starts exports, and bounds their number.
#[derive(Clone)]
pub struct Exporter {
    appliance: Arc<Appliance>,
    slots: Arc<Semaphore>,
}

impl Exporter {
    /// Over the running appliance.
    pub fn new(appliance: Arc<Appliance>) -> Exporter {
        Exporter { appliance, slots: Arc::new(Semaphore::new(MAX_EXPORTS)) }
    }

    /// Starts an export. Dropping the receiver ends it.
    ///
    /// Must be called within a tokio runtime; the work is done on a thread that may block.
    ///
    /// # Errors
    /// OVERLOADED while [`MAX_EXPORTS`] are under way.
    pub fn start(&self, selection: Selection, guard: Guard) -> Result<Chunks, Refusal> {
        let slot = self.slots.clone().try_acquire_owned();
        let slot = slot.map_err(|_| {
            Refusal::new(
                Reason::Overloaded,
                format!("{MAX_EXPORTS} exports are under way; try again when one has ended"),
            )
            .retry_after(Duration::from_secs(10))
        })?;
        let (sender, chunks) = mpsc::channel(CHUNKS_AHEAD);
        let sink = Sink { sender, guard, runtime: Handle::current() };
        let job = Job { appliance: self.appliance.clone(), selection, sink };
        drop(tokio::task::spawn_blocking(move || job.run(slot)));
        Ok(chunks)
    }
}

/// Where the bundle's bytes go.
struct Sink {
    sender: mpsc::Sender<Result<Bytes, Refusal>>,
    guard: Guard,
    runtime: Handle,
}

impl Sink {
    /// Sends `bytes` in chunks; waits for the caller, but not for ever.
    fn put(&self, bytes: Vec<u8>) -> Result<(), Refusal> {
        let mut rest = Bytes::from(bytes);
        while !rest.is_empty() {
            (self.guard)()?;
            let chunk = rest.split_to(rest.len().min(CHUNK_BYTES));
            let sent = self.runtime.block_on(self.sender.send_timeout(Ok(chunk), STALL));
            sent.map_err(|error| {
                let what = match error {
                    SendTimeoutError::Timeout(_) => "the caller took nothing for a minute",
                    SendTimeoutError::Closed(_) => "the caller went away",
                };
                Refusal::new(Reason::DeadlineExceeded, format!("{what}; the export was given up"))
            })?;
        }
        Ok(())
    }
}

/// One export, on a thread that may block.
struct Job {
    appliance: Arc<Appliance>,
    selection: Selection,
    sink: Sink,
}

impl Job {
    fn run(self, slot: OwnedSemaphorePermit) {
        let result = self.write().map_err(ExportError::into_refusal);
        self.appliance.metrics.operation("Export", result.as_ref().map(|_| ()).map_err(Refusal::reason));
        if let Err(refusal) = result {
            let _ = self.sink.runtime.block_on(self.sink.sender.send_timeout(Err(refusal), STALL));
        }
        drop(slot);
    }

    fn write(&self) -> Result<(), ExportError> {
        let admin = &self.appliance.admin.plan.admin_trail;
        // The admin trail first: the heads that its records name are then within the others.
        let mut heads = Vec::with_capacity(1 + self.selection.trails.len());
        for origin in std::iter::once(admin).chain(&self.selection.trails) {
            heads.push(self.head(origin)?);
        }
        let state = match heads.first() {
            Some((handle, checkpoint)) => self.admin_state(handle, checkpoint)?,
            None => return Ok(()),
        };
        let mut writer = BundleWriter::new(&state)?;
        let documents: Vec<Hash> = writer.documents().copied().collect();
        for hash in documents {
            let bytes = self.reader().read(|snapshot| snapshot.document(&hash))?;
            let bytes = bytes.ok_or(AdminError::MissingDocument { what: "a document", hash })?;
            self.sink.put(writer.document(&bytes)?)?;
        }
        self.sink.put(writer.keys()?)?;
        for (handle, checkpoint) in &heads {
            trail::write(self, handle, checkpoint, &mut writer)?;
        }
        self.finish(writer, &state)
    }

    fn reader(&self) -> &Reader {
        self.appliance.store.reader()
    }

    /// The trail and its checkpoint over what is signed now.
    fn head(&self, origin: &Origin) -> Result<(TrailHandle, SignedCheckpoint), ExportError> {
        let handle = self.appliance.trail(origin.as_str())?.clone();
        let note = self.sink.runtime.block_on(current_checkpoint(&self.appliance, &handle))?;
        let checkpoint = SignedCheckpoint::parse(&note.note)?;
        Ok((handle, checkpoint))
    }

    /// The admin trail, replayed from where the daemon's own replay ended to the checkpoint.
    fn admin_state(&self, handle: &TrailHandle, checkpoint: &SignedCheckpoint) -> Result<AdminState, ExportError> {
        let mut state = (*self.appliance.admin).clone();
        let documents = StoredDocuments::new(self.reader());
        let size = checkpoint.checkpoint().size;
        while state.chain().size() < size {
            let from = state.chain().size();
            let to = size.min(from + u64::from(TILE_WIDTH));
            let records = self.reader().read(|snapshot| snapshot.records(handle.facts().no, from, to))?;
            if records.len() as u64 != to - from {
                return Err(trail::damaged(handle, format!("of records {from} to {} some are missing", to - 1)));
            }
            for record in &records {
                state.apply(&record.bytes, &documents)?;
            }
        }
        Ok(state)
    }

    /// Numbers, signs and writes the manifest.
    fn finish(&self, writer: BundleWriter, state: &AdminState) -> Result<(), ExportError> {
        let kid: Kid = state.evidence_key().ok_or(EvidenceError::NoEvidenceKey)?.key.kid();
        let created = self.appliance.clock.now();
        let withheld: Vec<PartName> = self.selection.withhold.iter().cloned().collect();
        let (made, makes) = std::sync::mpsc::sync_channel(1);
        let payload = move |number| {
            let mut writer = writer;
            let statement = writer.manifest_statement(created, number, withheld);
            let bytes = statement.as_ref().map_or_else(|_| Bytes::new(), |payload| Bytes::copy_from_slice(payload));
            let _ = made.send(statement.map(|_| writer));
            bytes
        };
        let runtime = &self.sink.runtime;
        // A store that was moved back has forgotten numbers; the worker's mark has not.
        let mark = runtime.block_on(self.appliance.record_token.pool().mark(&Marked::statements(&kid)));
        let above = mark.map_err(refusal)?.map_or(0, |mark| mark.size);
        let (_, payload) = runtime.block_on(self.appliance.store.next_statement(kid.to_string(), above, payload))?;
        let gone = || AppendError::Unknown("the statement was not made".to_owned());
        let writer = makes.try_recv().map_err(|_| gone())??;
        let message = dsse::pae(STATEMENT_PAYLOAD_TYPE, &payload);
        let signatures = runtime.block_on(self.appliance.record_token.sign([(kid, message.into())].into(), None))?;
        let signature = signatures.first().ok_or_else(|| Refusal::from(Reason::Internal))?;
        self.sink.put(writer.finish(signature)?)?;
        Ok(())
    }
}

/// The newest durable checkpoint of a trail, after one was taken over everything that is signed.
///
/// Where the HSM or the trail signs nothing at present, the newest one is given if it covers what
/// is signed, or if the trail will never have a newer one.
///
/// # Errors
/// Why no checkpoint is taken; STORE_UNAVAILABLE.
pub async fn current_checkpoint(appliance: &Appliance, trail: &TrailHandle) -> Result<SignedNote, Refusal> {
    if let Err(refusal) = trail.checkpoint().await {
        let now = trail.now();
        let last = matches!(refusal.reason(), Reason::TrailLatched | Reason::ClockStep);
        if !last && now.checkpoint < now.signed {
            return Err(refusal);
        }
    }
    let no = trail.facts().no;
    let newest = appliance.store.reader().run(move |snapshot| snapshot.newest_checkpoint(no)).await;
    let newest = newest.map_err(|error| ExportError::from(error).into_refusal())?;
    newest.ok_or_else(|| Refusal::new(Reason::Internal, format!("{} has no checkpoint", trail.facts().origin)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_parts_that_there_are_can_be_withheld() {
        for name in PARTS {
            assert_eq!(part(name).unwrap().as_str(), name);
        }
        for name in ["requests", "Request", "", "fact s"] {
            let refusal = part(name).unwrap_err();
            assert_eq!(refusal.reason(), Reason::InvalidRequest);
            let said = format!("withhold: {name:?} is no part; parts are facts, request, response, review, subject");
            assert_eq!(refusal.message(), said);
        }
    }
}
