//! The page of one edge: its troubles, its health, the last hour, its groups. The tab of edges also loads it and shows its
//! content in place.

use std::sync::Arc;

use askama::Template;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::exposition::name::NameValidation;
use crate::model::LabelSet;
use crate::selector::Selector;

use super::super::path::group_path;
use super::super::reply::HttpReply;
use super::asset::VERSION;
use super::hub::{EdgeSummary, class};
use super::plot::Plot;
use super::{BusyGroup, PageFrame, PageOwner, page};

/// An edge in detail.
#[derive(Clone, Debug, Default)]
pub struct EdgeDetail {
    /// The edge.
    pub edge: EdgeSummary,
    /// Its health and its link: names and values.
    pub facts: Vec<(&'static str, String)>,
    /// The last hour.
    pub plots: Vec<Plot>,
    /// The groups of its site with the most writes.
    pub groups: Vec<BusyGroup>,
}

/// The page of an edge, at `/?edge=NAME`.
#[derive(Debug, Template)]
#[template(path = "edge.html")]
pub struct EdgePage<'a> {
    edge: EdgeSummary,
    facts: Vec<(&'static str, String)>,
    plots: Vec<Plot>,
    groups: Vec<BusyGroup>,
    copies: Vec<String>,
    selector_encoded: String,
    names: NameValidation,
    admin_api: bool,
    root: String,
    owner: &'a PageOwner,
    version: &'static str,
    at: &'static str,
}

impl<'a> EdgePage<'a> {
    /// The page of that edge. `admin_api` is whether to offer taking it off the roll.
    pub fn new(detail: EdgeDetail, names: NameValidation, frame: &'a PageFrame, admin_api: bool) -> Self {
        let EdgeDetail { edge, facts, plots, groups } = detail;
        let of_edge = Selector::of_labels([("edge", edge.name.as_str())]);
        let of_site = Selector::of_labels(edge.labels.iter().map(|label| (label.name, label.value)));
        let named = |name: &str| of_edge.as_ref().map(|selector| format!("{name}{selector}")).ok();
        let copies = ["pushrelay_edge_healthy", "pushrelay_edge_trouble"].into_iter().filter_map(named);
        let copies = copies.chain(of_site.as_ref().map(|selector| format!("push_time_seconds{selector}"))).collect();
        let text = of_site.map(|selector| selector.to_string()).unwrap_or_default();
        let selector_encoded = utf8_percent_encode(&text, NON_ALPHANUMERIC).to_string();
        let (root, owner, version) = (frame.at_depth(0), &frame.owner, &**VERSION);
        Self {
            edge,
            facts,
            plots,
            groups,
            copies,
            selector_encoded,
            names,
            admin_api,
            root,
            owner,
            version,
            at: "edges",
        }
    }

    /// The page as a reply.
    pub fn reply(&self) -> HttpReply {
        page(self)
    }

    fn class(&self) -> &'static str {
        class(self.edge.state)
    }

    fn path(&self, group: &BusyGroup) -> String {
        let labels: &Arc<LabelSet> = &group.labels;
        group_path(labels, self.names)
    }
}
