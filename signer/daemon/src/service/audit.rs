//! AuditService: trails, heads, records, proofs, keys, documents, exports, status.
//!
//! Only records whose signatures are durable are ever shown, and only heads under a durable
//! checkpoint. Authorisation comes first in every call, from the roster of the genesis.
//!
//! - [`page`]: page tokens.
//! - `records`: ListRecords. `proofs`: GetProof, GetConsistency. `keys`: ListKeys.
//! - `trails`: ListTrails and GetStatus.

mod keys;
pub mod page;
mod proofs;
mod records;
mod trails;

use std::pin::Pin;
use std::sync::Arc;

use countersign_proto::v1::audit_service_server::AuditService;
use countersign_proto::v1::{
    ExportRequest, ExportResponse, GetConsistencyRequest, GetConsistencyResponse, GetDocumentRequest,
    GetDocumentResponse, GetHeadRequest, GetHeadResponse, GetProofRequest, GetProofResponse, GetStatusRequest,
    GetStatusResponse, ListKeysRequest, ListKeysResponse, ListRecordsRequest, ListRecordsResponse, ListTrailsRequest,
    ListTrailsResponse,
};
use countersign_trail::hash::Hash;
use countersign_trail::origin::Origin;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status};

use super::submit::read_refusal;
use crate::access::Reader;
use crate::appliance::{Appliance, no_origin};
use crate::export::{Exporter, Selection, current_checkpoint};
use crate::peer::Peer;
use crate::reason::{Reason, Refusal};
use crate::sequencer::TrailHandle;
use crate::store::ReadError;
use crate::store::sqlite::reader::Snapshot;

/// Calls that read the store at once; further ones wait. Each holds a thread and a connection to
/// the database, and at most a page.
const READS: usize = 16;

/// The service.
#[derive(Clone)]
pub struct Audit {
    appliance: Arc<Appliance>,
    exporter: Exporter,
    reads: Arc<Semaphore>,
}

impl Audit {
    /// Over the running appliance.
    pub fn new(appliance: Arc<Appliance>) -> Audit {
        let exporter = Exporter::new(appliance.clone());
        Audit { appliance, exporter, reads: Arc::new(Semaphore::new(READS)) }
    }

    /// Counts how a call ended, and gives the answer to it.
    fn answer<T>(&self, operation: &'static str, result: Result<T, Refusal>) -> Result<Response<T>, Status> {
        self.appliance.metrics.operation(operation, result.as_ref().map(|_| ()).map_err(Refusal::reason));
        Ok(Response::new(result?))
    }

    /// The trail that a caller names and may read. The permission goes first: who may not read a
    /// trail does not learn whether it exists.
    fn readable(&self, peer: Option<&Peer>, name: &str) -> Result<(TrailHandle, Reader), Refusal> {
        let now = self.appliance.clock.now();
        let origin = match Origin::parse(name) {
            Ok(origin) => origin,
            Err(error) => {
                self.appliance.access.authorise_keys(peer, now)?;
                return Err(no_origin(error));
            }
        };
        let reader = self.appliance.access.authorise_read(peer, now, &origin)?;
        Ok((self.appliance.trail(name)?.clone(), reader))
    }

    async fn turn(&self) -> Result<SemaphorePermit<'_>, Refusal> {
        // Never closed.
        self.reads.acquire().await.map_err(|_| Refusal::from(Reason::Draining))
    }

    /// Reads the store when it is this call's turn.
    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Snapshot<'_>) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, Refusal> {
        let _turn = self.turn().await?;
        self.appliance.store.reader().run(work).await.map_err(|error| read_refusal(&error))
    }

    async fn list_trails(&self, peer: Option<&Peer>) -> Result<ListTrailsResponse, Refusal> {
        let now = self.appliance.clock.now();
        self.appliance.access.authorise_keys(peer, now)?;
        let shown = |origin: &Origin| self.appliance.access.may_list(peer, now, origin);
        Ok(ListTrailsResponse { trails: self.trails(shown).await? })
    }

    async fn get_head(&self, peer: Option<&Peer>, request: GetHeadRequest) -> Result<GetHeadResponse, Refusal> {
        let (trail, _) = self.readable(peer, &request.trail)?;
        let note = current_checkpoint(&self.appliance, &trail).await?;
        Ok(GetHeadResponse { checkpoint: note.note })
    }

    async fn get_document(
        &self,
        peer: Option<&Peer>,
        request: GetDocumentRequest,
    ) -> Result<GetDocumentResponse, Refusal> {
        self.appliance.access.authorise_keys(peer, self.appliance.clock.now())?;
        let hash = Hash::try_from(&request.sha256[..]).map_err(|_| {
            Refusal::new(Reason::InvalidRequest, format!("sha256 has {} bytes, not 32", request.sha256.len()))
        })?;
        // The table may hold others: only what the admin trail names is a document.
        if !self.appliance.admin.documents.contains(&hash) {
            return Err(Refusal::new(Reason::NotFound, format!("the admin trail names no document {hash}")));
        }
        let document = self.read(move |snapshot| snapshot.document(&hash)).await?;
        match document.filter(|bytes| Hash::of(bytes) == hash) {
            Some(document) => Ok(GetDocumentResponse { document: document.into() }),
            None => {
                tracing::error!(document = %hash, "a document is missing or damaged; run `countersignd fsck`");
                Err(Refusal::new(Reason::Internal, format!("document {hash} is damaged in the store")))
            }
        }
    }

    fn export_chunks(&self, peer: Option<&Peer>, request: &ExportRequest) -> Result<Exported, Refusal> {
        self.appliance.access.authorise_export(peer, self.appliance.clock.now())?;
        let selection = Selection::parse(&self.appliance, &request.trails, &request.withhold)?;
        let (appliance, peer) = (self.appliance.clone(), peer.cloned());
        // A certificate that is revoked meanwhile ends the export at its next chunk.
        let guard = move || {
            let allowed = appliance.access.authorise_export(peer.as_ref(), appliance.clock.now());
            allowed.map(|_| ()).map_err(Refusal::from)
        };
        let chunks = self.exporter.start(selection, Box::new(guard))?;
        let answers = ReceiverStream::new(chunks)
            .map(|chunk| chunk.map(|bytes| ExportResponse { chunk: bytes }).map_err(Status::from));
        Ok(Box::pin(answers))
    }
}

type Exported = Pin<Box<dyn Stream<Item = Result<ExportResponse, Status>> + Send>>;

fn peer_of<T>(request: &Request<T>) -> Option<Peer> {
    request.extensions().get::<Peer>().cloned()
}

#[tonic::async_trait]
impl AuditService for Audit {
    async fn list_trails(&self, request: Request<ListTrailsRequest>) -> Result<Response<ListTrailsResponse>, Status> {
        let result = self.list_trails(peer_of(&request).as_ref()).await;
        self.answer("ListTrails", result)
    }

    async fn get_head(&self, request: Request<GetHeadRequest>) -> Result<Response<GetHeadResponse>, Status> {
        let peer = peer_of(&request);
        let result = self.get_head(peer.as_ref(), request.into_inner()).await;
        self.answer("GetHead", result)
    }

    async fn list_records(
        &self,
        request: Request<ListRecordsRequest>,
    ) -> Result<Response<ListRecordsResponse>, Status> {
        let peer = peer_of(&request);
        let result = self.list_records(peer.as_ref(), request.into_inner()).await;
        self.answer("ListRecords", result)
    }

    async fn get_proof(&self, request: Request<GetProofRequest>) -> Result<Response<GetProofResponse>, Status> {
        let peer = peer_of(&request);
        let result = self.get_proof(peer.as_ref(), request.into_inner()).await;
        self.answer("GetProof", result)
    }

    async fn get_consistency(
        &self,
        request: Request<GetConsistencyRequest>,
    ) -> Result<Response<GetConsistencyResponse>, Status> {
        let peer = peer_of(&request);
        let result = self.get_consistency(peer.as_ref(), request.into_inner()).await;
        self.answer("GetConsistency", result)
    }

    async fn list_keys(&self, request: Request<ListKeysRequest>) -> Result<Response<ListKeysResponse>, Status> {
        let peer = peer_of(&request);
        let result = self.list_keys(peer.as_ref(), &request.into_inner());
        self.answer("ListKeys", result)
    }

    async fn get_document(
        &self,
        request: Request<GetDocumentRequest>,
    ) -> Result<Response<GetDocumentResponse>, Status> {
        let peer = peer_of(&request);
        let result = self.get_document(peer.as_ref(), request.into_inner()).await;
        self.answer("GetDocument", result)
    }

    type ExportStream = Exported;

    async fn export(&self, request: Request<ExportRequest>) -> Result<Response<Exported>, Status> {
        let peer = peer_of(&request);
        match self.export_chunks(peer.as_ref(), &request.into_inner()) {
            // Counted when it ends.
            Ok(answers) => Ok(Response::new(answers)),
            Err(refusal) => self.answer("Export", Err(refusal)),
        }
    }

    async fn get_status(&self, request: Request<GetStatusRequest>) -> Result<Response<GetStatusResponse>, Status> {
        let result = self.get_status(peer_of(&request).as_ref()).await;
        self.answer("GetStatus", result)
    }
}
