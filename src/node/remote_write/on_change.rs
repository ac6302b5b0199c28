//! `mode = "on-change"`: between two ticks of everything, ticks of what changed.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::deliver::TickOver;
use super::receiver::RemoteReceiver;
use super::run::{WrittenSeries, pending};
use crate::model::Revision;
use crate::net::http::sender::SenderLane;

/// The shortest time between the beginnings of two ticks of changes: pushes in between are written together.
const GAP: Duration = Duration::from_millis(500);

impl RemoteReceiver {
    /// Writes what changes until `refresh_at`, and the node's own families each interval. Returns when all series are to be
    /// written: then, or earlier if a tick was not written completely.
    pub(super) async fn write_changes(
        &self,
        written: &mut WrittenSeries,
        lanes: &mut Vec<SenderLane>,
        changed: &mut watch::Receiver<Revision>,
        refresh_at: Instant,
    ) -> Instant {
        let interval = self.options.interval;
        let mut last = Instant::now();
        let mut own_at = last + interval;
        loop {
            if written.snapshot.is_none() {
                // A receiver that takes nothing is not asked more often than otherwise.
                return last + interval;
            }
            if Instant::now() >= refresh_at {
                written.take_snapshot(self.form.get());
                return refresh_at;
            }
            tokio::select! {
                () = sleep_until(refresh_at.min(own_at)) => {}
                // The commits end when the node does.
                _ = changed.changed() => sleep_until((last + GAP).min(refresh_at)).await,
            }
            if Instant::now() >= refresh_at {
                continue;
            }
            last = Instant::now();
            let has_own = last >= own_at;
            if has_own {
                own_at = last + interval;
            }
            self.tick_of_changes(written, lanes, (last, last + interval), has_own).await;
        }
    }

    /// Writes one tick of changes, and the node's own families if `has_own`.
    async fn tick_of_changes(
        &self,
        written: &mut WrittenSeries,
        lanes: &mut Vec<SenderLane>,
        (begun, deadline): (Instant, Instant),
        has_own: bool,
    ) {
        // It stays there while the tick is sent, because a stop may end this at any time.
        let Some(before) = &written.snapshot else { return };
        let form = self.form.get();
        let now = self.source.snapshot(before, has_own);
        let timestamp_ms = self.next_timestamp_ms();
        let mut tick = self.source.begin_changes(timestamp_ms, form, (before, &now), has_own);
        if tick.is_empty() {
            written.snapshot = Some(now);
            return;
        }
        let end = self.send(&mut tick, lanes, form, (begun, deadline)).await;
        let fell_back = matches!(end.over, Some(TickOver::FellBack));
        if !fell_back {
            self.end_tick(&tick, &end, begun);
        }
        if end.stored > 0 {
            written.at = begun;
        }
        if end.over.is_none() {
            written.snapshot = Some(now);
            return;
        }
        let Some(before) = written.snapshot.take() else { return };
        written.families = before.shown(form);
        // New series may have been stored before the failure: they get markers unless they are still shown.
        let mut candidates = tick.into_candidates();
        if end.stored > 0 {
            candidates.extend(now.shown(form).gone_in(&written.families));
        }
        written.pending = pending(candidates);
    }
}
