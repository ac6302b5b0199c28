//! The query of the page of groups: the search, the order, and the first group to show.
//!
//! A search is words that all occur in a group's labels, or a selector (`{job=~"ci-.*"}`).
//!
//! The search is part of the URL, so that it works without a script, as a bookmark, and across pages.

use std::borrow::Cow;
use std::fmt::Write as _;

use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::tab::PageTab;
use crate::model::{LabelSet, duration_ms};
use crate::selector::{METRIC_NAME, Selector};

/// The maximum bytes of the search text; the rest is cut off.
const TEXT_BYTES_MAX: usize = 1_000;
/// The maximum number of words; the others are ignored.
const WORDS_MAX: usize = 32;

/// The ages that the page offers as the least age of the last push, with their names.
pub(super) const AGES: [(&str, &str); 5] =
    [("1h", "1 hour"), ("6h", "6 hours"), ("1d", "1 day"), ("7d", "7 days"), ("30d", "30 days")];

/// The order of the groups on the page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GroupOrder {
    /// By their labels.
    #[default]
    Labels,
    /// The group whose last push is the longest ago comes first.
    Oldest,
    /// The group that was pushed to last comes first.
    Newest,
    /// The group with the most series comes first.
    Largest,
    /// The group with the most writes in the last minute comes first.
    Busiest,
    /// The group with the most refused pushes comes first, then the one whose push was refused last.
    Failures,
    /// The group that expires next comes first.
    Left,
}

impl GroupOrder {
    /// All of them, with their names in a query and on the page.
    pub(super) const ALL: [(Self, &str, &str); 7] = [
        (Self::Labels, "labels", "by labels"),
        (Self::Oldest, "oldest", "oldest first"),
        (Self::Newest, "newest", "newest first"),
        (Self::Largest, "largest", "largest first"),
        (Self::Busiest, "busiest", "busiest first"),
        (Self::Failures, "failures", "most failures first"),
        (Self::Left, "left", "least time left first"),
    ];

    /// Whether the order needs more than the labels and the times of pushes.
    pub fn needs_entries(self) -> bool {
        !matches!(self, Self::Labels | Self::Oldest | Self::Newest)
    }

    pub(super) fn parameter(self) -> &'static str {
        Self::ALL.into_iter().find(|order| order.0 == self).map_or("labels", |order| order.1)
    }
}

/// A search for groups, and the positions of the page's lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Search {
    /// The words, which must all occur in the labels, or a selector, which must match them.
    pub text: String,
    /// Whether only groups whose last push failed are found.
    pub failing: bool,
    /// Only groups whose last push is longer ago are found: one of the ages that the page offers; empty for all.
    pub older: &'static str,
    /// The order.
    pub order: GroupOrder,
    /// The number of found groups before this page.
    pub from: usize,
    /// The number of edges before this page.
    pub edges_from: usize,
    /// The number of suppressed families before this page.
    pub suppressed_from: usize,
    /// Whether only the list of groups is requested, without the page around it.
    pub list_only: bool,
    /// The tab: the one that the query names, or that has the list which the query is about.
    pub tab: PageTab,
    /// The edge whose page is requested.
    pub edge: Option<String>,
}

impl Search {
    /// Reads a query (`q=…&failing=1&from=…`). Unknown and malformed parameters are ignored.
    pub fn of_query(query: &str) -> Self {
        let (mut search, mut named, mut implied) = (Self::default(), None, None);
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let number = || value.parse().unwrap_or(0);
            match name {
                "q" => search.text = decoded(value),
                "failing" => search.failing = !matches!(value, "" | "0"),
                "older" => search.older = AGES.iter().find(|age| age.0 == value).map_or("", |age| age.0),
                "sort" => {
                    let order = GroupOrder::ALL.into_iter().find(|order| order.1 == value);
                    search.order = order.map_or(GroupOrder::Labels, |order| order.0);
                }
                "from" => (search.from, implied) = (number(), Some(PageTab::Groups)),
                "edges" => (search.edges_from, implied) = (number(), Some(PageTab::Edges)),
                "held" => (search.suppressed_from, implied) = (number(), Some(PageTab::HeldBack)),
                "part" => search.list_only = value == "list",
                "tab" => named = PageTab::of_name(value),
                "edge" => search.edge = Some(decoded(value)).filter(|name| !name.is_empty()),
                _ => {}
            }
        }
        if search.is_narrowing() || search.order != GroupOrder::Labels || search.list_only {
            implied = Some(PageTab::Groups);
        }
        search.tab = named.or(implied).unwrap_or_default();
        search
    }

    /// Whether the search can exclude a group.
    pub fn is_narrowing(&self) -> bool {
        self.failing || !self.older.is_empty() || !words(&self.text).is_empty()
    }

    /// The least age of the last push in nanoseconds.
    pub(super) fn older_ns(&self) -> u64 {
        duration_ms(self.older).map_or(0, |ms| ms * 1_000_000)
    }

    /// The search as a selector that `DELETE /api/v1/groups` takes; `None` if the search is another one.
    pub(super) fn as_selector(&self) -> Option<&str> {
        let is_selector_alone = !self.failing && self.older.is_empty() && selector(&self.text).is_some();
        is_selector_alone.then(|| self.text.trim())
    }

    /// The query of the same search that starts at another group.
    pub fn query_from(&self, from: usize) -> String {
        let mut query = String::from("?");
        if !self.text.is_empty() {
            let _ = write!(query, "q={}&", utf8_percent_encode(&self.text, NON_ALPHANUMERIC));
        }
        if self.failing {
            query.push_str("failing=1&");
        }
        if !self.older.is_empty() {
            let _ = write!(query, "older={}&", self.older);
        }
        if self.order != GroupOrder::Labels {
            let _ = write!(query, "sort={}&", self.order.parameter());
        }
        let _ = write!(query, "from={from}");
        query
    }

    /// Prepares the search.
    pub fn finder(&self) -> GroupFinder {
        let selector = selector(&self.text);
        let words = if selector.is_some() { Vec::new() } else { words(&self.text) };
        GroupFinder { selector, words, failing: self.failing, line: String::new() }
    }
}

/// Finds groups.
#[derive(Debug)]
pub struct GroupFinder {
    selector: Option<Selector>,
    words: Vec<String>,
    failing: bool,
    /// The labels of a group as text; a buffer that is reused.
    line: String,
}

impl GroupFinder {
    /// Whether the search finds a group with these labels. `failing` is whether its last push failed. Case and quotes
    /// are ignored, unless the search is a selector.
    pub fn finds(&mut self, labels: &LabelSet, failing: bool) -> bool {
        if self.failing && !failing {
            return false;
        }
        if let Some(selector) = &self.selector {
            return selector.matches(|name| labels.get(name));
        }
        if self.words.is_empty() {
            return true;
        }
        self.line.clear();
        for label in labels {
            lower(label.name, &mut self.line);
            self.line.push('=');
            lower(label.value, &mut self.line);
            self.line.push('\n');
        }
        self.words.iter().all(|word| self.line.contains(&**word))
    }
}

/// The selector that a search is. A text that is no selector, or not yet, is words: a person may still be typing.
fn selector(text: &str) -> Option<Selector> {
    let text = text.trim();
    // A metric name alone is a word here, as groups have none.
    let is_braced = text.starts_with('{') && text.ends_with('}');
    let selector = is_braced.then(|| Selector::parse(text).ok())??;
    selector.matchers().iter().all(|matcher| matcher.name() != METRIC_NAME).then_some(selector)
}

/// The words of a search, in the form of [`GroupFinder::line`]. A label as printed elsewhere (`{job="a",x="y"}`) finds its
/// group.
fn words(text: &str) -> Vec<String> {
    let outer = |c: char| c.is_whitespace() || matches!(c, '{' | '}' | ',' | '"');
    let words = text.split(char::is_whitespace).map(|word| {
        let mut lowered = String::new();
        lower(word.trim_matches(outer), &mut lowered);
        lowered
    });
    words.filter(|word| !word.is_empty()).take(WORDS_MAX).collect()
}

fn lower(text: &str, into: &mut String) {
    if text.is_ascii() {
        into.extend(text.chars().filter(|c| *c != '"').map(|c| c.to_ascii_lowercase()));
    } else {
        into.extend(text.chars().filter(|c| *c != '"').flat_map(char::to_lowercase));
    }
}

fn decoded(value: &str) -> String {
    let spaced: Cow<str> = if value.contains('+') { value.replace('+', " ").into() } else { value.into() };
    let text = percent_decode_str(&spaced).decode_utf8_lossy();
    let end = (0..=TEXT_BYTES_MAX.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    text[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finds(text: &str, labels: &[(&str, &str)]) -> bool {
        let search = Search { text: text.to_owned(), ..Search::default() };
        search.finder().finds(&LabelSet::new(labels.iter().copied()), false)
    }

    #[test]
    fn queries_are_read() {
        let search = Search::of_query("q=job%3Dbatch+%E6%97%A5&failing=1&older=6h&sort=oldest&from=200&part=list&x");
        assert_eq!(search.text, "job=batch 日");
        assert!(search.failing && search.list_only);
        assert_eq!((search.older_ns(), search.order), (6 * 3_600_000_000_000, GroupOrder::Oldest));
        assert_eq!(Search::of_query("older=1x&sort=size"), Search::default());
        assert_eq!(
            (Search::of_query("older=30d").older_ns(), Search::default().older_ns()),
            (2_592_000_000_000_000, 0)
        );
        assert_eq!((search.from, search.edges_from), (200, 0));
        let again = Search { list_only: true, ..Search::of_query(&search.query_from(200)[1..]) };
        assert_eq!(again, search);
        assert_eq!(Search::of_query("from=x&from=-1&q=%FF%").text, "\u{fffd}%");
        assert_eq!(Search::of_query(&format!("q={}", "é".repeat(9_000))).text.len(), TEXT_BYTES_MAX);
        let tab = |query: &str| Search::of_query(query).tab;
        assert_eq!(
            [tab(""), tab("tab=x"), tab("tab=edges"), tab("edges=50")],
            [PageTab::Now, PageTab::Now, PageTab::Edges, PageTab::Edges]
        );
        assert_eq!(
            [tab("q=a"), tab("from=0"), tab("sort=busiest"), tab("held=0")],
            [PageTab::Groups, PageTab::Groups, PageTab::Groups, PageTab::HeldBack]
        );
        assert_eq!(Search::of_query("edge=syq%2D1").edge.as_deref(), Some("syq-1"));
        assert!(!Search::of_query("").is_narrowing() && !Search::of_query("q=+%22").is_narrowing());
    }

    #[test]
    fn all_words_must_stand_in_the_labels() {
        let labels = &[("instance", "Host-1.example"), ("job", "nightly batch"), ("q", "a\"b")];
        for text in
            ["", "host-1 BATCH", "job=nightly", r#"{instance="host-1.example","#, r#"job="nightly batch""#, "ab"]
        {
            assert!(finds(text, labels), "{text}");
        }
        for text in ["host-2", "batch host-2", "job=host"] {
            assert!(!finds(text, labels), "{text}");
        }
        assert!(finds("ÄPFEL", &[("job", "äpfel")]));
    }

    #[test]
    fn a_selector_must_match_the_labels() {
        let labels = &[("IDC", "BJ"), ("job", "nightly batch")];
        for (text, expected) in [
            ("{job=\"nightly batch\"}", true),
            (" {IDC=~\"SYQ|BJ\",job=~\"night.*\"} ", true),
            ("{job=\"nightly\"}", false),
            ("{job=\"Nightly Batch\"}", false),
            ("{IDC!=\"BJ\",job!=\"\"}", false),
            ("{rack=\"\",job!=\"\"}", true),
            // No selectors: words.
            ("{job=\"nightly", true),
            ("{job=nightly}", true),
            ("{}", true),
        ] {
            assert_eq!(finds(text, labels), expected, "{text}");
        }
    }

    #[test]
    fn a_search_that_is_a_selector_alone_can_be_deleted() {
        let selector = |query: &str| Search::of_query(query).as_selector().map(str::to_owned);
        assert_eq!(selector("q=+%7Bjob%3D%22a%22%7D&sort=newest").as_deref(), Some("{job=\"a\"}"));
        for query in ["", "q=a", "q=%7Bjob%3Da%7D", "q=%7Bjob%3D%22a%22%7D&failing=1", "q=%7Bjob%3D%22a%22%7D&older=1d"]
        {
            assert_eq!(selector(query), None, "{query}");
        }
    }

    #[test]
    fn failing_groups_alone_are_found() {
        let search = Search { failing: true, ..Search::default() };
        let labels = LabelSet::new([("job", "a")]);
        assert!(search.finder().finds(&labels, true) && !search.finder().finds(&labels, false));
    }
}
