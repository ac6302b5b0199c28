//! The descriptors (open files) that the operating system allows, and their division among connections.
//!
//! Without a bound, clients that keep their connections take every descriptor. Then the store cannot write a checkpoint,
//! the link cannot be dialled again, and no scrape is accepted.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{debug, info};

/// The descriptors kept for everything but accepted connections: the store's files, the listeners, the event queues of
/// three runtimes, certificates that are read again, and standard streams.
const RESERVED: usize = 64;
/// The descriptors kept for each uplink: its connection, its resolver, and attempts to the addresses of its hub.
const RESERVED_PER_UPLINK: usize = 8;

/// The connections that may be open at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionBounds {
    /// Connections of the gateway.
    pub web: usize,
    /// Links from edges.
    pub links: usize,
}

/// Raises the soft limit of open files to the hard limit. Returns the limit that is in force; `None` if there is none.
/// (The soft limit is 1,024 on most systems for the sake of programs that use `select`.)
pub fn raise() -> Option<usize> {
    let before = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: before.maximum, ..before }) {
        debug!(%error, "the limit of open files cannot be raised to the hard limit");
    }
    let limit = getrlimit(Resource::Nofile).current;
    limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX))
}

impl ConnectionBounds {
    /// Lowers the configured bounds to what a limit of open files allows. If it does not allow both, links get up to half
    /// of the descriptors.
    pub fn below(self, limit: Option<usize>, uplinks: usize) -> Self {
        let Some(limit) = limit else { return self };
        let reserved = RESERVED.saturating_add(uplinks.saturating_mul(RESERVED_PER_UPLINK)).min(limit / 2);
        let left = limit - reserved;
        if self.web.saturating_add(self.links) <= left {
            return self;
        }
        let links = self.links.min(left / 2);
        let bounds = Self { web: self.web.min(left - links).max(1), links };
        info!(
            open_files_max = limit,
            web_connections_max = bounds.web,
            edges_max = bounds.links,
            remedy = "raise LimitNOFILE (ulimit -Hn)",
            "the limit of open files allows fewer connections than are configured"
        );
        bounds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn below(web: usize, links: usize, limit: usize, uplinks: usize) -> (usize, usize) {
        let bounds = ConnectionBounds { web, links }.below(Some(limit), uplinks);
        (bounds.web, bounds.links)
    }

    #[test]
    fn connections_leave_descriptors_for_the_rest() {
        assert_eq!(below(10_000, 0, 65_536, 1), (10_000, 0));
        assert_eq!(below(10_000, 0, 1_024, 1), (952, 0), "an edge");
        assert_eq!(below(10_000, 10_000, 1_024, 0), (480, 480), "a hub");
        assert_eq!(below(10_000, 20, 1_024, 0), (940, 20));
        assert_eq!(below(10_000, 10_000, 4, 9), (1, 1));
        let bounds = ConnectionBounds { web: 1, links: 2 };
        assert_eq!(bounds.below(None, 1), bounds);
    }

    #[test]
    fn the_soft_limit_is_the_hard_limit_after_the_start() {
        raise();
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        assert_eq!(current, maximum);
    }
}
