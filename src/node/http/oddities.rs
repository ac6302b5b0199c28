//! The odd paths of pushes and deletes ([`PathOddity`]) that were seen: logged once a pattern, and remembered by group
//! for the group's page.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::BuildHasher;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use tracing::{info, warn};

use crate::gateway::PathOddity;
use crate::model::{LabelSet, truncated_to};

/// The patterns that are logged, at most.
const PATTERNS_MAX: usize = 100;
/// Bytes of a pattern and of a logged path, at most.
const PATTERN_BYTES_MAX: usize = 256;
/// The groups that are remembered, at most; of more, the latest.
const GROUPS_MAX: usize = 10_000;

/// The odd paths since the start.
#[derive(Default)]
pub struct Oddities {
    seen: Mutex<Seen>,
    /// Groups are remembered by their hash: a key may be as long as a request's head.
    hasher: RandomState,
}

#[derive(Default)]
struct Seen {
    patterns: BTreeSet<(PathOddity, String)>,
    groups: HashMap<u64, PathOddity>,
    /// The remembered groups, the oldest first.
    order: VecDeque<u64>,
}

impl Oddities {
    /// Records a request with that path. `group` is the group that the path addresses, or to which it is redirected.
    pub fn record(&self, oddity: PathOddity, path: &str, group: Option<&LabelSet>, peer: SocketAddr) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(group) = group {
            seen.remember(self.hasher.hash_one(group), oddity);
        }
        if seen.patterns.len() >= PATTERNS_MAX || !seen.patterns.insert((oddity, pattern(path))) {
            return;
        }
        let is_full = seen.patterns.len() >= PATTERNS_MAX;
        drop(seen);
        let path = truncated_to(path, PATTERN_BYTES_MAX);
        if oddity.is_harmless() {
            info!(%peer, %path, reason = %oddity, "the path of a push or delete may lose values");
        } else {
            warn!(%peer, %path, reason = %oddity, "the path of a push or delete probably loses values");
        }
        if is_full {
            info!(patterns_max = PATTERNS_MAX, "no more paths that lose values are logged until the next start");
        }
    }

    /// The oddity of the latest path that led to a group; `None` if there was none, or it is no longer remembered.
    pub fn of(&self, group: &LabelSet) -> Option<PathOddity> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.groups.get(&self.hasher.hash_one(group)).copied()
    }
}

impl Seen {
    fn remember(&mut self, group: u64, oddity: PathOddity) {
        if self.groups.insert(group, oddity).is_some() {
            return;
        }
        self.order.push_back(group);
        if self.order.len() > GROUPS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.groups.remove(&oldest);
        }
    }
}

/// The names of a path without the values: clients that differ only in values write the same pattern.
fn pattern(path: &str) -> String {
    let relative = path.trim_start_matches('/');
    let names = relative.split_once("job").map_or(relative, |(_, rest)| rest).split('/').step_by(2);
    let mut pattern = String::new();
    for name in names {
        if pattern.len() + name.len() >= PATTERN_BYTES_MAX {
            break;
        }
        pattern.push_str(name);
        pattern.push('/');
    }
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(job: &str) -> LabelSet {
        LabelSet::new([("job", job)])
    }

    fn peer() -> SocketAddr {
        ([127, 0, 0, 1], 1).into()
    }

    #[test]
    fn values_do_not_make_a_pattern() {
        assert_eq!(pattern("/metrics/job/a/branch/b%2Fc"), "/branch/");
        assert_eq!(pattern("/metrics/job/x/branch/y%2Fz"), "/branch/");
        assert_eq!(pattern("/metrics/job@base64/YQ/branch/y//"), "@base64/branch//");
        assert!(pattern(&format!("/metrics/job/a{}", "/x/y".repeat(1_000))).len() <= PATTERN_BYTES_MAX);
        assert!(pattern(&format!("/metrics/job/a/{}/y", "x".repeat(1_000))).len() <= PATTERN_BYTES_MAX);
    }

    #[test]
    fn the_memory_of_odd_paths_is_bounded() {
        let oddities = Oddities::default();
        for number in 0..GROUPS_MAX + 10 {
            let path = format!("/metrics/job/a/l{number}/%2F");
            oddities.record(PathOddity::EscapedSlash, &path, Some(&key(&number.to_string())), peer());
        }
        assert_eq!(oddities.of(&key("9")), None, "the oldest are forgotten");
        assert_eq!(oddities.of(&key("10")), Some(PathOddity::EscapedSlash));
        let seen = oddities.seen.lock().unwrap();
        assert_eq!((seen.patterns.len(), seen.groups.len(), seen.order.len()), (PATTERNS_MAX, GROUPS_MAX, GROUPS_MAX));
    }
}
