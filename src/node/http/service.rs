//! The gateway's requests: routed and parsed by `gateway`, committed by the writer, answered.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tracing::{debug, trace};

use super::auth::access::{AccessControl, Grant, is_in};
use super::auth::guard::GrantHandler;
use super::busiest::BusiestGroups;
use super::deletes::Deletes;
use super::oddities::Oddities;
use super::page_size::PageSize;
use super::protection::Protection;
use super::push_body::{LARGE_BYTES, PushRead, PushReadError, PushTerms, read_push};
use super::render_thread::RenderThread;
use super::scrape::ScrapeBody;
use crate::commit::WriteError;
use crate::compression::{FragmentEncoder, GzipMember, LEVEL_DEFAULT};
use crate::exposition::{json, negotiate};
use crate::gateway::adding::{self, AggregateRule};
use crate::gateway::body::{BodyReader, BodyRules, Headers, PushError};
use crate::gateway::lifetime::{EXPIRE_AFTER, lifetime};
use crate::gateway::pages::PageFrame;
use crate::gateway::path::{AddressedGroup, PathError};
use crate::gateway::query::{self, NodeStatus};
use crate::gateway::receipt::receipt;
use crate::gateway::rights::Right;
use crate::gateway::{HttpReply, PathOddity, Route, Router, accepts_gzip};
use crate::model::{ByteBudget, Family, GroupId, LabelSet, PushTime};
use crate::net::http::{Body, BodyError, Incoming, Response};
use crate::net::slots::Slots;
use crate::node::certificates::Certificates;
use crate::node::clock::Clock;
use crate::node::commit::Committer;
use crate::node::link::edge_metrics::gather_edges;
use crate::node::link::edges::EdgeRegistry;
use crate::node::link::enrolment::issuer::Enrolment;
use crate::node::link::hub::HubLinks;
use crate::node::link::status::{UplinkStatus, gather_uplinks};
use crate::node::link::web_entry::WebEntry;
use crate::node::metrics::{Metrics, gather_clock, gather_connections, gather_store};
use crate::node::remote_write::{RemoteWriteStatus, gather_remote_writes};
use crate::store::selection::ScrapeFilter;
use crate::store::view::time_families;
use crate::store::{ExpiryView, GroupEntry, Increment, Quota, StoreLimits, StoreRefusal, WriteOp, WriteTerms};

/// A request about the process itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LifecycleCommand {
    /// Shut down.
    Quit,
    /// Read configuration and certificates again.
    Reload,
}

/// The changed options that a reload found, by their flags' names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// Those that are in force now.
    pub taken: Vec<String>,
    /// Those that need a restart.
    pub waiting: Vec<String>,
}

/// Sends commands to the process, each with a channel for the outcome.
pub type LifecycleCommands = mpsc::Sender<(LifecycleCommand, tokio::sync::oneshot::Sender<Result<Reloaded, String>>)>;

/// The options that decide how requests are handled.
#[derive(Clone, Debug)]
pub struct ServiceRules {
    /// The options for reading bodies.
    pub body: BodyRules,
    /// Bytes of a compressed body as sent, at most.
    pub compressed_bytes_max: usize,
    /// Whether pushes are checked for consistency before the response.
    pub checked: bool,
    /// Whether the admin API, which deletes all groups, is enabled.
    pub admin_api: bool,
    /// The parts that all pages share.
    pub page_frame: PageFrame,
    /// The path of the scrape, below the prefix of the routes.
    pub telemetry_path: String,
    /// Whether edges connect to this node.
    pub is_hub: bool,
    /// Scrapes and responses of the query API in flight at once, at most.
    pub scrapes_max: usize,
    /// The groups that add up.
    pub aggregate: Vec<AggregateRule>,
    /// The limits of the store.
    pub store_limits: StoreLimits,
}

/// The service behind the guard. It has all that the requests need.
pub struct Service {
    /// Maps methods and paths to routes.
    pub router: Router,
    /// The options for handling requests.
    pub rules: ServiceRules,
    /// Parses the bodies of pushes.
    pub reader: BodyReader,
    /// Commits writes.
    pub committer: Committer,
    /// The node's clocks.
    pub clock: Arc<Clock>,
    /// The node's own metrics.
    pub metrics: Arc<Metrics>,
    /// The status of each edge; empty unless the node is a hub.
    pub edges: Arc<EdgeRegistry>,
    /// The link at this listener; `None` unless edges may connect here.
    pub web_entry: Option<WebEntry>,
    /// The links to edges; `None` unless the node is a hub.
    pub hub_links: Option<Arc<HubLinks>>,
    /// The expiry of the node's certificates.
    pub certificates: Arc<Certificates>,
    /// The status of each uplink.
    pub uplinks: Vec<Arc<UplinkStatus>>,
    /// The status of each receiver of remote write.
    pub remote_writes: Vec<Arc<RemoteWriteStatus>>,
    /// Build, flags and start time, for `/api/v1/status`.
    pub status: NodeStatus,
    /// Sends shutdown and reload commands to the process.
    pub commands: LifecycleCommands,
    /// The TLS acceptor and the refusal counters, for metrics.
    pub protection: Protection,
    /// The limits on connections, with their counters: of the gateway, and at a hub of the listeners for edges.
    pub slots: Vec<Slots>,
    /// Renders scrapes.
    pub render_thread: RenderThread,
    /// The rules of `[[allow]]`, for the metrics of their subjects.
    pub access: Arc<AccessControl>,
    /// The budget of the fragments that scrapes cache.
    pub cache_budget: ByteBudget,
    /// The size of the scraped page.
    pub page_size: PageSize,
    /// The odd paths of pushes and deletes.
    pub oddities: Oddities,
    /// The last deletes.
    pub deletes: Deletes,
    /// The groups with the most writes.
    pub busiest: BusiestGroups,
    /// Each scrape in flight has a permit. A response is large, and one HTTP/2 connection can request a hundred.
    pub scrape_permits: Arc<Semaphore>,
    /// Each push that is parsed with `block_in_place` has a permit meanwhile: more at once than there are processors
    /// gain nothing.
    pub large_push_permits: Semaphore,
    /// Each answer that waits for a hub has a permit.
    pub waiting_permits: Semaphore,
    /// Cancelled when the gateway stops.
    pub stop: CancellationToken,
}

/// A page of fewer bytes is not compressed: one packet has it.
const PAGE_BYTES_MIN: usize = 1_200;
/// A compressed push of fewer bytes is parsed on the connection's thread.
const LARGE_COMPRESSED_BYTES: usize = 8 << 10;

/// From this number of edges on, with some ten series each, own metrics are gathered with `block_in_place`.
const EDGES_MANY: usize = 256;

impl GrantHandler for Service {
    fn authenticates(&self, request: &Incoming) -> bool {
        self.web_entry.as_ref().is_some_and(|entry| entry.path == request.path())
    }

    async fn handle(&self, request: &mut Incoming, grant: &Grant) -> Response {
        let started = Instant::now();
        if let Some(entry) = self.web_entry.as_ref().filter(|entry| entry.path == request.path()) {
            return entry.answer(request);
        }
        let route = self.router.route(request.method(), request.path(), request.query());
        let handler = route.handler();
        let method = method_label(request.method());
        self.record_oddity(&route, request);
        let response = match grant.check(route.need()) {
            Ok(()) => self.dispatch(route, request, grant, started).await,
            Err(reply) => respond(reply),
        };
        // Reads the rest of the body: a client that is still sending would lose the response.
        request.discard().await;
        if let Some(handler) = handler {
            self.metrics.request(response.status(), handler, method);
        }
        trace!(peer = %request.peer(), method, path = request.path(), status = response.status(), "request");
        response
    }
}

/// The value of the label `method`.
fn method_label(method: &str) -> &'static str {
    const METHODS: [(&str, &str); 7] = [
        ("GET", "get"),
        ("PUT", "put"),
        ("POST", "post"),
        ("DELETE", "delete"),
        ("HEAD", "head"),
        ("OPTIONS", "options"),
        ("PATCH", "patch"),
    ];
    METHODS.iter().find(|(name, _)| *name == method).map_or("unknown", |(_, label)| label)
}

impl Service {
    async fn dispatch(&self, route: Route, request: &mut Incoming, grant: &Grant, started: Instant) -> Response {
        let reply = match route {
            Route::Push { target, replace, adds } => {
                let receipt = receipt(request.query().unwrap_or_default());
                let push = self.push(target, (replace, adds), request, grant, started);
                self.with_receipt(receipt, push).await
            }
            Route::Delete { group } => {
                let receipt = receipt(request.query().unwrap_or_default());
                self.with_receipt(receipt, self.delete(group, request, grant)).await
            }
            Route::Scrape { filter } => return self.scrape(filter, request, grant),
            Route::Groups { query } => return self.run_blocking(|| respond(self.list_groups(&query, grant))),
            Route::DeleteGroups { selectors, query } => {
                return self.delete_groups(selectors, query, request, grant).await;
            }
            Route::Discovery { shards } => {
                return self.run_blocking(|| respond(self.discovery(shards, request, grant)));
            }
            Route::Query => return self.query(grant),
            Route::Status => query::status(&self.status, &self.health_json(grant)),
            Route::Wipe => self.wipe(request, grant).await,
            Route::Edges => return self.run_blocking(|| respond(self.edges_json())),
            Route::ForgetEdge { name } => self.forget_edge(&name, request, grant).await,
            Route::RetireEdge { name, delete_groups } => self.retire_edge(&name, delete_groups, request, grant).await,
            Route::Quit => self.command(LifecycleCommand::Quit).await,
            Route::Reload => self.command(LifecycleCommand::Reload).await,
            Route::Healthy | Route::Ready if self.committer.is_over() => HttpReply::failing("the writer has ended"),
            Route::Healthy | Route::Ready => HttpReply::ok(),
            Route::Index { search } => {
                let request = &*request;
                return self.run_blocking(|| compressed(self.index(&search, grant), request));
            }
            Route::StatusPage => return compressed(self.status_page(request), request),
            Route::GroupFragment { group } => {
                let request = &*request;
                return self.run_blocking(|| compressed(self.fragment(group, request, grant), request));
            }
            Route::Answer { handler: Some("static"), reply } => return compressed(reply, request),
            Route::Answer { reply, .. } => reply,
        };
        respond(reply)
    }

    /// Records the path of a push or delete, if clients rarely mean such a path.
    fn record_oddity(&self, route: &Route, request: &Incoming) {
        let Some(oddity) = PathOddity::of(request.path()) else { return };
        let redirected = match route {
            Route::Answer { reply, .. } => self.router.redirected(request.method(), reply),
            _ => None,
        };
        let route = redirected.as_ref().unwrap_or(route);
        if let Route::Push { .. } | Route::Delete { .. } | Route::Answer { handler: Some("push" | "delete"), .. } =
            route
        {
            self.oddities.record(oddity, request.path(), self.changed_group(route).as_ref(), request.peer());
        }
    }

    /// The group that a push or delete changes.
    fn changed_group(&self, route: &Route) -> Option<LabelSet> {
        match route {
            Route::Push { target, .. } => Some(target.clone()),
            Route::Delete { group } => self.find_group(group.clone()).ok(),
            _ => None,
        }
    }

    async fn push(
        &self,
        target: LabelSet,
        (replace, is_below): (bool, bool),
        request: &mut Incoming,
        grant: &Grant,
        started: Instant,
    ) -> HttpReply {
        let quota = match grant.check_group(Right::Push, &target) {
            Ok(quota) => quota,
            Err(reply) => return reply,
        };
        let lifetimes: Vec<_> = request.headers_lossy(EXPIRE_AFTER).take(2).collect();
        let lifetime = match lifetime(lifetimes.iter().map(|value| &**value)) {
            Ok(lifetime) => lifetime,
            Err(error) => return HttpReply::error(400, error),
        };
        let gauges = adding::gauges_of(&self.rules.aggregate, &target, is_below);
        let key = match gauges.map(|_| adding::check_key(request.header_bytes(adding::IDEMPOTENCY_KEY))).transpose() {
            Ok(key) => key.flatten().map(<[u8]>::to_vec),
            Err(reply) => return reply,
        };
        let mut body = match self.body(request).await {
            Ok(body) => body,
            Err(error) => return HttpReply::error(error.status(), error),
        };
        let method = if replace { "put" } else { "post" };
        let target = Arc::new(target);
        let known = self.committer.published().group(&GroupId { site: Arc::default(), key: target.clone() });
        let sums = known.as_ref().filter(|_| gauges.is_some()).and_then(|entry| {
            let contributor = entry.group.contributors().pop()?;
            Some(entry.group.contributions(&contributor))
        });
        let current = if gauges.is_some() { sums.as_ref() } else { known.as_ref().map(|entry| &entry.group) };
        let (len, headers) = (body.len(), headers(request));
        let large_push_permits = if headers.content_encoding.is_empty() { LARGE_BYTES } else { LARGE_COMPRESSED_BYTES };
        let terms = PushTerms { target: &target, current, gauges, is_digested: key.is_some() };
        let mut read = || read_push(&self.reader, headers, &mut body, terms);
        let read = if len < large_push_permits { read() } else { self.read_blocking(read).await };
        let reply = match read {
            Ok(PushRead { families, digest }) => {
                let conflicts = self.known_conflicts(&target, families.iter().map(Family::name));
                let key = key.map(|key| adding::idempotency_key(&target, &key, digest));
                let action = match gauges {
                    Some(gauges) => WriteOp::Add(Increment { families, gauges, key }),
                    None if replace => WriteOp::Put(families),
                    None => WriteOp::Post(families),
                };
                let written = self.committer.write_within(target.clone(), action, WriteTerms { lifetime, quota }).await;
                note_quota(&written, grant);
                let verdict = if written.is_ok() { self.verdict(conflicts).await } else { None };
                verdict.unwrap_or_else(|| answer(written, || HttpReply::pushed(self.rules.checked)))
            }
            Err(PushReadError::Refused(error)) => self.refuse(target.clone(), error, request, quota).await,
            Err(PushReadError::Exhausted(error)) => HttpReply::unavailable(error),
        };
        self.metrics.push(method, started.elapsed().as_secs_f64(), len);
        // A group that is new, or that belongs to a site, is looked up by its labels.
        let known = known.or_else(|| self.committer.published().find(&target));
        if let Some(entry) = known {
            entry.count_push(len, reply.status >= 400, request.peer().ip(), self.clock.wall_ns());
        }
        reply
    }

    /// Parses a large push with `block_in_place`, so that other connections are served by another thread meanwhile.
    async fn read_blocking<T>(&self, read: impl FnOnce() -> T) -> T {
        // The semaphore is never closed.
        let _turn = self.large_push_permits.acquire().await;
        tokio::task::block_in_place(read)
    }

    pub(super) async fn body(&self, request: &mut Incoming) -> Result<Body, BodyError> {
        let plain = request.header("content-encoding").unwrap_or_default().is_empty();
        let (bytes_max, key) = match plain {
            true => (self.rules.body.body_bytes_max, "limits.body_bytes_max"),
            false => (self.rules.compressed_bytes_max, "limits.compressed_body_bytes_max"),
        };
        request.body(bytes_max, key).await
    }

    /// Refuses a push that is not valid, whatever the store contains.
    async fn refuse(
        &self,
        target: Arc<LabelSet>,
        error: PushError,
        request: &Incoming,
        quota: Option<Arc<Quota>>,
    ) -> HttpReply {
        debug!(peer = %request.peer(), group = %target, %error, "push refused");
        if error.is_failed_push()
            && let Err(failure @ (WriteError::Storage(_) | WriteError::Stopped)) =
                self.committer.write_within(target, WriteOp::Refuse, WriteTerms { lifetime: None, quota }).await
        {
            return HttpReply::unavailable(failure);
        }
        // Without checks no pusher waits for them: only the group shows that the push failed, as in Pushgateway.
        if error.is_failed_push() && !self.rules.checked { HttpReply::pushed(false) } else { error.reply() }
    }

    /// The key of the group that a request addresses.
    pub(super) fn find_group(&self, group: AddressedGroup) -> Result<LabelSet, PathError> {
        let published = self.committer.published();
        group.find(|key| published.find(key).is_some())
    }

    fn scrape(&self, filter: ScrapeFilter, request: &Incoming, grant: &Grant) -> Response {
        let filter = ScrapeFilter { scope: grant.scope(Right::Read), ..filter };
        let scrape_permit = match self.scrape_permit() {
            Ok(scrape_permit) => scrape_permit,
            Err(reply) => return respond(reply),
        };
        let gzip = accepts_gzip(request.headers("accept-encoding"));
        let format = negotiate(request.header("accept").unwrap_or_default());
        let own = match self.edges.count() {
            // They belong to no group.
            _ if filter.scope.is_some() => Vec::new(),
            0..EDGES_MANY => self.own_families(),
            _ => tokio::task::block_in_place(|| self.own_families()),
        };
        let (published, gzip_budget) = (self.committer.published(), gzip.then_some(&self.cache_budget));
        let page = match filter.is_everything() {
            true => ScrapeBody::new(published, own, format, gzip_budget).measured(&self.page_size),
            false => ScrapeBody::filtered(published, own, filter, format, gzip_budget),
        };
        let response = Response::new(200).header("content-type", format.content_type());
        let response = response.header("vary", "Accept, Accept-Encoding");
        let response = if gzip { response.header("content-encoding", "gzip") } else { response };
        response.parts(self.render_thread.render(page)).with_guard(scrape_permit)
    }

    /// The rules of expiry, by the time of the corrected clock.
    pub(super) fn expiry(&self) -> ExpiryView {
        ExpiryView::new(self.committer.published(), self.clock.now().stamp_ns)
    }

    /// A permit for a scrape, kept until its response is sent; the error response if there are too many.
    pub(super) fn scrape_permit(&self) -> Result<OwnedSemaphorePermit, HttpReply> {
        self.scrape_permits.clone().try_acquire_owned().map_err(|_| {
            let max = self.rules.scrapes_max;
            let text = format_args!("{max} scrapes are on their way already (limits.scrapes_max): try again later");
            HttpReply::error(503, text)
        })
    }

    /// All metrics of the node itself.
    pub fn own_families(&self) -> Vec<Family> {
        let mut families = self.metrics.gather();
        let published = self.committer.published();
        let (counts, head) = (published.counts(), published.head());
        families.extend(gather_store(counts, head, &published.suppressed_by_site()));
        families.extend(gather_clock(published));
        let now_ns = self.clock.wall_ns();
        families.extend(gather_uplinks(&self.uplinks, head, now_ns));
        families.extend(gather_edges(&self.edges, now_ns));
        families.extend(gather_remote_writes(&self.remote_writes));
        if let Some(hub_links) = &self.hub_links {
            families.push(hub_links.refusals.gather());
            families.extend(hub_links.enrolment.as_ref().map(Enrolment::gather));
        }
        families.extend(self.protection.gather());
        families.push(self.access.gather());
        families.extend(gather_connections(&self.slots));
        families.extend(self.certificates.gather());
        families.push(self.page_size.gather());
        families
    }

    fn query(&self, grant: &Grant) -> Response {
        let scope = grant.scope(Right::Read);
        self.run_blocking(|| {
            let groups = self.committer.published().groups_where(|labels| is_in(scope.as_ref(), labels));
            let shown = groups.iter().filter(|entry| !entry.header.suppressed);
            respond(query::list(shown.map(|entry| group_json(entry))))
        })
    }

    /// Makes a response that is built as a whole and takes long if there is much data. It has a scrape's permit, and
    /// other connections are served by another thread meanwhile.
    fn run_blocking(&self, make: impl FnOnce() -> Response) -> Response {
        match self.scrape_permit() {
            Ok(scrape_permit) => tokio::task::block_in_place(make).with_guard(scrape_permit),
            Err(reply) => respond(reply),
        }
    }

    async fn command(&self, command: LifecycleCommand) -> HttpReply {
        let (reply, outcome) = tokio::sync::oneshot::channel();
        if self.commands.send((command, reply)).await.is_err() {
            return HttpReply::unavailable(WriteError::Stopped);
        }
        let outcome = outcome.await.unwrap_or_else(|_| Err(WriteError::Stopped.to_string()));
        match command {
            LifecycleCommand::Quit => HttpReply::goodbye(),
            LifecycleCommand::Reload => {
                HttpReply::reloaded(outcome.map(|Reloaded { taken, waiting }| (taken, waiting)))
            }
        }
    }
}

/// Records that the quota of the sender refused a push.
fn note_quota(written: &Result<(), WriteError>, grant: &Grant) {
    if let Err(WriteError::Refused(StoreRefusal::Quota { .. })) = written {
        grant.note_limited();
    }
}

fn group_json(entry: &GroupEntry) -> serde_json::Value {
    let (pushed, failed) = (entry.group.pushed(), entry.group.failed());
    let ns = |moment: Option<PushTime>| moment.map_or(0, |moment| moment.wall_ns);
    let times = time_families(entry);
    let shown = entry.shown_families().map(|family| {
        let pushed_ns = entry.group.family(family.name()).map_or(0, |f| f.stamp.time_ns);
        (pushed_ns, family)
    });
    let families = shown.chain(times.iter().zip([ns(pushed), ns(failed)]).map(|(family, ns)| (ns, family)));
    json::group(entry.shown(), pushed > failed, families)
}

pub(super) fn headers(request: &Incoming) -> Headers<'_> {
    let first = |name| request.header(name).unwrap_or_default();
    Headers { content_type: first("content-type"), content_encoding: first("content-encoding") }
}

pub(super) fn answer(outcome: Result<(), WriteError>, reply: impl FnOnce() -> HttpReply) -> HttpReply {
    match outcome {
        Ok(()) => reply(),
        Err(WriteError::Refused(refusal)) => HttpReply::of_refusal(&refusal),
        Err(error @ WriteError::TooLarge(_)) => HttpReply::error(413, error),
        Err(error) => {
            // The writer logs once that it cannot write. A warning here would repeat it for every push.
            debug!(%error, "write refused");
            HttpReply::unavailable(error)
        }
    }
}

/// The response with that page, compressed if the client accepts it.
fn compressed(mut reply: HttpReply, request: &Incoming) -> Response {
    if reply.body.len() >= PAGE_BYTES_MIN && accepts_gzip(request.headers("accept-encoding")) {
        let (mut member, mut body) = (GzipMember::new(), Vec::new());
        member.add(&FragmentEncoder::new(LEVEL_DEFAULT).encode(&reply.body), &mut body);
        member.finish(&mut body);
        reply.body = body;
        reply = reply.with("Content-Encoding", "gzip");
    }
    // Caches store only answers with a rule of their own.
    let is_cached = reply.headers.iter().any(|(name, _)| *name == "Cache-Control");
    respond(if is_cached { reply.with("Vary", "Accept-Encoding") } else { reply })
}

pub(super) fn respond(reply: HttpReply) -> Response {
    let mut response = Response::new(reply.status);
    if let Some(content_type) = reply.content_type {
        response = response.header("content-type", content_type);
    }
    for (name, value) in &reply.headers {
        response = response.header(name, value.as_bytes());
    }
    response.body(reply.body)
}
