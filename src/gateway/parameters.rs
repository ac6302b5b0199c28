//! The parameters of queries that select: `match[]`, `shard`, `limit` and the like.

use percent_encoding::percent_decode_str;
use thiserror::Error;

use super::group_sort::GroupSort;
use super::groups::labels_of_token;
use crate::model::{LabelSet, truncated};
use crate::selector::{SELECTORS_MAX, Selector, SelectorError, Selectors};
use crate::store::selection::{SHARDS_MAX, ScrapeFilter, Shard, ShardError};

/// Groups that one answer lists, unless `limit` says otherwise.
const LIMIT_DEFAULT: usize = 100;
/// Groups that one answer lists, at most.
const LIMIT_MAX: usize = 10_000;

/// A parameter that cannot be used: the answer is 400.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ParameterError {
    /// The text is not UTF-8 when it is decoded.
    #[error("the parameter {0} is not UTF-8")]
    Encoding(&'static str),
    /// A selector is broken.
    #[error("{0}")]
    Selector(#[from] SelectorError),
    /// The shard is broken.
    #[error("{0}")]
    Shard(#[from] ShardError),
    /// A selector names metrics where whole groups are meant.
    #[error("selector {0}: __name__ selects series, and only whole groups can be listed or deleted: leave it out")]
    Metric(String),
    /// There is no selector.
    #[error("match[] is missing: it says which groups to delete, such as match[]={{job=\"backup\"}}")]
    NoMatch,
    /// A delete has a parameter that it does not know: it could be meant to narrow or to stop it.
    #[error("a delete has no parameter {0:?}: it knows match[], limit and dry_run")]
    Unknown(String),
    /// `dry_run` is there twice.
    #[error("dry_run is there more than once")]
    Repeated,
    /// A number is none, or beyond its bounds.
    #[error("{name}={value:?} is no number from {min} to {max}")]
    Number {
        /// The parameter.
        name: &'static str,
        /// Its value.
        value: String,
        /// The smallest valid number.
        min: usize,
        /// The largest valid number.
        max: usize,
    },
    /// A listing cannot go on there.
    #[error("after={0:?} is no value of \"next\" in an answer to a listing")]
    After(String),
    /// There is no such order.
    #[error("sort={0:?} is no order of groups: rate, pushes, bytes, series and refused are")]
    Sort(String),
    /// A sorted listing has no next page.
    #[error("a listing with sort cannot go on after another: raise limit instead, or leave one of both out")]
    SortAfter,
    /// An answer cannot wait for that.
    #[error("wait={0:?} is unknown: the answer can wait for wait=hub only")]
    Wait(String),
    /// An answer cannot wait that long.
    #[error("timeout={0:?} is no time from 1ms to 60s, like 5s")]
    Timeout(String),
    /// A parameter is neither `true` nor `false`.
    #[error("{name}={value:?} is neither true nor false")]
    Truth {
        /// The parameter.
        name: &'static str,
        /// Its value.
        value: String,
    },
}

/// The groups that a listing or a delete asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupQuery {
    /// Only groups that these match; all if there are none.
    pub selectors: Option<Selectors>,
    /// Groups in the answer, at most.
    pub limit: usize,
    /// Only groups after the one with these labels.
    pub after: Option<LabelSet>,
    /// The order, the largest first; by labels if there is none.
    pub sort: Option<GroupSort>,
    /// Whether nothing is deleted.
    pub dry_run: bool,
}

/// The values of a parameter, decoded, in order.
fn values<'q>(
    query: &'q str,
    names: &'static [&'static str],
) -> impl Iterator<Item = Result<String, ParameterError>> + 'q {
    query.split('&').filter_map(move |pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = percent_decode_str(name).decode_utf8().ok()?;
        names.contains(&&*name).then(|| {
            let value = value.replace('+', " ");
            let decoded = percent_decode_str(&value).decode_utf8().map(|value| value.into_owned());
            decoded.map_err(|_| ParameterError::Encoding(names[0]))
        })
    })
}

/// The first value of a parameter.
pub(super) fn value(query: &str, names: &'static [&'static str]) -> Result<Option<String>, ParameterError> {
    values(query, names).next().transpose()
}

/// The union of all `match[]`. Prometheus before version 3 cannot set a parameter of that name by service discovery, so
/// `match` means the same.
fn selectors(query: &str) -> Result<Option<Selectors>, ParameterError> {
    let texts = values(query, &["match[]", "match"]).take(SELECTORS_MAX + 1).collect::<Result<Vec<_>, _>>()?;
    if texts.is_empty() { Ok(None) } else { Ok(Some(Selectors::parse(&texts)?)) }
}

fn number(query: &str, names: &'static [&'static str], max: usize) -> Result<Option<usize>, ParameterError> {
    let Some(text) = value(query, names)? else { return Ok(None) };
    let number = text.parse().ok().filter(|number| (1..=max).contains(number));
    number.map(Some).ok_or(ParameterError::Number { name: names[0], value: text, min: 1, max })
}

fn truth(query: &str, names: &'static [&'static str]) -> Result<bool, ParameterError> {
    match value(query, names)?.as_deref() {
        None | Some("false" | "0") => Ok(false),
        Some("true" | "1" | "") => Ok(true),
        Some(text) => Err(ParameterError::Truth { name: names[0], value: text.to_owned() }),
    }
}

/// The filter of a scrape: `match[]=SELECTOR`, any number of times, and `shard=I/N`. Other parameters are ignored.
///
/// # Errors
/// One of them is broken.
pub fn scrape_filter(query: &str) -> Result<ScrapeFilter, ParameterError> {
    let shard = value(query, &["shard"])?.map(|text| text.parse::<Shard>()).transpose()?;
    Ok(ScrapeFilter { selectors: selectors(query)?, shard, scope: None })
}

/// The groups to list or to delete: `match[]`, `limit`, `after` and `dry_run`.
///
/// # Errors
/// One of them is broken, or a selector selects series instead of groups.
pub fn group_query(query: &str) -> Result<GroupQuery, ParameterError> {
    let selectors = selectors(query)?;
    if let Some(selector) = selectors.as_ref().and_then(Selectors::naming_metric) {
        return Err(ParameterError::Metric(Selector::to_string(selector)));
    }
    let sort = value(query, &["sort"])?.map(|name| GroupSort::of_name(&name).ok_or(ParameterError::Sort(name)));
    let sort = sort.transpose()?;
    if sort.is_some() && value(query, &["after"])?.is_some() {
        return Err(ParameterError::SortAfter);
    }
    let after = value(query, &["after"])?.map(|token| labels_of_token(&token).ok_or(ParameterError::After(token)));
    Ok(GroupQuery {
        selectors,
        limit: number(query, &["limit"], LIMIT_MAX)?.unwrap_or(LIMIT_DEFAULT),
        after: after.transpose()?,
        sort,
        dry_run: truth(query, &["dry_run"])?,
    })
}

/// The groups to delete: as for [`group_query`], with at least one selector.
///
/// # Errors
/// As for [`group_query`], there is no selector, or a parameter is not one of a delete: nothing that could be meant to
/// narrow or to stop a delete is ignored.
pub fn delete_query(query: &str) -> Result<(Selectors, GroupQuery), ParameterError> {
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let name = pair.split_once('=').map_or(pair, |(name, _)| name);
        let name = percent_decode_str(name).decode_utf8_lossy();
        if !["match[]", "match", "limit", "dry_run"].contains(&&*name) {
            return Err(ParameterError::Unknown(truncated(&name).to_string()));
        }
    }
    if values(query, &["dry_run"]).count() > 1 {
        return Err(ParameterError::Repeated);
    }
    let query = group_query(query)?;
    let selectors = query.selectors.clone().ok_or(ParameterError::NoMatch)?;
    Ok((selectors, query))
}

/// The number of shards for service discovery: `shards=N`.
///
/// # Errors
/// It is no number of shards.
pub fn shards(query: &str) -> Result<Option<u32>, ParameterError> {
    Ok(number(query, &["shards"], SHARDS_MAX as usize)?.map(|shards| shards as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delete_ignores_nothing_that_could_narrow_or_stop_it() {
        let error = |query: &str| delete_query(query).unwrap_err().to_string();
        for name in ["dryrun", "after", "shard", "dry%2Drun"] {
            assert!(
                error(&format!("match[]={{job=\"a\"}}&{name}=1")).starts_with("a delete has no parameter"),
                "{name}"
            );
        }
        assert_eq!(error("match[]={job=\"a\"}&dry_run=false&dry_run=true"), "dry_run is there more than once");
        let (_, query) = delete_query("match%5B%5D={job=\"a\"}&dry_run=true&limit=5").unwrap();
        assert!(query.dry_run);
    }

    #[test]
    fn scrapes_are_filtered_by_selectors_and_shards() {
        assert!(
            scrape_filter("").unwrap().is_everything() && scrape_filter("collect[]=x&debug").unwrap().is_everything()
        );
        let filter =
            scrape_filter("match[]=%7BIDC%3D%22BJ%22%7D&match%5B%5D=up&shard=2%2F4&match={job%3D~%22a+b%22}").unwrap();
        assert_eq!(filter.selectors.unwrap().to_string(), "{IDC=\"BJ\"} or up or {job=~\"a b\"}");
        assert_eq!(filter.shard.unwrap().to_string(), "2/4");
        let error = |query: &str| scrape_filter(query).unwrap_err().to_string();
        assert_eq!(error("match[]={job"), "selector \"{job\", column 5: expected =, !=, =~ or !~, found the end");
        assert_eq!(error("match[]="), "selector \"\", column 1: expected a metric name or {, found the end");
        assert_eq!(error("match[]=%ff"), "the parameter match[] is not UTF-8");
        for shard in ["", "0/4", "5/4", "1/0", "1", "a/4", "+1/4", "1/1001", "1/4/4"] {
            let text = error(&format!("shard={}", shard.replace('+', "%2B")));
            assert!(text.starts_with(&format!("shard {shard:?} is not I/N")), "{text}");
        }
        assert!(error(&"match[]={a=\"1\"}&".repeat(99)).contains("more than 64 selectors"));
    }

    #[test]
    fn groups_are_selected_by_their_labels() {
        let query = group_query("match[]={job=\"a\"}&limit=5&after=W1siam9iIiwiYSJdXQ&dry_run=true").unwrap();
        let after = query.after.unwrap().to_string();
        assert_eq!((query.limit, &*after, query.dry_run), (5, "{job=\"a\"}", true));
        let all = group_query("").unwrap();
        assert_eq!((all.selectors, all.limit, all.after, all.dry_run), (None, LIMIT_DEFAULT, None, false));
        assert_eq!(group_query("sort=pushes&limit=3").unwrap().sort, Some(GroupSort::Pushes));
        for (query, text) in
            [("sort=size", "sort=\"size\" is no order"), ("sort=rate&after=W10", "a listing with sort")]
        {
            assert!(group_query(query).unwrap_err().to_string().starts_with(text), "{query}");
        }
        let error = |query: &str| delete_query(query).unwrap_err().to_string();
        assert!(error("").starts_with("match[] is missing"));
        assert!(error("match[]=up").starts_with("selector up: __name__ selects series"));
        assert_eq!(error("match[]={a=\"b\"}&limit=0"), "limit=\"0\" is no number from 1 to 10000");
        let after = group_query("after=x").unwrap_err().to_string();
        assert_eq!(after, "after=\"x\" is no value of \"next\" in an answer to a listing");
        assert_eq!(error("match[]={a=\"b\"}&dry_run=maybe"), "dry_run=\"maybe\" is neither true nor false");
        assert_eq!((shards("shards=4"), shards("x")), (Ok(Some(4)), Ok(None)));
        assert!(shards("shards=0").is_err() && shards("shards=1001").is_err());
    }
}
