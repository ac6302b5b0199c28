//! The network between the edge and the hub: a forwarder that can be cut.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// Forwards every connection to where it leads.
pub struct Line {
    /// Where to connect to.
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    target: Option<SocketAddr>,
    is_cut: bool,
    open: Vec<TcpStream>,
}

impl Line {
    /// A line that leads nowhere yet.
    pub fn new() -> io::Result<Line> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let state = Arc::new(Mutex::new(State::default()));
        let shared = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A connection that fails is one that the edge dials again.
                let _ = forward(stream, &shared);
            }
        });
        Ok(Line { address, state })
    }

    /// From now on connections go to `target`.
    pub fn lead_to(&self, target: SocketAddr) {
        self.lock().target = Some(target);
    }

    /// Breaks every connection; new ones go through.
    pub fn break_connections(&self) {
        for stream in self.lock().open.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Breaks every connection, and closes new ones until [`Line::repair`].
    pub fn cut(&self) {
        self.lock().is_cut = true;
        self.break_connections();
    }

    /// Lets connections through again.
    pub fn repair(&self) {
        self.lock().is_cut = false;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it is held")
    }
}

fn forward(near: TcpStream, state: &Mutex<State>) -> io::Result<()> {
    let mut state = state.lock().expect("nothing panics while it is held");
    let target = state.target.filter(|_| !state.is_cut);
    let Some(target) = target else { return near.shutdown(Shutdown::Both) };
    let far = TcpStream::connect(target)?;
    state.open.extend([near.try_clone()?, far.try_clone()?]);
    copy(near.try_clone()?, far.try_clone()?);
    copy(far, near);
    Ok(())
}

fn copy(mut from: TcpStream, mut to: TcpStream) {
    std::thread::spawn(move || {
        let _ = io::copy(&mut from, &mut to);
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    });
}
