//! The task that logs once for each site that this node holds metrics of it back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::commit::Committer;
use crate::model::LabelSet;
use crate::store::Published;

/// The time between two looks.
const INTERVAL: Duration = Duration::from_secs(2);
/// A site that holds nothing back any more is reported again after this time: metrics may come and go with each push.
const QUIET: Duration = Duration::from_secs(3_600);
/// The name of the site of groups that were pushed at this node.
const OWN: &str = "this node";

/// A site with its number of families held back.
type SiteCount = (Arc<LabelSet>, usize);

/// The sites that were reported; at most those that have groups, and those that had some within [`QUIET`].
#[derive(Debug, Default)]
struct ReportedSites(BTreeMap<Arc<LabelSet>, Instant>);

impl ReportedSites {
    /// The sites to report now, each with its number of families; and those of which nothing is held back any more.
    fn news(&mut self, counts: Vec<SiteCount>, now: Instant) -> (Vec<SiteCount>, Vec<Arc<LabelSet>>) {
        let begun = counts.into_iter().filter(|(_, families)| *families > 0);
        let begun = begun.filter(|(site, _)| self.0.insert(site.clone(), now).is_none()).collect();
        let ended: Vec<_> = self.0.iter().filter(|(_, seen)| now.duration_since(**seen) >= QUIET).collect();
        let ended: Vec<_> = ended.into_iter().map(|(site, _)| site.clone()).collect();
        for site in &ended {
            self.0.remove(site);
        }
        (begun, ended)
    }
}

/// Runs until `stop` is cancelled.
pub async fn run(committer: Committer, stop: CancellationToken) {
    let mut reported = ReportedSites::default();
    while !stop.is_cancelled() {
        let published = committer.published();
        let (begun, ended) = reported.news(published.suppressed_by_site(), Instant::now());
        for (site, families) in begun {
            report(published, &site, families);
        }
        for site in ended {
            info!(site = name(&site), "no metrics of the site were held back for an hour");
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
}

/// Reports a site with one of its families.
fn report(published: &Published, site: &Arc<LabelSet>, families: usize) {
    let entries = tokio::task::block_in_place(|| published.suppressed());
    let mut examples = entries.iter().filter(|entry| entry.id().site == *site).flat_map(|entry| {
        let suppressed = entry.leaders().filter_map(|(at, .., state)| Some((at, state.conflict.as_ref()?)));
        suppressed.map(move |(at, conflict)| (entry, entry.whole(at).name(), conflict))
    });
    let Some((entry, metric, conflict)) = examples.next() else { return };
    warn!(
        site = name(site),
        families,
        metric = &**metric,
        group = %entry.shown(),
        reason = %conflict,
        "metrics of a site are held back: they conflict with others, and scrapes do not show them"
    );
}

fn name(site: &LabelSet) -> String {
    if site.is_empty() { OWN.to_owned() } else { site.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_is_reported_once_and_again_after_an_hour_of_quiet() {
        let (own, syq) = (Arc::<LabelSet>::default(), Arc::new(LabelSet::new([("IDC", "SYQ")])));
        let (mut reported, start) = (ReportedSites::default(), Instant::now());
        let mut at = |seconds: u64, own_families, syq_families| {
            let counts = vec![(own.clone(), own_families), (syq.clone(), syq_families)];
            let (begun, ended) = reported.news(counts, start + Duration::from_secs(seconds));
            (begun.into_iter().map(|(site, _)| name(&site)).collect::<Vec<_>>(), ended.len())
        };
        let syq_name = vec!["{IDC=\"SYQ\"}".to_owned()];
        assert_eq!(at(0, 0, 0), (vec![], 0));
        assert_eq!(at(10, 0, 500), (syq_name.clone(), 0));
        assert_eq!(at(20, 1, 501), (vec![OWN.to_owned()], 0));
        assert_eq!(at(30, 1, 0), (vec![], 0));
        assert_eq!(at(40, 1, 3), (vec![], 0), "it came and went");
        assert_eq!(at(3_640, 1, 0), (vec![], 1));
        assert_eq!(at(3_650, 1, 2), (syq_name, 0));
    }
}
