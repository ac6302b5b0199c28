//! Sending a batch: retries, divisions, redirections and refusals.

use std::cell::Cell;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, warn};

use super::answer::{Consequence, RefusalReason, consequence};
use super::receiver::RemoteReceiver;
use super::status::{DROPPED_LATE, DROPPED_TOO_LARGE};
use crate::compression::snappy_block;
use crate::exposition::remote_write::{MessagePart, WriteBatch};
use crate::net::http::sender::{PostError, SenderLane};

/// Messages of one tick that are divided, at most.
pub(super) const DIVISIONS_MAX: u32 = 64;
/// Redirections of one message that are followed, at most.
const REDIRECTIONS_MAX: u32 = 3;
/// A message that is larger may be too large for the receiver if the connection breaks again and again.
const LARGE_BYTES: usize = 64 << 10;

/// The headers of messages of version 1.0.
const HEADERS: [(&str, &str); 3] = [
    ("content-type", "application/x-protobuf"),
    ("content-encoding", "snappy"),
    ("x-prometheus-remote-write-version", "0.1.0"),
];

/// The state of a tick that its batches share.
#[derive(Debug)]
pub(super) struct TickRun {
    /// The next tick, which replaces what is not sent.
    pub deadline: Instant,
    divisions_left: Cell<u32>,
}

impl TickRun {
    pub fn new(deadline: Instant) -> Self {
        Self { deadline, divisions_left: Cell::new(DIVISIONS_MAX) }
    }

    fn may_divide(&self) -> bool {
        let left = self.divisions_left.get();
        self.divisions_left.set(left.saturating_sub(1));
        left > 0
    }
}

/// The end of a batch.
#[derive(Debug)]
pub(super) struct BatchEnd {
    pub lane: SenderLane,
    /// Samples that the receiver accepted.
    pub stored: u64,
    /// The reason for which the rest of the tick is not sent.
    pub over: Option<String>,
}

/// The reason of a redirection that is not followed. A query may have a token.
fn redirection(status: u16, location: &str) -> String {
    format!("status {status}, redirects to {}", location.split('?').next().unwrap_or_default())
}

/// The next step with a message.
enum Step {
    /// The samples are stored.
    Stored,
    /// They are refused.
    Refused,
    Again(Instant),
    Divided([MessagePart; 2]),
    Over(String),
}

impl RemoteReceiver {
    /// Sends a batch until everything in it is stored or refused, or the tick is over.
    pub(super) async fn deliver(&self, mut lane: SenderLane, batch: WriteBatch, run: &TickRun) -> BatchEnd {
        let (mut stored, mut over) = (0, None);
        if batch.left_out() > 0 {
            self.status.update(|counts| *counts.dropped.entry(DROPPED_TOO_LARGE).or_default() += batch.left_out());
        }
        let mut parts = vec![batch.whole()];
        while let Some(part) = parts.pop() {
            if over.is_some() {
                self.drop_samples(part.len());
                continue;
            }
            match self.deliver_part(&mut lane, &batch, &part, run).await {
                Step::Stored => stored += part.len() as u64,
                Step::Divided([first, second]) => parts.extend([second, first]),
                Step::Over(reason) => over = Some(reason),
                Step::Refused | Step::Again(_) => {}
            }
        }
        BatchEnd { lane, stored, over }
    }

    fn drop_samples(&self, samples: usize) {
        self.status.update(|counts| *counts.dropped.entry(DROPPED_LATE).or_default() += samples as u64);
    }

    async fn deliver_part(&self, lane: &mut SenderLane, batch: &WriteBatch, part: &MessagePart, run: &TickRun) -> Step {
        let body = Bytes::from(snappy_block(batch.message(part)));
        let mut attempts = Attempts { pause: self.options.queue.min_backoff, ..Attempts::default() };
        loop {
            self.status.update(|counts| {
                counts.bytes += body.len() as u64;
                counts.retried += u64::from(attempts.number > 0);
            });
            attempts.number += 1;
            match self.attempt(lane, (part, &body), run, &mut attempts).await {
                Step::Again(at) => sleep_until(at).await,
                step => return step,
            }
        }
    }

    /// Sends a message once, and counts the outcome.
    async fn attempt(
        &self,
        lane: &mut SenderLane,
        (part, body): (&MessagePart, &Bytes),
        run: &TickRun,
        attempts: &mut Attempts,
    ) -> Step {
        let limit = self.options.remote_timeout;
        let answered = timeout(limit, self.sender.post(lane, &HEADERS, body.clone())).await;
        let answer = match answered {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                lane.forget_redirection();
                let is_broken = matches!(error, PostError::Broken { .. });
                if is_broken
                    && attempts.broken > 0
                    && body.len() >= LARGE_BYTES
                    && let Some(halves) = self.divide(part, run)
                {
                    self.shrink(part.len());
                    return Step::Divided(halves);
                }
                attempts.broken += u32::from(is_broken);
                return self.again(part, run, attempts, None, error.to_string());
            }
            Err(_) => {
                lane.close();
                lane.forget_redirection();
                let reason = format!("no answer within {} s (remote_timeout)", limit.as_secs_f64());
                return self.again(part, run, attempts, None, reason);
            }
        };
        debug!(receiver = self.options.name, status = answer.status, samples = part.len(), "answered");
        if !matches!(answer.status, 200..300 | 307 | 308) {
            // The receiver that redirected may know another place now, or take the samples itself.
            lane.forget_redirection();
        }
        let reason = format!("status {}: {}", answer.status, answer.text);
        match consequence(&answer) {
            Consequence::Stored => {
                self.status.update(|counts| counts.samples += part.len() as u64);
                Step::Stored
            }
            Consequence::Moved(location) => {
                let url = self.sender.url().redirected(&location).ok().filter(|_| attempts.moved < REDIRECTIONS_MAX);
                match url {
                    Some(url) => {
                        attempts.moved += 1;
                        lane.redirect(url);
                        Step::Again(Instant::now())
                    }
                    None => self.barred(part, RefusalReason::Redirected, redirection(answer.status, &location)),
                }
            }
            Consequence::Again { after, is_rate } => {
                if is_rate
                    && attempts.limited > 0
                    && let Some(halves) = self.divide(part, run)
                {
                    // A request with more samples than a burst never passes.
                    self.shrink(part.len());
                    return Step::Divided(halves);
                }
                attempts.limited += u32::from(is_rate);
                self.again(part, run, attempts, after, reason)
            }
            Consequence::Divide(why) => match self.divide(part, run) {
                Some(halves) => {
                    if why == RefusalReason::TooLarge {
                        self.shrink(part.len());
                    }
                    Step::Divided(halves)
                }
                None => self.refused(part, why, &reason),
            },
            Consequence::Refused(why) => self.refused(part, why, &reason),
            Consequence::Barred(why) => self.barred(part, why, reason),
        }
    }

    fn divide(&self, part: &MessagePart, run: &TickRun) -> Option<[MessagePart; 2]> {
        part.halves().filter(|_| run.may_divide())
    }

    /// Sends the message again after a pause, unless the next tick replaces it before.
    fn again(
        &self,
        part: &MessagePart,
        run: &TickRun,
        attempts: &mut Attempts,
        after: Option<Duration>,
        reason: String,
    ) -> Step {
        let pause = after.map_or(attempts.pause, |after| after.max(attempts.pause));
        attempts.pause = (attempts.pause * 2).min(self.options.queue.max_backoff);
        let at = Instant::now().checked_add(pause).filter(|at| *at < run.deadline);
        match at {
            Some(at) => Step::Again(at),
            None => {
                self.drop_samples(part.len());
                Step::Over(reason)
            }
        }
    }

    fn refused(&self, part: &MessagePart, why: RefusalReason, answer: &str) -> Step {
        let (samples, receiver) = (part.len() as u64, &self.options.name);
        self.status.update(|counts| *counts.failed_samples.entry(why.name()).or_default() += samples);
        if self.is_news(why.name()) {
            warn!(receiver, samples, answer, "the receiver refuses samples: they are not written, and the others are");
        }
        Step::Refused
    }

    fn barred(&self, part: &MessagePart, why: RefusalReason, answer: String) -> Step {
        let samples = part.len() as u64;
        self.status.update(|counts| *counts.failed_samples.entry(why.name()).or_default() += samples);
        Step::Over(answer)
    }
}

/// The attempts to send a message.
#[derive(Debug, Default)]
struct Attempts {
    number: u32,
    /// Those that ended with a broken connection.
    broken: u32,
    /// Those that exceeded a rate.
    limited: u32,
    /// Redirections followed.
    moved: u32,
    /// The next pause.
    pause: Duration,
}
