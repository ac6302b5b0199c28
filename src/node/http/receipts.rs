//! Answers that wait for a hub: receipts that a push asks for, and the verdicts of hubs on known conflicts.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::timeout;

use super::service::Service;
use crate::gateway::HttpReply;
use crate::gateway::parameters::ParameterError;
use crate::gateway::receipt::Receipt;
use crate::model::{LabelSet, Revision};
use crate::node::link::status::UplinkStatus;
use crate::node::link::verdicts::KnownConflict;
use crate::store::Scope;

/// Answers that wait for a hub at once, at most.
pub const WAITING_MAX: usize = 1_000;
/// The longest time that a push into a known conflict waits for the hub's verdict.
const VERDICT_TIMEOUT: Duration = Duration::from_secs(5);

impl Service {
    /// Carries out a write; with a receipt, the answer waits until a hub has it.
    pub(super) async fn with_receipt(
        &self,
        receipt: Result<Option<Receipt>, ParameterError>,
        write: impl Future<Output = HttpReply>,
    ) -> HttpReply {
        let limit = match receipt {
            Ok(Some(Receipt { timeout })) => timeout,
            Ok(None) => return write.await,
            Err(error) => return HttpReply::error(400, error),
        };
        if self.uplinks.is_empty() {
            // A hub is the hub that has it.
            return match self.rules.is_hub {
                true => write.await,
                false => HttpReply::error(400, "wait=hub: this node has no hub to wait for ([[uplink]])"),
            };
        }
        let Ok(_permit) = self.waiting_permits.try_acquire() else {
            let text = format!("{WAITING_MAX} requests wait for a hub already: nothing was written; try again");
            return HttpReply::unavailable(text).with("Retry-After", "1");
        };
        let reply = write.await;
        if !matches!(reply.status, 200 | 202) {
            return reply;
        }
        let head = self.head();
        let mut uplinks: FuturesUnordered<_> = self.uplinks.iter().map(|uplink| uplink.acknowledged(head)).collect();
        let has_it = tokio::select! {
            first = timeout(limit, uplinks.next()) => first.is_ok(),
            () = self.stop.cancelled() => false,
        };
        if has_it {
            return HttpReply::empty(200);
        }
        let reasons = self.uplinks.iter().map(|uplink| {
            let link = uplink.get();
            let reason = match (link.connected, link.last_error.as_str()) {
                (true, _) => "connected, and has not acknowledged it yet",
                (false, "") => "no link",
                (false, error) => error,
            };
            format!("{}: {reason}", uplink.hub)
        });
        let reasons: Vec<String> = reasons.collect();
        HttpReply::error(
            504,
            format_args!(
                "no hub confirmed it within {} s. It is safe at this edge and will be delivered: do not push it again.\n{}",
                limit.as_secs_f64(),
                reasons.join("\n")
            ),
        )
    }

    /// The newest revision that hubs are to get.
    fn head(&self) -> Revision {
        *self.committer.subscribe(Scope::Shown).borrow()
    }

    /// The known conflicts of a push, by the uplinks whose hubs reported them.
    pub(super) fn known_conflicts<'a>(
        &self,
        group: &Arc<LabelSet>,
        families: impl Iterator<Item = &'a Arc<str>> + Clone,
    ) -> Vec<(Arc<UplinkStatus>, KnownConflict)> {
        let known = self.uplinks.iter().filter_map(|uplink| {
            let conflict = uplink.verdicts.as_ref()?.known(group, families.clone())?;
            Some((uplink.clone(), conflict))
        });
        known.collect()
    }

    /// The answer to a push into known conflicts, if one of them lasts. The push is stored.
    pub(super) async fn verdict(&self, conflicts: Vec<(Arc<UplinkStatus>, KnownConflict)>) -> Option<HttpReply> {
        if conflicts.is_empty() {
            return None;
        }
        let head = self.head();
        for (uplink, conflict) in conflicts {
            let permit = self.waiting_permits.try_acquire();
            let can_wait = permit.is_ok() && uplink.get().connected;
            let is_acknowledged = can_wait
                && tokio::select! {
                    waited = timeout(VERDICT_TIMEOUT, uplink.acknowledged(head)) => waited.is_ok(),
                    () = self.stop.cancelled() => false,
                };
            let text = match (is_acknowledged, &uplink.verdicts) {
                (true, Some(verdicts)) => match verdicts.lasting(&conflict) {
                    Some(text) => text,
                    // Another hub may still hold the push back.
                    None => continue,
                },
                _ => format!("{} (as the hub last said; it did not answer now)", conflict.text).into(),
            };
            let hub = &uplink.hub;
            return Some(HttpReply::refused(format_args!(
                "the hub {hub} does not show them: {text}; they are kept, and shown when the conflict ends"
            )));
        }
        None
    }
}
