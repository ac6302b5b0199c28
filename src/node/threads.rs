//! The threads that a node's tasks run on: one for the gateway's connections, however many there are, and others for links.
//!
//! So what pushes come at the same time is read in one go, written by whoever of them is resumed first
//! ([`super::writer`]), and answered, without another thread to wake. What takes long is done aside
//! ([`tokio::task::block_in_place`]), and scrapes are printed by [`super::http::render_thread`].

use std::io;
use std::num::NonZero;

use tokio::net::TcpListener;
use tokio::runtime::{Builder, Handle, Runtime};
use tracing::debug;

/// The weight of a thread that gives way is about a third of that of the others.
const NICENESS: i32 = 5;

/// Threads that share tasks. Dropped, they end without waiting for what runs there.
pub struct Threads(Option<Runtime>);

impl Threads {
    /// Starts the gateway's, which is one.
    ///
    /// # Errors
    /// If the operating system has none to give.
    pub fn for_gateway() -> io::Result<Self> {
        Self::start("web", 1)
    }

    /// Starts those of links: as many as leave the gateway a processor.
    ///
    /// # Errors
    /// If the operating system has none to give.
    pub fn for_links() -> io::Result<Self> {
        Self::start("links", processors().saturating_sub(1).max(1))
    }

    fn start(name: &str, workers: usize) -> io::Result<Self> {
        // A runtime of the kind that has several, even for one: on the other nothing could be done aside.
        let mut builder = Builder::new_multi_thread();
        let runtime = builder.worker_threads(workers).thread_name(name).enable_io().enable_time().build()?;
        Ok(Self(Some(runtime)))
    }

    /// Where to spawn.
    ///
    /// # Panics
    /// Never: the runtime goes with the handle.
    pub fn handle(&self) -> &Handle {
        self.0.as_ref().expect("there until dropped").handle()
    }

    /// The listener, so that these threads hear of its connections themselves, instead of being told by who bound it.
    ///
    /// # Errors
    /// If the operating system has no handle to give.
    pub fn adopt(&self, listener: TcpListener) -> io::Result<TcpListener> {
        let listener = listener.into_std()?;
        let _context = self.handle().enter();
        TcpListener::from_std(listener)
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // A runtime must not wait for its end where others wait for their turn.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// How many processors there are for this process.
pub fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

/// Lowers the priority of the calling thread for good. (On Linux a niceness is a thread's own.) Without it everything
/// works, and pushes wait longer.
pub fn lower_priority() {
    if let Err(error) = rustix::process::nice(NICENESS) {
        debug!(%error, "a thread cannot give way to others");
    }
}
