//! The threads of a node's tasks: one for all connections of the gateway, and others for links.
//!
//! One thread serves all pushes, so pushes that arrive together are read in one poll, committed together by the task
//! that resumes first ([`super::commit`]), and answered without waking another thread. Long work runs with
//! [`tokio::task::block_in_place`], and scrapes are rendered by [`super::http::render_thread`].

use std::io;
use std::num::NonZero;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;

use tokio::net::TcpListener;
use tokio::runtime::{Builder, Handle, Runtime};
use tracing::debug;

/// A thread with this niceness has about a third of the scheduling weight of others.
const NICENESS: i32 = 5;

/// The threads of a node besides those of its runtimes: commit worker, render thread, checkpoint, remote write, and some
/// that block.
const OTHER_THREADS: usize = 9;

/// A tokio runtime. Dropping it does not wait for its tasks.
pub struct Threads {
    runtime: Option<Runtime>,
    /// Ends the parked thread when it is dropped.
    _parked: mpsc::Sender<()>,
}

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
        Self::start("links", link_workers())
    }

    fn start(name: &str, workers: usize) -> io::Result<Self> {
        // This is a multi-thread runtime even for one thread, because `block_in_place` fails on the other kind.
        let mut builder = Builder::new_multi_thread();
        let runtime = builder.worker_threads(workers).thread_name(name).enable_io().enable_time().build()?;
        // If the operating system gives no thread, tokio panics, unless the runtime has a blocking thread already: then
        // `block_in_place` and name look-ups wait for one. This thread is parked for as long as the runtime lives.
        let (parked, wait) = mpsc::channel::<()>();
        runtime.spawn_blocking(move || wait.recv());
        Ok(Self { runtime: Some(runtime), _parked: parked })
    }

    /// The handle for spawning tasks.
    ///
    /// # Panics
    /// Never: the runtime is there until drop.
    pub fn handle(&self) -> &Handle {
        self.runtime.as_ref().expect("there until dropped").handle()
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
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn link_workers() -> usize {
    processors().saturating_sub(1).max(1)
}

/// Starts as many threads as a node needs, and ends them: tokio panics if it gets none at the start.
///
/// # Errors
/// A message for the operator, if the operating system does not allow as many threads.
pub fn check_available() -> Result<(), String> {
    let needed = 2 + link_workers() + OTHER_THREADS;
    let gate = Arc::new(Mutex::new(()));
    let guard = gate.lock().unwrap_or_else(PoisonError::into_inner);
    let mut started = Vec::new();
    let mut failed = None;
    while started.len() < needed && failed.is_none() {
        let gate = gate.clone();
        match thread::Builder::new().spawn(move || drop(gate.lock())) {
            Ok(thread) => started.push(thread),
            Err(error) => failed = Some(error),
        }
    }
    drop(guard);
    let count = started.len();
    started.into_iter().for_each(|thread| drop(thread.join()));
    failed.map_or(Ok(()), |error| {
        Err(format!(
            "the system allows {count} more threads, and a node needs {needed} ({error}): raise the limit of the user \
             (ulimit -u), of the service (TasksMax) or of the container (pids.max)"
        ))
    })
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
