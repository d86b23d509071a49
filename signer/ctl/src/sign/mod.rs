//! `countersign sign`: lines of events in, checked receipts out, over one stream.
//!
//! - [`input`]: a thread reads and checks lines.
//! - A task gathers them into messages and sends them ([`send_all`]); a message goes when it is full
//!   or nothing more is waiting.
//! - The newest receipt is kept between runs ([`newest`]).
//! - This task takes the answers, in order, and writes the receipts before it counts them.

mod input;
mod latency;
mod newest;
mod receipts;
mod tally;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use countersign_client::{Client, ClientConfig, ClientError, SignSender, Trust};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use self::input::Line;
use self::receipts::Receipts;
use self::tally::Tally;
use crate::cli::SignArgs;
use crate::exit::{Exit, Failure, Outcome, failed};
use crate::output::Output;
use crate::progress::Progress;
use crate::remote::of_client;

/// A message on its way.
struct Sent {
    /// The line of each of its events.
    lines: Vec<u64>,
    since: Instant,
    /// Given back when it is answered.
    _permit: OwnedSemaphorePermit,
}

/// `countersign sign`.
pub(crate) async fn run(args: &SignArgs, output: Output) -> Outcome {
    let profile = args.connect.load()?;
    let fingerprint = profile.genesis()?;
    let trust = Trust::Genesis(fingerprint);
    let mut config = ClientConfig::new(profile.connection, trust);
    let window = usize::from(args.window);
    config.stream_window = window;
    let total = input::count(&args.file)?;
    let client = Client::connect(config).await.map_err(of_client)?;
    newest::hold(&client, fingerprint, &args.trail)?;
    let (sender, mut receiver) = client.sign_stream(args.trail.as_str()).map_err(of_client)?;
    let mut receipts = Receipts::create(args)?;
    let lines = input::start(&args.file, 4 * usize::from(args.batch))?;
    let progress = Progress::maybe_records(args.progress, "sign", total);
    let tally = Arc::new(Mutex::new(Tally::new(args.trail.to_string())));
    let (sent, mut answered) = mpsc::channel(window);
    let sending = tokio::spawn(send_all(lines, sender, sent, (usize::from(args.batch), window), Arc::clone(&tally)));
    let ended = loop {
        match receiver.recv().await {
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
            Ok(Some(results)) => {
                let Some(message) = answered.recv().await else {
                    break Err(ClientError::StreamEnded);
                };
                lock(&tally).answered(message.since.elapsed());
                for (line, result) in message.lines.iter().zip(results) {
                    take(*line, result, &mut receipts, &tally)?;
                }
                receipts.flush()?;
                progress.at(lock(&tally).done());
            }
        }
    };
    progress.done();
    let unanswered: usize = receiver.unanswered().iter().map(Vec::len).sum();
    drop(receiver);
    // The messages that nobody answers hold the window that the sending task may be waiting for.
    drop(answered);
    if let Err(ClientError::Alarm(alarm)) = &ended {
        receipts.alarm(alarm)?;
    }
    receipts.finish()?;
    newest::keep(&client, fingerprint, &args.trail)?;
    let failure = finish(ended, unanswered, sending.await);
    let mut tally = lock(&tally);
    output.show(&tally.summary(), tally::text)?;
    match failure.or_else(|| tally.take_failure()) {
        Some(failure) => Err(failure),
        None => Ok(()),
    }
}

fn lock(tally: &Mutex<Tally>) -> MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts what came of one event, its receipt first.
fn take(
    line: u64,
    result: Result<countersign_client::Receipt, ClientError>,
    receipts: &mut Receipts,
    tally: &Mutex<Tally>,
) -> Outcome {
    match result {
        Ok(receipt) => {
            receipts.write(&receipt)?;
            lock(tally).signed(receipt.seq);
        }
        Err(ClientError::Rejected { refusal, .. }) => lock(tally).refused(line, &refusal.reason, &refusal.message),
        Err(error) => {
            if let ClientError::Alarm(alarm) = &error {
                receipts.alarm(alarm)?;
            }
            lock(tally).failed(line, of_client(error));
        }
    }
    Ok(())
}

/// What ended the run before its input did.
fn finish(
    ended: Result<(), ClientError>,
    unanswered: usize,
    sending: Result<Outcome, tokio::task::JoinError>,
) -> Option<Failure> {
    let stopped = match sending {
        Ok(sent) => sent.err(),
        Err(error) => Some(failed(format!("sending stopped: {error}"))),
    };
    match ended {
        Err(error) => {
            let failure = of_client(error);
            let again =
                "Send the file again: events with an event_id that are signed already give the identical answer.";
            let whole = format!("{failure}\n  {unanswered} events were sent and not answered");
            match failure.exit {
                Exit::Unavailable if unanswered > 0 => Some(Failure::new(failure.exit, whole).todo(again)),
                _ => Some(failure),
            }
        }
        Ok(()) => stopped,
    }
}

/// Gathers lines into messages and sends them; ends with the input, or with the receiver.
async fn send_all(
    mut lines: mpsc::Receiver<Outcome<Line>>,
    mut sender: SignSender,
    sent: mpsc::Sender<Sent>,
    (batch, window): (usize, usize),
    tally: Arc<Mutex<Tally>>,
) -> Outcome {
    let window = Arc::new(Semaphore::new(window));
    loop {
        let Some(first) = lines.recv().await else {
            return Ok(());
        };
        // Waiting for room first, so that what gathers meanwhile goes out together.
        let Ok(permit) = Arc::clone(&window).acquire_owned().await else {
            return Ok(());
        };
        let (mut numbers, mut events) = (Vec::new(), Vec::new());
        let mut next = Some(first);
        while let Some(line) = next {
            let line = line?;
            match line.event {
                Ok(event) => {
                    numbers.push(line.number);
                    events.push(event);
                }
                Err(bad) => lock(&tally).refused(line.number, bad.reason, &bad.message),
            }
            next = if events.len() < batch { lines.try_recv().ok() } else { None };
        }
        if events.is_empty() {
            continue;
        }
        let message = Sent { lines: numbers, since: Instant::now(), _permit: permit };
        if sent.send(message).await.is_err() {
            return Ok(());
        }
        match sender.send(events).await {
            // The receiver knows why, and says it.
            Err(ClientError::StreamEnded) => return Ok(()),
            result => result.map_err(|error| Failure::new(Exit::Failed, of_client(error).to_string()))?,
        }
    }
}
