//! The answers about groups as JSON: listings, deletes, and Prometheus's service discovery.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::base64url;
use super::instant::rfc3339;
use super::reply::{HttpReply, JSON};
use crate::model::{LabelSet, PushTime};
use crate::selector::{Selector, SelectorError};
use crate::store::selection::Shard;
use crate::store::{ExpiryView, GroupEntry};

/// Labels as a JSON object.
pub fn object(labels: &LabelSet) -> Value {
    labels.iter().map(|label| (label.name.to_owned(), Value::from(label.value))).collect::<Map<_, _>>().into()
}

/// One group of a listing.
#[derive(Serialize)]
struct ListedGroup {
    labels: Value,
    site: Value,
    push_time: Option<String>,
    push_failure_time: Option<String>,
    last_push_successful: bool,
    expire_time: Option<String>,
    seconds_left: Option<u64>,
    families: usize,
    series: usize,
    held_back: usize,
    pushes: u64,
    pushes_per_minute: u32,
    push_bytes: u64,
    pushes_refused: u64,
    updates: u64,
    last_peer: Option<String>,
}

impl ListedGroup {
    fn new(entry: &GroupEntry, expiry: &ExpiryView, now_ns: u64) -> Self {
        let activity = entry.activity();
        let (pushed, failed) = (entry.group.pushed(), entry.group.failed());
        let time = |time: Option<PushTime>| time.map(|time| rfc3339(time.wall_ns));
        Self {
            labels: object(entry.shown()),
            site: object(&entry.id().site),
            push_time: time(pushed),
            push_failure_time: time(failed),
            last_push_successful: pushed > failed,
            expire_time: expiry.expires_at_ns(entry).map(rfc3339),
            seconds_left: expiry.left_ns(entry).map(|ns| ns / 1_000_000_000),
            families: entry.shown_families().count(),
            series: series_len(entry),
            held_back: entry.suppressed_len(),
            pushes: activity.pushes,
            pushes_per_minute: activity.per_minute(now_ns),
            push_bytes: activity.bytes,
            pushes_refused: activity.refused,
            updates: activity.updates,
            last_peer: activity.last_peer.map(|peer| peer.to_string()),
        }
    }
}

/// The number of series that the group shows, without its push times.
pub fn series_len(entry: &GroupEntry) -> usize {
    entry.shown_families().map(|family| family.schema().series_len()).sum()
}

fn success(data: impl Serialize) -> HttpReply {
    let json = serde_json::to_vec(&json!({ "status": "success", "data": data })).expect("plain data is JSON");
    HttpReply::new(200, JSON, json)
}

/// The text by which the next answer begins after the group with these labels.
fn token(labels: &LabelSet) -> String {
    let pairs: Vec<(&str, &str)> = labels.iter().map(|label| (label.name, label.value)).collect();
    base64url::encode(&serde_json::to_vec(&pairs).expect("texts are JSON"))
}

/// The labels of the group that [`token`] was made of.
pub(super) fn labels_of_token(token: &str) -> Option<LabelSet> {
    let decoded = base64url::decode(token.as_bytes()).ok()?;
    let pairs: Vec<(String, String)> = serde_json::from_slice(&decoded).ok()?;
    Some(LabelSet::new(pairs))
}

/// The answer to a listing: `page` is a part of `total` groups; `more` says whether others follow it.
pub fn listing<'a>(
    page: impl Iterator<Item = &'a GroupEntry>,
    total: usize,
    more: bool,
    expiry: &ExpiryView,
    now_ns: u64,
) -> HttpReply {
    let (mut groups, mut last) = (Vec::new(), None);
    for entry in page {
        groups.push(ListedGroup::new(entry, expiry, now_ns));
        last = Some(entry.shown());
    }
    let mut data = json!({ "groups": groups, "total": total });
    if let Some(last) = last.filter(|_| more) {
        data["next"] = token(last).into();
    }
    success(data)
}

/// The outcome of a delete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeleteOutcome {
    /// Groups that the selectors matched.
    pub matched: usize,
    /// Series of these groups.
    pub series: usize,
    /// Groups that were deleted; 0 if none should be.
    pub deleted: usize,
    /// Whether nothing should be deleted.
    pub dry_run: bool,
}

/// The answer to a delete: `page` are the first of the groups.
pub fn deleted<'a>(
    page: impl Iterator<Item = &'a GroupEntry>,
    outcome: DeleteOutcome,
    expiry: &ExpiryView,
    now_ns: u64,
) -> HttpReply {
    let groups: Vec<ListedGroup> = page.map(|entry| ListedGroup::new(entry, expiry, now_ns)).collect();
    let DeleteOutcome { matched, series, deleted, dry_run } = outcome;
    success(json!({ "groups": groups, "total": matched, "series": series, "deleted": deleted, "dry_run": dry_run }))
}

/// The address of the scraped page, for service discovery.
#[derive(Clone, Copy, Debug)]
pub struct DiscoveryTarget<'a> {
    /// Host and port.
    pub address: &'a str,
    /// The path of the page.
    pub metrics_path: &'a str,
}

/// Targets for Prometheus's HTTP service discovery: each shard of the page.
pub fn shard_targets(target: DiscoveryTarget<'_>, shards: u32) -> HttpReply {
    let groups = Shard::all(shards).map(|shard| {
        json!({ "targets": [target.address], "labels": {
            "__metrics_path__": target.metrics_path,
            "__param_shard": shard.to_string(),
            "instance": format!("{} shard {shard}", target.address),
        } })
    });
    targets(groups.collect())
}

/// Targets for Prometheus's HTTP service discovery: each site, and one for what belongs to no site, the node's own metrics
/// included. `sites` have at least one label each, and are in order.
///
/// # Errors
/// The labels of the sites are too long for a selector.
pub fn site_targets(target: DiscoveryTarget<'_>, sites: &[&LabelSet]) -> Result<HttpReply, SelectorError> {
    let mut names: Vec<&str> = sites.iter().flat_map(|site| site.iter()).map(|label| label.name).collect();
    names.sort_unstable();
    names.dedup();
    let wider = WiderSites::new(sites);
    let mut groups = Vec::new();
    for site in sites {
        let own = site.iter().map(|label| (label.name, label.value));
        // Of two sites of which one has all labels of the other, and more, the one without them asks for none.
        let wider = wider.names(site);
        let others = names.iter().filter(|name| wider.contains(*name) && !site.contains(name)).map(|name| (*name, ""));
        let selector = Selector::of_labels(own.clone().chain(others))?;
        let values: Vec<&str> = own.clone().map(|(_, value)| value).collect();
        let mut labels: Map<String, Value> = own.map(|(name, value)| (name.to_owned(), value.into())).collect();
        labels.insert("__metrics_path__".into(), target.metrics_path.into());
        labels.insert("__param_match".into(), selector.to_string().into());
        labels.insert("instance".into(), format!("{} site {}", target.address, values.join(" ")).into());
        groups.push(json!({ "targets": [target.address], "labels": labels }));
    }
    let rest = names.iter().map(|name| (*name, ""));
    let rest = Selector::rest(rest)?;
    groups.push(json!({ "targets": [target.address], "labels": {
        "__metrics_path__": target.metrics_path,
        "__param_match": rest.to_string(),
        "instance": target.address,
    } }));
    Ok(targets(groups))
}

/// The sites, by the names of their labels: to find those that have all labels of another one, and more.
struct WiderSites<'a> {
    /// For the names of some sites, each larger set of names that sites have, with the values that those sites have of the
    /// first names.
    by_names: HashMap<Vec<&'a str>, Vec<WiderNames<'a>>>,
}

/// Names of labels, and the values that sites of these names have of fewer names.
type WiderNames<'a> = (Vec<&'a str>, HashSet<Vec<&'a str>>);

impl<'a> WiderSites<'a> {
    fn new(sites: &[&'a LabelSet]) -> Self {
        let mut of_names: BTreeMap<Vec<&str>, Vec<&LabelSet>> = BTreeMap::new();
        for site in sites {
            of_names.entry(site.iter().map(|label| label.name).collect()).or_default().push(site);
        }
        let larger = |names: &Vec<&'a str>| {
            let has_more =
                |other: &&Vec<&str>| other.len() > names.len() && names.iter().all(|name| other.contains(name));
            let larger = of_names.iter().filter(|(other, _)| has_more(other));
            let larger =
                larger.map(|(other, wide)| (other.clone(), wide.iter().map(|site| values(site, names)).collect()));
            larger.collect()
        };
        Self { by_names: of_names.keys().map(|names| (names.clone(), larger(names))).collect() }
    }

    /// The names of labels of the sites that have all labels of this one, and more.
    fn names(&self, site: &'a LabelSet) -> BTreeSet<&'a str> {
        let names: Vec<&str> = site.iter().map(|label| label.name).collect();
        let own = values(site, &names);
        let larger = self.by_names.get(&names).into_iter().flatten().filter(|(_, sites)| sites.contains(&own));
        larger.flat_map(|(names, _)| names.iter().copied()).collect()
    }
}

/// The values that a site has of these labels.
fn values<'a>(site: &'a LabelSet, names: &[&str]) -> Vec<&'a str> {
    names.iter().map(|name| site.get(name).unwrap_or_default()).collect()
}

fn targets(groups: Vec<Value>) -> HttpReply {
    HttpReply::new(200, JSON, Value::from(groups).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: DiscoveryTarget<'_> = DiscoveryTarget { address: "hub:9091", metrics_path: "/metrics" };

    fn params(reply: &HttpReply, name: &str) -> Vec<String> {
        let json: Value = serde_json::from_slice(&reply.body).unwrap();
        let groups = json.as_array().unwrap().iter();
        groups.map(|group| group["labels"][name].as_str().unwrap_or_default().to_owned()).collect()
    }

    #[test]
    fn a_token_returns_the_labels() {
        for labels in [vec![("job", "a")], vec![("a.b", "é\"\n"), ("job", "")]] {
            let labels = LabelSet::new(labels);
            assert_eq!(labels_of_token(&token(&labels)), Some(labels));
        }
        assert_eq!(labels_of_token("x"), None);
        assert_eq!(labels_of_token("e30"), None, "another JSON");
    }

    #[test]
    fn each_site_is_a_target_and_no_group_is_in_two() {
        let sites = [
            LabelSet::new([("IDC", "BJ")]),
            LabelSet::new([("IDC", "BJ"), ("room", "1")]),
            LabelSet::new([("IDC", "S\"Q")]),
        ];
        let reply = site_targets(TARGET, &sites.each_ref()).unwrap();
        let expected = [
            r#"{IDC="BJ",room=""}"#,
            r#"{IDC="BJ",room="1"}"#,
            r#"{IDC="S\"Q"}"#,
            r#"{__name__=~".+",IDC="",room=""}"#,
        ];
        assert_eq!(params(&reply, "__param_match"), expected);
        assert_eq!(params(&reply, "IDC"), ["BJ", "BJ", "S\"Q", ""]);
        let instances = ["hub:9091 site BJ", "hub:9091 site BJ 1", "hub:9091 site S\"Q", "hub:9091"];
        assert_eq!(params(&reply, "instance"), instances);
        let none = site_targets(TARGET, &[]).unwrap();
        assert_eq!(params(&none, "__param_match"), [r#"{__name__=~".+"}"#]);
    }

    #[test]
    fn many_sites_take_a_time_in_proportion() {
        let mut sites: Vec<LabelSet> =
            (0..20_000).map(|site| LabelSet::new([("IDC", format!("S{site:05}"))])).collect();
        sites.push(LabelSet::new([("IDC", "S00007"), ("room", "1")]));
        sites.sort();
        let started = std::time::Instant::now();
        let reply = site_targets(TARGET, &sites.iter().collect::<Vec<_>>()).unwrap();
        let selectors = params(&reply, "__param_match");
        assert_eq!(selectors.iter().filter(|selector| selector.contains("room=")).count(), 3);
        assert!(selectors.contains(&r#"{IDC="S00007",room=""}"#.to_owned()));
        // All pairs would be 400 million comparisons.
        assert!(started.elapsed() < std::time::Duration::from_secs(20), "{:?}", started.elapsed());
    }

    #[test]
    fn each_shard_is_a_target() {
        let reply = shard_targets(TARGET, 2);
        assert_eq!(params(&reply, "__param_shard"), ["1/2", "2/2"]);
        assert_eq!(params(&reply, "__metrics_path__"), ["/metrics"; 2]);
        assert_eq!(params(&reply, "instance"), ["hub:9091 shard 1/2", "hub:9091 shard 2/2"]);
    }
}
