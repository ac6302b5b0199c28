//! Listing groups, deleting many at once, and service discovery.
//!
//! A delete of many groups is so many ordinary deletes, a few of them in flight at once: each is durable before it
//! counts, and pushes join the transactions between. So it delays pushes no more than other pushes do.

use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::{StreamExt, stream};
use tracing::{info, warn};

use super::auth::access::{Grant, is_in};
use super::auth::guard::user;
use super::deletes::DeleteRecord;
use super::service::{Service, answer, respond};
use crate::commit::WriteError;
use crate::gateway::HttpReply;
use crate::gateway::groups::{self, DeleteOutcome, DiscoveryTarget};
use crate::gateway::parameters::GroupQuery;
use crate::gateway::rights::Right;
use crate::model::LabelSet;
use crate::net::http::{Incoming, Response};
use crate::selector::Selectors;
use crate::store::{GroupEntry, WriteOp};

/// Deletes that share a transaction, at most. More would delay the pushes that share it.
const DELETES_AT_ONCE: usize = 64;
/// The path below which this API is.
const API: &str = "/api/v1/";

impl Service {
    /// Lists the groups that the sender may read, as JSON.
    pub(super) fn list_groups(&self, query: &GroupQuery, grant: &Grant) -> HttpReply {
        let mut matching = self.matching(query.selectors.as_ref(), grant.scope(Right::Read).as_ref());
        if let Some(sort) = query.sort {
            let now_ns = self.clock.wall_ns();
            let weight = |entry: &Arc<GroupEntry>| sort.weight(entry, now_ns);
            matching.sort_by_cached_key(|entry| std::cmp::Reverse(weight(entry)));
            let total = matching.len();
            let page = matching.iter().take(query.limit).map(|entry| &**entry);
            return groups::listing(page, total, false, &self.expiry(), now_ns);
        }
        let after = |entry: &Arc<GroupEntry>| query.after.as_ref().is_some_and(|after| **entry.shown() <= *after);
        let rest = &matching[matching.partition_point(after)..];
        let page = rest.iter().take(query.limit).map(|entry| &**entry);
        groups::listing(page, matching.len(), rest.len() > query.limit, &self.expiry(), self.clock.wall_ns())
    }

    /// The live groups in `scope` that the selectors match, sorted by their labels.
    fn matching(&self, selectors: Option<&Selectors>, scope: Option<&Selectors>) -> Vec<Arc<GroupEntry>> {
        let matches = |labels: &LabelSet| is_in(selectors, labels) && is_in(scope, labels);
        self.committer.published().groups_where(matches)
    }

    /// Deletes the groups that the selectors match and the sender may delete, or only says which.
    pub(super) async fn delete_groups(
        &self,
        selectors: Selectors,
        query: GroupQuery,
        request: &Incoming,
        grant: &Grant,
    ) -> Response {
        let scope = grant.scope(Right::Delete);
        let permit = match self.scrape_permit() {
            Ok(permit) => permit,
            Err(reply) => return respond(reply),
        };
        let matching = tokio::task::block_in_place(|| self.matching(Some(&selectors), scope.as_ref()));
        let series = matching.iter().map(|entry| groups::series_len(entry)).sum();
        let mut outcome = DeleteOutcome { matched: matching.len(), series, deleted: 0, dry_run: query.dry_run };
        if !query.dry_run {
            let text = selectors.to_string();
            let report =
                DeleteReport { peer: request.peer(), user: user(request, grant.subject()), selectors, outcome };
            match self.delete_all(&matching, report).await {
                Ok(deleted) => {
                    outcome.deleted = deleted;
                    let record = DeleteRecord::new(request, grant, self.clock.wall_ns(), text, (deleted, series));
                    self.deletes.record(record);
                }
                Err(error) => return respond(answer(Err(error), HttpReply::accepted)),
            }
        }
        let page = matching.iter().take(query.limit).map(|entry| &**entry);
        let reply = groups::deleted(page, outcome, &self.expiry(), self.clock.wall_ns());
        respond(reply).with_guard(permit)
    }

    /// Deletes groups. Returns how many.
    async fn delete_all(&self, groups: &[Arc<GroupEntry>], mut report: DeleteReport) -> Result<usize, WriteError> {
        let keys: Vec<Arc<LabelSet>> = groups.iter().map(|entry| entry.shown().clone()).collect();
        let writes = keys.into_iter().map(|shown| self.committer.write(shown, WriteOp::Delete));
        let mut results = stream::iter(writes).buffer_unordered(DELETES_AT_ONCE);
        while let Some(result) = results.next().await {
            match result {
                Ok(()) => report.outcome.deleted += 1,
                Err(error) => {
                    let DeleteOutcome { deleted, matched: of, .. } = report.outcome;
                    return Err(match deleted {
                        0 => error,
                        deleted => WriteError::Partly { deleted, of, error: Box::new(error) },
                    });
                }
            }
        }
        Ok(report.outcome.deleted)
    }

    /// Targets for Prometheus's service discovery: of sites, those with groups that the sender may read.
    pub(super) fn discovery(&self, shards: Option<u32>, request: &Incoming, grant: &Grant) -> HttpReply {
        let address = request.authority().unwrap_or("localhost:9091");
        let prefix = request.path().rsplit_once(API).map_or("", |(prefix, _)| prefix);
        let telemetry_path = self.rules.telemetry_path.trim_start_matches('/');
        let metrics_path = format!("{prefix}/{telemetry_path}");
        let target = DiscoveryTarget { address, metrics_path: &metrics_path };
        if let Some(shards) = shards {
            return groups::shard_targets(target, shards);
        }
        let published = self.committer.published();
        let mut sites = match grant.scope(Right::Read) {
            Some(scope) => {
                let readable = published.groups_where(|labels| is_in(Some(&scope), labels));
                readable.iter().map(|entry| entry.id().site.clone()).collect()
            }
            None => {
                let mut sites = published.sites();
                sites.extend(self.edges.list().into_iter().map(|(_, edge)| edge.site));
                sites
            }
        };
        sites.retain(|site| !site.is_empty());
        sites.sort();
        sites.dedup();
        let sites: Vec<&LabelSet> = sites.iter().map(|site| &**site).collect();
        groups::site_targets(target, &sites).unwrap_or_else(|error| HttpReply::error(500, error))
    }
}

/// Logs a delete at its end, whatever ends it: the client may disconnect before.
struct DeleteReport {
    peer: SocketAddr,
    user: Option<String>,
    selectors: Selectors,
    outcome: DeleteOutcome,
}

impl Drop for DeleteReport {
    fn drop(&mut self) {
        let DeleteOutcome { matched, series, deleted, .. } = self.outcome;
        let (peer, user, selector) = (self.peer, self.user.as_deref().unwrap_or_default(), &self.selectors);
        if deleted == matched {
            info!(%peer, user, %selector, groups = deleted, series, "groups were deleted by a selector");
        } else {
            warn!(%peer, user, %selector, groups = deleted, of = matched, "a delete by a selector ended early");
        }
    }
}
