//! The network between an edge and its hub: a forwarder with a fixed address that can be redirected and cut.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// Forwards connections from its address to the current target.
pub struct Line {
    address: SocketAddr,
    state: Arc<State>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    target: Mutex<Option<SocketAddr>>,
    open: Mutex<Vec<TcpStream>>,
    closed: AtomicBool,
    /// Bytes that pass in 50 ms each way; 0 for no limit.
    narrow: AtomicUsize,
    /// Connections that were opened before this many calls of [`Line::swallow`] pass nothing any more.
    swallowed: AtomicUsize,
}

impl Line {
    /// A line without a target: connections to it are closed.
    #[expect(clippy::new_without_default, reason = "it opens a socket and starts a thread")]
    pub fn new() -> Line {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State::default());
        let shared = state.clone();
        let acceptor = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if shared.closed.load(Ordering::Relaxed) {
                    return;
                }
                if let Ok(stream) = stream {
                    let _ = shared.forward(stream);
                }
            }
        });
        Line { address, state, acceptor: Some(acceptor) }
    }

    /// The address to connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends later connections to `target`.
    pub fn lead_to(&self, target: SocketAddr) {
        *self.state.target.lock().unwrap() = Some(target);
    }

    /// Limits the bytes per second each way from now on.
    pub fn narrow(&self, bytes_per_second: usize) {
        self.state.narrow.store(bytes_per_second / 20, Ordering::Relaxed);
    }

    /// Closes every connection, and closes new ones until [`Line::lead_to`].
    pub fn cut(&self) {
        *self.state.target.lock().unwrap() = None;
        self.break_connections();
    }

    /// Lets every connection pass nothing any more, not even its end, as if a machine lost its power; new ones pass.
    pub fn swallow(&self) {
        self.state.swallowed.fetch_add(1, Ordering::Relaxed);
    }

    /// Closes every connection; new ones pass.
    pub fn break_connections(&self) {
        for stream in self.state.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl State {
    fn forward(self: &Arc<Self>, near: TcpStream) -> io::Result<()> {
        // Locked while connecting, so that a cut cannot happen between the look-up and the connection.
        let target = self.target.lock().unwrap();
        let Some(target) = *target else { return near.shutdown(Shutdown::Both) };
        let far = TcpStream::connect(target)?;
        self.open.lock().unwrap().extend([near.try_clone()?, far.try_clone()?]);
        copy(self.clone(), near.try_clone()?, far.try_clone()?);
        copy(self.clone(), far, near);
        Ok(())
    }
}

/// Copies one direction on a thread that ends when either side closes, and then closes both.
fn copy(line: Arc<State>, mut from: TcpStream, mut to: TcpStream) {
    let opened = line.swallowed.load(Ordering::Relaxed);
    std::thread::spawn(move || {
        let is_swallowed = || line.swallowed.load(Ordering::Relaxed) > opened;
        let mut buffer = vec![0; 64 << 10];
        loop {
            let narrow = line.narrow.load(Ordering::Relaxed).min(buffer.len());
            let room = if narrow == 0 { buffer.len() } else { narrow };
            match from.read(&mut buffer[..room]) {
                Ok(1..) if is_swallowed() => {}
                Ok(len @ 1..) if to.write_all(&buffer[..len]).is_ok() => {}
                // The state has handles of both sockets, which so stay open.
                _ if is_swallowed() => return,
                _ => break,
            }
            if narrow > 0 {
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    });
}

impl Drop for Line {
    fn drop(&mut self) {
        self.cut();
        self.state.closed.store(true, Ordering::Relaxed);
        // This connection wakes the accepting thread, which then sees that the line is closed.
        let _ = TcpStream::connect(self.address);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}
