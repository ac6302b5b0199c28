//! Remote write: a virtual scraper, which writes what the node shows to receivers.
//!
//! - Each interval it takes one snapshot (`tick`), stamps every series with the time of the tick (`times`), and ends the
//!   series that are gone since the tick before (`shown`). There is no queue: a tick that cannot be sent is replaced by
//!   the next one.
//! - With `mode = "on-change"` (`on_change`), further ticks in between write what changed between two snapshots (`changes`).
//! - `run` runs the ticks of one `receiver`, `deliver` sends a batch, and `answer` says what an answer means.
//! - All receivers share one thread of low priority, as scrapes share the render thread. Nothing waits for it.

use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::form::TickForm;
use self::receiver::RemoteReceiver;
use self::shown::ShownFamilies;
pub use self::status::{RemoteWriteStatus, gather_remote_writes};
pub use self::tick::OwnFamilies;
use self::tick::TickSource;
use self::times::TickTimes;
use super::clock::Clock;
use super::metrics::VERSION;
use super::threads::lower_priority;
use crate::compression::snappy_block;
use crate::exposition::remote_write::ExternalLabels;
use crate::model::{Family, Revision};
use crate::net::dial::DialObserver;
use crate::net::http::sender::{HttpSender, PostError, SenderFileError, SenderKeys, SenderLane};
use crate::store::Published;

mod answer;
mod changes;
mod deliver;
mod form;
mod names;
mod on_change;
pub mod options;
mod receiver;
mod run;
mod shown;
mod status;
mod tick;
mod times;

use options::RemoteWriteOptions;

/// Makes the sender of a receiver, with the credentials in its files.
///
/// # Errors
/// If a file cannot be read or used.
pub fn sender(options: &RemoteWriteOptions) -> Result<HttpSender, SenderFileError> {
    let agent = format!("pushrelay/{VERSION}");
    let keys = SenderKeys::load(&options.sender)?;
    Ok(HttpSender::new(options.url.clone(), &agent, &options.headers, &options.sender, keys))
}

/// Sends a message without samples, which is valid, in the configured version. Returns the status, and the beginning of the
/// answer.
///
/// # Errors
/// If there is no answer.
pub async fn probe(
    sender: &HttpSender,
    options: &RemoteWriteOptions,
    observer: &mut dyn DialObserver,
) -> Result<(u16, String), PostError> {
    let (mut lane, body) = (SenderLane::default(), Bytes::from(snappy_block(&[])));
    let answer = sender.post_watched(&mut lane, &TickForm::of(options).headers(), body, observer).await?;
    Ok((answer.status, answer.text))
}

/// The receivers of a node that starts: their senders and status, and what the store shows before anything changes it.
pub struct RemoteWrites {
    options: Vec<RemoteWriteOptions>,
    /// The senders, by name.
    pub senders: Vec<(Arc<HttpSender>, String)>,
    /// The status of each.
    pub statuses: Vec<Arc<RemoteWriteStatus>>,
    published: Published,
    shown: Vec<ShownFamilies>,
}

impl RemoteWrites {
    /// Prepares the receivers.
    ///
    /// # Errors
    /// If a file with credentials cannot be read or used.
    pub fn prepare(options: &[RemoteWriteOptions], published: &Published) -> Result<Self, SenderFileError> {
        let mut prepared = Self {
            options: options.to_vec(),
            senders: Vec::new(),
            statuses: Vec::new(),
            published: published.clone(),
            shown: Vec::new(),
        };
        for options in options {
            prepared.senders.push((Arc::new(sender(options)?), options.name.clone()));
            prepared.statuses.push(RemoteWriteStatus::new(options.name.clone(), options.url.to_string()));
            let none: OwnFamilies = Arc::new(Vec::new);
            prepared.shown.push(prepared.source(options, none).shown(TickForm::of(options)));
        }
        Ok(prepared)
    }

    fn source(&self, options: &RemoteWriteOptions, own: OwnFamilies) -> TickSource {
        TickSource {
            published: self.published.clone(),
            own,
            selectors: options.selectors.clone(),
            target: Arc::new(options.target_labels.clone()),
            escaping: options.escaping,
            external: ExternalLabels::new(options.external_labels.clone()),
            has_metadata: options.metadata_interval.is_some(),
        }
    }

    /// Starts the thread; `None` if there is no receiver. The times of ticks are in `folder`. At the end, a last tick
    /// takes `last_limit` at most. `changed` follows the revisions of the store.
    ///
    /// # Errors
    /// If the operating system cannot start a thread.
    pub fn start(
        self,
        own: Arc<dyn Fn() -> Vec<Family> + Send + Sync>,
        clock: &Arc<Clock>,
        folder: Option<PathBuf>,
        last_limit: Duration,
        changed: &watch::Receiver<Revision>,
    ) -> io::Result<Option<RemoteWriteThread>> {
        if self.options.is_empty() {
            return Ok(None);
        }
        let (stop, clock, changed) = (CancellationToken::new(), clock.clone(), changed.clone());
        let stopping = stop.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let thread = std::thread::Builder::new().name("remote-write".into()).spawn(move || {
            lower_priority();
            let names: Vec<&str> = self.options.iter().map(|options| &*options.name).collect();
            let times = Rc::new(TickTimes::read(folder, &names));
            let sources: Vec<TickSource> =
                self.options.iter().map(|options| self.source(options, own.clone())).collect();
            let parts = self.options.into_iter().zip(sources).zip(self.senders).zip(self.statuses).zip(self.shown);
            let receivers = parts.map(|((((options, source), (sender, _)), status), shown)| {
                let receiver = RemoteReceiver::new(options, sender, status, source, clock.clone(), times.clone());
                receiver.run(shown, changed.clone(), stopping.clone(), last_limit)
            });
            runtime.block_on(join_all(receivers));
            // A name look-up that has no answer yet does not delay the end.
            runtime.shutdown_background();
        })?;
        Ok(Some(RemoteWriteThread { stop, thread }))
    }
}

/// The running thread.
pub struct RemoteWriteThread {
    stop: CancellationToken,
    thread: JoinHandle<()>,
}

impl RemoteWriteThread {
    /// Begins the last ticks.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Whether the thread has ended.
    pub fn is_over(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for the end, which is reached when [`RemoteWriteThread::is_over`] says so. Returns whether the thread did
    /// not fail.
    pub fn join(self) -> bool {
        self.thread.join().is_ok()
    }
}
