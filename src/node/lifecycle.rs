//! The life of a node. At start it reads the store, binds the addresses, and starts all tasks. At shutdown it drains
//! them in the order of their dependencies.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use futures_util::future::OptionFuture;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::certificates::{Certificates, CredentialsUser, LoadedCredentials, load_credentials, log_problems};
use super::clock::Clock;
use super::commit::Committer;
use super::descriptors::{self, ConnectionBounds};
use super::error::StartError;
use super::expiry::Expirer;
use super::health::HealthSources;
use super::held_back;
use super::http::busiest::BusiestGroups;
use super::http::deletes::Deletes;
use super::http::oddities::Oddities;
use super::http::page_owner::page_owner;
use super::http::page_size::PageSize;
use super::http::protection::Protection;
use super::http::receipts::WAITING_MAX;
use super::http::render_thread::RenderThread;
use super::http::server::HttpServer;
use super::http::service::{LifecycleCommand, Reloaded, Service};
use super::http::service_rules::{route_config, service_rules, status};
use super::link::edge::{UplinkTask, dialler};
use super::link::edges::EdgeRegistry;
use super::link::enrolment::issuer::Enrolment;
use super::link::hub::{HubLinks, SessionTable};
use super::link::refusals::RefusalCounts;
use super::link::renewal::{Renewal, RenewalFiles};
use super::link::roll::Roll;
use super::link::sampler;
use super::link::site_rules::SiteRules;
use super::link::status::UplinkStatus;
use super::link::web_entry::WebEntry;
use super::metrics::{Metrics, VERSION};
use super::open_store::open_store;
use super::options::NodeOptions;
use super::random::secret;
use super::reload::Reloadable;
use super::remote_write::{RemoteWriteThread, RemoteWrites};
use super::threads::{self, Threads, processors};
use crate::commit::Retention;
use crate::gateway::{BodyReader, Router};
use crate::model::ByteBudget;
use crate::net::http::HttpLimits;
use crate::net::listen::{self, Accepting};
use crate::net::slots::Slots;
use crate::net::timeouts::Timeouts;
use crate::net::tls::{self, Acceptor, Credentials};
use crate::net::websocket;
use crate::session::{HubConfig, NodeName};
use crate::store::Scope;
use crate::wire::Health;

/// The interval at which old tombstones are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);

/// The interval at which a stopping node looks whether its writer has ended.
const JOIN_INTERVAL: Duration = Duration::from_millis(2);

/// A running node.
pub struct Node {
    /// The addresses on which the gateway listens.
    pub web_addresses: Vec<SocketAddr>,
    /// The addresses at which edges connect; empty unless the node is a hub.
    pub edge_addresses: Vec<SocketAddr>,
    /// Shutdown and reload commands from requests.
    pub commands: mpsc::Receiver<(LifecycleCommand, tokio::sync::oneshot::Sender<Result<Reloaded, String>>)>,
    web: TaskGroup,
    web_threads: Threads,
    links: TaskGroup,
    link_threads: Threads,
    uplinks: Vec<Arc<UplinkStatus>>,
    roll: Option<Arc<Roll>>,
    remote_write: Option<RemoteWriteThread>,
    drain_timeout: Duration,
    committer: Committer,
    thread: JoinHandle<()>,
    reloadable: Reloadable,
}

/// Tasks that end together.
struct TaskGroup {
    stop: CancellationToken,
    tasks: JoinSet<()>,
    runtime: Handle,
}

impl TaskGroup {
    fn on(runtime: &Handle) -> Self {
        Self { stop: CancellationToken::new(), tasks: JoinSet::new(), runtime: runtime.clone() }
    }

    fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn_on(task, &self.runtime);
    }

    /// Cancels the tasks and waits for their end.
    async fn finish(&mut self) {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(error) = ended {
                error!(%error, "a task of the node failed");
            }
        }
    }
}

/// The bound listeners of a node.
pub struct Listeners {
    /// The listeners of the gateway.
    pub web: Vec<TcpListener>,
    /// The listeners for edges, at a hub.
    pub edges: Vec<TcpListener>,
}

impl Listeners {
    /// Binds all configured addresses. With `web.systemd_socket`, the gateway uses the sockets that systemd passes on.
    ///
    /// # Errors
    /// If an address cannot be bound, or systemd passes no socket.
    pub async fn bind(options: &NodeOptions) -> Result<Self, StartError> {
        let mut listeners = Self { web: Vec::new(), edges: Vec::new() };
        if options.web.systemd_socket {
            listeners.web = listen::passed().map_err(StartError::Passed)?;
        } else {
            for address in &options.web.listen_addresses {
                listeners.web.push(listen::bind(address, "web.listen_address").await?);
            }
        }
        for address in options.hub.iter().flat_map(|hub| &hub.listen_addresses) {
            listeners.edges.push(listen::bind(address, "hub.listen_address").await?);
        }
        Ok(listeners)
    }
}

impl Node {
    /// Starts a node. Returns when it accepts requests.
    ///
    /// # Errors
    /// See [`StartError`]. All that was started is stopped again.
    pub async fn start(options: NodeOptions) -> Result<Node, StartError> {
        threads::check_available().map_err(StartError::System)?;
        let options = bounded(options);
        let clock = Arc::new(Clock::default());
        let metrics = Arc::new(Metrics::default());
        let started_ns = clock.wall_ns();
        let credentials = load_credentials(&options)?;
        let protection = Protection::new(&options.web.security)?;
        let certificates = Arc::<Certificates>::default();
        for (user, credentials) in credentials.users(&options) {
            log_problems(credentials);
            certificates.in_use(&user, credentials.certificate(), credentials.certificates());
        }
        certificates.all_read(CredentialsUser::all(&options).into_iter().map(|(user, _)| user));
        let listeners = Listeners::bind(&options).await?;
        let (mut store, log) = open_store(&options).await?;
        if clock.is_wrong() && (options.hub.is_some() || !options.uplinks.is_empty()) {
            error!(
                "this host's clock cannot be right: set it; until a peer's clock is known, pushes here count as the newest"
            );
            store.doubt_clock();
        }
        // Taken before anything can change the store: the receivers have no more than this.
        let remote_writes = RemoteWrites::prepare(&options.remote_writes, &store.published())?;
        let retention = Retention {
            uplinks: options.uplinks.len(),
            hub_ns: options.hub.as_ref().map_or(0, |_| nanoseconds(options.storage.tombstone_retention)),
        };
        let started = Committer::start(store, log, clock.clone(), metrics.clone(), retention);
        let (committer, thread) =
            started.map_err(|error| StartError::System(format!("no thread to write: {error}")))?;
        let render_thread = RenderThread::start()
            .map_err(|error| StartError::System(format!("no thread to render scrapes: {error}")))?;
        let threads = [Threads::for_gateway(), Threads::for_links()];
        let [web_threads, link_threads] =
            threads.map(|threads| threads.map_err(|error| StartError::System(format!("no threads: {error}"))));
        let (web_threads, link_threads) = (web_threads?, link_threads?);
        let links = TaskGroup::on(link_threads.handle());
        let (commands, receiver) = mpsc::channel(8);
        let published = committer.published().clone();
        let mut node = Node {
            web_addresses: listeners.web.iter().filter_map(|listener| listener.local_addr().ok()).collect(),
            edge_addresses: listeners.edges.iter().filter_map(|listener| listener.local_addr().ok()).collect(),
            commands: receiver,
            web: TaskGroup::on(web_threads.handle()),
            web_threads,
            link_threads,
            uplinks: Vec::new(),
            roll: None,
            remote_write: None,
            drain_timeout: options.limits.drain_timeout,
            committer,
            thread,
            reloadable: Reloadable {
                certificates: certificates.clone(),
                diallers: Vec::new(),
                renewals: Vec::new(),
                published,
                hub: None,
                web: None,
                senders: Vec::new(),
                runtime: links.runtime.clone(),
                stop: links.stop.clone(),
                flags: options.flags.clone(),
                read: Mutex::new(options.flags.clone()),
            },
            links,
        };
        node.committer.published().set_expiry_rules(options.expiry.clone());
        node.start_expirer(&clock, &metrics);
        let edges = Arc::<EdgeRegistry>::default();
        let web_slots = Slots::with_reserve("web", options.limits.connections_max);
        let edge_slots = options.hub.as_ref().map(|hub| Slots::new("edge", hub.connections_max));
        if let Some(slots) = &edge_slots {
            node.start_hub(&options, credentials.hub.as_ref(), listeners.edges, slots, &clock, &edges)?;
        }
        let health = watch::Sender::default();
        node.start_uplinks(&options, &credentials, &clock, &health)?;
        if !options.uplinks.is_empty() {
            let sources = HealthSources {
                started_seconds: started_ns / 1_000_000_000,
                store_path: options.storage.path.clone(),
                limits: options.limits.store,
                committer: node.committer.clone(),
                metrics: metrics.clone(),
                certificates: certificates.clone(),
                refusals: protection.refusals.clone(),
                uplinks: node.uplinks.clone(),
            };
            node.links.spawn(sources.run(health, node.links.stop.clone()));
        }
        let rules = service_rules(&options, page_owner(&options, &credentials.uplinks));
        let body = rules.body;
        let service = Service {
            router: Router::new(&route_config(&options)),
            rules,
            reader: BodyReader::new(body),
            committer: node.committer.clone(),
            clock: clock.clone(),
            metrics,
            edges,
            web_entry: node.web_entry(&options),
            hub_links: node.reloadable.hub.clone(),
            certificates,
            uplinks: node.uplinks.clone(),
            remote_writes: remote_writes.statuses.clone(),
            status: status(&options, started_ns),
            commands,
            protection,
            slots: [web_slots.clone()].into_iter().chain(edge_slots).collect(),
            render_thread,
            scrape_permits: Arc::new(Semaphore::new(options.limits.scrapes_max.min(Semaphore::MAX_PERMITS))),
            large_push_permits: Semaphore::new(processors()),
            waiting_permits: Semaphore::new(WAITING_MAX),
            stop: node.web.stop.clone(),
            cache_budget: ByteBudget::new(options.limits.scrape_cache_bytes_max as u64),
            page_size: PageSize::default(),
            oddities: Oddities::default(),
            access: Arc::default(),
            deletes: Deletes::default(),
            busiest: BusiestGroups::default(),
        };
        node.start_web(&options, service, listeners.web, web_slots)?;
        node.start_remote_write(&options, remote_writes, &clock)?;
        node.start_sweeper();
        node.links.spawn(held_back::run(node.committer.clone(), node.links.stop.clone()));
        for address in &node.web_addresses {
            info!(face = "web", %address, "listening");
        }
        for address in &node.edge_addresses {
            info!(face = "edge", %address, "listening");
        }
        if options.uplinks.is_empty() && options.hub.is_none() && options.remote_writes.is_empty() {
            info!("no hub is configured: pushes stay on this node");
        }
        Ok(node)
    }

    fn start_uplinks(
        &mut self,
        options: &NodeOptions,
        credentials: &LoadedCredentials,
        clock: &Arc<Clock>,
        health: &watch::Sender<Arc<Health>>,
    ) -> Result<(), StartError> {
        for (number, (uplink, credentials)) in options.uplinks.iter().zip(&credentials.uplinks).enumerate() {
            let keys = CredentialsUser::Uplink(uplink.hub.clone()).load_proxy(options)?;
            if let Some(proxy) = uplink.proxy.as_ref().filter(|proxy| !proxy.no_proxy.has(&uplink.hub)) {
                info!(hub = %uplink.hub, proxy = %proxy.url, "the uplink goes through a proxy");
            }
            let dialler = Arc::new(dialler(uplink, &options.link, credentials, keys)?);
            let state = Arc::new(UplinkStatus::new(uplink.hub.to_string()).with_verdicts(uplink.verdicts));
            let task = UplinkTask {
                number,
                name: node_name(credentials.name()),
                identity: credentials.identity(),
                options: uplink.clone(),
                link: options.link,
                dialler: dialler.clone(),
                committer: self.committer.clone(),
                clock: clock.clone(),
                state: state.clone(),
                health: health.subscribe(),
                hub_links: self.reloadable.hub.clone(),
            };
            self.links.spawn(task.run(self.links.stop.clone()));
            if let (true, Some(files)) = (uplink.renew, RenewalFiles::of(uplink, options)) {
                let files = Arc::new(Mutex::new(Some(files)));
                self.reloadable.renewals.push((uplink.hub.clone(), files.clone()));
                let renewal =
                    Renewal { hub: uplink.hub.clone(), files, dialler: dialler.clone(), state: state.clone() };
                self.links.spawn(renewal.run(self.links.stop.clone()));
            }
            self.reloadable.diallers.push((dialler, uplink.hub.clone()));
            self.uplinks.push(state);
        }
        Ok(())
    }

    fn start_hub(
        &mut self,
        options: &NodeOptions,
        credentials: Option<&Credentials>,
        listeners: Vec<TcpListener>,
        slots: &Slots,
        clock: &Arc<Clock>,
        edges: &Arc<EdgeRegistry>,
    ) -> Result<(), StartError> {
        let Some(hub) = &options.hub else { return Ok(()) };
        let roll = Arc::new(Roll::read(edges.clone(), options.storage.path.clone()));
        for edge in &hub.edges {
            edges.expect(edge.name.as_str(), &edge.labels);
        }
        let link = options.link.session_config();
        let common_name = credentials.and_then(|credentials| credentials.certificate().common_name.clone());
        let name = node_name(common_name.unwrap_or_else(|| "hub".into()));
        let hub_links = Arc::new(HubLinks {
            committer: self.committer.clone(),
            clock: clock.clone(),
            edges: edges.clone(),
            enrolment: Enrolment::new(hub)?,
            refusals: Arc::<RefusalCounts>::default(),
            roll: roll.clone(),
            slots: slots.clone(),
            acceptor: credentials.map(Acceptor::new).transpose()?,
            trusted_proxies: hub.trusted_proxies.clone(),
            verifications: AtomicU64::new(0),
            sites: Mutex::new(SiteRules::new(hub)),
            session: HubConfig { link, heartbeat_ns: nanoseconds(hub.heartbeat_interval) },
            handshake_timeout: options.link.handshake_timeout,
            sessions: Mutex::new(SessionTable::new(name, hub.connections_max)),
        });
        for listener in listeners {
            let accepting =
                Accepting { slots: slots.clone(), refusal: tls::REFUSAL, drain_timeout: options.limits.drain_timeout };
            let listener = adopt(&self.link_threads, listener)?;
            self.links.spawn(hub_links.clone().serve(listener, accepting, self.links.stop.clone()));
        }
        self.links.spawn(roll.clone().run(self.links.stop.clone()));
        self.links.spawn(sampler::run(edges.clone(), clock.clone(), self.links.stop.clone()));
        self.links.spawn(hub_links.clone().end_expired(self.links.stop.clone()));
        self.roll = Some(roll);
        self.reloadable.hub = Some(hub_links);
        Ok(())
    }

    /// The link at the gateway's listener, if edges may connect there.
    fn web_entry(&self, options: &NodeOptions) -> Option<WebEntry> {
        let hub_links = self.reloadable.hub.clone().filter(|_| options.hub.as_ref().is_some_and(|hub| hub.web_link))?;
        let path = format!("{}{}", options.web.route_prefix, websocket::PATH);
        Some(WebEntry { path, hub_links, runtime: self.links.runtime.clone(), stop: self.web.stop.clone() })
    }

    fn start_web(
        &mut self,
        options: &NodeOptions,
        service: Service,
        listeners: Vec<TcpListener>,
        slots: Slots,
    ) -> Result<(), StartError> {
        let limits = options.limits;
        let http = Arc::new(HttpLimits {
            slots,
            header_bytes_max: limits.header_bytes_max,
            timeouts: Timeouts {
                header_timeout: limits.header_timeout,
                idle_timeout: limits.idle_timeout,
                write_timeout: limits.write_timeout,
            },
            body_timeout: limits.body_timeout,
            budget: ByteBudget::new(limits.inflight_bytes_max),
            drain_timeout: limits.drain_timeout,
        });
        let web = HttpServer::new(&options.web, options.allow.clone(), service, secret()?);
        for listener in listeners {
            let listener = adopt(&self.web_threads, listener)?;
            self.web.spawn(web.serve(listener, http.clone(), self.web.stop.clone()));
        }
        self.reloadable.web = Some(web);
        Ok(())
    }

    fn start_remote_write(
        &mut self,
        options: &NodeOptions,
        remote_writes: RemoteWrites,
        clock: &Arc<Clock>,
    ) -> Result<(), StartError> {
        let Some(web) = &self.reloadable.web else { return Ok(()) };
        self.reloadable.senders = remote_writes.senders.clone();
        let (folder, limit) = (options.storage.path.clone(), options.limits.drain_timeout);
        let changed = self.committer.subscribe(Scope::Shown);
        let started = remote_writes.start(web.own_families(), clock, folder, limit, &changed);
        self.remote_write =
            started.map_err(|error| StartError::System(format!("no thread for remote write: {error}")))?;
        Ok(())
    }

    fn start_sweeper(&mut self) {
        let (committer, stop) = (self.committer.clone(), self.links.stop.clone());
        self.links.spawn(async move {
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(SWEEP_INTERVAL) => committer.sweep().await,
                }
            }
        });
    }

    fn start_expirer(&mut self, clock: &Arc<Clock>, metrics: &Arc<Metrics>) {
        let (committer, clock, metrics) = (self.committer.clone(), clock.clone(), metrics.clone());
        self.links.spawn(Expirer { committer, clock, metrics }.run(self.links.stop.clone()));
    }

    /// The writer, to check whether it is still running.
    pub fn committer(&self) -> Committer {
        self.committer.clone()
    }

    /// Applies the options that a reload can change: certificates, the gateway's protection, and the hub's list of
    /// edges. If one of them is not valid, none is applied. Other changed options are named in a warning: they need a
    /// restart.
    ///
    /// # Errors
    /// If certificates cannot be used, or TLS of the gateway would be switched on or off; the old options stay.
    pub fn reload(&self, options: &NodeOptions) -> Result<Reloaded, StartError> {
        self.reloadable.reload(options)
    }

    /// Reads the credentials of one user again, and nothing else: at the gateway its certificates, users, headers and
    /// rate limit.
    ///
    /// # Errors
    /// If certificates cannot be used, TLS of the gateway would be switched on or off, or a requirement would be dropped;
    /// the old credentials stay.
    pub fn reload_credentials(&self, user: &CredentialsUser, options: &NodeOptions) -> Result<(), StartError> {
        self.reloadable.reload_credentials(user, options)
    }

    /// Records for the metrics whether the credentials of a user could be read.
    pub fn credentials_read(&self, user: &CredentialsUser, succeeded: bool) {
        self.reloadable.credentials_read(user, succeeded);
    }

    /// Stops accepting requests, finishes the open ones, sends all changes to connected hubs, and stops all tasks.
    /// Changes that a hub does not acknowledge within the drain timeout stay on disk and are sent after the next start.
    pub async fn stop(mut self) {
        // Pending commands fail now, so that their requests get a response.
        drop(self.commands);
        self.web.finish().await;
        drop(self.web_threads);
        let head = *self.committer.subscribe(Scope::Shown).borrow();
        let delivered = async {
            for uplink in &self.uplinks {
                uplink.delivered(head).await;
            }
        };
        if timeout(self.drain_timeout, delivered).await.is_err() {
            warn!("some changes were not acknowledged in time: they are sent after the next start");
        }
        self.links.finish().await;
        drop(self.link_threads);
        if let Some(Err(error)) = OptionFuture::from(self.roll.as_ref().map(|roll| roll.save(true))).await {
            warn!(%error, "the roll of edges could not be written");
        }
        // Nothing changes any more: the receivers get the last state.
        if let Some(thread) = self.remote_write {
            thread.stop();
            while !thread.is_over() {
                tokio::time::sleep(JOIN_INTERVAL).await;
            }
            if !thread.join() {
                error!("the thread of remote write failed");
            }
        }
        self.committer.stop().await;
        // The render thread is not joined: it has no state, and ends when its last handle is dropped.
        // The writer is not joined on a thread that may block: the operating system may have none left.
        while !self.thread.is_finished() {
            tokio::time::sleep(JOIN_INTERVAL).await;
        }
        if self.thread.join().is_err() {
            error!("the writer's thread failed");
        }
        info!("stopped");
    }
}

fn adopt(threads: &Threads, listener: TcpListener) -> Result<TcpListener, StartError> {
    let adopted = threads.adopt(listener);
    adopted.map_err(|error| StartError::System(format!("no handle for a listener: {error}")))
}

/// The options with the limits on connections that the descriptors of this process allow.
fn bounded(mut options: NodeOptions) -> NodeOptions {
    let links = options.hub.as_ref().map_or(0, |hub| hub.connections_max);
    let configured = ConnectionBounds { web: options.limits.connections_max, links };
    let bounds = configured.below(descriptors::raise(), options.uplinks.len());
    options.limits.connections_max = bounds.web;
    if let Some(hub) = &mut options.hub {
        hub.connections_max = bounds.links;
    }
    options
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A node's name, with its software, for the handshakes of its links.
fn node_name(node: String) -> NodeName {
    NodeName { node, software: format!("pushrelay {VERSION}") }
}
