//! `pushrelay edge` and `pushrelay hub`: a node, from its configuration to the signal that stops it.

use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info};

use super::logging;
use super::watch::Watch;
use crate::config::{self, Flags};
use crate::node::Node;
use crate::node::StartError;
use crate::node::http::service::LifecycleCommand;
use crate::node::options::{NodeOptions, NodeRole};

/// Runs a node until a signal or a request stops it.
///
/// # Errors
/// A message for the operator, if the configuration is wrong, the node cannot start, or its store can no longer be
/// written.
pub fn run(role: NodeRole, flags: &Flags) -> Result<bool, String> {
    let options = config::load(Some(role), flags).map_err(|mistakes| mistakes.to_string())?;
    logging::start(options.log.level, options.log.format);
    let runtime = runtime()?;
    let outcome = runtime.block_on(async {
        let mut signals = Signals::new()?;
        let mut watch = Watch::new(&options.node.web.security);
        let started = tokio::select! {
            started = Node::start(options.node) => started,
            () = signals.terminated() => {
                info!("stopped by a signal while starting");
                return Ok(true);
            }
        };
        let mut node = started.map_err(|error| error.to_string())?;
        let committer = node.committer();
        loop {
            let asked = tokio::select! {
                asked = signals.next(&mut node) => asked,
                () = watch.changed() => {
                    if let Err(text) = reload(role, flags, &mut watch, |options| node.reload_web(options))
                        && watch.failed(&text)
                    {
                        error!(reason = text, "files that protect the gateway have changed, but cannot be used; the old ones stay in force");
                    }
                    continue;
                }
                () = committer.over() => return Err("the commit thread has ended; see the log, and start the node again".into()),
            };
            let Some(asked) = asked else { break };
            let outcome = reload(role, flags, &mut watch, |options| node.reload(options));
            if let Err(text) = &outcome {
                error!(reason = text, "the configuration was not read again: the old one stays in force");
            }
            if let Some(reply) = asked {
                // The client that asked may have disconnected.
                let _ = reply.send(outcome);
            }
        }
        info!("stopping");
        tokio::select! {
            () = node.stop() => Ok(true),
            () = signals.terminated() => Err("stopped at once by a second signal".into()),
        }
    });
    // After a second signal the process does not wait for a disk that is still being read.
    runtime.shutdown_background();
    outcome
}

/// The runtime that waits for signals, on the main thread. A node has threads of its own; starting it may block this
/// one for as long as a disk takes.
///
/// # Errors
/// If the operating system does not provide event notification.
pub fn runtime() -> Result<Runtime, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| format!("the system gives no means to wait for events: {error}"))
}

/// Reads the configuration again and lets `take` apply it.
fn reload(
    role: NodeRole,
    flags: &Flags,
    watch: &mut Watch,
    take: impl FnOnce(&NodeOptions) -> Result<(), StartError>,
) -> Result<(), String> {
    let options = config::load(Some(role), flags).map_err(|mistakes| mistakes.to_string())?;
    take(&options.node).map_err(|error| error.to_string())?;
    watch.follow(&options.node.web.security);
    Ok(())
}

/// The reply channel of a request to reload; `None` after a signal.
type Asked = Option<tokio::sync::oneshot::Sender<Result<(), String>>>;

/// The signals that the process handles.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    /// Handles the signals from now on.
    ///
    /// # Errors
    /// If the operating system refuses.
    pub fn new() -> Result<Self, String> {
        let catch = |kind| signal(kind).map_err(|error| format!("cannot catch signals: {error}"));
        Ok(Self {
            interrupt: catch(SignalKind::interrupt())?,
            terminate: catch(SignalKind::terminate())?,
            hangup: catch(SignalKind::hangup())?,
        })
    }

    /// Waits for a request to reload; returns `None` when the node has to stop.
    async fn next(&mut self, node: &mut Node) -> Option<Asked> {
        tokio::select! {
            _ = self.interrupt.recv() => None,
            _ = self.terminate.recv() => None,
            _ = self.hangup.recv() => Some(None),
            command = node.commands.recv() => match command {
                Some((LifecycleCommand::Reload, reply)) => Some(Some(reply)),
                Some((LifecycleCommand::Quit, reply)) => {
                    let _ = reply.send(Ok(()));
                    None
                }
                None => None,
            },
        }
    }

    /// Waits for a signal to stop.
    pub async fn terminated(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
