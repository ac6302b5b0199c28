//! `pushrelay demo`: a hub and two edges on loopback, with temporary certificates and stores, and sample pushes.
//!
//! The nodes start from the same flags that an operator would give them, so that the demo is a small deployment.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tracing::level_filters::LevelFilter;
use tracing::warn;

use super::logging;
use super::run::{Signals, runtime};
use crate::config::{self, Flags, LogFormat};
use crate::net::credentials::{Directory, IssueOptions};
use crate::net::identity::EdgeIdentity;
use crate::node::Node;
use crate::node::options::NodeRole;
use crate::node::random::random_id;

/// The interval of the sample pushes.
const PUSH_INTERVAL: Duration = Duration::from_secs(1);
/// Number of hosts that push at each site.
const HOSTS: u64 = 3;

/// The command's arguments.
#[derive(Clone, Debug, clap::Args)]
pub struct Demo {
    /// The hub's page and scrape
    #[arg(long = "web.listen-address", value_name = "HOST:PORT", default_value = "127.0.0.1:9091")]
    hub_web: String,
    /// Address for the edges at the hub
    #[arg(long = "hub.listen-address", value_name = "HOST:PORT", default_value = "127.0.0.1:9443")]
    hub_edges: String,
    /// The edge with the site label IDC=SYQ (IDC: Internet data centre; SYQ and BJ are examples of codes)
    #[arg(long = "syq.listen-address", value_name = "HOST:PORT", default_value = "127.0.0.1:9191")]
    syq: String,
    /// The edge with the site label IDC=BJ
    #[arg(long = "bj.listen-address", value_name = "HOST:PORT", default_value = "127.0.0.1:9192")]
    bj: String,
    /// Lowest level that is logged: trace, debug, info, warn or error
    #[arg(long = "log.level", value_name = "LEVEL", default_value = "warn")]
    log_level: LevelFilter,
}

/// A directory that is removed with the demo.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // Files that cannot be removed stay in the system's temporary directory.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Demo {
    /// Runs until interrupted.
    ///
    /// # Errors
    /// If certificates cannot be made or a node cannot start.
    pub fn run(self) -> Result<bool, String> {
        logging::start(self.log_level, LogFormat::Logfmt);
        let id = random_id().map_err(|error| format!("the system has no randomness: {error}"))?;
        let scratch = Scratch(std::env::temp_dir().join(format!("pushrelay-demo-{id:016x}")));
        make_certificates(&scratch.0)?;
        runtime()?.block_on(async {
            let mut signals = Signals::new()?;
            let hub = self.start_hub(&scratch.0).await?;
            let hub_edges = first(&hub.edge_addresses)?;
            let syq = start_edge(&scratch.0, "syq-1", &self.syq, hub_edges).await?;
            let bj = start_edge(&scratch.0, "bj-1", &self.bj, hub_edges).await?;
            let (web, syq_web, bj_web) =
                (first(&hub.web_addresses)?, first(&syq.web_addresses)?, first(&bj.web_addresses)?);
            let mut pushers = JoinSet::new();
            pushers.spawn(push_samples(syq_web, 1));
            pushers.spawn(push_samples(bj_web, 2));
            let printed = std::io::stdout().write_all(guide(web, syq_web, bj_web).as_bytes());
            printed.map_err(|error| format!("cannot print: {error}"))?;
            signals.terminated().await;
            pushers.shutdown().await;
            for node in [syq, bj, hub] {
                node.stop().await;
            }
            Ok(true)
        })
    }

    async fn start_hub(&self, scratch: &Path) -> Result<Node, String> {
        let file = |name: &str| scratch.join("certs").join(name).display().to_string();
        start(
            NodeRole::Hub,
            &[
                ("--web.listen-address", self.hub_web.clone()),
                ("--web.enable-admin-api", "true".into()),
                ("--storage.path", scratch.join("hub").display().to_string()),
                ("--hub.listen-address", self.hub_edges.clone()),
                ("--hub.tls.cert-file", file("hub.pem")),
                ("--hub.tls.key-file", file("hub.key")),
                ("--hub.tls.client-ca-file", file("ca.pem")),
            ],
        )
        .await
    }
}

async fn start_edge(scratch: &Path, name: &str, web: &str, hub: SocketAddr) -> Result<Node, String> {
    let file = |name: &str| scratch.join("certs").join(name).display().to_string();
    start(
        NodeRole::Edge,
        &[
            ("--web.listen-address", web.into()),
            ("--web.enable-admin-api", "true".into()),
            ("--storage.path", scratch.join(name).display().to_string()),
            ("--uplink.hub", hub.to_string()),
            ("--uplink.tls.ca-file", file("ca.pem")),
            ("--uplink.tls.cert-file", file(&format!("{name}.pem"))),
            ("--uplink.tls.key-file", file(&format!("{name}.key"))),
        ],
    )
    .await
}

async fn start(role: NodeRole, flags: &[(&str, String)]) -> Result<Node, String> {
    let arguments = flags.iter().map(|(flag, value)| format!("{flag}={value}"));
    let command = config::add_flags(clap::Command::new("node"), role);
    let matches = command.try_get_matches_from(std::iter::once("node".to_string()).chain(arguments));
    let flags = Flags::from_matches(&matches.map_err(|error| error.to_string())?);
    let options = config::load(Some(role), &flags).map_err(|mistakes| mistakes.to_string())?;
    Node::start(options.node)
        .await
        .map_err(|error| format!("{error}\n(flags move the demo's addresses: see pushrelay demo --help)"))
}

fn make_certificates(scratch: &Path) -> Result<(), String> {
    let directory = Directory::new(scratch.join("certs"));
    let issue = IssueOptions { now: SystemTime::now(), days: Some(30), force: false };
    let edge = |uri: &str| EdgeIdentity::from_uri(uri).map_err(|error| error.to_string());
    directory.init(issue).map_err(|error| error.to_string())?;
    let hosts = ["localhost", "127.0.0.1", "::1"].map(String::from);
    directory.hub(&hosts, issue).map_err(|error| error.to_string())?;
    for uri in ["pushrelay://edge/syq-1?IDC=SYQ", "pushrelay://edge/bj-1?IDC=BJ"] {
        directory.edge(&edge(uri)?, issue).map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn first(addresses: &[SocketAddr]) -> Result<SocketAddr, String> {
    addresses.first().copied().ok_or_else(|| "a node listens nowhere".into())
}

fn guide(hub: SocketAddr, syq: SocketAddr, bj: SocketAddr) -> String {
    format!(
        "\
pushrelay demo: a hub and two edges, with sample pushes every second. Ctrl-C ends it and leaves nothing.

  hub               http://{hub}/
  edge of IDC=SYQ   http://{syq}/
  edge of IDC=BJ    http://{bj}/

Try, in another terminal:

  echo \"some_metric 3.14\" | curl --data-binary @- http://{syq}/metrics/job/some_job
  curl -s http://{hub}/metrics | grep some_metric
  curl -X DELETE http://{syq}/metrics/job/some_job
  curl -s http://{hub}/metrics | grep ^demo_
  curl -s http://{hub}/metrics | grep ^pushrelay_edge

One Prometheus sees all of it:

  scrape_configs:
    - job_name: pushgateway
      honor_labels: true
      static_configs:
        - targets: ['{hub}']
          labels: {{instance: pushgateway}}

"
    )
}

/// Pushes what a batch job on each of a few hosts would, until it is cancelled.
async fn push_samples(edge: SocketAddr, site: u64) {
    for tick in 0.. {
        for host in 1..=HOSTS {
            if let Err(error) = push(edge, host, &sample(tick, site, host)).await {
                warn!(%edge, %error, "a sample push failed");
            }
        }
        tokio::time::sleep(PUSH_INTERVAL).await;
    }
}

fn sample(tick: u64, site: u64, host: u64) -> String {
    let wave = (tick as f64 / 20.0 + (site * HOSTS + host) as f64).sin();
    let runs = tick + 1;
    let mut text = format!(
        "# HELP demo_queue_length Work waiting.\n# TYPE demo_queue_length gauge\n\
         demo_queue_length{{queue=\"mail\"}} {:.0}\ndemo_queue_length{{queue=\"index\"}} {:.0}\n\
         # HELP demo_runs_total Runs of the batch job.\n# TYPE demo_runs_total counter\ndemo_runs_total {runs}\n\
         # HELP demo_run_seconds How long runs took.\n# TYPE demo_run_seconds histogram\n",
        20.0 + 15.0 * wave,
        50.0 - 30.0 * wave,
    );
    for (bound, share) in [("0.1", 2), ("0.5", 6), ("2", 9), ("+Inf", 10)] {
        let _ = writeln!(text, "demo_run_seconds_bucket{{le=\"{bound}\"}} {}", runs * share / 10);
    }
    let _ = write!(text, "demo_run_seconds_sum {:.3}\ndemo_run_seconds_count {runs}\n", runs as f64 * 0.4);
    text
}

async fn push(edge: SocketAddr, host: u64, body: &str) -> Result<(), String> {
    let head = format!(
        "PUT /metrics/job/demo/instance/host-{host} HTTP/1.1\r\nHost: {edge}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let exchange = async {
        let mut stream = TcpStream::connect(edge).await?;
        stream.write_all(format!("{head}{body}").as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = exchange.await.map_err(|error| error.to_string())?;
    let status = answer.lines().next().unwrap_or_default();
    if status.contains(" 200 ") { Ok(()) } else { Err(format!("answered {answer:?}")) }
}
