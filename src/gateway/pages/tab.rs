//! The tabs of the page at `/`, and the links to all tabs.

use super::PageOwner;

/// A tab of the page at `/`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PageTab {
    /// What is wrong now, and counts. At a node without edges the groups too.
    #[default]
    Now,
    /// The edges of a hub.
    Edges,
    /// The groups.
    Groups,
    /// The suppressed families.
    HeldBack,
}

impl PageTab {
    const ALL: [(Self, &str, &str); 4] = [
        (Self::Now, "now", "Now"),
        (Self::Edges, "edges", "Edges"),
        (Self::Groups, "groups", "Groups"),
        (Self::HeldBack, "held", "Held back"),
    ];

    /// The tab of that name in a query.
    pub(super) fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(_, known, _)| *known == name).map(|(tab, ..)| tab)
    }

    /// Its name in a query.
    pub(super) fn name(self) -> &'static str {
        Self::ALL.into_iter().find(|(tab, ..)| *tab == self).map_or("now", |(_, name, _)| name)
    }

    /// Its name for people.
    pub(super) fn title(self) -> &'static str {
        Self::ALL.into_iter().find(|(tab, ..)| *tab == self).map_or("Now", |(.., title)| title)
    }
}

impl PageOwner {
    /// Whether edges connect to the node.
    pub(super) fn has_edges(&self) -> bool {
        ["hub", "relay"].contains(&self.role)
    }

    /// The name, the link and the text of each tab.
    pub(super) fn tabs(&self) -> Vec<(&'static str, &'static str, &'static str)> {
        let mut tabs = vec![("now", "./", "Now")];
        tabs.extend(self.has_edges().then_some(("edges", "./?tab=edges", "Edges")));
        tabs.push(("groups", "./?tab=groups", "Groups"));
        tabs.push(("held", "./?tab=held", "Held back"));
        tabs.push(("status", "status", "Status"));
        tabs
    }
}
