//! The gateway's requests, carried out: routed and parsed by `gateway`, written by the writer, answered.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc;
use tracing::{debug, trace};

use super::clock::Clock;
use super::links::{Edges, Uplink, gather_uplinks};
use super::metrics::{Metrics, gather_store};
use super::scrape::{self, Page};
use super::writer::{WriteError, Writer};
use crate::exposition::{json, negotiate};
use crate::gateway::body::{self, BodyRules, Headers, PushError};
use crate::gateway::pages::{EdgeSummary, GroupFragment, GroupSummary, HeldFamily, HubSummary, IndexPage, StatusPage};
use crate::gateway::query::{self, NodeStatus};
use crate::gateway::{Reply, Route, Router};
use crate::model::{Family, GroupId, LabelSet, Moment};
use crate::net::http::{Body, BodyError, Handler, Incoming, Response};
use crate::store::view::time_families;
use crate::store::{Action, Block, Entry};

/// Groups and held-back families that a page shows, at most.
const PAGE_ROWS_MAX: usize = 20_000;

/// What a request can ask of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Shut down.
    Quit,
    /// Read configuration and certificates again.
    Reload,
}

/// Takes commands; answers with what came of them.
pub type Commands = mpsc::Sender<(Command, tokio::sync::oneshot::Sender<Result<(), String>>)>;

/// How requests are treated.
#[derive(Clone, Debug)]
pub struct ServiceRules {
    /// How bodies are read.
    pub body: BodyRules,
    /// Bytes of a body as sent, at most, if it is compressed.
    pub compressed_bytes_max: usize,
    /// Whether pushes are checked before they are answered.
    pub checked: bool,
    /// Whether everything can be deleted at once.
    pub admin_api: bool,
    /// Whether edges connect here.
    pub is_hub: bool,
}

/// See the module's documentation.
pub struct Service {
    /// Where what was asked leads.
    pub router: Router,
    /// How.
    pub rules: ServiceRules,
    /// Who writes.
    pub writer: Writer,
    /// The clocks.
    pub clock: Arc<Clock>,
    /// The node's own metrics.
    pub metrics: Arc<Metrics>,
    /// The edges, at a hub.
    pub edges: Arc<Edges>,
    /// The uplinks, at an edge.
    pub uplinks: Vec<Arc<Uplink>>,
    /// Build, flags and start time.
    pub status: NodeStatus,
    /// To the process.
    pub commands: Commands,
}

impl Handler for Service {
    async fn handle(&self, mut request: Incoming) -> Response {
        let started = Instant::now();
        let route = match request.query() {
            None => self.router.route(request.method(), request.path()),
            Some(query) => self.router.route(request.method(), &format!("{}?{query}", request.path())),
        };
        let handler = route.handler();
        let method = method_label(request.method());
        let response = self.carry_out(route, &mut request, started).await;
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
    async fn carry_out(&self, route: Route, request: &mut Incoming, started: Instant) -> Response {
        let reply = match route {
            Route::Push { target, replace } => self.push(target, replace, request, started).await,
            Route::Delete { target } => self.delete(target, request).await,
            Route::Scrape => return self.scrape(request),
            Route::Query => self.query(),
            Route::Status => query::status(&self.status),
            Route::Wipe => answer(self.writer.wipe().await, Reply::accepted),
            Route::Quit => self.command(Command::Quit).await,
            Route::Reload => self.command(Command::Reload).await,
            Route::Healthy | Route::Ready if self.writer.is_over() => Reply::failing("the writer has ended"),
            Route::Healthy | Route::Ready => Reply::ok(),
            Route::Index => self.index(),
            Route::StatusPage => StatusPage::new(&self.status).reply(),
            Route::GroupFragment { target } => self.fragment(&target),
            Route::Answer { reply, .. } => reply,
        };
        respond(reply, request.method() == "HEAD")
    }

    async fn push(&self, target: LabelSet, replace: bool, request: &mut Incoming, started: Instant) -> Reply {
        let body = match self.body(request).await {
            Ok(body) => body,
            Err(error) => return Reply::error(error.status(), error),
        };
        let method = if replace { "put" } else { "post" };
        let target = Arc::new(target);
        let held = self.writer.published().group(&GroupId { place: Arc::default(), key: target.clone() });
        let held = held.as_ref().map(|entry| &entry.group);
        let reply = match body::read(headers(request), &body, &target, held, &self.rules.body) {
            Ok(families) => {
                let action = if replace { Action::Put(families) } else { Action::Post(families) };
                answer(self.writer.write(target, action).await, || Reply::pushed(self.rules.checked))
            }
            Err(error) => self.refuse(target, error, request).await,
        };
        self.metrics.push(method, started.elapsed().as_secs_f64(), body.len());
        reply
    }

    async fn body(&self, request: &mut Incoming) -> Result<Body, BodyError> {
        let plain = request.header("content-encoding").unwrap_or_default().is_empty();
        let (bytes_max, key) = match plain {
            true => (self.rules.body.body_bytes_max, "limits.body_bytes_max"),
            false => (self.rules.compressed_bytes_max, "limits.compressed_body_bytes_max"),
        };
        request.body(bytes_max, key).await
    }

    /// A push that cannot be accepted whatever the store holds.
    async fn refuse(&self, target: Arc<LabelSet>, error: PushError, request: &Incoming) -> Reply {
        debug!(peer = %request.peer(), group = %target, %error, "push refused");
        if error.is_failed_push()
            && let Err(failure @ (WriteError::Storage(_) | WriteError::Stopped)) =
                self.writer.write(target, Action::Refuse).await
        {
            return Reply::unavailable(failure);
        }
        error.reply()
    }

    async fn delete(&self, target: LabelSet, request: &mut Incoming) -> Reply {
        let checked = match self.body(request).await {
            Ok(body) => body::check_delete(headers(request), &body),
            Err(error) => return Reply::error(error.status(), error),
        };
        match checked {
            Ok(()) => answer(self.writer.write(target, Action::Delete).await, Reply::accepted),
            Err(error) => error.reply(),
        }
    }

    fn scrape(&self, request: &Incoming) -> Response {
        let accept = request.headers("accept").collect::<Vec<_>>().join(",");
        let gzip = scrape::accepts_gzip(&request.headers("accept-encoding").collect::<Vec<_>>().join(","));
        let format = negotiate(&accept);
        let page = Page::new(self.writer.published(), self.own_families(), format, gzip);
        let response = Response::new(200).header("content-type", format.content_type());
        let response = if gzip { response.header("content-encoding", "gzip") } else { response };
        response.pieces(page)
    }

    /// All that the node tells of itself.
    pub fn own_families(&self) -> Vec<Family> {
        let mut families = self.metrics.gather();
        let (counts, head) = (self.writer.published().counts(), self.writer.published().head());
        families.extend(gather_store(counts, head));
        let now_ns = self.clock.wall_ns();
        families.extend(gather_uplinks(&self.uplinks, head, now_ns));
        families.extend(self.edges.gather(now_ns));
        families
    }

    fn query(&self) -> Reply {
        let groups = self.writer.published().groups();
        query::metrics(groups.iter().filter(|entry| !entry.header.held).map(|entry| group_json(entry)))
    }

    fn index(&self) -> Reply {
        let groups = self.writer.published().groups();
        let blocks = self.writer.published().snapshot();
        let mut held = Vec::new();
        for entry in &groups {
            let back = entry.families().filter_map(|(f, state)| Some((f, state.conflict.as_ref()?)));
            held.extend(back.map(|(f, conflict)| HeldFamily {
                name: f.family.name().clone(),
                group: entry.shown.clone(),
                reason: conflict.to_string(),
                incumbent: incumbent(&blocks, &f.family),
            }));
        }
        held.truncate(PAGE_ROWS_MAX);
        let now_ns = self.clock.wall_ns();
        let edges = self.edges.list().into_iter().map(|(name, edge)| EdgeSummary {
            name,
            lag_ns: Some(edge.lag_ns(now_ns)),
            labels: edge.place,
            connected: edge.link.connected,
            last_seen_ns: Some(edge.link.last_seen_ns).filter(|ns| *ns > 0),
            certificate_expires_ns: Some(edge.certificate_expiry_seconds.saturating_mul(1_000_000_000))
                .filter(|ns| *ns > 0),
            address: edge.address.map(|address| address.to_string()).unwrap_or_default(),
        });
        let hub = self.rules.is_hub.then(|| HubSummary { edges: edges.collect(), held });
        let summaries = groups.iter().take(PAGE_ROWS_MAX).map(|entry| summary(entry)).collect();
        IndexPage::new(summaries, hub, self.rules.admin_api, now_ns).reply()
    }

    fn fragment(&self, target: &LabelSet) -> Reply {
        let groups = self.writer.published().groups();
        match groups.binary_search_by(|entry| (*entry.shown).cmp(target)) {
            Ok(at) => GroupFragment::new(&groups[at].shown, &groups[at].group, self.rules.admin_api).reply(),
            Err(_) => Reply::error(404, format_args!("there is no group {target}")),
        }
    }

    async fn command(&self, command: Command) -> Reply {
        let (reply, outcome) = tokio::sync::oneshot::channel();
        if self.commands.send((command, reply)).await.is_err() {
            return Reply::unavailable(WriteError::Stopped);
        }
        let outcome = outcome.await.unwrap_or_else(|_| Err(WriteError::Stopped.to_string()));
        match command {
            Command::Quit => Reply::goodbye(),
            Command::Reload => Reply::reloaded(outcome),
        }
    }
}

/// The group whose family of another type is shown under the name, if that is what keeps this one back.
fn incumbent(blocks: &[(Arc<str>, Arc<Block>)], family: &Family) -> Option<Arc<LabelSet>> {
    let at = blocks.binary_search_by(|(name, _)| name.cmp(family.name())).ok()?;
    let first = blocks[at].1.entries().next()?;
    (first.family.shape().metric_type() != family.shape().metric_type()).then(|| first.labels.clone())
}

fn group_json(entry: &Entry) -> serde_json::Value {
    let (pushed, failed) = (entry.group.pushed(), entry.group.failed());
    let ns = |moment: Option<Moment>| moment.map_or(0, |moment| moment.wall_ns);
    let times = time_families(entry);
    let shown = entry.shown_families().map(|family| {
        let pushed_ns = entry.group.family(family.name()).map_or(0, |f| f.stamp.time_ns);
        (pushed_ns, family)
    });
    let families = shown.chain(times.iter().zip([ns(pushed), ns(failed)]).map(|(family, ns)| (ns, family)));
    json::group(&entry.shown, pushed > failed, families)
}

fn summary(entry: &Entry) -> GroupSummary {
    GroupSummary {
        labels: entry.shown.clone(),
        pushed_ns: entry.group.pushed().map(|moment| moment.wall_ns),
        failed_ns: entry.group.failed().map(|moment| moment.wall_ns),
        series_len: entry.shown_families().map(|family| family.shape().series_len()).sum(),
    }
}

fn headers(request: &Incoming) -> Headers<'_> {
    let first = |name| request.header(name).unwrap_or_default();
    Headers { content_type: first("content-type"), content_encoding: first("content-encoding") }
}

fn answer(outcome: Result<(), WriteError>, reply: impl FnOnce() -> Reply) -> Reply {
    match outcome {
        Ok(()) => reply(),
        Err(WriteError::Refused(refusal)) => Reply::refused(refusal),
        Err(error @ WriteError::TooLarge(_)) => Reply::error(413, error),
        Err(error) => {
            // The writer says once that it cannot write; this would say it for every push.
            debug!(%error, "write refused");
            Reply::unavailable(error)
        }
    }
}

fn respond(reply: Reply, head: bool) -> Response {
    let mut response = Response::new(reply.status);
    if let Some(content_type) = reply.content_type {
        response = response.header("content-type", content_type);
    }
    for (name, value) in &reply.headers {
        response = response.header(name, value.as_bytes());
    }
    if head { response } else { response.body(reply.body) }
}
