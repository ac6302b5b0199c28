//! A receiver, and the state that all of its ticks share.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::form::TickForm;
use super::options::RemoteWriteOptions;
use super::status::RemoteWriteStatus;
use super::tick::TickSource;
use super::times::TickTimes;
use crate::net::http::sender::HttpSender;
use crate::node::clock::Clock;

/// The time between two equal lines of the log.
const LOG_INTERVAL: Duration = Duration::from_secs(3_600);

/// Writes to one receiver.
pub(super) struct RemoteReceiver {
    pub(super) options: RemoteWriteOptions,
    pub(super) sender: Arc<HttpSender>,
    pub(super) status: Arc<RemoteWriteStatus>,
    pub(super) source: TickSource,
    pub(super) clock: Arc<Clock>,
    pub(super) times: Rc<TickTimes>,
    /// Samples of a message: fewer than configured if the receiver refused larger ones.
    pub(super) samples_max: Cell<usize>,
    /// The form of messages: the configured one, or another if the receiver does not know it.
    pub(super) form: Cell<TickForm>,
    /// When metadata is written next; `None` for never.
    pub(super) metadata_at: Cell<Option<Instant>>,
    /// The last name whose metadata is written, if not all of them are.
    pub(super) metadata_after: RefCell<Option<Arc<str>>>,
    /// The lines of the log that were written, with their times.
    logged: RefCell<HashMap<&'static str, Instant>>,
    /// Whether the last tick was not written completely.
    pub(super) failing: Cell<bool>,
}

impl RemoteReceiver {
    pub(super) fn new(
        options: RemoteWriteOptions,
        sender: Arc<HttpSender>,
        status: Arc<RemoteWriteStatus>,
        source: TickSource,
        clock: Arc<Clock>,
        times: Rc<TickTimes>,
    ) -> Self {
        let samples_max = Cell::new(options.queue.max_samples_per_send);
        let form = Cell::new(TickForm::of(&options));
        let metadata_at = Cell::new(options.metadata_interval.map(|_| Instant::now()));
        Self {
            options,
            sender,
            status,
            source,
            clock,
            times,
            samples_max,
            form,
            metadata_at,
            metadata_after: RefCell::default(),
            logged: RefCell::default(),
            failing: Cell::new(false),
        }
    }

    /// Sends fewer samples at once, after the receiver refused as many as these.
    pub(super) fn shrink(&self, samples: usize) {
        self.samples_max.set(self.samples_max.get().min((samples / 2).max(1)));
    }

    /// Whether a line of that name was not logged for a while; it counts as logged now.
    pub(super) fn is_news(&self, name: &'static str) -> bool {
        let mut logged = self.logged.borrow_mut();
        let is_news = logged.get(name).is_none_or(|at| at.elapsed() >= LOG_INTERVAL);
        if is_news {
            logged.insert(name, Instant::now());
        }
        is_news
    }
}
