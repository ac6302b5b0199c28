//! The health of a node, as its heartbeats report it to a hub.

use super::error::DecodeError;

/// Bytes of the error of a transaction, at most: longer ones are cut before they are sent.
const FAILURE_BYTES_MAX: usize = 1_024;
/// The number of numbers in a [`Health`].
const NUMBERS: usize = 18;

/// The health of a node. `None` means *not known* in a whole report, and *as before* in a heartbeat. Counters count
/// since the node's start.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Health {
    /// When the node started, in seconds since the Unix epoch.
    #[prost(uint64, optional, tag = "1")]
    pub started_seconds: Option<u64>,
    /// Transactions that the disk refused.
    #[prost(uint64, optional, tag = "2")]
    pub commit_failures: Option<u64>,
    /// 1 if the last transaction failed, and 0 if it is durable.
    #[prost(uint64, optional, tag = "3")]
    pub store_failing: Option<u64>,
    /// Bytes that the file system of the store has free for this node.
    #[prost(uint64, optional, tag = "4")]
    pub disk_free_bytes: Option<u64>,
    /// Bytes of that file system.
    #[prost(uint64, optional, tag = "5")]
    pub disk_bytes: Option<u64>,
    /// Groups in the store.
    #[prost(uint64, optional, tag = "6")]
    pub groups: Option<u64>,
    /// The limit on them.
    #[prost(uint64, optional, tag = "7")]
    pub groups_max: Option<u64>,
    /// Series that the node shows.
    #[prost(uint64, optional, tag = "8")]
    pub series: Option<u64>,
    /// The limit on them.
    #[prost(uint64, optional, tag = "9")]
    pub series_max: Option<u64>,
    /// Answered pushes, refused ones included.
    #[prost(uint64, optional, tag = "10")]
    pub pushes: Option<u64>,
    /// Bytes of their bodies as sent.
    #[prost(uint64, optional, tag = "11")]
    pub push_bytes: Option<u64>,
    /// Pushes that were refused: answered with a status of 400 or more.
    #[prost(uint64, optional, tag = "12")]
    pub pushes_refused: Option<u64>,
    /// When the first of the certificates of the node's links expires, in seconds since the Unix epoch.
    #[prost(uint64, optional, tag = "13")]
    pub certificate_expiry_seconds: Option<u64>,
    /// Resident memory in bytes.
    #[prost(uint64, optional, tag = "14")]
    pub resident_bytes: Option<u64>,
    /// Sessions with hubs that began with a resync.
    #[prost(uint64, optional, tag = "15")]
    pub resyncs: Option<u64>,
    /// Families that the node stores but does not show.
    #[prost(uint64, optional, tag = "16")]
    pub suppressed_families: Option<u64>,
    /// 1 if files of certificates, keys or passwords have changed and cannot be used, else 0.
    #[prost(uint64, optional, tag = "17")]
    pub credentials_failing: Option<u64>,
    /// Requests that the gateway refused before it read them: without a valid password, or beyond the rate limit.
    #[prost(uint64, optional, tag = "18")]
    pub requests_refused: Option<u64>,
    /// The error of the last transaction that failed; cut to a kilobyte when it is sent.
    #[prost(string, optional, tag = "19")]
    pub store_failure: Option<String>,
}

impl Health {
    /// All numbers, in the order of their fields.
    fn numbers(&self) -> [Option<u64>; NUMBERS] {
        [
            self.started_seconds,
            self.commit_failures,
            self.store_failing,
            self.disk_free_bytes,
            self.disk_bytes,
            self.groups,
            self.groups_max,
            self.series,
            self.series_max,
            self.pushes,
            self.push_bytes,
            self.pushes_refused,
            self.certificate_expiry_seconds,
            self.resident_bytes,
            self.resyncs,
            self.suppressed_families,
            self.credentials_failing,
            self.requests_refused,
        ]
    }

    fn numbers_mut(&mut self) -> [&mut Option<u64>; NUMBERS] {
        [
            &mut self.started_seconds,
            &mut self.commit_failures,
            &mut self.store_failing,
            &mut self.disk_free_bytes,
            &mut self.disk_bytes,
            &mut self.groups,
            &mut self.groups_max,
            &mut self.series,
            &mut self.series_max,
            &mut self.pushes,
            &mut self.push_bytes,
            &mut self.pushes_refused,
            &mut self.certificate_expiry_seconds,
            &mut self.resident_bytes,
            &mut self.resyncs,
            &mut self.suppressed_families,
            &mut self.credentials_failing,
            &mut self.requests_refused,
        ]
    }

    /// The fields of this report that differ from `before`. Free disk and memory change all the time: they count as
    /// changed when they differ from the value sent by more than a sixteenth of it.
    pub fn since(&self, before: &Health) -> Health {
        let mut changes = Health::default();
        for ((change, now), before) in changes.numbers_mut().into_iter().zip(self.numbers()).zip(before.numbers()) {
            *change = now.filter(|_| now != before);
        }
        for (change, before) in [
            (&mut changes.disk_free_bytes, before.disk_free_bytes),
            (&mut changes.resident_bytes, before.resident_bytes),
        ] {
            *change = change.filter(|now| before.is_none_or(|before| now.abs_diff(before) > before / 16));
        }
        changes.store_failure = self.store_failure.clone().filter(|_| self.store_failure != before.store_failure);
        changes
    }

    /// Adds the changes that a heartbeat brought.
    pub fn apply(&mut self, changes: &Health) {
        for (number, change) in self.numbers_mut().into_iter().zip(changes.numbers()) {
            *number = change.or(*number);
        }
        if changes.store_failure.is_some() {
            self.store_failure.clone_from(&changes.store_failure);
        }
    }

    /// Whether no field is known.
    pub fn is_empty(&self) -> bool {
        *self == Health::default()
    }

    /// The report with a text that can be sent.
    pub(super) fn sendable(&self) -> Health {
        let cut = |text: &String| text[..text.floor_char_boundary(FAILURE_BYTES_MAX)].to_owned();
        Health { store_failure: self.store_failure.as_ref().map(cut), ..self.clone() }
    }

    /// Checks the bounds of a report that arrived.
    pub(super) fn checked(self) -> Result<Health, DecodeError> {
        match self.store_failure.as_ref().map(String::len).filter(|bytes| *bytes > FAILURE_BYTES_MAX) {
            Some(value) => {
                Err(DecodeError::Bound { what: "bytes of the store's failure", value, max: FAILURE_BYTES_MAX })
            }
            None => Ok(self),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_has_the_changes_and_together_they_are_the_whole() {
        let before = Health { pushes: Some(7), groups: Some(3), disk_free_bytes: Some(1_600), ..Health::default() };
        let now = Health { pushes: Some(9), store_failure: Some("full".into()), ..before.clone() };
        let changes = now.since(&before);
        let expected = Health { pushes: Some(9), store_failure: Some("full".into()), ..Health::default() };
        assert_eq!(changes, expected);
        let mut applied = before.clone();
        applied.apply(&changes);
        assert_eq!(applied, now);
        assert!(now.since(&now).is_empty());
    }

    #[test]
    fn free_disk_and_memory_are_sent_again_after_a_sixteenth() {
        let sent = Health { disk_free_bytes: Some(1_600), resident_bytes: Some(160), ..Health::default() };
        let moved = |disk, memory| {
            let now = Health { disk_free_bytes: Some(disk), resident_bytes: Some(memory), ..Health::default() };
            let changes = now.since(&sent);
            (changes.disk_free_bytes, changes.resident_bytes)
        };
        assert_eq!(moved(1_500, 170), (None, None));
        assert_eq!(moved(1_499, 171), (Some(1_499), Some(171)));
        assert_eq!(moved(0, 160), (Some(0), None), "a disk that is full");
    }
}
