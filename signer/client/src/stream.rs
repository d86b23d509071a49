//! A stream of messages and their answers, in order, over broken connections: see
//! [`Client::sign_stream`].

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use countersign_proto::v1;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::check::{Outcome, Sent, problem};
use crate::error::{AlarmReason, ClientError, Refusal};
use crate::retry::{Retry, refusal_of};
use crate::sign::{Client, Inner, Results, ids_of};
use crate::trust::TrailTrust;

/// The most messages of a stream that the daemon reads ahead of its answers.
const MAX_WINDOW: usize = 64;
/// How often a message carries the held head.
const HELD_EVERY: Duration = Duration::from_secs(1);

impl Client {
    /// Begins a stream into one trail: messages of up to 4,096 events, and their answers in the same
    /// order, over broken connections.
    ///
    /// Two halves, so that one task may send while another receives. [`SignSender::send`] waits
    /// while `stream_window` messages are unanswered; each is kept twice until it is answered, as
    /// events and encoded: at most `stream_window` times two messages (of 8 MiB, unless the daemon is
    /// configured otherwise). The receiver owns the gRPC stream: it opens it, checks answers on its
    /// own task, and after a break opens another one and sends again what is unanswered, with the
    /// same event_ids. So nothing leaves before somebody waits in [`SignReceiver::recv`], and the two
    /// halves want two tasks:
    ///
    /// ```no_run
    /// # use countersign_client::{Client, ClientError, v1};
    /// # async fn example(client: Client, decided: Vec<Vec<v1::Event>>) -> Result<(), Box<dyn std::error::Error>> {
    /// let (mut sender, mut receiver) = client.sign_stream("acme.example/decisions")?;
    /// let sending = tokio::spawn(async move {
    ///     for events in decided {
    ///         sender.send(events).await?;
    ///     }
    ///     // Dropping the sender ends the stream after the last answer.
    ///     Ok::<(), ClientError>(())
    /// });
    /// loop {
    ///     match receiver.recv().await {
    ///         Ok(Some(results)) => {
    ///             for result in results {
    ///                 match result {
    ///                     Ok(receipt) => println!("{} is record {}", receipt.event_id, receipt.seq),
    ///                     Err(error) => eprintln!("{:?}: {error}", error.event_ids()),
    ///                 }
    ///             }
    ///         }
    ///         Ok(None) => break,
    ///         Err(error) => {
    ///             let open = receiver.unanswered(); // to be sent again, as they are
    ///             eprintln!("{error}; {} messages are unanswered", open.len());
    ///             break;
    ///         }
    ///     }
    /// }
    /// drop(receiver); // wakes a sender that waits
    /// sending.await??;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ClientError::UnknownTrail`].
    pub fn sign_stream(&self, trail: &str) -> Result<(SignSender, SignReceiver), ClientError> {
        let window = self.0.config.stream_window.clamp(1, MAX_WINDOW);
        let shared = Arc::new(Shared {
            client: Arc::clone(&self.0),
            trust: Arc::clone(self.0.trail(trail)?),
            window: Arc::new(Semaphore::new(window)),
            changed: Notify::new(),
            state: Mutex::default(),
        });
        let receiver =
            SignReceiver { shared: Arc::clone(&shared), answers: None, retry: None, progress: Instant::now() };
        Ok((SignSender(shared), receiver))
    }
}

struct Shared {
    client: Arc<Inner>,
    trust: Arc<TrailTrust>,
    /// A permit for each message that may be unanswered; closed when the receiver is done.
    window: Arc<Semaphore>,
    /// Rung when a message was sent or the sender is gone.
    changed: Notify,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    unanswered: VecDeque<Message>,
    /// Into the open gRPC stream; its room is that of the window, so that it is never full.
    requests: Option<mpsc::Sender<Bytes>>,
    /// The sender is gone.
    finished: bool,
    /// When a message last carried the held head.
    held_sent: Option<Instant>,
}

struct Message {
    sent: Vec<Sent>,
    encoded: Bytes,
    since: Instant,
    /// How often it went into a gRPC stream.
    attempts: u32,
    /// Given back when the message is answered.
    _permit: OwnedSemaphorePermit,
}

impl Shared {
    /// Without events, which may hold content.
    fn fmt_as(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unanswered = self.state().unanswered.len();
        let trail = self.trust.origin.as_str();
        f.debug_struct(name).field("trail", &trail).field("unanswered", &unanswered).finish_non_exhaustive()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code that may panic runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The sending half. Dropping it ends the stream after the last answer.
pub struct SignSender(Arc<Shared>);

impl fmt::Debug for SignSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt_as("SignSender", f)
    }
}

impl fmt::Debug for SignReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared.fmt_as("SignReceiver", f)
    }
}

impl SignSender {
    /// Sends 1 to 4,096 events as one message; waits while the window is full, without a time limit:
    /// call [`SignReceiver::recv`] from another task. Dropping the future while it waits sends
    /// nothing.
    ///
    /// # Errors
    /// Nothing of the message was sent: [`ClientError::Event`], [`ClientError::BatchSize`],
    /// [`ClientError::StreamEnded`] when the receiver is gone or has failed.
    pub async fn send(&mut self, events: Vec<v1::Event>) -> Result<(), ClientError> {
        let Shared { client, trust, window, changed, .. } = &*self.0;
        let trail = trust.origin.as_str();
        let permit = Arc::clone(window).acquire_owned().await.map_err(|_| ClientError::StreamEnded)?;
        let mut sent = client.prepare_all(trail, events)?;
        let due = self.0.state().held_sent.is_none_or(|last| last.elapsed() >= HELD_EVERY);
        let encoded = client.encode(trail, &mut sent, due);
        {
            let mut state = self.0.state();
            if due {
                state.held_sent = Some(Instant::now());
            }
            // Closed: the stream is broken, and the receiver sends the message again.
            let gone = state.requests.as_ref().is_some_and(|requests| requests.try_send(encoded.clone()).is_ok());
            let (since, attempts) = (Instant::now(), u32::from(gone));
            state.unanswered.push_back(Message { sent, encoded, since, attempts, _permit: permit });
        }
        changed.notify_one();
        Ok(())
    }
}

impl Drop for SignSender {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.finished = true;
        state.requests = None;
        drop(state);
        self.0.changed.notify_one();
    }
}

/// The receiving half.
pub struct SignReceiver {
    shared: Arc<Shared>,
    answers: Option<Streaming<v1::SignBatchResponse>>,
    /// The attempts since the last answer; none while nothing has failed.
    retry: Option<Retry>,
    /// When the last answer came.
    progress: Instant,
}

impl Drop for SignReceiver {
    fn drop(&mut self) {
        self.shared.window.close();
    }
}

impl SignReceiver {
    /// The results of the next message, one for each of its events, as [`Client::sign_batch`] gives
    /// them; none when the sender is gone and everything is answered. Events that are refused and
    /// may be repeated are repeated first.
    ///
    /// Not to be cancelled in between, or the results of a message are lost.
    ///
    /// # Errors
    /// The stream is over, and [`SignReceiver::unanswered`] says for which events:
    /// [`ClientError::Rejected`], [`ClientError::Connect`], [`ClientError::Exhausted`] after attempts
    /// without progress or a message without answer for `deadline`, [`ClientError::Alarm`] where
    /// answers and events do not go together. [`ClientError::StreamEnded`] after any of these.
    pub async fn recv(&mut self) -> Result<Option<Results>, ClientError> {
        if self.shared.window.is_closed() {
            return Err(ClientError::StreamEnded);
        }
        let result = self.next().await;
        if result.is_err() {
            self.shared.window.close();
            self.shared.state().requests = None;
            self.answers = None;
        }
        result
    }

    /// The events that were sent and not answered, or answered with another number of answers,
    /// message by message, with the event_ids that they went out with. Takes them out.
    pub fn unanswered(&mut self) -> Vec<Vec<v1::Event>> {
        let messages = std::mem::take(&mut self.shared.state().unanswered);
        messages.into_iter().map(|message| message.sent.into_iter().map(|sent| sent.event).collect()).collect()
    }

    async fn next(&mut self) -> Result<Option<Results>, ClientError> {
        loop {
            if self.answers.is_none() {
                if !self.wait_for_message().await {
                    return Ok(None);
                }
                match self.open().await {
                    Ok(answers) => self.answers = Some(answers),
                    Err(status) => {
                        self.failed(&status).await?;
                        continue;
                    }
                }
            }
            match self.answer().await {
                Ok(Some(answer)) => return self.check(answer).await.map(Some),
                Ok(None) if self.is_idle() => self.answers = None,
                Ok(None) => self.failed(&Status::unavailable("the daemon ended the stream")).await?,
                // Nothing was lost: the next message opens another stream.
                Err(_) if self.is_idle() => self.answers = None,
                Err(status) => self.failed(&status).await?,
            }
        }
    }

    fn is_idle(&self) -> bool {
        self.shared.state().unanswered.is_empty()
    }

    /// Waits for something to send; false when nothing will come.
    async fn wait_for_message(&mut self) -> bool {
        loop {
            let changed = self.shared.changed.notified();
            {
                let mut state = self.shared.state();
                state.requests = None;
                if !state.unanswered.is_empty() {
                    return true;
                }
                if state.finished {
                    return false;
                }
            }
            changed.await;
        }
    }

    /// Opens a gRPC stream with everything unanswered in it already.
    async fn open(&mut self) -> Result<Streaming<v1::SignBatchResponse>, Status> {
        let (requests, receiver) = mpsc::channel(MAX_WINDOW);
        {
            let mut state = self.shared.state();
            for message in &mut state.unanswered {
                // As much room as the window has permits.
                let _ = requests.try_send(message.encoded.clone());
                message.attempts = message.attempts.saturating_add(1);
            }
            state.requests = (!state.finished).then_some(requests);
        }
        let left = self.answer_by().saturating_duration_since(Instant::now());
        let open = tokio::time::timeout(left, self.shared.client.open(ReceiverStream::new(receiver)));
        open.await.unwrap_or_else(|_| Err(Status::deadline_exceeded("no stream within the deadline")))
    }

    /// When the oldest unanswered message must have its answer; from now while there is none.
    fn answer_by(&self) -> Instant {
        let since = self.shared.state().unanswered.front().map_or_else(Instant::now, |message| message.since);
        since.max(self.progress) + self.shared.client.config.deadline
    }

    async fn answer(&mut self) -> Result<Option<v1::SignBatchResponse>, Status> {
        loop {
            let by = self.answer_by();
            let Some(answers) = &mut self.answers else { return Ok(None) };
            match tokio::time::timeout_at(by.into(), answers.message()).await {
                Ok(answer) => return answer,
                Err(_) if !self.is_idle() && self.answer_by() <= Instant::now() => {
                    return Err(Status::deadline_exceeded("no answer within the deadline"));
                }
                Err(_) => {}
            }
        }
    }

    /// Counts a failure and waits before the next attempt.
    async fn failed(&mut self, status: &Status) -> Result<(), ClientError> {
        self.answers = None;
        self.shared.state().requests = None;
        let retry = self.retry.get_or_insert_with(|| self.shared.client.retry());
        retry.wait(refusal_of(status)).await.map_err(|error| self.of_unanswered(error))
    }

    /// An error of the whole stream, as one of everything that is unanswered: the daemon may have
    /// recorded messages behind the one that it refused.
    fn of_unanswered(&self, error: ClientError) -> ClientError {
        let state = self.shared.state();
        let mut error = error.about(state.unanswered.iter().flat_map(|message| ids_of(&message.sent)).collect());
        if let ClientError::Rejected { attempts, .. } = &mut error {
            *attempts = state.unanswered.iter().map(|message| message.attempts).fold(0, u32::saturating_add);
        }
        error
    }

    /// Checks the answer to the oldest message.
    async fn check(&mut self, answer: v1::SignBatchResponse) -> Result<Results, ClientError> {
        self.retry = None;
        self.progress = Instant::now();
        let Shared { client, trust, .. } = &*self.shared;
        let checker = client.checker(trust);
        let v1::SignBatchResponse { answers, proofs } = answer;
        let Some(mut message) = self.shared.state().unanswered.pop_front() else {
            let counts = format!("{} answers", answers.len());
            let surplus = problem(AlarmReason::Answers, "no answer: everything is answered", counts);
            return Err(ClientError::Alarm(checker.alarm(surplus, &[], answers, &proofs.into())));
        };
        let outcomes = match checker.message(&mut message.sent, answers, proofs) {
            Ok(outcomes) => outcomes,
            Err(alarm) => {
                // What became of its events is open.
                self.shared.state().unanswered.push_front(message);
                return Err(ClientError::Alarm(alarm));
            }
        };
        let mut results = Vec::with_capacity(message.sent.len());
        let (mut again, mut places) = (Vec::new(), Vec::new());
        let mut longest: Option<Refusal> = None;
        for (place, (outcome, sent)) in outcomes.into_iter().zip(message.sent).enumerate() {
            let mut repeat = false;
            if let Outcome::Refused(refused) = &outcome
                && refused.retry_after.is_some()
            {
                repeat = true;
                if refused.retry_after > longest.as_ref().and_then(|refusal| refusal.retry_after) {
                    longest = Some(refused.clone());
                }
            }
            results.push(outcome.into_result(&sent, message.attempts));
            if repeat {
                again.push(sent);
                places.push(place);
            }
        }
        if let Some(refusal) = longest {
            // In here, so that results keep the order of the messages.
            for (place, result) in places.into_iter().zip(self.repeat(again, refusal).await) {
                results[place] = result;
            }
        }
        Ok(results)
    }

    /// Sends refused events again, by themselves.
    async fn repeat(&self, events: Vec<Sent>, refusal: Refusal) -> Results {
        let Shared { client, trust, .. } = &*self.shared;
        let mut retry = client.retry();
        let ids = ids_of(&events);
        let results = match retry.wait(refusal).await {
            Ok(()) => client.sign_all(trust, events, &mut retry).await,
            Err(error) => Err(error),
        };
        let of_one = |error: &ClientError, id| Err(error.clone().about(vec![id]));
        results.unwrap_or_else(|error| ids.into_iter().map(|id| of_one(&error, id)).collect())
    }
}
