//! Sending batches and metadata: retries, divisions, redirections and refusals.

use std::cell::Cell;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, warn};

use super::answer::{Consequence, RefusalReason, consequence};
use super::form::{Fallback, TickForm};
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

/// The state of a tick that its batches share.
#[derive(Debug)]
pub(super) struct TickRun {
    /// The next tick, which replaces what is not sent.
    pub deadline: Instant,
    /// The form of its messages.
    form: TickForm,
    divisions_left: Cell<u32>,
}

impl TickRun {
    pub fn new(deadline: Instant, form: TickForm) -> Self {
        Self { deadline, form, divisions_left: Cell::new(DIVISIONS_MAX) }
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
    pub over: Option<TickOver>,
}

/// The reason for which the rest of a tick is not sent.
#[derive(Debug)]
pub(super) enum TickOver {
    /// The receiver does not accept it now.
    Failed(String),
    /// The receiver does not know the form of the messages: the tick begins again in another one.
    FellBack,
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
    Over(TickOver),
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
            match over {
                None => {}
                Some(TickOver::FellBack) => break,
                Some(TickOver::Failed(_)) => {
                    self.drop_samples(part.len());
                    continue;
                }
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
        let body = Bytes::from(snappy_block(&batch.message(part)));
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
        let answered = timeout(limit, self.sender.post(lane, &run.form.headers(), body.clone())).await;
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
        match consequence(&answer, run.form) {
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
            Consequence::FallBack(fallback) => self.fall_back(fallback, run.form, &reason),
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
                Step::Over(TickOver::Failed(reason))
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

    /// Changes the form of messages, unless another message of the tick has done so.
    fn fall_back(&self, fallback: Fallback, form: TickForm, answer: &str) -> Step {
        if self.form.get() == form {
            self.form.set(form.after(fallback));
            self.status.update(|counts| *counts.fallbacks.entry(fallback.name()).or_default() += 1);
            let receiver = &self.options.name;
            if fallback == Fallback::NativeHistograms {
                warn!(
                    receiver,
                    answer, "the receiver takes no native histograms: until the next start it gets classic buckets"
                );
            } else {
                warn!(receiver, answer, "the receiver takes no messages 2.0: until the next start it gets 1.0");
            }
        }
        Step::Over(TickOver::FellBack)
    }

    /// Writes types and help texts, after the samples of a tick. If the next tick is due before all are written, it goes on.
    pub(super) async fn write_metadata(&self, lane: &mut SenderLane, begun: Instant, deadline: Instant) {
        let mut metadata = self.source.metadata(self.metadata_after.take().as_deref());
        let headers = self.form.get().headers();
        while let Some(message) = metadata.next_message() {
            let body = Bytes::from(snappy_block(&message));
            self.status.update(|counts| counts.bytes += body.len() as u64);
            let answered = timeout(self.options.remote_timeout, self.sender.post(lane, &headers, body)).await;
            let answer = match answered {
                Ok(Ok(answer)) if (200..300).contains(&answer.status) && Instant::now() < deadline => continue,
                Ok(Ok(answer)) if (200..300).contains(&answer.status) => {
                    self.metadata_after.replace(metadata.last_name());
                    return;
                }
                Ok(Ok(answer)) => format!("status {}: {}", answer.status, answer.text),
                Ok(Err(error)) => error.to_string(),
                Err(_) => {
                    lane.close();
                    "no answer".into()
                }
            };
            if self.is_news("metadata") {
                warn!(receiver = self.options.name, answer, "the receiver takes no metadata; the samples are written");
            }
            break;
        }
        self.metadata_at.set(self.options.metadata_interval.and_then(|interval| begun.checked_add(interval)));
    }

    fn barred(&self, part: &MessagePart, why: RefusalReason, answer: String) -> Step {
        let samples = part.len() as u64;
        self.status.update(|counts| *counts.failed_samples.entry(why.name()).or_default() += samples);
        Step::Over(TickOver::Failed(answer))
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
