//! SigningService: Sign, SignBatch, SignStream.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use countersign_proto::v1::signing_service_server::SigningService;
use countersign_proto::v1::{
    Answer, SignBatchRequest, SignBatchResponse, SignRequest, SignResponse, answer::Outcome as AnswerOutcome,
};
use countersign_trail::id::MemberId;
use countersign_trail::origin::Origin;
use prost::Message;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};
use tracing::Instrument;

use super::submit::{self, Answered, Offer, Pending};
use super::{answer, held, timeout};
use crate::appliance::Appliance;
use crate::decoding;
use crate::intake::Leaving;
use crate::limits::Permit;
use crate::logging::call_span;
use crate::peer::Peer;
use crate::reason::{Outcome, Reason, Refusal};
use crate::sequencer::TrailHandle;

/// Request messages of one stream whose answers are awaited; beyond that the daemon stops reading.
pub const STREAM_WINDOW: usize = 64;
/// Longest deadline that is honoured; a call without one waits this long.
const MAX_WAIT: Duration = Duration::from_secs(300);

/// The service.
#[derive(Clone)]
pub struct Signing {
    appliance: Arc<Appliance>,
}

impl Signing {
    /// Over the running appliance.
    pub fn new(appliance: Arc<Appliance>) -> Signing {
        Signing { appliance }
    }

    /// Authorises, admits and sequences one request: the same way for all three calls.
    async fn begin(
        &self,
        peer: Option<&Peer>,
        request: SignBatchRequest,
        deadline: Option<Instant>,
    ) -> Result<Begun, Refusal> {
        let appliance = &self.appliance;
        // Authorised first: who may not write a trail does not learn whether it exists.
        let origin = Origin::parse(&request.trail).map_err(|error| Refusal::new(Reason::InvalidRequest, error))?;
        let caller = appliance.access.authorise_write(peer, appliance.clock.now(), &origin)?;
        let trail = appliance.trail(origin.as_str())?.clone();
        let count = request.events.len() as u64;
        appliance.metrics.offered(&caller.id, count);
        let pending = self.admit(&trail, &caller.id, request, deadline).await;
        if let Err(refusal) = &pending {
            appliance.metrics.records(&trail.facts().origin, &caller.id, refusal.reason().outcome(), count);
        }
        Ok(Begun { appliance: appliance.clone(), client: caller.id, pending: pending? })
    }

    async fn admit(
        &self,
        trail: &TrailHandle,
        client: &MemberId,
        request: SignBatchRequest,
        deadline: Option<Instant>,
    ) -> Result<Pending, Refusal> {
        let count = request.events.len();
        if count == 0 {
            return Err(Refusal::new(Reason::InvalidRequest, "a request without events"));
        }
        if count > self.appliance.max_batch {
            let message = format_args!("{count} events; at most {} in one message", self.appliance.max_batch);
            return Err(Refusal::new(Reason::BatchTooLarge, message));
        }
        if let Some(held) = &request.held {
            held::check(&self.appliance, trail, held).await?;
        }
        let permit = self.appliance.admission.admit(client, count, request.encoded_len())?;
        let offer = Offer { appliance: self.appliance.clone(), trail: trail.clone(), client: client.clone(), deadline };
        submit::begin(offer, request.events, permit).await
    }

    /// One request, whole.
    async fn batch(
        &self,
        peer: Option<&Peer>,
        request: SignBatchRequest,
        deadline: Option<Instant>,
    ) -> Result<Signed, Refusal> {
        self.begin(peer, request, deadline).await?.finish().await
    }
}

/// A request that is sequenced.
struct Begun {
    appliance: Arc<Appliance>,
    client: MemberId,
    pending: Pending,
}

impl Begun {
    /// Waits for its answers and makes their proofs.
    async fn finish(self) -> Result<Signed, Refusal> {
        let (trail, permit) = (self.pending.trail().clone(), self.pending.permit());
        let answers = self.pending.finish().await;
        let metrics = &self.appliance.metrics;
        let signed = answers.iter().filter(|one| one.is_ok()).count() as u64;
        metrics.records(&trail.facts().origin, &self.client, Outcome::Succeeded, signed);
        for refusal in answers.iter().filter_map(|one| one.as_ref().err()) {
            metrics.records(&trail.facts().origin, &self.client, refusal.reason().outcome(), 1);
        }
        let proofs = answer::proofs(&self.appliance.store, &trail, answers.iter().flatten()).await?;
        Ok(Signed { answers, proofs, permit })
    }
}

/// The answers to one request.
struct Signed {
    answers: Vec<Result<Answered, Refusal>>,
    proofs: Vec<countersign_proto::v1::Proof>,
    /// Held until they have left.
    permit: Arc<Permit>,
}

impl Signed {
    /// The answer, and what its events hold.
    fn into_response(self) -> (SignBatchResponse, Arc<Permit>) {
        let answers = self.answers.iter().map(|one| Answer {
            outcome: Some(match one {
                Ok(answered) => AnswerOutcome::Signed(answer::signed(answered)),
                Err(refusal) => AnswerOutcome::Refused(refusal.to_refused()),
            }),
        });
        (SignBatchResponse { answers: answers.collect(), proofs: self.proofs }, self.permit)
    }
}

/// The caller's deadline (gRPC `grpc-timeout`), at most [`MAX_WAIT`] away.
fn deadline(metadata: &MetadataMap) -> Option<Instant> {
    let asked = metadata.get("grpc-timeout").and_then(|value| value.to_str().ok()).and_then(timeout::parse);
    Some(Instant::now() + asked.unwrap_or(MAX_WAIT).min(MAX_WAIT))
}

fn peer_of<T>(request: &Request<T>) -> Option<Peer> {
    request.extensions().get::<Peer>().cloned()
}

/// A response whose events are in flight until it has left.
fn with_permit<T>((response, permit): (T, Arc<Permit>)) -> Response<T> {
    let mut response = Response::new(response);
    response.extensions_mut().insert(Leaving::new(permit));
    response
}

type Answers = Pin<Box<dyn Stream<Item = Result<SignBatchResponse, Status>> + Send>>;

#[tonic::async_trait]
impl SigningService for Signing {
    async fn sign(&self, request: Request<SignRequest>) -> Result<Response<SignResponse>, Status> {
        let (peer, deadline) = (peer_of(&request), deadline(request.metadata()));
        let span = call_span("Sign", request.metadata(), peer.as_ref());
        let SignRequest { trail, event, held } = request.into_inner();
        let request = SignBatchRequest { trail, events: event.into_iter().collect(), held };
        let result = self.batch(peer.as_ref(), request, deadline).instrument(span).await.and_then(|mut signed| {
            let answered = signed.answers.pop().unwrap_or_else(|| Err(Refusal::from(Reason::Internal)))?;
            let response = SignResponse { signed: Some(answer::signed(&answered)), proof: signed.proofs.pop() };
            Ok(with_permit((response, signed.permit)))
        });
        self.appliance.metrics.operation("Sign", result.as_ref().map(|_| ()).map_err(Refusal::reason));
        Ok(result?)
    }

    async fn sign_batch(&self, request: Request<SignBatchRequest>) -> Result<Response<SignBatchResponse>, Status> {
        let (peer, deadline) = (peer_of(&request), deadline(request.metadata()));
        let span = call_span("SignBatch", request.metadata(), peer.as_ref());
        let result = self.batch(peer.as_ref(), request.into_inner(), deadline).instrument(span).await;
        self.appliance.metrics.operation("SignBatch", result.as_ref().map(|_| ()).map_err(Refusal::reason));
        Ok(with_permit(result?.into_response()))
    }

    type SignStreamStream = Answers;

    async fn sign_stream(&self, request: Request<Streaming<SignBatchRequest>>) -> Result<Response<Answers>, Status> {
        let (peer, deadline) = (peer_of(&request), deadline_of_stream(request.metadata()));
        let span = call_span("SignStream", request.metadata(), peer.as_ref());
        let mut requests = request.into_inner();
        // The order of this channel is the order of the answers; its bound is the window.
        let (window, answers) = mpsc::channel(STREAM_WINDOW);
        let service = self.clone();
        tokio::spawn(
            async move {
                while let Some(message) = requests.next().await {
                    let (reply, answer) = oneshot::channel();
                    // Room in the window first: a slow reader stops the reading of its requests.
                    if window.send(answer).await.is_err() {
                        return;
                    }
                    let request = match message {
                        Ok(request) => request,
                        Err(status) => {
                            let status = decoding::refusal(&status).map_or(status, Status::from);
                            return drop(reply.send(Err(status)));
                        }
                    };
                    let wait = deadline.or_else(|| Some(Instant::now() + MAX_WAIT));
                    // Sequenced here, one message after the other; only the waiting is done aside.
                    let begun = service.begin(peer.as_ref(), request, wait).await;
                    let appliance = service.appliance.clone();
                    tokio::spawn(async move {
                        let result = match begun {
                            Ok(begun) => begun.finish().await,
                            Err(refusal) => Err(refusal),
                        };
                        appliance.metrics.operation("SignStream", result.as_ref().map(|_| ()).map_err(Refusal::reason));
                        let _ = reply.send(result.map(Signed::into_response).map_err(Status::from));
                    });
                }
            }
            .instrument(span),
        );
        let gone = |_| Status::from(Refusal::from(Reason::Internal));
        // An answer that is taken from here is written out; until then its events are in flight.
        let answers = ReceiverStream::new(answers)
            .then(move |answer| async move { answer.await.map_err(gone)?.map(|(response, _permit)| response) });
        Ok(Response::new(Box::pin(answers)))
    }
}

/// A stream lives as long as its caller wants; only a deadline that was given bounds its answers.
fn deadline_of_stream(metadata: &MetadataMap) -> Option<Instant> {
    metadata.get("grpc-timeout").and(deadline(metadata))
}
