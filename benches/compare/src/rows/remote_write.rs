//! The cost of a million changing series for a sender of remote write: a node itself, or a scraper of the node.

use std::fs;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use crate::Result;
use crate::bench::{Bench, Turn};
use crate::body::{Body, Each};
use crate::deployment::start_alone;
use crate::fetch::Client;
use crate::load::{self, Load};
use crate::machine::Meter;
use crate::process::{Process, Spec, free_address};
use crate::sink::Sink;

/// A sender, and the version of its messages.
const SENDERS: [(&str, &str); 5] =
    [("pushrelay", "1.0"), ("pushrelay", "2.0"), ("Prometheus", "1.0"), ("Prometheus", "2.0"), ("vmagent", "1.0")];

/// The name of the thread that writes.
const THREAD: &str = "remote-write";

/// All senders, one after the other. Between two ticks every series is pushed again.
pub fn senders(bench: &mut Bench, turn: Turn) -> Result<()> {
    for (sender, version) in SENDERS {
        eprintln!("compare: remote-write: {sender} {version}");
        if let Err(error) = measure(bench, turn, sender, version) {
            eprintln!("compare: {sender} {version}: {error}");
        }
    }
    Ok(())
}

fn measure(bench: &mut Bench, turn: Turn, sender: &str, version: &str) -> Result<()> {
    let program = bench.peers.ours.clone().ok_or("pushrelay is missing")?;
    let folder = bench.site().folder.join("remote-write");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    let (sink, interval) = (Sink::start()?, bench.scale.prometheus_interval_seconds);
    let url = format!("http://{}/api/v1/write", sink.address);
    let message = if version == "2.0" { "io.prometheus.write.v2.Request" } else { "prometheus.WriteRequest" };
    let own = match sender {
        "pushrelay" => format!(
            "[[remote_write]]\nurl = {url:?}\nname = \"sink\"\ninterval = \"{interval}s\"\nprotobuf_message = {message:?}\n"
        ),
        _ => String::new(),
    };
    let (node, web) = start_alone(&program, &folder, &own)?;
    let (body, groups) = (Body::wide(1_000), bench.scale.wides);
    let series = (groups * body.len()) as f64;
    let mut bodies = Each::new(&body, "/metrics", "filled", groups);
    let push_all = |bodies: &mut Each<'_>, rate: Option<f64>| -> Result<()> {
        let load = Load {
            address: web,
            connections: 1,
            requests_max: groups,
            time_max: Duration::from_secs(600),
            rate,
            reconnect: false,
        };
        load::run(&load, bodies)?.checked().map(drop)
    };
    push_all(&mut bodies, None)?;
    let scraper = match sender {
        "Prometheus" => Some(prometheus(bench, &folder, &url, message, &web.to_string())?),
        "vmagent" => Some(vmagent(bench, &folder, &url, &web.to_string())?),
        _ => None,
    };
    // The first ticks make buffers and caches.
    let rate = Some(groups as f64 / interval as f64);
    push_all(&mut bodies, rate)?;
    push_all(&mut bodies, rate)?;
    let ticks = bench.scale.prometheus_time.as_secs().div_ceil(interval).max(2);
    let counts = || {
        let read = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed) as f64;
        [read(&sink.counts.samples), read(&sink.counts.bytes), read(&sink.counts.requests)]
    };
    let before = counts();
    let thread_before = thread_cpu_seconds(node.id());
    let process = scraper.as_ref().unwrap_or(&node);
    let meter = Meter::start(&[process]);
    for _ in 0..ticks {
        push_all(&mut bodies, rate)?;
    }
    let reading = meter.stop();
    let [samples, bytes, requests] = {
        let after = counts();
        [0, 1, 2].map(|at| after[at] - before[at])
    };
    let cpu = if scraper.is_some() { reading.cpu[0] } else { thread_cpu_seconds(node.id()) - thread_before };
    let mut metrics = vec![
        ("cpu_µs_a_sample", cpu / samples * 1e6),
        ("bytes_a_sample", bytes / samples),
        ("samples_a_request", samples / requests),
        ("ticks_written", samples / series),
        ("resident_MB", process.memory().resident / 1e6),
        ("peak_MB", process.memory().peak / 1e6),
    ];
    if scraper.is_none() {
        metrics.push(("tick_s", tick_seconds(web)?));
    }
    bench.record(turn, "remote-write", &format!("{sender}, messages {version}"), reading.noise, &metrics);
    if scraper.is_none() && version == "1.0" {
        // The same node without a receiver, for the memory that remote write adds.
        drop(node);
        let folder = folder.join("without");
        fs::create_dir_all(&folder)?;
        let (node, web) = start_alone(&program, &folder, "")?;
        let load = Load {
            address: web,
            connections: 1,
            requests_max: groups * 4,
            time_max: Duration::from_secs(600),
            rate: None,
            reconnect: false,
        };
        load::run(&load, &mut bodies)?.checked()?;
        thread::sleep(Duration::from_secs(1));
        let memory = node.memory();
        let metrics = [("resident_MB", memory.resident / 1e6), ("peak_MB", memory.peak / 1e6)];
        bench.record(turn, "remote-write", "pushrelay without a receiver", reading.noise, &metrics);
    }
    Ok(())
}

fn prometheus(bench: &Bench, folder: &Path, url: &str, message: &str, node: &str) -> Result<Process> {
    let program = bench.peers.prometheus.clone().ok_or("prometheus is missing")?;
    let interval = bench.scale.prometheus_interval_seconds;
    let config = format!(
        "global: {{scrape_interval: {interval}s, scrape_timeout: {}s}}\nscrape_configs:\n- job_name: pushgateway\n  \
         honor_labels: true\n  static_configs:\n  - targets: ['{node}']\nremote_write:\n- url: {url}\n  \
         protobuf_message: {message}\n",
        interval.min(10),
    );
    let file = folder.join("prometheus.yml");
    fs::write(&file, config)?;
    let address = free_address()?;
    let arguments = vec![
        format!("--config.file={}", file.display()),
        format!("--storage.tsdb.path={}", folder.join("data").display()),
        format!("--web.listen-address={address}"),
    ];
    let mut process = Process::start(Spec { program, arguments, log: folder.join("prometheus.log") })?;
    process.await_ready(address, "/-/ready")?;
    Ok(process)
}

fn vmagent(bench: &Bench, folder: &Path, url: &str, node: &str) -> Result<Process> {
    let program = bench.peers.vmagent.clone().ok_or("vmagent is missing")?;
    let interval = bench.scale.prometheus_interval_seconds;
    let config = format!(
        "global: {{scrape_interval: {interval}s, scrape_timeout: {}s}}\nscrape_configs:\n- job_name: pushgateway\n  \
         honor_labels: true\n  static_configs:\n  - targets: ['{node}']\n",
        interval.min(10),
    );
    let file = folder.join("scrape.yml");
    fs::write(&file, config)?;
    let address = free_address()?;
    let arguments = vec![
        format!("-httpListenAddr={address}"),
        format!("-promscrape.config={}", file.display()),
        "-promscrape.maxScrapeSize=1GB".into(),
        format!("-remoteWrite.url={url}"),
        "-remoteWrite.forcePromProto=true".into(),
        format!("-remoteWrite.tmpDataPath={}", folder.join("vmagent").display()),
    ];
    let mut process = Process::start(Spec { program, arguments, log: folder.join("vmagent.log") })?;
    process.await_ready(address, "/health")?;
    Ok(process)
}

/// Seconds of processor time of the thread that writes.
fn thread_cpu_seconds(id: u32) -> f64 {
    let threads = fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten().flatten();
    let seconds = threads.filter_map(|thread| {
        let name = fs::read_to_string(thread.path().join("comm")).ok()?;
        let counts = fs::read_to_string(thread.path().join("schedstat")).ok().filter(|_| name.trim_end() == THREAD)?;
        Some(counts.split(' ').next()?.parse::<f64>().ok()? / 1e9)
    });
    seconds.sum()
}

fn tick_seconds(web: std::net::SocketAddr) -> Result<f64> {
    let name = "pushrelay_remote_write_tick_duration_seconds";
    let page = Client::new(web).text(&format!("/metrics?match[]={name}"), false)?;
    let line = page.lines().find(|line| line.starts_with(name)).ok_or("no duration of a tick")?;
    Ok(line.rsplit_once(' ').ok_or("no value")?.1.parse()?)
}
