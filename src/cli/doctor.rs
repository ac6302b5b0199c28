//! `pushrelay doctor`: dials each hub and each receiver of a configuration once, and prints each step with what it
//! saw and what to change.

use std::io::{self, Write};
use std::time::{Duration, Instant, SystemTime};

use crate::config::{self, Flags};
use crate::model::{Epoch, Revision};
use crate::net::certificate::date;
use crate::net::dial::{DialEvent, DialObserver, DialStep, Dialler};
use crate::net::proxy::ProxyKeys;
use crate::net::tls::Credentials;
use crate::node::clock::Clock;
use crate::node::link::check::{CheckError, LineCheck, PROBE_BYTES};
use crate::node::link::edge::dialler;
use crate::node::link::uplink_credentials::UplinkCredentials;
use crate::node::metrics::VERSION;
use crate::node::options::{NodeOptions, RemoteWriteOptions, UplinkOptions, UplinkTls};
use crate::node::random::random_bytes;
use crate::node::remote_write;
use crate::session::SessionTime;
use crate::storage::identify;
use crate::wire::{ClockSample, EpochStart, Hello, PeerInfo, VERSION as PROTOCOL};

/// The silence after which `--long` looks whether the line is still open.
const SILENCE: Duration = Duration::from_secs(90);
/// A difference of the clocks from which they are worth setting.
const CLOCK_NS_MAX: u64 = 5_000_000_000;

/// The command's own arguments; the others are those of an edge.
#[derive(Clone, Debug, clap::Args)]
pub struct Doctor {
    /// Also be silent for 90 s, and see whether the line stays open
    #[arg(long)]
    long: bool,
}

impl Doctor {
    /// Checks the line to each hub and receiver; prints to `out`. Returns whether a push would arrive at all of them.
    ///
    /// # Errors
    /// A message for the operator, if the configuration is wrong or it cannot print.
    pub fn run(self, flags: &Flags, now: SystemTime, out: &mut (dyn Write + Send)) -> Result<bool, String> {
        let configuration = config::check(flags, now).map_err(|mistakes| mistakes.to_string())?;
        let unprintable = |error: io::Error| format!("cannot print: {error}");
        for warning in &configuration.warnings {
            writeln!(out, "warning: {warning}").map_err(unprintable)?;
        }
        let options = configuration.node;
        writeln!(out, "{}", config::summary(&options)).map_err(unprintable)?;
        if options.uplinks.is_empty() && options.remote_writes.is_empty() {
            return Err(
                "there is no [[uplink]] and no [[remote_write]]: no hub or receiver to check the line to".into()
            );
        }
        let runtime = super::run::runtime()?;
        let mut all = true;
        for uplink in &options.uplinks {
            writeln!(out, "\n{}", uplink.hub).map_err(unprintable)?;
            let mut report = Report { out, begun: Instant::now(), failed: false };
            let passed = runtime.block_on(check(&options, uplink, self.long, &mut report));
            all &= passed.is_ok();
            let outcome = match passed {
                Ok(()) => "OK: a push would arrive".into(),
                Err(reason) => format!("NOT OK: {reason}"),
            };
            writeln!(report.out, "{outcome}").map_err(unprintable)?;
        }
        for receiver in &options.remote_writes {
            writeln!(out, "\n{} (remote write to {})", receiver.name, receiver.url).map_err(unprintable)?;
            let mut report = Report { out, begun: Instant::now(), failed: false };
            let passed = runtime.block_on(check_receiver(receiver, &mut report));
            all &= passed.is_ok();
            let outcome = match passed {
                Ok(()) => "OK: the receiver would accept samples".into(),
                Err(reason) => format!("NOT OK: {reason}"),
            };
            writeln!(report.out, "{outcome}").map_err(unprintable)?;
        }
        Ok(all)
    }
}

/// Prints the steps, each with the time since the one before.
struct Report<'a> {
    out: &'a mut (dyn Write + Send),
    begun: Instant,
    /// Whether a line could not be printed.
    failed: bool,
}

impl Report<'_> {
    fn line(&mut self, step: &str, text: &str) {
        let took_ms = self.begun.elapsed().as_millis();
        self.begun = Instant::now();
        self.failed |= writeln!(self.out, "  {step:<11}{took_ms:>7} ms  {text}").is_err();
    }
}

impl DialObserver for Report<'_> {
    fn seen(&mut self, event: DialEvent<'_>) {
        match event {
            DialEvent::Resolved { host, addresses } => {
                let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
                self.line(DialStep::Names.name(), &format!("{host} has {}", addresses.join(", ")));
            }
            DialEvent::Connected { address } => self.line(DialStep::Addresses.name(), &format!("{address} answers")),
            DialEvent::Tunnelled { way, answer } => {
                let proxy = way.proxy.as_ref().map(ToString::to_string).unwrap_or_default();
                self.line(DialStep::Proxy.name(), &format!("{proxy} opens a tunnel to {}: {answer}", way.target));
            }
            DialEvent::Encrypted { certificate: Some(certificate) } => {
                let text = format!(
                    "the hub's certificate is for {}, valid from {} until {}",
                    certificate.names.join(", "),
                    date(certificate.not_before),
                    date(certificate.not_after)
                );
                self.line(DialStep::Tls.name(), &text);
            }
            DialEvent::Encrypted { certificate: None } => self.line(DialStep::Tls.name(), "encrypted"),
            DialEvent::Upgraded => self.line(DialStep::Transport.name(), "the WebSocket is open"),
            DialEvent::Failed(failure) => {
                let step = failure.error.step().name();
                let address = failure.address.map(|address| format!("{address}: ")).unwrap_or_default();
                self.line(step, &format!("FAILED: {address}{}", failure.error));
            }
        }
    }
}

/// Sends a message without samples to a receiver of remote write.
///
/// # Errors
/// The reason for which samples would not be accepted, with what to change.
async fn check_receiver(options: &RemoteWriteOptions, report: &mut Report<'_>) -> Result<(), String> {
    let sender = remote_write::sender(options).map_err(|error| error.to_string())?;
    report.begun = Instant::now();
    let answered = tokio::time::timeout(options.remote_timeout, remote_write::probe(&sender, options, report)).await;
    let no_answer = |_| format!("no answer within {} s (remote_timeout)", options.remote_timeout.as_secs_f64());
    let (status, text) = answered.map_err(no_answer)?.map_err(|error| error.to_string())?;
    report.line(
        "write",
        format!("the receiver answers a message without samples with status {status} {text}").trim_end(),
    );
    let advice = match status {
        200..=299 => return if report.failed { Err("a step could not be printed".into()) } else { Ok(()) },
        401 | 403 => "check basic_auth or authorization, and the tenant in headers",
        404 | 405 => "check the path of the URL, and that the receiver accepts remote write",
        415 => "it does not know this protobuf_message",
        300..=399 => "write the URL to which it redirects",
        _ => "its answer above says why",
    };
    Err(format!("the receiver refuses a message without samples with status {status}: {advice}"))
}

/// Checks the line to one hub.
///
/// # Errors
/// The reason for which a push would not arrive, with what to change.
async fn check(
    options: &NodeOptions,
    uplink: &UplinkOptions,
    long: bool,
    report: &mut Report<'_>,
) -> Result<(), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let credentials = UplinkCredentials::load(uplink).map_err(|error| text(&error))?;
    let keys = uplink.proxy.as_ref().map(ProxyKeys::load).transpose().map_err(|error| text(&error))?;
    let dialler: Dialler = dialler(uplink, &options.link, &credentials, keys).map_err(|error| text(&error))?;
    report.begun = Instant::now();
    let name = credentials.name();
    if let Some(own) = credentials.certificate.as_ref().map(Credentials::certificate) {
        let renewal = match uplink.renew {
            true => format!("; it renews itself from {}", date(own.renewal_time())),
            false => String::new(),
        };
        report.line("own", &format!("the certificate of {name:?} is valid until {}{renewal}", date(own.not_after)));
    }
    if let Some(token_file) = &uplink.token_file {
        let line = if uplink.tls == UplinkTls::Off { ", without TLS: everything in between can read it" } else { "" };
        report.line("own", &format!("the token in {} is shown to the hub{line}", token_file.display()));
    }
    let dialled = dialler.dial_check(report).await.map_err(|error| match error.is_without_checks() {
        true => {
            "the hub is older than this program: it accepts this edge's certificate, but cannot be asked whether it \
                 would admit the edge; look for \"linked to the hub\" in the log of the running edge"
                .into()
        }
        false => error.to_string(),
    })?;
    let mut line = LineCheck::new(dialled.connection);
    let clock = Clock::default();
    let now = || SessionTime { monotonic_ns: clock.monotonic_ns(), wall_ns: clock.wall_ns() };
    let store = options.storage.path.as_deref().and_then(identify).unwrap_or_default();
    let info = PeerInfo {
        node: name.clone(),
        software: format!("pushrelay {VERSION}"),
        store,
        // A lineage has one epoch at least; a check compares none.
        epochs: vec![EpochStart { epoch: Epoch(1), revision: Revision(0) }],
        head: Default::default(),
        gc_watermark: Default::default(),
        cursors: Vec::new(),
        identity: credentials.identity().map(|identity| identity.to_uri()).unwrap_or_default(),
    };
    let hello = Hello {
        version: PROTOCOL,
        info,
        labels: uplink.labels.clone(),
        message_bytes_max: options.link.message_bytes_max as u64,
        clock: ClockSample::default(),
    };
    let asked = line.ask(hello.clone(), now).await.inspect_err(|error| failed(report, DialStep::Hello.name(), error));
    let asked = asked.map_err(|error| text(&error))?;
    let hub = &asked.welcome.info;
    report.line(
        DialStep::Hello.name(),
        &format!("{} ({}) would admit {name:?} with the site labels {}", hub.node, hub.software, asked.welcome.site),
    );
    if let Some(text) = credentials.mismatch(&hub.identity) {
        return Err(text);
    }
    if store != Default::default() && asked.welcome.upstream_stores.contains(&store) {
        return Err(format!("the hub sends to hubs that send to this node, store {store}: the links form a loop"));
    }
    if let Some(offset_ns) = asked.clock_offset_ns {
        let seconds = offset_ns.unsigned_abs() as f64 / 1e9;
        let side = if offset_ns < 0 { "behind" } else { "ahead of" };
        let advice = if offset_ns.unsigned_abs() > CLOCK_NS_MAX { ": set the wrong one of the two" } else { "" };
        report.line("clock", &format!("the hub's clock is {seconds:.3} s {side} this host's{advice}"));
    }
    probe(&mut line, 16, report, "round trip", "16 bytes pass both ways").await?;
    probe(&mut line, PROBE_BYTES, report, "64 KiB", "65536 bytes pass both ways").await?;
    if long {
        tokio::time::sleep(SILENCE).await;
        if probe(&mut line, 16, report, "silence", "the line stays open through 90 s of silence").await.is_err() {
            // A session is never silent for longer than an interval of heartbeats.
            let heartbeat = Duration::from_millis(asked.welcome.heartbeat_ms.into());
            let dialled = dialler.dial_check(report).await.map_err(|error| text(&error))?;
            let mut line = LineCheck::new(dialled.connection);
            line.ask(hello, now).await.map_err(|error| text(&error))?;
            tokio::time::sleep(heartbeat + heartbeat / 2).await;
            let passed = format!(
                "something in between ends connections that are silent for 90 s; heartbeats every {} s keep this one open",
                heartbeat.as_secs_f64()
            );
            probe(&mut line, 16, report, "silence", &passed).await.map_err(|reason| {
                format!(
                    "{reason}; something in between ends silent connections: shorten hub.heartbeat_interval at the hub"
                )
            })?;
            line.end().await;
        } else {
            line.end().await;
        }
    } else {
        line.end().await;
    }
    if report.failed { Err("a step could not be printed".into()) } else { Ok(()) }
}

async fn probe<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(
    line: &mut LineCheck<S>,
    bytes: usize,
    report: &mut Report<'_>,
    step: &str,
    passed: &str,
) -> Result<(), String> {
    let bytes = random_bytes(bytes).map_err(|error| format!("the system has no randomness: {error}"))?;
    match line.probe(bytes.into()).await {
        Ok(_) => {
            report.line(step, passed);
            Ok(())
        }
        Err(error) => {
            failed(report, step, &error);
            Err(error.to_string())
        }
    }
}

fn failed(report: &mut Report<'_>, step: &str, error: &CheckError) {
    report.line(step, &format!("FAILED: {error}"));
}
