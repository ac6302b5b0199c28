//! The ticks of one receiver, one after the other.

use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::deliver::{BatchEnd, TickOver, TickRun};
use super::form::TickForm;
use super::names::ShownSnapshot;
use super::options::ProtobufMessage;
use super::receiver::RemoteReceiver;
use super::shown::{FamilyIdentity, ShownFamilies};
use super::status::{DROPPED_DUPLICATE, DROPPED_LATE};
use super::tick::Tick;
use crate::exposition::remote_write::BatchLimits;
use crate::model::Revision;
use crate::net::http::sender::SenderLane;

/// A receiver shows a sample for as long (Prometheus's look-back). Series that were written before that need no marker.
const LOOK_BACK: Duration = Duration::from_secs(300);
/// Families whose markers are written again after a tick that was not written completely, at most. The receiver shows
/// the series of others for five minutes.
const PENDING_MAX: usize = 100_000;
/// Bytes of a message before compression, about.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// The series that the receiver has or may have.
pub(super) struct WrittenSeries {
    pub families: ShownFamilies,
    /// The families whose markers the receiver may lack.
    pub pending: Vec<FamilyIdentity>,
    /// When the receiver last accepted samples.
    pub at: Instant,
    /// What the last tick showed, if it was written completely and changes after it are to be written. It is newer than
    /// `families`.
    pub snapshot: Option<ShownSnapshot>,
}

impl WrittenSeries {
    /// The next tick writes everything, and ends what this snapshot has and the node shows no longer.
    pub fn take_snapshot(&mut self, form: TickForm) {
        if let Some(snapshot) = self.snapshot.take() {
            self.families = snapshot.shown(form);
        }
    }

    /// Forgets everything that the receiver shows no longer.
    fn forget_old(&mut self) {
        if self.at.elapsed() > LOOK_BACK {
            self.families = ShownFamilies::default();
            self.pending = Vec::new();
        }
    }
}

impl RemoteReceiver {
    /// The series that the receiver may have of the time before this start: those that the store has now, as nothing
    /// has changed since it was opened.
    fn written_before(&self, shown: ShownFamilies) -> WrittenSeries {
        let now_ms = i64::try_from(self.clock.wall_ns() / 1_000_000).unwrap_or(i64::MAX);
        let look_back_ms = LOOK_BACK.as_millis() as i64;
        let is_recent = |last: i64| (now_ms - look_back_ms..=now_ms).contains(&last);
        let families = if self.times.last_ms(&self.options.name).is_some_and(is_recent) {
            shown
        } else {
            ShownFamilies::default()
        };
        WrittenSeries { families, pending: Vec::new(), at: Instant::now(), snapshot: None }
    }

    /// Runs ticks until `stop`, and then a last one within `last_limit`, so that the receiver has the last pushes, and
    /// markers of what was deleted.
    pub(super) async fn run(
        self,
        shown_at_start: ShownFamilies,
        mut changed: watch::Receiver<Revision>,
        stop: CancellationToken,
        last_limit: Duration,
    ) {
        let (interval, receiver) = (self.options.interval, &self.options.name);
        info!(receiver, url = %self.options.url, interval_s = interval.as_secs_f64(), "writing to the receiver");
        let mut written = self.written_before(shown_at_start);
        let mut lanes = Vec::new();
        let mut next = Instant::now();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = sleep_until(next) => {}
            }
            let after = next + interval;
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = self.tick(&mut written, &mut lanes, after) => {}
            }
            let Some(refresh) = self.options.refresh else {
                next = self.schedule(after);
                continue;
            };
            let changes = self.write_changes(&mut written, &mut lanes, &mut changed, next + refresh);
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                at = changes => next = at,
            }
        }
        if !self.failing.get() {
            written.take_snapshot(self.form.get());
            let deadline = Instant::now() + last_limit;
            let _ = timeout(last_limit, self.tick(&mut written, &mut lanes, deadline)).await;
        }
    }

    /// The time of the next tick: `after`, or later by whole intervals, if that has passed.
    fn schedule(&self, after: Instant) -> Instant {
        let interval = self.options.interval;
        let late = after.elapsed();
        if late < interval / 4 {
            return after;
        }
        let skipped = u32::try_from(late.as_nanos() / interval.as_nanos()).unwrap_or(u32::MAX).saturating_add(1);
        self.status.update(|counts| counts.skipped_ticks += u64::from(skipped));
        if self.is_news("skipped") {
            warn!(
                receiver = self.options.name,
                interval_s = interval.as_secs_f64(),
                "ticks are skipped, as one takes longer than the interval: lengthen it, or raise queue_config.max_shards"
            );
        }
        after.checked_add(interval.saturating_mul(skipped)).unwrap_or(after)
    }

    /// Writes one tick: again from its beginning, if the receiver does not know the form of its messages.
    pub(super) async fn tick(&self, written: &mut WrittenSeries, lanes: &mut Vec<SenderLane>, deadline: Instant) {
        // There are fewer forms than these.
        for _ in 0..4 {
            if self.tick_in_form(written, lanes, deadline).await {
                return;
            }
        }
    }

    /// Writes one tick; false if it is to begin again, in another form.
    async fn tick_in_form(&self, written: &mut WrittenSeries, lanes: &mut Vec<SenderLane>, deadline: Instant) -> bool {
        let (begun, form) = (Instant::now(), self.form.get());
        let timestamp_ms = self.next_timestamp_ms();
        written.forget_old();
        let keeps = self.options.refresh.is_some();
        let (mut tick, shown, snapshot) =
            self.source.begin(timestamp_ms, form, &written.families, written.pending.clone(), keeps);
        let end = self.send(&mut tick, lanes, form, (begun, deadline)).await;
        if matches!(end.over, Some(TickOver::FellBack)) {
            return false;
        }
        self.end_tick(&tick, &end, begun);
        written.snapshot = snapshot.filter(|_| end.over.is_none());
        if end.stored > 0 {
            *written = WrittenSeries {
                families: shown,
                // A marker that was sent twice does no harm.
                pending: if end.over.is_some() { pending(tick.into_candidates()) } else { Vec::new() },
                at: begun,
                snapshot: written.snapshot.take(),
            };
        }
        if end.over.is_none() {
            let samples_max = self.samples_max.get();
            self.samples_max.set((samples_max * 2).min(self.options.queue.max_samples_per_send));
            let is_due = self.metadata_at.get().is_some_and(|at| at <= begun);
            if let Some(lane) = lanes.first_mut().filter(|_| is_due && form.protobuf_message == ProtobufMessage::V1) {
                self.write_metadata(lane, begun, deadline).await;
            }
        }
        true
    }

    /// The time of the next tick.
    pub(super) fn next_timestamp_ms(&self) -> i64 {
        let now_ms = i64::try_from(self.clock.wall_ns() / 1_000_000).unwrap_or(i64::MAX);
        let timestamp_ms = self.times.next_ms(&self.options.name, now_ms);
        if timestamp_ms - now_ms > 1_000 && self.is_news("clock") {
            warn!(
                receiver = self.options.name,
                ahead_s = (timestamp_ms - now_ms) as f64 / 1e3,
                "the clock went back: samples have later timestamps until it has caught up"
            );
        }
        timestamp_ms
    }

    /// Counts and logs the end of a tick.
    pub(super) fn end_tick(&self, tick: &Tick, end: &TickEnd, begun: Instant) {
        let left = tick.samples_left();
        self.status.update(|counts| {
            counts.tick_seconds = begun.elapsed().as_secs_f64();
            for (reason, samples) in [(DROPPED_LATE, left), (DROPPED_DUPLICATE, tick.duplicates())] {
                if samples > 0 {
                    *counts.dropped.entry(reason).or_default() += samples;
                }
            }
            if end.over.is_none() {
                counts.last_success_ns = self.clock.wall_ns();
            }
        });
        self.log_end(end);
    }

    /// Sends all batches of a tick, several at once.
    pub(super) async fn send(
        &self,
        tick: &mut Tick,
        lanes: &mut Vec<SenderLane>,
        form: TickForm,
        (begun, deadline): (Instant, Instant),
    ) -> TickEnd {
        lanes.resize_with(self.options.queue.max_shards, SenderLane::default);
        let run = TickRun::new(deadline, form);
        let mut in_flight = FuturesUnordered::new();
        let mut end = TickEnd::default();
        let mut is_encoded = false;
        loop {
            while !is_encoded
                && end.over.is_none()
                && let Some(lane) = lanes.pop()
            {
                let limits = BatchLimits { samples_max: self.samples_max.get(), bytes_max: MESSAGE_BYTES_MAX };
                match tick.next_batch(limits, begun.elapsed()) {
                    Some(batch) => in_flight.push(self.deliver(lane, batch, &run)),
                    None => {
                        lanes.push(lane);
                        is_encoded = true;
                    }
                }
                // Begins to send before the next batch is encoded.
                if let Some(Some(ended)) = in_flight.next().now_or_never() {
                    end.add(ended, lanes);
                }
                tokio::task::yield_now().await;
            }
            match in_flight.next().await {
                Some(ended) => end.add(ended, lanes),
                None => return end,
            }
        }
    }

    fn log_end(&self, end: &TickEnd) {
        let receiver = &self.options.name;
        let failure = match &end.over {
            Some(TickOver::Failed(reason)) => Some(reason),
            _ => None,
        };
        self.status.update(|counts| counts.last_error = failure.cloned().unwrap_or_default());
        match failure {
            Some(reason) if !self.failing.replace(true) => {
                warn!(receiver, reason, "the receiver takes no samples: each tick tries again with the present ones");
            }
            None if self.failing.replace(false) => info!(receiver, "the receiver takes samples again"),
            _ => {}
        }
    }
}

/// Families whose markers are written again: the latest, which come first.
pub(super) fn pending(mut candidates: Vec<FamilyIdentity>) -> Vec<FamilyIdentity> {
    candidates.truncate(PENDING_MAX);
    candidates
}

/// The end of a tick.
#[derive(Debug, Default)]
pub(super) struct TickEnd {
    /// Samples that the receiver accepted.
    pub stored: u64,
    /// The reason for which not everything was sent.
    pub over: Option<TickOver>,
}

impl TickEnd {
    fn add(&mut self, end: BatchEnd, lanes: &mut Vec<SenderLane>) {
        lanes.push(end.lane);
        self.stored += end.stored;
        self.over = self.over.take().or(end.over);
    }
}
