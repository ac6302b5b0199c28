//! The thread on which the gateway's connections are served: one, however many connections there are.
//!
//! What pushes come at the same time is then read in one go, written by whoever of them is resumed first
//! ([`super::writer`]), and answered, without another thread to wake. What takes long is done aside
//! ([`tokio::task::block_in_place`]), and scrapes are printed by [`super::press`].

use std::io;

use tokio::net::TcpListener;
use tokio::runtime::{Builder, Handle, Runtime};

/// See the module's documentation. Dropped, it ends without waiting for what runs there.
pub struct WebThread(Option<Runtime>);

impl WebThread {
    /// Starts the thread.
    ///
    /// # Errors
    /// If the operating system has none to give.
    pub fn start() -> io::Result<Self> {
        // Of a runtime that has but the one, nothing could be done aside.
        let runtime = Builder::new_multi_thread().worker_threads(1).thread_name("web").enable_all().build()?;
        Ok(Self(Some(runtime)))
    }

    /// Where to spawn.
    ///
    /// # Panics
    /// Never: the runtime goes with the thread.
    pub fn handle(&self) -> &Handle {
        self.0.as_ref().expect("there until dropped").handle()
    }

    /// The listener, whose connections the thread hears of itself, instead of being told by who bound it.
    ///
    /// # Errors
    /// If the operating system has no handle to give.
    pub fn adopt(&self, listener: TcpListener) -> io::Result<TcpListener> {
        let listener = listener.into_std()?;
        let _context = self.handle().enter();
        TcpListener::from_std(listener)
    }
}

impl Drop for WebThread {
    fn drop(&mut self) {
        // A runtime must not wait for its end where others wait for their turn.
        self.0.take().into_iter().for_each(Runtime::shutdown_background);
    }
}
