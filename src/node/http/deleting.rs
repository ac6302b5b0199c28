//! Deleting one group, or all: each delete is logged and remembered with its client.

use tracing::{info, warn};

use super::auth::access::Grant;
use super::auth::guard::user;
use super::deletes::DeleteRecord;
use super::service::{Service, answer, headers};
use crate::gateway::path::AddressedGroup;
use crate::gateway::rights::Right;
use crate::gateway::{HttpReply, body, groups};
use crate::net::http::Incoming;
use crate::store::{Scope, WriteOp};

impl Service {
    /// Deletes one group.
    pub(super) async fn delete(&self, group: AddressedGroup, request: &mut Incoming, grant: &Grant) -> HttpReply {
        let target = match self.find_group(group) {
            Ok(target) => target,
            Err(error) => return HttpReply::error(400, error),
        };
        if let Err(reply) = grant.check_group(Right::Delete, &target) {
            return reply;
        }
        let checked = match self.body(request).await {
            Ok(body) => body::check_delete(headers(request), &body),
            Err(error) => return HttpReply::error(error.status(), error),
        };
        match checked {
            Ok(()) => {
                let known = self.committer.published().find(&target);
                let written = self.committer.write(target, WriteOp::Delete).await;
                if let (Some(entry), Ok(())) = (known, &written) {
                    let series = groups::series_len(&entry);
                    let (group, user) = (entry.shown(), user(request, grant.subject()).unwrap_or_default());
                    let activity = entry.activity();
                    info!(
                        peer = %request.peer(), user, %group, series, pushes = activity.pushes, "a group was deleted"
                    );
                    let (what, groups) = (entry.shown().to_string(), 1);
                    self.deletes.record(DeleteRecord::new(
                        request,
                        grant,
                        self.clock.wall_ns(),
                        what,
                        (groups, series),
                    ));
                }
                answer(written, HttpReply::accepted)
            }
            Err(error) => error.reply(),
        }
    }

    /// Deletes all groups.
    pub(super) async fn wipe(&self, request: &Incoming, grant: &Grant) -> HttpReply {
        let counts = self.committer.published().counts();
        let (groups, series, user) = (counts.groups, counts.series, user(request, grant.subject()).unwrap_or_default());
        let written = self.committer.wipe(Scope::Shown).await;
        match &written {
            Ok(()) => info!(peer = %request.peer(), user, groups, series, "all groups were deleted"),
            Err(error) => {
                warn!(peer = %request.peer(), user, of = groups, %error, "a delete of all groups ended early")
            }
        }
        let what = "all groups".to_owned();
        self.deletes.record(DeleteRecord::new(request, grant, self.clock.wall_ns(), what, (groups, series)));
        answer(written, HttpReply::accepted)
    }
}
