//! A TCP proxy that counts bytes and can be cut.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::Result;

const CONNECTIONS_MAX: usize = 1024;

/// Forwards connections to one address, while it is not cut.
pub struct Proxy {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

/// The bytes so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Passed {
    /// From the clients.
    pub up: u64,
    /// To the clients.
    pub down: u64,
}

struct Shared {
    target: SocketAddr,
    cut: AtomicBool,
    up: AtomicU64,
    down: AtomicU64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    streams: Vec<TcpStream>,
    connected: Option<Instant>,
    ended: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Proxy {
    /// Starts forwarding to `target`.
    pub fn start(target: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            target,
            cut: AtomicBool::new(false),
            up: AtomicU64::new(0),
            down: AtomicU64::new(0),
            state: Mutex::default(),
        });
        let accepting = shared.clone();
        thread::spawn(move || accept(&listener, &accepting));
        Ok(Self { address, shared })
    }

    /// The address that it forwards to.
    pub fn target(&self) -> SocketAddr {
        self.shared.target
    }

    pub fn passed(&self) -> Passed {
        Passed { up: self.shared.up.load(Ordering::Relaxed), down: self.shared.down.load(Ordering::Relaxed) }
    }

    /// Ends all connections, and every new one from now on.
    pub fn cut(&self) {
        self.shared.cut.store(true, Ordering::SeqCst);
        let mut state = self.shared.state();
        state.connected = None;
        for stream in state.streams.drain(..) {
            // It may be closed already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Forwards again.
    pub fn mend(&self) {
        self.shared.cut.store(false, Ordering::SeqCst);
    }

    /// The time of the last connection, if it was made after the last cut.
    pub fn connected(&self) -> Option<Instant> {
        self.shared.state().connected
    }

    /// Waits until less than a kilobyte has passed for a second. Returns the time of the last larger traffic, or
    /// `None` at the deadline.
    pub fn await_quiet(&self, deadline: Instant) -> Option<Instant> {
        let all = |passed: Passed| passed.up + passed.down;
        let (mut last, mut since) = (all(self.passed()), Instant::now());
        while Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
            let now = all(self.passed());
            if now - last > 1024 {
                (last, since) = (now, Instant::now());
            } else if since.elapsed() > Duration::from_secs(1) {
                return Some(since);
            }
        }
        None
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.cut();
        self.shared.state().ended = true;
        // Wakes the accepting thread, which then ends; if it has ended before, nobody listens.
        let _ = TcpStream::connect(self.address);
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        if shared.state().ended {
            return;
        }
        if let Ok(stream) = stream
            && !shared.cut.load(Ordering::SeqCst)
        {
            // If the connection cannot be made, the peer sees a closed one.
            let _ = forward(stream, shared);
        }
    }
}

fn forward(near: TcpStream, shared: &Arc<Shared>) -> std::io::Result<()> {
    let far = TcpStream::connect(shared.target)?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let mut state = shared.state();
    if state.streams.len() >= CONNECTIONS_MAX {
        state.streams.drain(..2);
    }
    state.streams.push(near.try_clone()?);
    state.streams.push(far.try_clone()?);
    state.connected = Some(Instant::now());
    drop(state);
    let (up, down) = ((near.try_clone()?, far.try_clone()?), (far, near));
    let (shared_up, shared_down) = (shared.clone(), shared.clone());
    thread::spawn(move || copy(up, &shared_up.up));
    thread::spawn(move || copy(down, &shared_down.down));
    Ok(())
}

/// Copies until either side ends, then ends both.
fn copy((mut from, mut to): (TcpStream, TcpStream), count: &AtomicU64) {
    let mut bytes = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut bytes) {
        count.fetch_add(read as u64, Ordering::Relaxed);
        if to.write_all(&bytes[..read]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_counted_and_a_cut_is_seen_by_both() {
        let target = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let proxy = Proxy::start(target.local_addr().unwrap()).unwrap();
        let mut near = TcpStream::connect(proxy.address).unwrap();
        let (mut far, _) = target.accept().unwrap();
        near.write_all(b"hello").unwrap();
        let mut bytes = [0; 5];
        far.read_exact(&mut bytes).unwrap();
        far.write_all(b"hi").unwrap();
        near.read_exact(&mut bytes[..2]).unwrap();
        assert_eq!((proxy.passed().up, proxy.passed().down), (5, 2));
        proxy.cut();
        assert_eq!(near.read(&mut bytes).unwrap(), 0);
        assert_eq!(far.read(&mut bytes).unwrap(), 0);
        assert!(proxy.connected().is_none());
    }
}
