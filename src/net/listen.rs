//! Listening: binding with errors that say what to do, and the loop that accepts within a bound and stops gently.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tracing::{debug, error, warn};

use super::address::ListenAddress;
use super::stop::Stop;

/// How long accepting pauses when the system has no more file handles: the one thing that helps is that some are closed.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// An address cannot be listened on.
#[derive(Debug, Error)]
#[error("cannot listen on {address} ({key}): {error}; {}", advice(.error))]
pub struct ListenError {
    /// The address.
    pub address: ListenAddress,
    /// The key that gave it, like `web.listen_address`.
    pub key: &'static str,
    /// What the system said.
    pub error: io::Error,
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another process listens there (`ss -ltnp` shows which): stop it, or choose another address"
        }
        io::ErrorKind::AddrNotAvailable => "no interface of this host has that address",
        io::ErrorKind::PermissionDenied => "ports below 1024 need the capability CAP_NET_BIND_SERVICE",
        _ => "choose another address",
    }
}

/// Listens on an address; `key` is the option that gave it. Without a host that is every interface, by IPv6 and IPv4
/// where the host has both.
pub async fn bind(address: &ListenAddress, key: &'static str) -> Result<TcpListener, ListenError> {
    let port = address.port();
    let bound = match address.host() {
        "" => match TcpListener::bind(("::", port)).await {
            Err(error) if error.kind() != io::ErrorKind::AddrInUse => TcpListener::bind(("0.0.0.0", port)).await,
            bound => bound,
        },
        host => TcpListener::bind((host, port)).await,
    };
    bound.map_err(|error| ListenError { address: address.clone(), key, error })
}

/// The TCP sockets that systemd listens on for this process (`LISTEN_FDS`), in its order; the key `web.systemd_socket` asks
/// for them.
///
/// # Errors
/// If there is none, or one that is no TCP socket.
pub fn passed() -> io::Result<Vec<TcpListener>> {
    let mut passed = listenfd::ListenFd::from_env();
    let mut listeners = Vec::new();
    for index in 0..passed.len() {
        if let Some(listener) = passed.take_tcp_listener(index)? {
            listener.set_nonblocking(true)?;
            listeners.push(TcpListener::from_std(listener)?);
        }
    }
    match listeners.is_empty() {
        false => Ok(listeners),
        true => Err(io::Error::new(io::ErrorKind::NotFound, "no socket was passed on (LISTEN_FDS and LISTEN_PID)")),
    }
}

/// A bound on connections, shared by all listeners of one face. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Slots {
    free: Arc<Semaphore>,
    connections_max: usize,
}

impl Slots {
    /// So many connections.
    pub fn new(connections_max: usize) -> Self {
        let connections_max = connections_max.min(Semaphore::MAX_PERMITS);
        Self { free: Arc::new(Semaphore::new(connections_max)), connections_max }
    }

    /// Connections now.
    pub fn taken(&self) -> usize {
        self.connections_max - self.free.available_permits()
    }

    fn take(&self) -> Option<OwnedSemaphorePermit> {
        self.free.clone().try_acquire_owned().ok()
    }
}

/// How a listener accepts.
#[derive(Clone, Debug)]
pub struct Accepting {
    /// The bound on connections.
    pub slots: Slots,
    /// What a connection beyond the bound is told before it is closed; may be empty.
    pub refusal: &'static [u8],
    /// How long connections may take to end when told to stop; those that take longer are cut.
    pub drain_timeout: Duration,
}

/// Accepts until told to stop, and then waits for the connections to end. `serve` makes the future of one connection,
/// which has to watch the flag itself if it is to end gently.
pub async fn accept<F, Fut>(listener: TcpListener, accepting: Accepting, mut stop: Stop, mut serve: F)
where
    F: FnMut(TcpStream, SocketAddr) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = stop.stopped() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => match accepting.slots.take() {
                    Some(slot) => {
                        // Answers are written whole: waiting to fill a packet only delays them.
                        let _ = stream.set_nodelay(true);
                        // Large, and moved several times until it is spawned.
                        let connection = Box::pin(serve(stream, peer));
                        connections.spawn(async move {
                            connection.await;
                            drop(slot);
                        });
                    }
                    None => refuse(&stream, peer, accepting.refusal),
                },
                Err(error) => pause(&error, &mut stop).await,
            },
        }
        // Ended connections are let go as others come: to wake up for each would cost as much as the connection.
        while let Some(ended) = connections.try_join_next() {
            report(ended);
        }
    }
    drop(listener);
    drain(connections, accepting.drain_timeout).await;
}

fn refuse(stream: &TcpStream, peer: SocketAddr, refusal: &[u8]) {
    debug!(%peer, "connection refused: there are as many as may be");
    // A fresh socket's buffer takes a few hundred bytes at once; if not, the peer is closed without a word.
    let _ = stream.try_write(refusal);
}

/// A connection that ended before it was accepted is nobody's trouble; want of file handles is.
async fn pause(error: &io::Error, stop: &mut Stop) {
    match error.kind() {
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted => {}
        _ => {
            warn!(%error, "cannot accept connections; trying again");
            tokio::select! {
                () = stop.stopped() => {}
                () = tokio::time::sleep(EXHAUSTED_PAUSE) => {}
            }
        }
    }
}

async fn drain(mut connections: JoinSet<()>, timeout: Duration) {
    let ended = async {
        while let Some(ended) = connections.join_next().await {
            report(ended);
        }
    };
    if tokio::time::timeout(timeout, ended).await.is_err() {
        warn!(connections = connections.len(), "cutting connections that did not end in time");
        connections.shutdown().await;
    }
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        error!(%error, "a connection's task panicked: this is a bug");
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::net::stop;

    async fn loopback() -> (TcpListener, SocketAddr) {
        let listener = bind(&"127.0.0.1:0".parse().unwrap(), "web.listen_address").await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    fn accepting(connections_max: usize) -> Accepting {
        Accepting { slots: Slots::new(connections_max), refusal: b"full", drain_timeout: Duration::from_millis(1) }
    }

    #[tokio::test]
    async fn an_occupied_port_is_named() {
        let (_listener, address) = loopback().await;
        let error = bind(&address.to_string().parse().unwrap(), "web.listen_address").await.unwrap_err().to_string();
        assert!(error.contains(&address.to_string()) && error.contains("web.listen_address"), "{error}");
        assert!(error.contains("another process listens there"), "{error}");
    }

    #[tokio::test]
    async fn every_interface_takes_loopback() {
        let listener = bind(&":0".parse().unwrap(), "web.listen_address").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    }

    #[tokio::test]
    async fn one_connection_too_many_is_told_and_stopping_cuts_what_stays() {
        let (listener, address) = loopback().await;
        let (stopper, stop) = stop::channel();
        let accepting = accepting(1);
        let slots = accepting.slots.clone();
        let served = tokio::spawn(accept(listener, accepting, stop, |mut stream, _| async move {
            // It never looks at the flag.
            while let Ok(1..) = stream.read(&mut [0; 8]).await {
                let _ = stream.write_all(b"ok").await;
            }
        }));
        let mut first = TcpStream::connect(address).await.unwrap();
        first.write_all(b"?").await.unwrap();
        first.read_exact(&mut [0; 2]).await.unwrap();
        let mut second = TcpStream::connect(address).await.unwrap();
        let mut told = String::new();
        second.read_to_string(&mut told).await.unwrap();
        assert_eq!(told, "full");
        assert_eq!(slots.taken(), 1);
        stopper.stop();
        served.await.unwrap();
        assert_eq!(slots.taken(), 0);
        assert!(TcpStream::connect(address).await.is_err());
    }

    #[tokio::test]
    async fn a_slot_is_free_again_when_its_connection_ends() {
        let (listener, address) = loopback().await;
        let (_stopper, stop) = stop::channel();
        let served = tokio::spawn(accept(listener, accepting(1), stop, |mut stream, _| async move {
            let _ = stream.write_all(b"ok").await;
            let _ = stream.read(&mut [0; 1]).await;
        }));
        for _ in 0..3 {
            // The slot is given back a moment after the peer sees the end: until then connections are told "full".
            loop {
                let mut stream = TcpStream::connect(address).await.unwrap();
                let mut told = [0; 2];
                if stream.read_exact(&mut told).await.is_ok() && &told == b"ok" {
                    break;
                }
            }
        }
        served.abort();
    }
}
