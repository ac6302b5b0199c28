//! The last deletes by requests at this node: who deleted what, for the page of groups and the status API.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

use super::auth::access::Grant;
use super::auth::guard::user;
use crate::gateway::instant::rfc3339;
use crate::model::truncated_to;
use crate::net::http::Incoming;

/// The deletes remembered.
const DELETES_MAX: usize = 20;
/// Bytes of a text of one of them, at most.
const TEXT_BYTES_MAX: usize = 512;
/// Deletes of one client that follow each other within this time are one.
const TOGETHER_NS: u64 = 60 * 1_000_000_000;

/// A delete, or several of one client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteRecord {
    /// When it was made, in nanoseconds since the Unix epoch; the last one of several.
    pub at_ns: u64,
    /// The address of the client.
    pub peer: IpAddr,
    /// The name that it gave; empty if it gave none.
    pub user: String,
    /// The group, the selector, or `all groups`; the last one of several.
    pub what: String,
    /// The groups that were deleted.
    pub groups: usize,
    /// Their series.
    pub series: usize,
}

impl DeleteRecord {
    /// A delete that a request made: its groups and their series.
    pub fn new(request: &Incoming, grant: &Grant, at_ns: u64, what: String, (groups, series): (usize, usize)) -> Self {
        let cut = |text: String| truncated_to(&text, TEXT_BYTES_MAX).to_string();
        let user = user(request, grant.subject()).map(cut).unwrap_or_default();
        Self { at_ns, peer: request.peer().ip(), user, what: cut(what), groups, series }
    }

    /// As JSON.
    pub fn json(&self) -> Value {
        json!({
            "at": rfc3339(self.at_ns), "peer": self.peer.to_string(), "user": self.user, "what": self.what,
            "groups": self.groups, "series": self.series,
        })
    }
}

/// The last deletes, the newest first.
#[derive(Debug, Default)]
pub struct Deletes(Mutex<VecDeque<DeleteRecord>>);

impl Deletes {
    /// Adds a delete.
    pub fn record(&self, record: DeleteRecord) {
        let mut deletes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match deletes.front_mut() {
            Some(last)
                if last.peer == record.peer
                    && last.user == record.user
                    && record.at_ns < last.at_ns.saturating_add(TOGETHER_NS) =>
            {
                let (groups, series) = (last.groups + record.groups, last.series + record.series);
                *last = DeleteRecord { groups, series, ..record };
            }
            _ => {
                deletes.truncate(DELETES_MAX - 1);
                deletes.push_front(record);
            }
        }
    }

    /// A copy of them.
    pub fn list(&self) -> Vec<DeleteRecord> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_deletes_are_remembered_and_those_of_one_client_are_one() {
        let deletes = Deletes::default();
        let record = |second: u64, host: u8| DeleteRecord {
            at_ns: second * 1_000_000_000,
            peer: IpAddr::from([192, 0, 2, host]),
            user: String::new(),
            what: format!("group {second}"),
            groups: 1,
            series: 2,
        };
        for second in 0..100 {
            deletes.record(record(second, 7));
        }
        deletes.record(record(200, 7));
        let list = deletes.list();
        assert_eq!(list.iter().map(|one| (one.groups, one.series)).collect::<Vec<_>>(), [(1, 2), (100, 200)]);
        assert_eq!(list[1].what, "group 99");
        for second in 300..400 {
            deletes.record(record(second, second as u8));
        }
        let list = deletes.list();
        assert_eq!((list.len(), &*list[0].what), (DELETES_MAX, "group 399"));
    }
}
