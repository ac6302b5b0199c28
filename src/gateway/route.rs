//! The route of a request, by its method and URL alone.
//!
//! The router behaves as Pushgateway's two routers do (prometheus/common/route, that is julienschmidt/httprouter 1.3,
//! behind Go's `http.ServeMux`, as in the packaged 1.11.2):
//!
//! - Paths are matched decoded.
//! - A path that is not clean is redirected to the clean one.
//! - A path that would match with one slash more or less, or in another case, is redirected to the match.
//! - A path that exists for other methods is answered with 405, or, for OPTIONS, with the list of methods. Only the pages
//!   have HEAD, which Pushgateway's have not.
//!
//! Differences: there is no `/debug/pprof/`; redirects below `/api/v1/` stay below it, instead of leading to `/`;
//! `/-/reload` and `/status/group/…` are additions.

use crate::exposition::name::NameValidation;
use crate::model::LabelSet;
use crate::selector::Selectors;
use crate::store::selection::ScrapeFilter;

use super::parameters::{self, GroupQuery};
use super::path::{AddressedGroup, grouping_key};
use super::reply::is_write;
use super::route_config::{RouteConfig, normal_prefix};
use super::table::{DELETE, Endpoint, GET, OPTIONS, PUT, Table};
use super::{HttpReply, PathOddity, pages, query, retiring, url};

/// The operation that a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// Push the body to a group: PUT replaces its families, POST those of the same names; below `/aggregate` both add.
    Push {
        /// The grouping key; at a hub, with the site labels.
        target: LabelSet,
        /// Whether it is a PUT.
        replace: bool,
        /// Whether the path is below `/aggregate`.
        adds: bool,
    },
    /// Delete a group.
    Delete {
        /// The group; at a hub, with the site labels.
        group: AddressedGroup,
    },
    /// Show all metrics, or those that a filter selects.
    Scrape {
        /// The filter.
        filter: ScrapeFilter,
    },
    /// List groups as JSON ([`super::groups::listing`]).
    Groups {
        /// The groups.
        query: GroupQuery,
    },
    /// Delete the groups that selectors match ([`super::groups::deleted`]).
    DeleteGroups {
        /// The selectors.
        selectors: Selectors,
        /// The other parameters.
        query: GroupQuery,
    },
    /// Name targets for Prometheus's service discovery ([`super::groups::site_targets`], [`super::groups::shard_targets`]).
    Discovery {
        /// The number of shards; one target a site if there is none.
        shards: Option<u32>,
    },
    /// Show all groups as JSON.
    Query,
    /// Show build, flags and start time as JSON ([`query::status`]).
    Status,
    /// Show the roll of edges as JSON.
    Edges,
    /// Take an edge off the roll.
    ForgetEdge {
        /// Its name.
        name: String,
    },
    /// Take an edge out of service.
    RetireEdge {
        /// Its name.
        name: String,
        /// Whether to delete the groups of its site too.
        delete_groups: bool,
    },
    /// Delete all groups.
    Wipe,
    /// Shut down.
    Quit,
    /// Read the configuration again.
    Reload,
    /// Report whether the node works.
    Healthy,
    /// Report whether the node accepts requests.
    Ready,
    /// The page of groups ([`pages::IndexPage`]).
    Index {
        /// The search, and the first group of the page.
        search: pages::Search,
    },
    /// The page of build, flags and start time ([`pages::StatusPage`]).
    StatusPage,
    /// The metrics of one group, for the page of groups ([`pages::GroupFragment`]).
    GroupFragment {
        /// The group; at a hub, with the site labels.
        group: AddressedGroup,
    },
    /// Answer at once; the node is not needed.
    Answer {
        /// The value of [`Route::handler`].
        handler: Option<&'static str>,
        /// The reply.
        reply: HttpReply,
    },
}

impl Route {
    /// The value of the label `handler` in `pushgateway_http_requests_total`; `None` for requests that Pushgateway does
    /// not count.
    pub fn handler(&self) -> Option<&'static str> {
        match self {
            Self::Push { .. } => Some("push"),
            Self::Delete { .. } => Some("delete"),
            Self::Query => Some("api/v1/metrics"),
            Self::Status => Some("api/v1/status"),
            Self::Groups { .. } | Self::DeleteGroups { .. } => Some("api/v1/groups"),
            Self::Discovery { .. } => Some("api/v1/sd"),
            Self::Edges | Self::ForgetEdge { .. } | Self::RetireEdge { .. } => Some("api/v1/edges"),
            Self::Wipe => Some("wipe"),
            Self::Healthy => Some("healthy"),
            Self::Ready => Some("ready"),
            Self::Index { .. } | Self::StatusPage | Self::GroupFragment { .. } => Some("status"),
            Self::Scrape { .. } | Self::Quit | Self::Reload => None,
            Self::Answer { handler, .. } => *handler,
        }
    }

    fn answer(reply: HttpReply) -> Self {
        Self::Answer { handler: None, reply }
    }
}

/// The routes of a configuration.
#[derive(Debug)]
pub struct Router {
    pages: Table,
    api: Table,
    /// The root of the API, without a trailing slash.
    api_root: String,
    names: NameValidation,
}

impl Router {
    /// Builds the routes.
    pub fn new(config: &RouteConfig) -> Self {
        let prefix = normal_prefix(&config.route_prefix);
        let api_root = format!("{prefix}/api/v1");
        Self {
            pages: Table::of_pages(&prefix, config),
            api: Table::of_api(&api_root, config),
            api_root,
            names: config.names,
        }
    }

    /// The route of a request. `raw` is the path as sent, not decoded; `query` is the part after `?`, if there is a
    /// `?`.
    pub fn route(&self, method: &str, raw: &str, query: Option<&str>) -> Route {
        match (method, raw) {
            (OPTIONS, "*") => return Route::answer(HttpReply::empty(200)),
            (_, "*") => return Route::answer(HttpReply::empty(400).with("Connection", "close")),
            ("CONNECT", _) if !raw.starts_with('/') => return Route::answer(HttpReply::not_found()),
            _ => {}
        }
        let Some(path) = url::decode(raw).filter(|path| path.starts_with(b"/")) else {
            return Route::answer(HttpReply::bad_request());
        };
        let oddity = || if is_write(method) { PathOddity::of(raw) } else { None };
        let redirect = |status: u16, path: &[u8], query: Option<&str>| {
            let mut location = url::escape(path);
            if let Some(query) = query {
                location.push('?');
                location.push_str(query);
            }
            Route::answer(HttpReply::redirect(status, method, location, oddity()))
        };
        let mut clean = url::clean(&path).filter(|_| method != "CONNECT");
        if clean.as_deref().unwrap_or(&path) == self.api_root.as_bytes() {
            clean = Some([self.api_root.as_bytes(), b"/"].concat());
        }
        if let Some(clean) = clean {
            // This redirect drops a question mark without a query; the one below keeps it.
            return redirect(301, &clean, query.filter(|query| !query.is_empty()));
        }
        let in_api = path.strip_prefix(self.api_root.as_bytes()).is_some_and(|rest| rest.starts_with(b"/"));
        let table = if in_api { &self.api } else { &self.pages };
        if let Some((endpoint, rest)) = table.find(method, &path) {
            let route = endpoint_route(endpoint, method, rest, query.unwrap_or_default(), self.names);
            return explained(route, oddity);
        }
        if let Some(fixed) = table.fixed(method, &path) {
            return redirect(if method == GET { 301 } else { 307 }, &fixed, query);
        }
        Route::answer(match table.allowed(&path) {
            None => HttpReply::no_route(method, &path),
            Some(allow) if method == OPTIONS => HttpReply::options(allow),
            Some(allow) => HttpReply::method_not_allowed(allow),
        })
    }

    /// The route to which a reply redirects a request.
    pub fn redirected(&self, method: &str, reply: &HttpReply) -> Option<Route> {
        let (_, location) = reply.headers.iter().find(|(name, _)| *name == "Location")?;
        Some(self.route(method, location.split('?').next()?, None))
    }
}

/// The route, with the oddity of the path as a further line if the path is no grouping key.
fn explained(mut route: Route, oddity: impl FnOnce() -> Option<PathOddity>) -> Route {
    if let Route::Answer { reply, .. } = &mut route
        && reply.status == 400
        && let Some(oddity) = oddity()
    {
        reply.body.extend_from_slice(format!("{oddity}\n").as_bytes());
    }
    route
}

/// The route to `endpoint`. `rest` is the part of the path after an open-ended pattern.
fn endpoint_route(endpoint: Endpoint, method: &str, rest: &[u8], query: &str, names: NameValidation) -> Route {
    let answer = |handler, reply| Route::Answer { handler: Some(handler), reply };
    match endpoint {
        Endpoint::Group { job_encoded, .. } if method == DELETE => match AddressedGroup::read(rest, job_encoded, names)
        {
            Ok(group) => Route::Delete { group },
            Err(error) => answer("delete", HttpReply::error(400, error)),
        },
        Endpoint::Group { job_encoded, adds } => match grouping_key(rest, job_encoded, names) {
            Ok(target) => Route::Push { target, replace: method == PUT, adds },
            Err(error) => answer("push", HttpReply::error(400, error)),
        },
        Endpoint::GroupFragment { job_encoded } => match AddressedGroup::read(rest, job_encoded, names) {
            Ok(group) => Route::GroupFragment { group },
            Err(error) => answer("status", HttpReply::error(400, error)),
        },
        Endpoint::Scrape => match parameters::scrape_filter(query) {
            Ok(filter) => Route::Scrape { filter },
            Err(error) => Route::answer(HttpReply::error(400, error)),
        },
        Endpoint::Groups => match parameters::group_query(query) {
            Ok(query) => Route::Groups { query },
            Err(error) => answer("api/v1/groups", HttpReply::error(400, error)),
        },
        Endpoint::DeleteGroups => match parameters::delete_query(query) {
            Ok((selectors, query)) => Route::DeleteGroups { selectors, query },
            Err(error) => answer("api/v1/groups", HttpReply::error(400, error)),
        },
        Endpoint::GroupsOptions => answer("api/v1/options", HttpReply::options("DELETE, GET, OPTIONS".into())),
        Endpoint::Discovery => match parameters::shards(query) {
            Ok(shards) => Route::Discovery { shards },
            Err(error) => answer("api/v1/sd", HttpReply::error(400, error)),
        },
        Endpoint::Healthy => Route::Healthy,
        Endpoint::Ready => Route::Ready,
        Endpoint::Index => Route::Index { search: pages::Search::of_query(query) },
        Endpoint::StatusPage => Route::StatusPage,
        Endpoint::Asset => answer("static", pages::asset(rest, query)),
        Endpoint::Quit => Route::Quit,
        Endpoint::Reload => Route::Reload,
        Endpoint::LifecycleDisabled => Route::answer(HttpReply::lifecycle_disabled()),
        Endpoint::QuitByGet => {
            Route::answer(HttpReply::new(405, super::reply::TEXT, "Only POST or PUT requests allowed."))
        }
        Endpoint::ApiStatus => Route::Status,
        Endpoint::ApiMetrics => Route::Query,
        Endpoint::ApiOptions => answer("api/v1/options", query::options()),
        Endpoint::Edges => Route::Edges,
        Endpoint::Edge => {
            edge_route(method, rest, query).unwrap_or_else(|text| answer("api/v1/edges", HttpReply::error(400, text)))
        }
        Endpoint::Wipe => Route::Wipe,
    }
}

/// The route of a request about one edge: `DELETE NAME`, or `PUT NAME/retire`.
fn edge_route(method: &str, rest: &[u8], query: &str) -> Result<Route, &'static str> {
    if method == DELETE {
        return Ok(Route::ForgetEdge { name: String::from_utf8_lossy(rest).into_owned() });
    }
    retiring::read(rest, query).map(|(name, delete_groups)| Route::RetireEdge { name, delete_groups })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn route(config: &RouteConfig, method: &str, uri: &str) -> Route {
        let (path, query) = uri.split_once('?').map_or((uri, None), |(path, query)| (path, Some(query)));
        Router::new(config).route(method, path, query)
    }

    /// A route to a group that does not exist.
    fn found(name: &str, group: AddressedGroup) -> String {
        group.find(|_| false).map_or_else(|error| format!("{name}: {error}"), |key| format!("{name} {key}"))
    }

    /// The outcome of a request in one line: the name of the route with its group, or the status of an answer with its
    /// `Allow` or `Location` header.
    fn outcome(config: &RouteConfig, method: &str, uri: &str) -> String {
        match route(config, method, uri) {
            Route::Push { target, adds: true, .. } => format!("add {target}"),
            Route::Push { target, replace, .. } => format!("push {target}{}", if replace { " replacing" } else { "" }),
            Route::Delete { group } => found("delete", group),
            Route::GroupFragment { group } => found("fragment", group),
            Route::Index { .. } => "Index".to_owned(),
            Route::Scrape { .. } => "Scrape".to_owned(),
            Route::Groups { .. } => "Groups".to_owned(),
            Route::DeleteGroups { .. } => "DeleteGroups".to_owned(),
            Route::Discovery { .. } => "Discovery".to_owned(),
            Route::Answer { reply, .. } => {
                let header = reply.headers.iter().find(|(name, _)| matches!(*name, "Allow" | "Location"));
                header.map_or(reply.status.to_string(), |(_, value)| format!("{} {value}", reply.status))
            }
            plain => format!("{plain:?}"),
        }
    }

    #[track_caller]
    fn check(config: &RouteConfig, recorded: &[(&str, &str, &str)]) {
        for (methods, uri, expected) in recorded {
            for method in methods.split(' ') {
                assert_eq!(outcome(config, method, uri), *expected, "{method} {uri}");
            }
        }
    }

    fn all_on() -> RouteConfig {
        RouteConfig {
            route_prefix: "/pg/".to_owned(),
            admin_api: true,
            lifecycle: true,
            names: NameValidation::Utf8,
            ..RouteConfig::default()
        }
    }

    #[test]
    fn each_path_answers_each_method_as_recorded() {
        const OTHERS: &str = "HEAD PATCH FOO TRACE";
        let config = RouteConfig::default();
        for (path, route) in [("/", "Index"), ("/status", "StatusPage"), ("/static/page.css", "200")] {
            check(&config, &[("GET HEAD", path, route), ("OPTIONS", path, "200 GET, HEAD, OPTIONS")]);
            check(&config, &[("PATCH FOO TRACE POST PUT DELETE", path, "405 GET, HEAD, OPTIONS")]);
        }
        for (path, route) in [("/metrics", "Scrape"), ("/-/healthy", "Healthy"), ("/-/ready", "Ready")] {
            check(&config, &[("GET", path, route), ("OPTIONS", path, "200 GET, OPTIONS")]);
            check(&config, &[(OTHERS, path, "405 GET, OPTIONS"), ("POST PUT DELETE", path, "405 GET, OPTIONS")]);
        }
        for (path, route) in [("/api/v1/status", "Status"), ("/api/v1/metrics", "Query"), ("/api/v1/edges", "Edges")] {
            check(&config, &[("GET", path, route), ("OPTIONS", path, "200")]);
            check(&config, &[(OTHERS, path, "405 GET, OPTIONS"), ("POST PUT DELETE", path, "405 GET, OPTIONS")]);
        }
        for path in ["/api/v1/admin/wipe", "/api/v1/edges/syq-1", "/api/v1/nope"] {
            check(&config, &[(OTHERS, path, "404"), ("GET POST PUT DELETE", path, "404"), ("OPTIONS", path, "200")]);
        }
        for (path, key) in [("/metrics/job/a", r#"{job="a"}"#), ("/metrics/job/a/x/y", r#"{job="a",x="y"}"#)] {
            let others = "405 DELETE, OPTIONS, POST, PUT";
            let (post, delete, add) = (format!("push {key}"), format!("delete {key}"), format!("add {key}"));
            check(&config, &[(OTHERS, path, others), ("GET", path, others), ("POST", path, &post)]);
            check(&config, &[("PUT", path, &format!("{post} replacing")), ("DELETE", path, &delete)]);
            check(&config, &[("OPTIONS", path, &others.replace("405", "200"))]);
            let below = format!("/aggregate{path}");
            check(&config, &[("GET", &below, others), ("PUT POST", &below, &add), ("DELETE", &below, &delete)]);
        }
        check(
            &config,
            &[
                (OTHERS, "/nope", "404"),
                ("GET POST PUT DELETE OPTIONS", "/nope", "404"),
                ("GET", "/-/quit", "405"),
                ("PUT POST", "/-/quit", "403"),
                ("DELETE", "/-/quit", "405 GET, OPTIONS, POST, PUT"),
                ("OPTIONS", "/-/quit", "200 GET, OPTIONS, POST, PUT"),
                ("GET", "/static/nope", "404"),
                ("GET", "/metrics/", "301 /metrics"),
                ("POST HEAD PATCH OPTIONS", "/metrics/", "404"),
                ("OPTIONS", "*", "200"),
                ("GET", "*", "400"),
                ("CONNECT", "x:80", "404"),
                ("CONNECT", "/metrics", "405 GET, OPTIONS"),
                ("CONNECT", "//metrics", "404"),
                ("GET", "", "400"),
            ],
        );
    }

    #[test]
    fn paths_that_nearly_match_are_redirected() {
        check(
            &RouteConfig::default(),
            &[
                ("GET", "/METRICS", "301 /metrics"),
                ("GET", "/METRICS/?a=b", "301 /metrics?a=b"),
                ("GET", "/metr%69cs/", "301 /metrics"),
                ("GET", "/metrics%2f", "301 /metrics"),
                ("GET", "/Metrics/Job/a", "404"),
                ("PUT POST DELETE", "/Metrics/Job/a", "307 /metrics/job/a"),
                ("PUT", "/METRICS/JOB/A/X/Y%20", "307 /metrics/job/A/X/Y%20"),
                ("POST", "/METRICS/JOB@BASE64/YQ", "307 /metrics/job@base64/YQ"),
                ("POST", "/METRICS/JOB@BASE64/YQ/x/y", "404"),
                ("POST", "/metrics/job@Base64/YQ/", "404"),
                ("GET", "/METRICS?", "301 /metrics?"),
                ("GET", "//metrics?", "301 /metrics"),
                ("PATCH PUT OPTIONS", "/METRICS", "404"),
                ("POST PUT", "/-/quit/", "307 /-/quit"),
                ("GET", "/-/quit/", "301 /-/quit"),
                ("PUT", "/-/QUIT", "307 /-/quit"),
                ("DELETE", "/-/QUIT", "404"),
                ("GET", "/-/HEALTHY", "301 /-/healthy"),
                ("GET", "/static", "301 /static/"),
                ("GET", "/api", "404"),
                ("GET", "/api/", "404"),
                ("GET", "/-", "404"),
                ("GET OPTIONS", "/api/v1", "301 /api/v1/"),
                ("GET", "/api/v1/", "404"),
                ("OPTIONS", "/api/v1/", "200"),
                ("POST", "/api/v1/status/", "404"),
                ("GET", "/api/v1//status", "301 /api/v1/status"),
                // Pushgateway leads to /status, another page.
                ("GET", "/api/v1/status/", "301 /api/v1/status"),
                ("GET", "/api/v1/STATUS", "301 /api/v1/status"),
                ("GET", "/API/v1/status", "404"),
            ],
        );
    }

    #[test]
    fn unclean_paths_are_redirected_whatever_the_method() {
        check(
            &RouteConfig::default(),
            &[
                ("PUT GET", "/metrics/job/a//b", "301 /metrics/job/a/b"),
                ("PUT", "//metrics/job/a?x=1", "301 /metrics/job/a?x=1"),
                ("PUT", "/metrics/job/a/x/%2F", "301 /metrics/job/a/x/"),
                ("PUT", "/metrics/job/a/x/..", "301 /metrics/job/a"),
                ("PUT", "/metrics/job/a/x/%2e%2e", "301 /metrics/job/a"),
                ("PUT", "/metrics/job/a/x/.", "301 /metrics/job/a/x"),
                ("PUT", "/metrics/job@base64//x/y", "301 /metrics/job@base64/x/y"),
                ("GET", "//", "301 /"),
                ("POST", "/api/v1/status/../.?q=1", "301 /api/v1/?q=1"),
                ("PUT", "/metrics/job/a//%C3%A9%3F%20!'", "301 /metrics/job/a/%C3%A9%3F%20%21%27"),
            ],
        );
    }

    #[test]
    fn pushes_without_a_job_or_with_an_invalid_key_are_answered() {
        check(
            &RouteConfig::default(),
            &[
                ("GET", "/metrics/job", "404"),
                ("GET", "/metrics/job/", "404"),
                ("PUT POST DELETE", "/metrics/job", "404"),
                ("PUT POST DELETE", "/metrics/job/", "307 /metrics/job"),
                ("POST", "/metrics/job@base64", "404"),
                ("POST", "/metrics/job@base64/", "404"),
                ("PUT", "/metrics/jobs/a", "404"),
                ("PUT", "/metrics/job@/a", "404"),
                ("PUT", "/metrics/job/a/x/%zz", "400"),
                ("PUT", "/metrics/job/a/x/%", "400"),
                ("PUT DELETE", "/metrics/job/a/b", "400"),
                ("PUT", "/metrics/job/a%2Fb", "400"),
                ("PUT", "/metrics/job/a/", r#"push {job="a"} replacing"#),
                ("PUT", "/metrics/job/a/b/", r#"push {b="",job="a"} replacing"#),
                ("POST", "/metrics/job/a/x/a?b", r#"push {job="a",x="a"}"#),
                ("POST", "/metrics/job/%20", r#"push {job=" "}"#),
                ("POST", "/metrics/job@base64/YQ==/b@base64/=", r#"push {b="",job="a"}"#),
            ],
        );
        let bad = route(&RouteConfig::default(), "DELETE", "/metrics/job/a/b");
        assert_eq!(bad.handler(), Some("delete"));
        let Route::Answer { reply, .. } = bad else { panic!("{bad:?}") };
        assert_eq!(reply.body, b"odd number of components in label string \"/b\"\n");
    }

    #[test]
    fn answers_to_odd_paths_name_the_oddity() {
        let body = |method: &str, path: &str| match route(&RouteConfig::default(), method, path) {
            Route::Answer { reply, .. } => String::from_utf8(reply.body).unwrap(),
            route => panic!("{route:?}"),
        };
        let redirected = body("PUT", "/metrics/job/a//b");
        let first = "nothing was pushed or deleted: the path is redirected to /metrics/job/a/b\n";
        assert_eq!(redirected, format!("{first}{}\n", PathOddity::EmptyPart));
        let refused = body("POST", "/metrics/job/a/branch/feature%2Flogin");
        assert_eq!(refused.lines().nth(1), Some(&*PathOddity::EscapedSlash.to_string()));
        assert!(refused.starts_with("odd number of components in label string "), "{refused}");
        let otherwise_written = body("DELETE", "/metrics/JOB/a");
        assert_eq!(otherwise_written, "nothing was pushed or deleted: the path is redirected to /metrics/job/a\n");
        assert_eq!(body("GET", "//metrics"), "<a href=\"/metrics\">Moved Permanently</a>.\n\n");
        assert_eq!(body("OPTIONS", "//metrics"), "");
    }

    #[test]
    fn all_routes_move_below_the_prefix() {
        check(
            &all_on(),
            &[
                ("GET POST OPTIONS HEAD", "/", "404"),
                ("GET", "/pg", "301 /pg/"),
                ("GET", "/PG", "301 /pg/"),
                ("POST OPTIONS", "/pg", "404"),
                ("GET", "/p", "404"),
                ("GET", "/pg/", "Index"),
                ("GET", "/pg/metrics", "Scrape"),
                ("GET", "/PG/METRICS", "301 /pg/metrics"),
                ("GET", "/metrics", "404"),
                ("PUT", "/metrics/job/a", "404"),
                ("GET", "/-/quit", "405"),
                ("POST", "/-/quit", "405 GET, OPTIONS"),
                ("GET DELETE", "/pg/-/quit", "405 OPTIONS, POST, PUT"),
                ("PUT POST", "/pg/-/quit", "Quit"),
                ("PUT POST", "/pg/-/reload", "Reload"),
                ("GET", "/pg/api/v1/status", "Status"),
                ("GET", "/api/v1/status", "404"),
                ("GET", "/pg/api/v1", "301 /pg/api/v1/"),
                ("GET", "/pg/api/v1/groups", "Groups"),
                ("GET", "/pg/api/v1/groups?match[]={job", "400"),
                ("DELETE", "/pg/api/v1/groups?match[]={job=%22a%22}", "DeleteGroups"),
                ("DELETE", "/pg/api/v1/groups", "400"),
                ("OPTIONS", "/pg/api/v1/groups", "200 DELETE, GET, OPTIONS"),
                ("PUT POST", "/pg/api/v1/groups", "405 DELETE, GET, OPTIONS"),
                ("GET", "/pg/api/v1/sd?shards=4", "Discovery"),
                ("GET", "/pg/api/v1/sd?shards=0", "400"),
                ("GET", "/pg/metrics?match[]=up&shard=1/4", "Scrape"),
                ("GET", "/pg/metrics?shard=4", "400"),
                ("PUT", "/pg/api/v1/admin/wipe", "Wipe"),
                ("GET POST DELETE HEAD", "/pg/api/v1/admin/wipe", "405 OPTIONS, PUT"),
                ("PUT", "/pg/api/v1/admin/wipe/", "307 /pg/api/v1/admin/wipe"),
                ("GET", "/pg/api/v1/edges", "Edges"),
                ("DELETE", "/pg/api/v1/edges/syq-1", r#"ForgetEdge { name: "syq-1" }"#),
                ("GET POST", "/pg/api/v1/edges/syq-1", "405 DELETE, OPTIONS, PUT"),
                ("PUT", "/pg/api/v1/edges/syq-1/retire", r#"RetireEdge { name: "syq-1", delete_groups: false }"#),
                (
                    "PUT",
                    "/pg/api/v1/edges/syq-1/retire?groups=delete",
                    r#"RetireEdge { name: "syq-1", delete_groups: true }"#,
                ),
                ("PUT", "/pg/api/v1/edges/syq-1/retire?groups=all", "400"),
                ("PUT", "/pg/api/v1/edges/syq-1", "400"),
                ("PUT", "/pg/metrics/job/a/U__x_2e_y/1", r#"push {job="a",x.y="1"} replacing"#),
                ("GET", "/pg/status/group/job/a/x/1", r#"fragment {job="a",x="1"}"#),
                ("GET", "/pg/status/group/job@base64/YQ", r#"fragment {job="a"}"#),
                ("GET", "/pg/status/group/job/a/x", "400"),
            ],
        );
    }

    #[test]
    fn the_telemetry_path_moves_the_scrape_and_nothing_else() {
        for path in ["/own", "own", "//own/"] {
            let config =
                RouteConfig { telemetry_path: path.trim_end_matches('/').to_owned(), ..RouteConfig::default() };
            check(
                &config,
                &[
                    ("GET", "/own", "Scrape"),
                    ("GET", "/own/", "301 /own"),
                    ("POST", "/own", "405 GET, OPTIONS"),
                    ("GET PUT OPTIONS", "/metrics", "404"),
                    ("PUT", "/metrics/job/a", r#"push {job="a"} replacing"#),
                ],
            );
        }
    }

    #[test]
    fn a_redirect_has_the_body_that_pushgateway_sends() {
        let Route::Answer { reply, .. } = route(&RouteConfig::default(), "GET", "/metrics/?a=b&c") else {
            panic!("answered at once")
        };
        assert_eq!(reply.body, b"<a href=\"/metrics?a=b&amp;c\">Moved Permanently</a>.\n\n");
        assert_eq!(reply.content_type, Some("text/html; charset=utf-8"));
    }

    proptest! {
        #[test]
        fn no_request_makes_it_panic(method in "[A-Z]{0,6}|PUT|GET", uri in "(/|metrics|job|@base64|api|v1|%2e|\\.|.){0,12}") {
            route(&all_on(), &method, &uri);
        }
    }
}
