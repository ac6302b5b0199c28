//! The task that deletes groups whose lifetime has ended: see [`crate::store::expiry`].
//!
//! The deletes are sent to the commit worker some dozen at a time, and each of these transactions takes the pushes along
//! that wait. So a sweep delays pushes no more than other pushes do.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::yield_now;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::clock::Clock;
use super::commit::Committer;
use super::metrics::Metrics;
use crate::commit::WriteError;
use crate::store::{ExpiryRules, ExpiryWalk};

/// The interval at which the task looks whether a group may be due.
const TICK: Duration = Duration::from_secs(1);
/// Deletes in one transaction, at most.
const DELETES_AT_ONCE: usize = 64;
/// The task pauses for as many times the time for which it examined groups: it uses a small part of a processor, however
/// many groups there are.
const PAUSE_FACTOR: u32 = 20;
/// The longest of these pauses.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// The pause after a sweep that could not write.
const FAILURE_PAUSE: Duration = Duration::from_secs(10);

/// Deletes groups that have expired.
pub struct Expirer {
    /// Commits the deletes.
    pub committer: Committer,
    /// The corrected clock.
    pub clock: Arc<Clock>,
    /// Counts the deletes.
    pub metrics: Arc<Metrics>,
}

impl Expirer {
    /// Runs until `stop` is cancelled.
    pub async fn run(self, stop: CancellationToken) {
        let (mut rules, mut next_due_ns, mut pause, mut logged) = (ExpiryRules::default(), 0, TICK, 0);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => pause = TICK,
            }
            let published = self.committer.published();
            let rules_now = published.expiry_rules();
            if rules != rules_now {
                (rules, next_due_ns) = (rules_now, 0);
            }
            let now_ns = self.clock.now().stamp_ns;
            if published.expiry_due_ns(next_due_ns) <= now_ns {
                let (mut walk, mut walked) = (ExpiryWalk::begin(published, now_ns), Duration::ZERO);
                let swept = self.sweep(&mut walk, &mut walked, &stop).await;
                next_due_ns = walk.next_due_ns();
                pause = walked.saturating_mul(PAUSE_FACTOR).clamp(TICK, PAUSE_MAX);
                if let Err(error) = swept {
                    // The writer logs once that it cannot write.
                    debug!(%error, "groups that have expired could not be deleted");
                    (next_due_ns, pause) = (0, FAILURE_PAUSE);
                }
            }
            // With those that had expired when a peer sent them.
            let expired = self.metrics.expired_groups.get();
            if expired > logged {
                info!(groups = expired - logged, "groups have expired and were deleted");
                logged = expired;
            }
        }
    }

    /// Deletes what a walk finds. `walked` is the time that the walk itself takes.
    async fn sweep(
        &self,
        walk: &mut ExpiryWalk,
        walked: &mut Duration,
        stop: &CancellationToken,
    ) -> Result<(), WriteError> {
        while !stop.is_cancelled() {
            let began = Instant::now();
            let found = walk.step(self.committer.published());
            *walked += began.elapsed();
            let Some(due) = found else { break };
            for groups in due.chunks(DELETES_AT_ONCE) {
                self.committer.expire(groups.to_vec()).await?;
            }
            yield_now().await;
        }
        Ok(())
    }
}
