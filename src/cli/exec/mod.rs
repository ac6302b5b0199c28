//! `pushrelay exec`: runs the command of a cron job or timer, and pushes the outcome of the run.
//!
//! `child` runs the command, `courier` delivers the metrics that `report` makes, and `spool` has those that wait.
//! The command starts first, and everything else happens on another thread, which has less than a second after the
//! command's end.

mod child;
mod courier;
mod report;
mod spool;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime};

use clap::Args;
use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use tokio::sync::oneshot;

use super::family_text::as_text;
use super::group_args::{GroupArgs, push_path, read_text};
use super::node_url::NodeUrl;
use crate::model::LabelSet;
use crate::node::random::random_id;
use child::RunningCommand;
use courier::{Courier, FinishedRun};
use report::{FamilyTexts, NAMES, RunOutcome};
use spool::Spool;

/// The time for which this process stays after the command's end, at most.
const STAY: Duration = Duration::from_millis(950);
/// The lowest descriptor that the job's metrics can have: those below are standard input, output and error.
const DESCRIPTOR_MIN: i64 = 3;

/// The command's arguments.
#[derive(Clone, Debug, Args)]
pub struct ExecCommand {
    #[command(flatten)]
    group: GroupArgs,
    /// File in which the job writes metrics of its own, in Prometheus's text format; read after its end
    #[arg(long, value_name = "FILE", conflicts_with = "metrics_fd")]
    metrics_file: Option<PathBuf>,
    /// Descriptor to which the job writes metrics of its own, such as 3: `echo "rows 5" >&3`
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(DESCRIPTOR_MIN..1024))]
    metrics_fd: Option<i32>,
    /// Directory for metrics that wait for the node [default: /var/spool/pushrelay for root, for others
    /// ~/.local/state/pushrelay/spool]
    #[arg(long, value_name = "DIR")]
    spool: Option<PathBuf>,
    #[command(flatten)]
    node: NodeUrl,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// The source of the job's own metrics.
enum OwnMetrics {
    None,
    /// A file, and the time of its last change before the run.
    File(PathBuf, Option<SystemTime>),
    /// A file without a name, and the descriptor that the command has of it.
    Descriptor(File, OwnedFd),
}

impl ExecCommand {
    /// Runs the command, and returns its exit status. If a signal ended the command, the same signal ends this process.
    ///
    /// # Errors
    /// The options are wrong; the command does not run.
    pub fn run(self) -> Result<u8, String> {
        let labels = self.group.labels()?;
        let source = self.own_metrics()?;
        let started = RunningCommand::start(&self.command);
        let start = report::at_start(started.as_ref().map_or_else(|_| SystemTime::now(), RunningCommand::started));
        let (send, finished) = oneshot::channel();
        let (done, wait_done) = mpsc::channel();
        let courier = self.courier(&labels);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let warnings = match runtime {
                Ok(runtime) => {
                    let warnings = runtime.block_on(courier().run(start, finished));
                    // A look-up of a name may still block a thread.
                    runtime.shutdown_background();
                    warnings
                }
                Err(error) => vec![format!("the metrics of this run are lost: {error}")],
            };
            // The first thread may have waited for long enough.
            let _ = done.send(warnings);
        });
        let (status, outcome) = match started {
            Ok(running) => {
                let (status, outcome) =
                    running.wait().map_err(|error| format!("cannot wait for the command: {error}"))?;
                (Some(status), outcome)
            }
            Err(error) => {
                warn(&format!(
                    "cannot run {:?}: {error}",
                    self.command.first().map_or("".into(), |name| name.to_string_lossy())
                ));
                (None, child::not_started(&error))
            }
        };
        let at = Instant::now();
        let own = source.read(&labels).unwrap_or_else(|reason| {
            warn(&format!("the job's own metrics are not pushed: {reason}"));
            FamilyTexts::new()
        });
        let sent = send.send(FinishedRun { families: report::at_end(&outcome), own, at });
        let left = STAY.saturating_sub(at.elapsed());
        match sent.ok().and_then(|()| wait_done.recv_timeout(left).ok()) {
            Some(warnings) => warnings.iter().for_each(|warning| warn(warning)),
            None => warn("the metrics of this run may be lost: delivering or spooling them takes too long"),
        }
        Ok(end(status, &outcome))
    }

    fn own_metrics(&self) -> Result<OwnMetrics, String> {
        if let Some(path) = &self.metrics_file {
            return Ok(OwnMetrics::File(path.clone(), changed(path)));
        }
        let Some(wanted) = self.metrics_fd else { return Ok(OwnMetrics::None) };
        let failed = |error: io::Error| format!("--metrics-fd {wanted}: {error}");
        let file = unnamed_file().map_err(failed)?;
        let (file, descriptor) = match file.as_raw_fd() == wanted {
            true => (file.try_clone().map_err(failed)?, OwnedFd::from(file)),
            false => {
                let descriptor = fcntl_dupfd_cloexec(&file, wanted).map_err(|error| failed(error.into()))?;
                (file, descriptor)
            }
        };
        if descriptor.as_raw_fd() != wanted {
            return Err(format!("--metrics-fd {wanted}: the descriptor is in use; take {}", descriptor.as_raw_fd()));
        }
        // The command gets it.
        fcntl_setfd(&descriptor, FdFlags::empty()).map_err(|error| failed(error.into()))?;
        Ok(OwnMetrics::Descriptor(file, descriptor))
    }

    /// Makes the courier, on the thread where it works: the files that it reads may be slow.
    fn courier(&self, labels: &LabelSet) -> impl FnOnce() -> Courier + Send + 'static {
        let (node, path) = (self.node.clone(), push_path(labels));
        let spool = self.spool.clone().or_else(Spool::directory_default).map(Spool::new);
        move || Courier { client: node.client(), node: node.url(), path, spool }
    }
}

/// An empty file, open for appending, that has no name any more.
fn unnamed_file() -> io::Result<File> {
    let id = random_id().map_err(|error| io::Error::other(format!("the system has no randomness: {error}")))?;
    let path = std::env::temp_dir().join(format!("pushrelay-exec-{id:016x}"));
    let file = File::options().read(true).append(true).create_new(true).open(&path)?;
    std::fs::remove_file(path)?;
    Ok(file)
}

fn changed(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|data| data.modified()).ok()
}

impl OwnMetrics {
    /// The job's metrics, each family with its text.
    fn read(self, labels: &LabelSet) -> Result<FamilyTexts, String> {
        let (name, mut file) = match self {
            OwnMetrics::None => return Ok(FamilyTexts::new()),
            OwnMetrics::Descriptor(mut file, descriptor) => {
                drop(descriptor);
                file.rewind().map_err(|error| error.to_string())?;
                ("the descriptor".to_owned(), file)
            }
            OwnMetrics::File(path, before) => {
                let name = path.display().to_string();
                if before.is_some() && changed(&path) == before {
                    return Err(format!("{name} was not written by this run"));
                }
                let file = File::open(&path).map_err(|error| format!("cannot read {name}: {error}"))?;
                (name, file)
            }
        };
        let mut text = Vec::new();
        let limit = spool::FILE_BYTES_MAX / 2;
        let read = (&mut file).take(limit + 1).read_to_end(&mut text);
        read.map_err(|error| format!("cannot read {name}: {error}"))?;
        if text.len() as u64 > limit {
            return Err(format!("{name} is larger than {limit} bytes"));
        }
        let families = read_text(&text, labels, &name)?;
        if let Some(family) = families.iter().find(|family| NAMES.contains(&&**family.name())) {
            return Err(format!("{name}: {} is a metric of pushrelay exec; choose another name", family.name()));
        }
        let text = |family| String::from_utf8_lossy(&as_text(&[family])).into_owned();
        Ok(families.iter().map(|family| (family.name().to_string(), text(family))).collect())
    }
}

fn warn(text: &str) {
    // Nobody can be told that standard error is closed.
    let _ = writeln!(io::stderr(), "pushrelay exec: {text}");
}

fn end(status: Option<ExitStatus>, outcome: &RunOutcome) -> u8 {
    status.map_or(outcome.status, child::end_as)
}
