//! The table of paths: the methods of each path, and the likely intended path for one that is not in the table.

use super::route_config::RouteConfig;
use super::url;

pub(super) const GET: &str = "GET";
pub(super) const HEAD: &str = "HEAD";
pub(super) const PUT: &str = "PUT";
pub(super) const POST: &str = "POST";
pub(super) const DELETE: &str = "DELETE";
pub(super) const OPTIONS: &str = "OPTIONS";

/// The handler of a path.
#[derive(Clone, Copy, Debug)]
pub(super) enum Endpoint {
    Group { job_encoded: bool, adds: bool },
    GroupFragment { job_encoded: bool },
    Scrape,
    Healthy,
    Ready,
    Index,
    StatusPage,
    Asset,
    Quit,
    Reload,
    LifecycleDisabled,
    QuitByGet,
    ApiStatus,
    ApiMetrics,
    ApiOptions,
    Groups,
    DeleteGroups,
    GroupsOptions,
    Discovery,
    Edges,
    Edge,
    Wipe,
}

/// The paths of an entry.
#[derive(Debug)]
enum Pattern {
    /// Exactly this path.
    Only(String),
    /// The paths that begin with `root`, which ends with a slash.
    Below {
        root: String,
        /// Whether the path must be longer than the root.
        more: bool,
    },
}

impl Pattern {
    /// The part of `path` after the pattern; `None` if the path does not match.
    fn rest<'p>(&self, path: &'p [u8]) -> Option<&'p [u8]> {
        match self {
            Self::Only(only) => (path == only.as_bytes()).then_some(b""),
            Self::Below { root, more } => path.strip_prefix(root.as_bytes()).filter(|rest| !(*more && rest.is_empty())),
        }
    }

    /// The matching path, if `path` differs from it only in case or by a trailing slash.
    fn folded(&self, path: &[u8]) -> Option<Vec<u8>> {
        let (text, more) = match self {
            Self::Only(only) => (only.as_bytes(), None),
            Self::Below { root, more } => (root.as_bytes(), Some(*more)),
        };
        let unslashed = |path: &[u8]| path.strip_suffix(b"/").unwrap_or(path).to_ascii_lowercase();
        if more != Some(true) && unslashed(path) == unslashed(text) {
            return Some(text.to_vec());
        }
        let (head, rest) = path.split_at_checked(text.len())?;
        let below = more.is_some() && !rest.is_empty() && head.eq_ignore_ascii_case(text);
        below.then(|| [text, rest].concat())
    }
}

#[derive(Debug)]
struct PathEntry {
    methods: &'static [&'static str],
    pattern: Pattern,
    endpoint: Endpoint,
}

#[derive(Debug)]
/// The paths below one root.
pub(super) struct Table(Vec<PathEntry>);

impl Table {
    /// All paths except those of the API. `prefix` is normalized.
    pub(super) fn of_pages(prefix: &str, config: &RouteConfig) -> Self {
        const PUSH: &[&str] = &[PUT, POST, DELETE];
        const LIFECYCLE: &[&str] = &[PUT, POST];
        const PAGE: &[&str] = &[GET, HEAD];
        let only = |path: &str| Pattern::Only(format!("{prefix}{path}"));
        let below = |path: &str, more| Pattern::Below { root: format!("{prefix}{path}"), more };
        let telemetry = format!("{prefix}/{}", config.telemetry_path);
        let telemetry =
            url::clean(telemetry.as_bytes()).map_or(telemetry, |clean| String::from_utf8_lossy(&clean).into());
        let lifecycle = |endpoint| if config.lifecycle { endpoint } else { Endpoint::LifecycleDisabled };
        let entries = [
            (PUSH, below("/metrics/job/", true), Endpoint::Group { job_encoded: false, adds: false }),
            (PUSH, below("/metrics/job@base64/", true), Endpoint::Group { job_encoded: true, adds: false }),
            (PUSH, below("/aggregate/metrics/job/", true), Endpoint::Group { job_encoded: false, adds: true }),
            (PUSH, below("/aggregate/metrics/job@base64/", true), Endpoint::Group { job_encoded: true, adds: true }),
            (&[GET], Pattern::Only(telemetry), Endpoint::Scrape),
            (&[GET], only("/-/healthy"), Endpoint::Healthy),
            (&[GET], only("/-/ready"), Endpoint::Ready),
            (LIFECYCLE, only("/-/quit"), lifecycle(Endpoint::Quit)),
            (LIFECYCLE, only("/-/reload"), lifecycle(Endpoint::Reload)),
            // As in Pushgateway, this path is without the prefix.
            (&[GET], Pattern::Only("/-/quit".to_owned()), Endpoint::QuitByGet),
            (PAGE, only("/"), Endpoint::Index),
            (PAGE, only("/status"), Endpoint::StatusPage),
            (PAGE, below("/status/group/job/", true), Endpoint::GroupFragment { job_encoded: false }),
            (PAGE, below("/status/group/job@base64/", true), Endpoint::GroupFragment { job_encoded: true }),
            (PAGE, below("/static/", false), Endpoint::Asset),
        ];
        Self(entries.map(|(methods, pattern, endpoint)| PathEntry { methods, pattern, endpoint }).into())
    }

    /// The paths of the API below `root`, which has no trailing slash.
    pub(super) fn of_api(root: &str, config: &RouteConfig) -> Self {
        let only = |path: &str| Pattern::Only(format!("{root}{path}"));
        let mut entries: Vec<(&[&str], Pattern, Endpoint)> = vec![
            (&[GET], only("/status"), Endpoint::ApiStatus),
            (&[GET], only("/metrics"), Endpoint::ApiMetrics),
            (&[GET], only("/groups"), Endpoint::Groups),
            (&[DELETE], only("/groups"), Endpoint::DeleteGroups),
            // Without the headers by which a browser lets pages of other origins delete.
            (&[OPTIONS], only("/groups"), Endpoint::GroupsOptions),
            (&[GET], only("/sd"), Endpoint::Discovery),
            (&[GET], only("/edges"), Endpoint::Edges),
            (&[OPTIONS], Pattern::Below { root: format!("{root}/"), more: false }, Endpoint::ApiOptions),
        ];
        if config.admin_api {
            entries.push((&[PUT], only("/admin/wipe"), Endpoint::Wipe));
            let edge = Pattern::Below { root: format!("{root}/edges/"), more: true };
            // No POST: pages of other origins may send one without asking.
            entries.push((&[PUT, DELETE], edge, Endpoint::Edge));
        }
        Self(entries.into_iter().map(|(methods, pattern, endpoint)| PathEntry { methods, pattern, endpoint }).collect())
    }

    /// The endpoint of `path` for that method, and the part of the path after an open-ended pattern.
    pub(super) fn find<'p>(&self, method: &str, path: &'p [u8]) -> Option<(Endpoint, &'p [u8])> {
        let of_method = self.0.iter().filter(|entry| entry.methods.contains(&method));
        of_method.filter_map(|entry| Some((entry.endpoint, entry.pattern.rest(path)?))).next()
    }

    /// The corrected path, if `path` nearly matches a route of the method.
    pub(super) fn fixed(&self, method: &str, path: &[u8]) -> Option<Vec<u8>> {
        if path == b"/" {
            return None;
        }
        let of_method = || self.0.iter().filter(|entry| entry.methods.contains(&method));
        // Pushgateway redirects a push without a job to a path that does not exist.
        let jobless = |entry: &PathEntry| match (&entry.pattern, entry.endpoint) {
            (Pattern::Below { root, .. }, Endpoint::Group { job_encoded: false, .. }) => root.as_bytes() == path,
            _ => false,
        };
        if of_method().any(jobless) {
            return Some(path[..path.len() - 1].to_vec());
        }
        // Nor does it find the labels after a job in base64 if the case differs.
        let lost = |entry: &PathEntry, fixed: &[u8]| match (&entry.pattern, entry.endpoint) {
            (Pattern::Below { root, .. }, Endpoint::Group { job_encoded: true, .. }) => {
                fixed[root.len()..].contains(&b'/')
            }
            _ => false,
        };
        of_method().find_map(|entry| entry.pattern.folded(path).filter(|fixed| !lost(entry, fixed)))
    }

    /// The methods that have a route to `path`, and OPTIONS, for an Allow header; `None` if there is no such method.
    pub(super) fn allowed(&self, path: &[u8]) -> Option<String> {
        let to_path = self.0.iter().filter(|entry| entry.pattern.rest(path).is_some());
        let mut methods: Vec<&str> =
            to_path.flat_map(|entry| entry.methods).copied().filter(|m| *m != OPTIONS).collect();
        if methods.is_empty() {
            return None;
        }
        methods.push(OPTIONS);
        methods.sort_unstable();
        methods.dedup();
        Some(methods.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::gateway::rights::Need;
    use crate::gateway::route::{Route, Router};

    /// Methods and path of each entry, the path as `docs/reference/http-api.md` writes it up to its first variable
    /// part.
    fn routes(table: &Table) -> impl Iterator<Item = (String, String)> {
        table.0.iter().map(|entry| {
            let path = match &entry.pattern {
                Pattern::Only(path) => path.clone(),
                Pattern::Below { root, .. } => format!("{root}<"),
            };
            (entry.methods.join(" "), path)
        })
    }

    /// An example of the paths of an entry, and its query.
    fn example(path: &str, method: &str) -> String {
        let rest = match path {
            "/static/<" => "page.css",
            "/api/v1/edges/<" if method == PUT => "x/retire",
            "/api/v1/groups" if method == DELETE => "?match[]={job=\"a\"}",
            path if path.ends_with("@base64/<") => "YQ",
            _ if path.ends_with('<') => "x",
            _ => "",
        };
        format!("{}{rest}", path.trim_end_matches('<'))
    }

    /// The right that the methods of a path need, as the reference writes it.
    fn right(router: &Router, methods: &str, path: &str) -> String {
        let named = |method: &str| {
            let uri = example(path, method);
            let (path, query) = uri.split_once('?').map_or((&*uri, None), |(path, query)| (path, Some(query)));
            let route = router.route(method, path, query);
            if let Route::Answer { reply, .. } = &route {
                assert!([200, 405].contains(&reply.status), "{method} {path} is no example: {reply:?}");
            }
            match route.need() {
                Need::Nothing => "–".to_owned(),
                Need::Group(right) | Need::SomeGroups(right) => right.to_string(),
                Need::Overview => "overview".to_owned(),
                Need::Node => "admin".to_owned(),
            }
        };
        let mut methods = methods.split(' ');
        let first = named(methods.next().unwrap());
        let others = methods.map(|method| (method, named(method))).filter(|(_, right)| *right != first);
        others.fold(first.clone(), |text, (method, right)| format!("{text}; {method}: {right}"))
    }

    #[test]
    fn the_http_reference_lists_the_routes_and_their_rights() {
        let config = RouteConfig { admin_api: true, lifecycle: true, ..RouteConfig::default() };
        let (pages, api, router) =
            (Table::of_pages("", &config), Table::of_api("/api/v1", &config), Router::new(&config));
        let routes = routes(&pages).chain(routes(&api));
        let routes: BTreeSet<_> =
            routes.map(|(methods, path)| (methods.clone(), path.clone(), right(&router, &methods, &path))).collect();
        let documented = include_str!("../../docs/reference/http-api.md")
            .lines()
            .skip_while(|line| *line != "## Routes")
            .skip(1)
            .take_while(|line| !line.starts_with("## "))
            .filter(|line| line.starts_with("| `"))
            .map(|line| {
                let mut cells = line.split('|').skip(1).map(str::trim);
                let mut cell = || cells.next().expect(line).replace('`', "");
                let (methods, path, right) = (cell().replace(',', ""), cell(), cell());
                let fixed = path.split_inclusive('<').next().unwrap_or_default();
                (methods, fixed.to_owned(), right)
            })
            .collect();
        assert_eq!(routes, documented, "routes (left) and rows of docs/reference/http-api.md (right)");
    }
}
