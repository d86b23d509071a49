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
use tracing::{Instrument, Span};

use super::submit::{self, Answered, Offer, Pending};
use super::{answer, held, timeout};
use crate::appliance::{Appliance, no_origin};
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
        let count = request.events.len() as u64;
        let (client, trail) = self.authorise(peer, &request.trail).inspect_err(|refusal| {
            // Counted for whoever the certificate names, even of one that is revoked.
            if let Some(member) = peer.and_then(|peer| appliance.access.member(peer.spiffe_id())) {
                appliance.metrics.offered(member, count);
                appliance.metrics.records(None, member, refusal.reason().outcome(), count);
            }
        })?;
        appliance.metrics.offered(&client, count);
        let pending = self.admit(&trail, &client, request, deadline).await;
        if let Err(refusal) = &pending {
            appliance.metrics.records(Some(&trail.facts().origin), &client, refusal.reason().outcome(), count);
        }
        Ok(Begun { appliance: appliance.clone(), client, pending: pending? })
    }

    /// Who writes to which trail.
    fn authorise(&self, peer: Option<&Peer>, trail: &str) -> Result<(MemberId, TrailHandle), Refusal> {
        let origin = Origin::parse(trail).map_err(no_origin)?;
        // First: who may not write a trail does not learn whether it exists.
        let caller = self.appliance.access.authorise_write(peer, self.appliance.clock.now(), &origin)?;
        Ok((caller.id, self.appliance.trail(trail)?.clone()))
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
        let permit = self.appliance.admission.admit(client, count, request.encoded_len())?;
        // Within the client's rate: a claim costs a read and a signature's check.
        if let Some(held) = &request.held {
            held::check(&self.appliance, trail, held).await?;
        }
        let offer = Offer { appliance: self.appliance.clone(), trail: trail.clone(), client: client.clone(), deadline };
        submit::begin(offer, request.events, permit).await
    }

    /// Counts how a request ended, and says so in the span of its call: the one line that carries the
    /// caller's trace.
    fn answered<T>(&self, operation: &'static str, events: usize, result: &Result<T, Refusal>) {
        let reason = result.as_ref().map(|_| ()).map_err(Refusal::reason);
        self.appliance.metrics.operation(operation, reason);
        let (outcome, reason) = match reason {
            Ok(()) => (Outcome::Succeeded, None),
            Err(reason) => (reason.outcome(), Some(reason.code())),
        };
        tracing::debug!(outcome = outcome.word(), reason, events, "answered");
    }

    /// One request, whole, in a task of its own: a caller that goes away, or whose deadline passes,
    /// takes its answer with it and not the count of how its events ended.
    async fn whole<T: Send + 'static>(
        &self,
        call: Call,
        request: SignBatchRequest,
        respond: fn(Signed) -> Result<Holding<T>, Refusal>,
    ) -> Result<Response<T>, Status> {
        let Call { operation, peer, deadline, span } = call;
        let (service, events) = (self.clone(), request.events.len());
        let task = async move {
            let begun = service.begin(peer.as_ref(), request, deadline).await;
            let finished = match begun {
                Ok(begun) => begun.finish().await,
                Err(refusal) => Err(refusal),
            };
            let result = finished.and_then(respond);
            service.answered(operation, events, &result);
            result
        };
        let ended = |error| Refusal::new(Reason::Internal, format_args!("the call ended early: {error}"));
        let result = tokio::spawn(task.instrument(span)).await.map_err(ended)?;
        Ok(with_permit(result?))
    }
}

/// A response, and what its events hold until it has left.
type Holding<T> = (T, Arc<Permit>);

/// What a unary call brings beside its request.
struct Call {
    operation: &'static str,
    peer: Option<Peer>,
    deadline: Option<Instant>,
    span: Span,
}

impl Call {
    fn of<T>(operation: &'static str, request: &Request<T>) -> Call {
        let peer = peer_of(request);
        let span = call_span(operation, request.metadata(), peer.as_ref());
        Call { operation, deadline: deadline(request.metadata()), span, peer }
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
        let origin = Some(&trail.facts().origin);
        metrics.records(origin, &self.client, Outcome::Succeeded, signed);
        for refusal in answers.iter().filter_map(|one| one.as_ref().err()) {
            metrics.records(origin, &self.client, refusal.reason().outcome(), 1);
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
    /// The answer to the only event, and what it holds.
    fn into_one(mut self) -> Result<Holding<SignResponse>, Refusal> {
        let answered = self.answers.pop().unwrap_or_else(|| Err(Refusal::from(Reason::Internal)))?;
        let response = SignResponse { signed: Some(answer::signed(&answered)), proof: self.proofs.pop() };
        Ok((response, self.permit))
    }

    /// The answer, and what its events hold.
    fn into_response(self) -> Holding<SignBatchResponse> {
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
    let asked = metadata.get(timeout::HEADER).and_then(|value| value.to_str().ok()).and_then(timeout::parse);
    Some(Instant::now() + asked.unwrap_or(MAX_WAIT).min(MAX_WAIT))
}

fn peer_of<T>(request: &Request<T>) -> Option<Peer> {
    request.extensions().get::<Peer>().cloned()
}

/// A response whose events are in flight until it has left.
fn with_permit<T>((response, permit): Holding<T>) -> Response<T> {
    let mut response = Response::new(response);
    response.extensions_mut().insert(Leaving::new(permit));
    response
}

type Answers = Pin<Box<dyn Stream<Item = Result<SignBatchResponse, Status>> + Send>>;

#[tonic::async_trait]
impl SigningService for Signing {
    async fn sign(&self, request: Request<SignRequest>) -> Result<Response<SignResponse>, Status> {
        let call = Call::of("Sign", &request);
        let SignRequest { trail, event, held } = request.into_inner();
        let request = SignBatchRequest { trail, events: event.into_iter().collect(), held };
        self.whole(call, request, Signed::into_one).await
    }

    async fn sign_batch(&self, request: Request<SignBatchRequest>) -> Result<Response<SignBatchResponse>, Status> {
        let call = Call::of("SignBatch", &request);
        self.whole(call, request.into_inner(), |signed| Ok(signed.into_response())).await
    }

    type SignStreamStream = Answers;

    async fn sign_stream(&self, request: Request<Streaming<SignBatchRequest>>) -> Result<Response<Answers>, Status> {
        let (peer, deadline) = (peer_of(&request), deadline_of_stream(request.metadata()));
        let span = call_span("SignStream", request.metadata(), peer.as_ref());
        let mut requests = request.into_inner();
        // The order of this channel is the order of the answers; its bound is the window.
        // One more is taken out of it and waited for.
        let (window, answers) = mpsc::channel(STREAM_WINDOW - 1);
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
                    let events = request.events.len();
                    // Sequenced here, one message after the other; only the waiting is done aside.
                    let begun = service.begin(peer.as_ref(), request, wait).await;
                    let service = service.clone();
                    let waiting = async move {
                        let result = match begun {
                            Ok(begun) => begun.finish().await,
                            Err(refusal) => Err(refusal),
                        };
                        service.answered("SignStream", events, &result);
                        let _ = reply.send(result.map(Signed::into_response).map_err(Status::from));
                    };
                    tokio::spawn(waiting.in_current_span());
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
    metadata.get(timeout::HEADER).and(deadline(metadata))
}
