//! The client: one event, or a batch.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use countersign_proto::{MAX_ANSWER_LEN, v1};
use countersign_trail::id::MemberId;
use countersign_trail::receipt::Receipt as KeptReceipt;
use http::uri::PathAndQuery;
use prost::Message;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

use crate::check::{Checker, Outcome, Sent};
use crate::codec::EncodedCodec;
use crate::config::{ClientConfig, MAX_DEADLINE};
use crate::connect::{self, Faults};
use crate::error::{ClientError, Refusal};
use crate::held::{Held, held_head};
use crate::receipt::Receipt;
use crate::retry::Retry;
use crate::trust::{self, TrailTrust, Trusted};

/// The most events of one message.
pub const MAX_BATCH: usize = 4_096;
/// The largest answer to one event, in bytes: a record of 64 KiB, its salts and its proof.
const MAX_ANSWER_LEN_PER_EVENT: usize = 96 << 10;

/// A connection to the daemon, and what is held of its trails. Cheap to clone; clones share both.
#[derive(Clone)]
pub struct Client(pub(crate) Arc<Inner>);

impl fmt::Debug for Client {
    /// Without keys and receipts.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("connection", &self.0.config.connection)
            .field("member", self.member())
            .field("trails", &self.trails())
            .finish_non_exhaustive()
    }
}

pub(crate) struct Inner {
    pub(crate) config: ClientConfig,
    channel: Channel,
    faults: Faults,
    trusted: Trusted,
    pub(crate) held: Held,
}

impl Client {
    /// Connects, fetches the keys and checks them down from the configured trust.
    ///
    /// # Errors
    /// [`ClientError::Config`], [`ClientError::Connect`], [`ClientError::Trust`].
    pub async fn connect(mut config: ClientConfig) -> Result<Client, ClientError> {
        config.deadline = config.deadline.min(MAX_DEADLINE);
        let (channel, faults) = connect::open(&config.connection).await?;
        let trusted = trust::establish(&channel, &config, &faults).await?;
        Ok(Client(Arc::new(Inner { config, channel, faults, trusted, held: Held::default() })))
    }

    /// Our id in the roster, which every record of ours names.
    pub fn member(&self) -> &MemberId {
        &self.0.trusted.member
    }

    /// The trails whose keys are trusted, sorted. Not all of them need be ours to write.
    pub fn trails(&self) -> Vec<&str> {
        let mut trails: Vec<&str> = self.0.trusted.trails.keys().map(String::as_str).collect();
        trails.sort_unstable();
        trails
    }

    /// The connection, for the daemon's other services.
    pub fn channel(&self) -> Channel {
        self.0.channel.clone()
    }

    /// The newest record of a trail that this client holds.
    pub fn newest(&self, trail: &str) -> Option<Receipt> {
        self.0.held.newest(trail)
    }

    /// Takes a receipt of an earlier run ([`Receipt::to_json`]) for the newest head that is held, so
    /// that a daemon which lost records meanwhile is found out by the first request. Best the last
    /// one that was received, kept where the daemon's host cannot reach it.
    ///
    /// # Errors
    /// [`ClientError::Receipt`], [`ClientError::UnknownTrail`]; [`ClientError::Alarm`] where it
    /// contradicts what is held already.
    pub fn hold(&self, receipt: &[u8]) -> Result<(), ClientError> {
        let receipt = KeptReceipt::parse(receipt)?;
        let trust = self.0.trail(receipt.record.header.trail.as_str())?;
        self.0.checker(trust).hold(receipt)
    }

    /// Signs one event. Without an event_id it is given one ([`new_event_id`](crate::new_event_id)),
    /// which stands in the receipt and in errors that leave the event's fate open. A gateway that
    /// must survive its own crash sets the event_id itself and keeps it, with the event, first.
    ///
    /// Dropping the future leaves the event's fate open: it may be recorded, before or after, and a
    /// call with the same event_id and content finds out. The answer is checked on the caller's
    /// task, which costs processor time: in record mode one signature check for each record.
    ///
    /// # Errors
    /// [`ClientError::Event`] and [`ClientError::UnknownTrail`] before anything is sent;
    /// [`ClientError::Rejected`] for a refusal that stays; [`ClientError::Connect`] when TLS is
    /// refused; [`ClientError::Exhausted`] when attempts or time are used up: the event may have been
    /// recorded, and the same event_id finds out; [`ClientError::Alarm`] for a false answer.
    pub async fn sign(&self, trail: &str, event: v1::Event) -> Result<Receipt, ClientError> {
        let trust = self.0.trail(trail)?;
        let mut sent = [self.0.prepare(trail, 0, event)?];
        let [prepared] = &mut sent;
        let mut request = v1::SignRequest {
            trail: trail.to_owned(),
            event: Some(std::mem::take(&mut prepared.event)),
            held: self.0.held.newest(trail).as_ref().map(held_head),
        };
        let encoded = Bytes::from(request.encode_to_vec());
        prepared.event = request.event.take().unwrap_or_default();
        let path = PathAndQuery::from_static("/countersign.v1.SigningService/Sign");
        let mut retry = self.0.retry();
        let call = |left| self.0.unary::<v1::SignResponse>(path.clone(), encoded.clone(), 1, left);
        let v1::SignResponse { signed, proof } = match retry.run(call).await {
            Ok(answer) => answer,
            Err(error) => return Err(error.about(ids_of(&sent))),
        };
        let answer = v1::Answer { outcome: signed.map(v1::answer::Outcome::Signed) };
        let proofs = proof.into_iter().collect();
        let outcomes = self.0.checker(trust).message(&mut sent, vec![answer], proofs);
        let [sent] = &sent;
        let result =
            outcomes.map_err(ClientError::Alarm)?.pop().map(|outcome| outcome.into_result(sent, retry.attempts + 1));
        // As many outcomes as events: one.
        result.unwrap_or(Err(ClientError::StreamEnded))
    }

    /// Signs 1 to 4,096 events of one trail; one result for each, in their order. Events that are
    /// refused and may be repeated are, by themselves. The daemon bounds a message in bytes, too
    /// (8 MiB unless configured): large contents want smaller batches.
    ///
    /// event_ids, a dropped future and the check are as with [`Client::sign`]. The check does not
    /// yield: a large batch in record mode may hold its thread for some tenths of a second.
    ///
    /// # Errors
    /// As [`Client::sign`], for the whole call; the results' own errors are
    /// [`ClientError::Rejected`], [`ClientError::Connect`], [`ClientError::Exhausted`] and
    /// [`ClientError::Alarm`].
    pub async fn sign_batch(
        &self,
        trail: &str,
        events: Vec<v1::Event>,
    ) -> Result<Vec<Result<Receipt, ClientError>>, ClientError> {
        let trust = self.0.trail(trail)?;
        let sent = self.0.prepare_all(trail, events)?;
        let mut retry = self.0.retry();
        self.0.sign_all(trust, sent, &mut retry).await
    }
}

/// One result for each event of a call.
pub(crate) type Results = Vec<Result<Receipt, ClientError>>;

impl Inner {
    /// The keys of a trail.
    pub(crate) fn trail(&self, trail: &str) -> Result<&Arc<TrailTrust>, ClientError> {
        self.trusted.trails.get(trail).ok_or_else(|| ClientError::UnknownTrail(trail.chars().take(64).collect()))
    }

    /// The attempts of a new call.
    pub(crate) fn retry(&self) -> Retry {
        Retry::new(&self.config, &self.faults)
    }

    fn prepare(&self, trail: &str, index: usize, event: v1::Event) -> Result<Sent, ClientError> {
        let floor = self.held.floor(trail);
        Sent::prepare(event, &self.trusted.member, floor).map_err(|source| ClientError::Event { index, source })
    }

    /// Decodes the events of one message.
    pub(crate) fn prepare_all(&self, trail: &str, events: Vec<v1::Event>) -> Result<Vec<Sent>, ClientError> {
        if !(1..=MAX_BATCH).contains(&events.len()) {
            return Err(ClientError::BatchSize(events.len()));
        }
        let floor = self.held.floor(trail);
        let prepare = |(index, event)| {
            let sent = Sent::prepare(event, &self.trusted.member, floor);
            sent.map_err(|source| ClientError::Event { index, source })
        };
        events.into_iter().enumerate().map(prepare).collect()
    }

    pub(crate) fn checker<'a>(&'a self, trust: &'a TrailTrust) -> Checker<'a> {
        Checker { trust, held: &self.held, skew: self.config.clock_skew }
    }

    /// Encodes a message without copying its events.
    pub(crate) fn encode(&self, trail: &str, sent: &mut [Sent], held: bool) -> Bytes {
        let head = if held { self.held.newest(trail) } else { None };
        let mut request = v1::SignBatchRequest {
            trail: trail.to_owned(),
            events: sent.iter_mut().map(|sent| std::mem::take(&mut sent.event)).collect(),
            held: head.as_ref().map(held_head),
        };
        let encoded = request.encode_to_vec();
        for (sent, event) in sent.iter_mut().zip(request.events.drain(..)) {
            sent.event = event;
        }
        encoded.into()
    }

    /// Sends events until each is signed, refused for good, or false, or `retry` has no more left.
    pub(crate) async fn sign_all(
        &self,
        trust: &TrailTrust,
        mut sent: Vec<Sent>,
        retry: &mut Retry,
    ) -> Result<Results, ClientError> {
        let trail = trust.origin.as_str();
        let path = PathAndQuery::from_static("/countersign.v1.SigningService/SignBatch");
        let mut results: Vec<Option<Result<Receipt, ClientError>>> = Vec::new();
        results.resize_with(sent.len(), || None);
        let mut places: Vec<usize> = (0..sent.len()).collect();
        loop {
            let encoded = self.encode(trail, &mut sent, true);
            let call = |left| self.unary::<v1::SignBatchResponse>(path.clone(), encoded.clone(), sent.len(), left);
            let outcomes = match retry.run(call).await {
                Ok(v1::SignBatchResponse { answers, proofs }) => {
                    let outcomes = self.checker(trust).message(&mut sent, answers, proofs);
                    outcomes.map_err(ClientError::Alarm)
                }
                Err(error) => Err(error),
            };
            let outcomes = match outcomes {
                Ok(outcomes) => outcomes,
                Err(error) if places.len() == results.len() => return Err(error.about(ids_of(&sent))),
                // What was answered before is not lost.
                Err(error) => return Ok(filled(results, &places, &sent, &error)),
            };
            let mut again: Vec<(usize, Sent)> = Vec::new();
            let mut refusal: Option<Refusal> = None;
            for ((outcome, sent), place) in outcomes.into_iter().zip(sent).zip(places) {
                match outcome {
                    Outcome::Refused(refused) if refused.retry_after.is_some() => {
                        again.push((place, sent));
                        let longest = refusal.as_ref().and_then(|refusal| refusal.retry_after);
                        if refused.retry_after > longest {
                            refusal = Some(refused);
                        }
                    }
                    other => results[place] = Some(other.into_result(&sent, retry.attempts + 1)),
                }
            }
            (places, sent) = again.into_iter().unzip();
            let Some(refusal) = refusal else {
                return Ok(results.into_iter().flatten().collect());
            };
            if let Err(error) = retry.wait(refusal).await {
                return Ok(filled(results, &places, &sent, &error));
            }
        }
    }

    async fn unary<R: Message + prost::Name + Default + Send + 'static>(
        &self,
        path: PathAndQuery,
        encoded: Bytes,
        events: usize,
        left: Duration,
    ) -> Result<R, Status> {
        let mut request = Request::new(encoded);
        request.set_timeout(left);
        let mut grpc = self.grpc(events).await?;
        Ok(grpc.unary(request, path, EncodedCodec::<R>::default()).await?.into_inner())
    }

    /// Opens a SignStream.
    pub(crate) async fn open<S>(&self, requests: S) -> Result<Streaming<v1::SignBatchResponse>, Status>
    where
        S: tokio_stream::Stream<Item = Bytes> + Send + 'static,
    {
        let path = PathAndQuery::from_static("/countersign.v1.SigningService/SignStream");
        let mut grpc = self.grpc(MAX_BATCH).await?;
        Ok(grpc.streaming(Request::new(requests), path, EncodedCodec::default()).await?.into_inner())
    }

    /// For answers to at most so many events.
    async fn grpc(&self, events: usize) -> Result<tonic::client::Grpc<Channel>, Status> {
        let len = MAX_ANSWER_LEN.min(events * MAX_ANSWER_LEN_PER_EVENT);
        let mut grpc = tonic::client::Grpc::new(self.channel.clone()).max_decoding_message_size(len);
        grpc.ready().await.map_err(|error| Status::unavailable(connect::causes(&error)))?;
        Ok(grpc)
    }
}

/// The event_ids that went out.
pub(crate) fn ids_of(sent: &[Sent]) -> Vec<String> {
    sent.iter().map(|sent| sent.event.event_id.clone()).collect()
}

/// Results, with `error` for the events that have none, which were `sent` again.
fn filled(
    mut results: Vec<Option<Result<Receipt, ClientError>>>,
    places: &[usize],
    sent: &[Sent],
    error: &ClientError,
) -> Results {
    for (place, sent) in places.iter().zip(sent) {
        results[*place] = Some(Err(error.clone().about(ids_of(std::slice::from_ref(sent)))));
    }
    results.into_iter().flatten().collect()
}
