//! Listening: binding, with errors that say how to fix them, and the accept loop with its limit and graceful shutdown.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rustix::net::sockopt;
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use super::address::ListenAddress;
use super::slots::{SlotKind, Slots};

/// Pause of the accept loop when the system has no descriptor left. Accepting works again when some are closed.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);
/// The same, if an idle connection is closed to free one.
const ROOM_PAUSE: Duration = Duration::from_millis(5);
/// A silent peer is probed after this time, and again after each such time. One that answers none of the probes is gone:
/// an idle connection would otherwise stay for ever. These are the values of Go's server, which Pushgateway uses.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
const KEEPALIVE_PROBES: u32 = 9;

/// An address cannot be bound.
#[derive(Debug, Error)]
#[error("cannot listen on {address} ({key}): {error}; {}", advice(.error))]
pub struct ListenError {
    /// The address from the configuration.
    pub address: ListenAddress,
    /// The option that gave it, such as `web.listen_address`.
    pub key: &'static str,
    /// The operating system's error.
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

/// Binds an address; `key` is the option that gave it. An address without a host means every interface, over IPv6 and
/// IPv4 if the host has both.
///
/// # Errors
/// If the address cannot be bound.
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

/// The TCP sockets that systemd listens on for this process (`LISTEN_FDS`), in its order. The option
/// `web.systemd_socket` asks for them.
///
/// # Errors
/// If there is none, or one is not a TCP socket.
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

/// The options of an accept loop.
#[derive(Clone, Debug)]
pub struct Accepting {
    /// The limit on connections.
    pub slots: Slots,
    /// The bytes that a connection beyond the limit receives before it is closed; may be empty.
    pub refusal: &'static [u8],
    /// Time for open connections to end at shutdown. Connections that take longer are closed.
    pub drain_timeout: Duration,
}

/// Accepts connections until `stop`, then waits for them to end. `serve` makes the future of one connection, which has
/// to watch `stop` itself for a graceful end, and to keep to the kind of its slot.
pub async fn accept<F, Fut>(listener: TcpListener, accepting: Accepting, stop: CancellationToken, mut serve: F)
where
    F: FnMut(TcpStream, SocketAddr, SlotKind) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    let mut connections = JoinSet::new();
    if let Err(error) = probe_silent_peers(&listener) {
        debug!(%error, "no keep-alive probes: connections of peers that vanish stay open");
    }
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => match accepting.slots.take().await {
                    Some(slot) => {
                        // Responses are written whole, so Nagle's algorithm would only delay them.
                        let _ = stream.set_nodelay(true);
                        // The future is large, and is moved several times before it is spawned.
                        let connection = Box::pin(serve(stream, peer, slot.kind));
                        connections.spawn(async move {
                            connection.await;
                            drop(slot);
                        });
                    }
                    None => refuse(&stream, peer, accepting.refusal),
                },
                Err(error) => pause(&error, &accepting.slots, &stop).await,
            },
        }
        // Finished tasks are joined when the next connection arrives: a wake-up for each would cost as much as the
        // connection.
        while let Some(ended) = connections.try_join_next() {
            report(ended);
        }
    }
    drop(listener);
    drain(connections, accepting.drain_timeout).await;
}

fn refuse(stream: &TcpStream, peer: SocketAddr, refusal: &[u8]) {
    debug!(%peer, "connection refused: the limit on connections is reached");
    // The send buffer of a fresh socket takes a few hundred bytes at once. Otherwise the connection is closed without a
    // response.
    let _ = stream.try_write(refusal);
}

/// A connection that ended before it was accepted needs no attention; a lack of descriptors does.
async fn pause(error: &io::Error, slots: &Slots, stop: &CancellationToken) {
    match error.kind() {
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted => {}
        _ => {
            let pause = if slots.descriptors_exhausted(error) { ROOM_PAUSE } else { EXHAUSTED_PAUSE };
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }
}

/// Turns on TCP keep-alive for the connections of a listener, which inherit it.
fn probe_silent_peers(listener: &TcpListener) -> io::Result<()> {
    sockopt::set_socket_keepalive(listener, true)?;
    sockopt::set_tcp_keepidle(listener, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepintvl(listener, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(listener, KEEPALIVE_PROBES)?;
    Ok(())
}

async fn drain(mut connections: JoinSet<()>, timeout: Duration) {
    let ended = async {
        while let Some(ended) = connections.join_next().await {
            report(ended);
        }
    };
    if tokio::time::timeout(timeout, ended).await.is_err() {
        warn!(connections = connections.len(), "closing connections that did not end in time");
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

    async fn loopback() -> (TcpListener, SocketAddr) {
        let listener = bind(&"127.0.0.1:0".parse().unwrap(), "web.listen_address").await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    fn accepting(connections_max: usize) -> Accepting {
        Accepting {
            slots: Slots::new("web", connections_max),
            refusal: b"full",
            drain_timeout: Duration::from_millis(1),
        }
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
    async fn one_connection_too_many_is_refused_and_a_stop_closes_the_rest() {
        let (listener, address) = loopback().await;
        let stop = CancellationToken::new();
        let accepting = accepting(1);
        let slots = accepting.slots.clone();
        let served = tokio::spawn(accept(listener, accepting, stop.clone(), |mut stream, _, _| async move {
            // This connection ignores the stop signal.
            while let Ok(1..) = stream.read(&mut [0; 8]).await {
                let _ = stream.write_all(b"ok").await;
            }
        }));
        let mut first = TcpStream::connect(address).await.unwrap();
        first.write_all(b"?").await.unwrap();
        first.read_exact(&mut [0; 2]).await.unwrap();
        let mut second = TcpStream::connect(address).await.unwrap();
        let mut received = String::new();
        second.read_to_string(&mut received).await.unwrap();
        assert_eq!(received, "full");
        assert_eq!(slots.open(), 1);
        stop.cancel();
        served.await.unwrap();
        assert_eq!(slots.open(), 0);
        assert!(TcpStream::connect(address).await.is_err());
    }

    #[tokio::test]
    async fn a_slot_is_free_again_when_its_connection_ends() {
        let (listener, address) = loopback().await;
        let stop = CancellationToken::new();
        let served = tokio::spawn(accept(listener, accepting(1), stop, |mut stream, _, _| async move {
            let _ = stream.write_all(b"ok").await;
            let _ = stream.read(&mut [0; 1]).await;
        }));
        for _ in 0..3 {
            // The slot is free a moment after the peer sees the end of the connection. Until then connections get
            // "full".
            loop {
                let mut stream = TcpStream::connect(address).await.unwrap();
                let mut received = [0; 2];
                if stream.read_exact(&mut received).await.is_ok() && &received == b"ok" {
                    break;
                }
            }
        }
        served.abort();
    }
}
