//! `pushrelay edge` and `pushrelay hub`: a node, from its configuration to the signal that stops it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info};

use super::logging;
use super::notify;
use super::watch::Watch;
use crate::config::{self, Flags};
use crate::node::Node;
use crate::node::certificates::CredentialsUser;
use crate::node::http::service::{LifecycleCommand, Reloaded};
use crate::node::options::{NodeOptions, NodeRole};

/// Signals to stop that come within this time are one.
const SAME_SIGNAL: Duration = Duration::from_secs(1);

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
        let mut watch = Watch::new(watched(&options.node, flags));
        let mut present = options.node.clone();
        let started = tokio::select! {
            started = Node::start(options.node) => started,
            () = signals.terminated() => {
                info!("stopped by a signal while starting");
                return Ok(true);
            }
        };
        let mut node = started.map_err(|error| error.to_string())?;
        let committer = node.committer();
        notify::notify(notify::READY);
        loop {
            let asked = tokio::select! {
                asked = signals.next(&mut node) => asked,
                users = watch.changed() => {
                    for user in users {
                        let outcome = reload_credentials(role, flags, &node, &user, &present);
                        node.credentials_read(&user, outcome.is_ok());
                        match outcome {
                            Ok(files) => watch.succeeded(&user, files),
                            Err(reason) if watch.failed(&user, &reason) => error!(
                                used_by = %user,
                                reason,
                                "credentials have changed, but cannot be used; the old ones stay in force"
                            ),
                            Err(_) => {}
                        }
                    }
                    continue;
                }
                () = committer.over() => return Err("the commit thread has ended; see the log, and start the node again".into()),
            };
            let Some(asked) = asked else { break };
            let outcome = reload(role, flags, &node).map(|(options, fresh, reloaded)| {
                watch.follow(fresh);
                present = options;
                reloaded
            });
            if let Err(text) = &outcome {
                error!(reason = text, "the configuration was not read again: the old one stays in force");
            }
            if let Some(reply) = asked {
                // The client that asked may have disconnected.
                let _ = reply.send(outcome);
            }
        }
        info!("stopping");
        notify::notify(notify::STOPPING);
        tokio::select! {
            () = node.stop() => Ok(true),
            () = signals.hastened() => Err("stopped at once by a second signal".into()),
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

/// Reads the configuration again and applies it; returns its options, the files to watch, and what changed.
fn reload(role: NodeRole, flags: &Flags, node: &Node) -> Result<(NodeOptions, Watch, Reloaded), String> {
    let options = config::load(Some(role), flags).map_err(|mistakes| mistakes.to_string())?.node;
    let watch = Watch::new(watched(&options, flags));
    let reloaded = node.reload(&options).map_err(|error| error.to_string())?;
    Ok((options, watch, reloaded))
}

/// Reads the credentials of one user again; returns the files that it uses. Those of links have the names that the node
/// knows, so that a mistake in the configuration file does not keep a link from its renewed certificate.
fn reload_credentials(
    role: NodeRole,
    flags: &Flags,
    node: &Node,
    user: &CredentialsUser,
    present: &NodeOptions,
) -> Result<Vec<PathBuf>, String> {
    let fresh = match user {
        CredentialsUser::Gateway => {
            Some(config::load(Some(role), flags).map_err(|mistakes| mistakes.to_string())?.node)
        }
        _ => None,
    };
    let options = fresh.as_ref().unwrap_or(present);
    node.reload_credentials(user, options).map_err(|error| error.to_string())?;
    let files = watched(options, flags).into_iter().find(|(other, _)| other == user);
    Ok(files.map(|(_, files)| files).unwrap_or_default())
}

/// The files of credentials. They include the configuration file if it contains passwords or certificates itself.
fn watched(options: &NodeOptions, flags: &Flags) -> Vec<(CredentialsUser, Vec<PathBuf>)> {
    let mut users = CredentialsUser::all(options);
    let gateway = users.iter_mut().find(|(user, _)| *user == CredentialsUser::Gateway);
    if let (Some((_, files)), true) = (gateway, options.web.security.has_inline_credentials()) {
        files.extend(flags.config_file.clone());
    }
    users
}

/// The reply channel of a request to reload; `None` after a signal.
type Asked = Option<tokio::sync::oneshot::Sender<Result<Reloaded, String>>>;

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
                    let _ = reply.send(Ok(Reloaded::default()));
                    None
                }
                None => None,
            },
        }
    }

    /// Waits for a further signal to stop, which shall end the node at once. One that comes with the first belongs to it:
    /// GNU `timeout` and some supervisors signal the process and its group.
    async fn hastened(&mut self) {
        let began = Instant::now();
        loop {
            self.terminated().await;
            if began.elapsed() >= SAME_SIGNAL {
                return;
            }
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
