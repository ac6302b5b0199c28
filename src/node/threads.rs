//! The threads of a node's tasks: one for all connections of the gateway, and others for links.
//!
//! One thread serves all pushes, so pushes that arrive together are read in one poll, committed together by the task
//! that resumes first ([`super::commit`]), and answered without waking another thread. Long work runs with
//! [`tokio::task::block_in_place`], and scrapes are rendered by [`super::http::render_thread`].

use std::io;
use std::num::NonZero;

use tokio::net::TcpListener;
use tokio::runtime::{Builder, Handle, Runtime};
use tracing::debug;

/// A thread with this niceness has about a third of the scheduling weight of others.
const NICENESS: i32 = 5;

/// A tokio runtime. Dropping it does not wait for its tasks.
pub struct Threads(Option<Runtime>);

impl Threads {
    /// Starts the gateway's single thread.
    ///
    /// # Errors
    /// If the operating system cannot start a thread.
    pub fn for_gateway() -> io::Result<Self> {
        Self::start("web", 1)
    }

    /// Starts the threads of links: one fewer than there are processors, at least one.
    ///
    /// # Errors
    /// If the operating system cannot start a thread.
    pub fn for_links() -> io::Result<Self> {
        Self::start("links", processors().saturating_sub(1).max(1))
    }

    fn start(name: &str, workers: usize) -> io::Result<Self> {
        // This is a multi-thread runtime even for one thread, because `block_in_place` fails on the other kind.
        let mut builder = Builder::new_multi_thread();
        let runtime = builder.worker_threads(workers).thread_name(name).enable_io().enable_time().build()?;
        Ok(Self(Some(runtime)))
    }

    /// The handle for spawning tasks.
    ///
    /// # Panics
    /// Never: the runtime is there until drop.
    pub fn handle(&self) -> &Handle {
        self.0.as_ref().expect("there until dropped").handle()
    }

    /// Registers the listener with this runtime, so that these threads receive its events directly, and not through the
    /// runtime that bound it.
    ///
    /// # Errors
    /// If the listener cannot be registered.
    pub fn adopt(&self, listener: TcpListener) -> io::Result<TcpListener> {
        let listener = listener.into_std()?;
        let _context = self.handle().enter();
        TcpListener::from_std(listener)
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // Dropping a runtime inside an async task may not block.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// The number of processors that this process may use.
pub fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

/// Lowers the priority of the calling thread permanently. (On Linux, niceness is per thread.) If that fails, everything
/// works, but pushes wait longer.
pub fn lower_priority() {
    if let Err(error) = rustix::process::nice(NICENESS) {
        debug!(%error, "the priority of a thread cannot be lowered");
    }
}
