//! The task that takes a sample of each edge every minute.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::edges::EdgeRegistry;
use crate::node::clock::Clock;

/// The time between two samples.
const INTERVAL: Duration = Duration::from_secs(60);

/// Takes samples until `stop` is cancelled.
pub async fn run(edges: Arc<EdgeRegistry>, clock: Arc<Clock>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let now_ns = clock.wall_ns();
        let readings = edges.list().into_iter().map(|(name, edge)| (name, edge.reading(now_ns)));
        edges.histories.sample(readings, now_ns);
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
}
