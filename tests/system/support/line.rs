//! The network between an edge and its hub: a forwarder that stays where it is while hubs come and go, and can be cut.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// Forwards connections to its address to wherever it leads at the moment.
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
    /// How much goes through in 50 ms each way; 0 if all that comes.
    narrow: AtomicUsize,
}

impl Line {
    /// A line that leads nowhere yet: connections to it are closed.
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

    /// Where to connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on connections go to `target`.
    pub fn lead_to(&self, target: SocketAddr) {
        *self.state.target.lock().unwrap() = Some(target);
    }

    /// From now on so many bytes go through in a second each way.
    pub fn narrow(&self, bytes_per_second: usize) {
        self.state.narrow.store(bytes_per_second / 20, Ordering::Relaxed);
    }

    /// Breaks every connection, and closes new ones until [`Line::lead_to`].
    pub fn cut(&self) {
        *self.state.target.lock().unwrap() = None;
        self.break_connections();
    }

    /// Breaks every connection; new ones go through.
    pub fn break_connections(&self) {
        for stream in self.state.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl State {
    fn forward(self: &Arc<Self>, near: TcpStream) -> io::Result<()> {
        // Held while connecting, so that a cut cannot come between the look and the connection.
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
    std::thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let narrow = line.narrow.load(Ordering::Relaxed).min(buffer.len());
            let room = if narrow == 0 { buffer.len() } else { narrow };
            match from.read(&mut buffer[..room]) {
                Ok(len @ 1..) if to.write_all(&buffer[..len]).is_ok() => {}
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
        // Wakes the acceptor, which sees that the line is closed.
        let _ = TcpStream::connect(self.address);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}
