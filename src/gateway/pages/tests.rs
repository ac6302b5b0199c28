//! The pages as they are sent, without a browser (`tests/pages` has one).

use std::sync::Arc;

use super::*;
use crate::exposition::name::NameValidation;
use crate::gateway::query::NodeStatus;
use crate::model::LabelSet;

const NOW_SECONDS: f64 = 1_795_343_653.0;
const NOW: u64 = 1_795_343_653_000_000_000;
const HOSTILE: &str = "<script>alert(1)</script>\"'&";

fn labels(pairs: &[(&str, &str)]) -> Arc<LabelSet> {
    Arc::new(LabelSet::new(pairs.iter().copied()))
}

fn html(reply: HttpReply) -> String {
    assert_eq!((reply.status, reply.content_type), (200, Some(HTML)));
    assert!(reply.headers.contains(&("Content-Security-Policy", CONTENT_SECURITY_POLICY.into())));
    String::from_utf8(reply.body).unwrap()
}

/// The list of groups that were all pushed a minute ago; the last push of those that begin with `failing` failed since.
fn list(query: &str, groups: &[Arc<LabelSet>]) -> GroupList {
    let failed = |labels: &LabelSet| labels.get("job").is_some_and(|job| job.starts_with("failing"));
    let times = groups.iter().map(|labels| {
        let failed = if failed(labels) { NOW_SECONDS - 5.0 } else { 0.0 };
        (labels, NOW_SECONDS - 60.0, failed)
    });
    GroupList::new(&Search::of_query(query), times, NameValidation::Legacy, &PageFrame::default(), NOW)
}

fn index(query: &str, groups: &[Arc<LabelSet>]) -> String {
    html(IndexPage::new(list(query, groups), false).reply())
}

#[test]
fn groups_are_listed_with_their_paths() {
    let groups = [labels(&[("job", "b/c"), ("x", "1")]), labels(&[("job", "failing")])];
    let page = index("", &groups);
    assert!(page.contains(r#"href="status/group/job@base64/Yi9j/x/1""#), "{page}");
    assert!(page.contains(r#"data-delete="job@base64/Yi9j/x/1""#), "{page}");
    assert!(page.contains(">60 s ago</time>") && page.contains(">5 s ago</time>"), "{page}");
    assert!(page.contains("2 groups") && !page.contains("Delete all") && !page.contains(">Edges"), "{page}");
}

#[test]
fn a_scrape_that_some_scrapers_refuse_is_reported() {
    let page = |bytes| html(IndexPage::new(list("", &[]), false).with_large_scrape(bytes).reply());
    assert!(page(Some(17_825_793)).contains("A scrape has 17.0 MiB of text."));
    assert!(!page(None).contains("max_scrape_size"));
}

#[test]
fn a_link_escapes_a_label_that_looks_escaped() {
    let groups = [labels(&[("job", "a"), ("U__x_2e_y", "1")])];
    assert!(index("", &groups).contains(r#"data-delete="job/a/U__x_2e_y/1""#));
}

#[test]
fn deleting_all_is_offered_where_it_is_allowed() {
    let page = |groups: &[Arc<LabelSet>], admin| html(IndexPage::new(list("", groups), admin).reply());
    assert!(page(&[labels(&[("job", "a")])], true).contains("Delete all groups"));
    assert!(!page(&[], true).contains("Delete all groups"));
    assert!(!page(&[labels(&[("job", "a")])], false).contains("Delete all groups"));
}

#[test]
fn a_search_finds_by_words_and_by_failure() {
    let groups = [labels(&[("job", "a")]), labels(&[("job", "failing")]), labels(&[("job", "other")])];
    let found = |query: &str| list(query, &groups).reply().body.windows(13).filter(|w| w == b"<li class=\"gr").count();
    assert_eq!([found(""), found("q=a"), found("q=job%3Da"), found("failing=1"), found("q=x")], [3, 2, 1, 1, 0]);
    let page = index("q=%22%3E%3Cscript%3E", &groups);
    assert!(page.contains(r#"value="&#34;&#62;&#60;script&#62;""#) && page.contains("None of 3 groups"), "{page}");
}

#[test]
fn groups_are_ordered_and_chosen_by_the_age_of_their_last_push() {
    let groups = [labels(&[("job", "a")]), labels(&[("job", "b")]), labels(&[("job", "c")])];
    let jobs = |query: &str| {
        let ages = [120.0, 90_000.0, 60.0];
        let times = groups.iter().zip(ages).map(|(labels, age)| (labels, NOW_SECONDS - age, 0.0));
        let frame = PageFrame::default();
        let list = GroupList::new(&Search::of_query(query), times, NameValidation::Legacy, &frame, NOW);
        let page = html(list.reply());
        let jobs = page.split("data-delete=\"job/").skip(1).map(|rest| rest[..1].to_owned());
        jobs.collect::<String>()
    };
    assert_eq!([jobs(""), jobs("sort=oldest"), jobs("sort=newest")], ["abc", "bac", "cab"]);
    let weighed =
        |labels| WeighedGroup { labels, times: (NOW_SECONDS, 0.0), weight: u64::from(labels.get("job") == Some("b")) };
    let search = Search::of_query("sort=largest");
    let list = GroupList::weighed(
        &search,
        groups.iter().rev().map(weighed),
        NameValidation::Legacy,
        &PageFrame::default(),
        NOW,
    );
    let page = html(list.reply());
    let jobs_weighed: String = page.split("data-delete=\"job/").skip(1).map(|rest| rest[..1].to_owned()).collect();
    assert_eq!(jobs_weighed, "bac");
    assert_eq!([jobs("older=1d"), jobs("older=1h&q=a"), jobs("older=7d")], ["b", "", ""]);
}

#[test]
fn a_page_says_whose_it_is() {
    let owner = PageOwner { role: "edge", name: "syq-1".into(), site: labels(&[("IDC", "SYQ")]) };
    let frame = PageFrame::new(None, owner);
    let status = NodeStatus::default();
    let page = html(StatusPage::new(&status, StatusState::default(), &frame, NOW).reply());
    assert!(page.contains("<title>Status · syq-1 · pushrelay</title>"), "{page}");
    assert!(
        page.contains(r#"edge <b><bdi>syq-1</bdi></b> <span class="label"><i>IDC</i>=<bdi>"SYQ"</bdi></span>"#),
        "{page}"
    );
}

#[test]
fn pushed_texts_are_escaped() {
    let hostile = labels(&[("job", HOSTILE)]);
    let edge = EdgeSummary {
        name: HOSTILE.into(),
        labels: hostile.clone(),
        address: HOSTILE.into(),
        version: HOSTILE.into(),
        troubles: vec![TroubleSummary { text: HOSTILE.into(), remedy: "" }],
        ..EdgeSummary::default()
    };
    let shown_instead = ShownSummary {
        name: HOSTILE.into(),
        group: Some(hostile.clone()),
        site: Some(hostile.clone()),
        ..ShownSummary::default()
    };
    let suppressed = SuppressedSummary {
        name: HOSTILE.into(),
        group: hostile.clone(),
        reason: HOSTILE.into(),
        shown_instead: Some(shown_instead),
        ..SuppressedSummary::default()
    };
    let uplink = UplinkSummary { hub: HOSTILE.into(), last_error: HOSTILE.into(), ..UplinkSummary::default() };
    let own = TroubleSummary { text: HOSTILE.into(), remedy: "" };
    let delete = DeleteSummary { what: HOSTILE.into(), who: HOSTILE.into(), ..DeleteSummary::default() };
    let busy = BusyGroup { labels: hostile.clone(), last_peer: HOSTILE.into(), ..BusyGroup::default() };
    let index = |query: &str| {
        let index = IndexPage::new(list(query, std::slice::from_ref(&hostile)), true).with_troubles(vec![own.clone()]);
        let index = index.with_edges(vec![edge.clone()]).with_uplinks(vec![uplink.clone()]);
        let index = index.with_busiest(vec![busy.clone()]).with_deletes(vec![delete.clone()]);
        index.with_suppressed(vec![suppressed.clone()], Some, vec![(hostile.clone(), 1)])
    };
    let pairs = vec![(HOSTILE.to_owned(), HOSTILE.to_owned())];
    let changed = vec![(HOSTILE.to_owned(), HOSTILE.to_owned(), HOSTILE.to_owned())];
    let status = NodeStatus { build: pairs.clone(), flags: pairs, changed, start_ns: NOW };
    let certificate = CertificateExpiry { file: HOSTILE.into(), ..CertificateExpiry::default() };
    let state =
        StatusState { certificates: vec![certificate], scrape_config: HOSTILE.into(), ..StatusState::default() };
    let detail = EdgeDetail { edge: edge.clone(), facts: vec![("x", HOSTILE.into())], ..EdgeDetail::default() };
    let detail = html(EdgePage::new(detail, NameValidation::Legacy, &PageFrame::default(), true).reply());
    for page in [index("").reply(), index("tab=edges").reply(), index("tab=held").reply(), index("tab=groups").reply()]
        .map(html)
    {
        assert!(!page.contains("<script>") && !page.contains("\"'&"), "{page}");
        assert!(page.contains("&#60;script&#62;alert(1)&#60;/script&#62;"), "{page}");
    }
    for page in [detail, html(StatusPage::new(&status, state, &PageFrame::default(), NOW).reply())] {
        assert!(!page.contains("<script>") && !page.contains("\"'&"), "{page}");
        assert!(page.contains("&#60;script&#62;alert(1)&#60;/script&#62;"), "{page}");
    }
}

#[test]
fn a_hundred_thousand_groups_are_a_small_page() {
    let host = |i| labels(&[("job", "batch"), ("instance", &format!("host-{i:05}.example.org:9100"))]);
    let groups: Vec<_> = (0..100_000).map(host).collect();
    for (query, summary) in [
        ("", "1 to 100 of 100,000 groups"),
        ("q=host-0000&from=5", "6 to 10 of 10 groups found, of 100,000"),
        ("from=123456", "99,901 to 100,000 of 100,000 groups"),
    ] {
        let page = index(query, &groups);
        assert!(page.contains(summary) && page.len() < 100 << 10, "{} bytes without {summary:?}", page.len());
    }
}
