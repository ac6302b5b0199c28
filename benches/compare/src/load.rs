//! The load generator: one thread, many connections, one request at a time on each.
//!
//! A request is made in place in its connection's buffer, so that making it costs little compared with sending it. A
//! load is closed (each connection sends as soon as it is answered) or paced. A paced request's latency counts from
//! its due time, so that a server that stalls cannot hide how many requests waited.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream as Blocking};
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::Result;
use crate::latency::Latencies;

const REPLY_BYTES_MAX: usize = 64 << 10;
const FAILURES_MAX: usize = 100;
/// How long requests may stay unanswered after the last one was sent.
const PATIENCE: Duration = Duration::from_secs(120);

/// How to load a server.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub address: SocketAddr,
    pub connections: usize,
    pub requests_max: usize,
    pub time_max: Duration,
    /// Requests a second; as many as are answered if `None`.
    pub rate: Option<f64>,
    /// Whether each request takes a new connection.
    pub reconnect: bool,
}

/// Makes requests.
pub trait Requests {
    /// Makes the next request of a connection, in place of its one before.
    fn next(&mut self, connection: usize, request: &mut Vec<u8>);
}

/// The result of a load.
#[derive(Debug)]
pub struct Outcome {
    /// Latencies of the requests answered with 2xx.
    pub latencies: Latencies,
    pub wall: Duration,
    pub failed: usize,
    pub first_failure: Option<String>,
    /// The share of the time that this generator used the processor; near 1, the generator limits the load.
    pub generator_busy: f64,
}

impl Outcome {
    /// Requests answered with 2xx.
    pub fn done(&self) -> usize {
        self.latencies.len()
    }

    /// An error if any request failed.
    pub fn checked(self) -> Result<Self> {
        match &self.first_failure {
            Some(failure) => Err(format!("{} requests failed, first: {failure}", self.failed).into()),
            None => Ok(self),
        }
    }
}

/// Runs a load to its end.
pub fn run(load: &Load, requests: &mut dyn Requests) -> Result<Outcome> {
    let mut generator = Generator::new(load)?;
    let (started, cpu) = (Instant::now(), thread_cpu_seconds());
    generator.drive(requests)?;
    let wall = started.elapsed();
    let mut outcome = generator.outcome;
    outcome.wall = wall;
    outcome.generator_busy = (thread_cpu_seconds() - cpu) / wall.as_secs_f64();
    Ok(outcome)
}

fn thread_cpu_seconds() -> f64 {
    let counts = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    counts.split(' ').next().and_then(|count| count.parse::<f64>().ok()).map_or(0.0, |nanoseconds| nanoseconds / 1e9)
}

struct Connection {
    stream: Option<TcpStream>,
    request: Vec<u8>,
    written: usize,
    reply: Vec<u8>,
    since: Instant,
    busy: bool,
}

struct Generator<'a> {
    load: &'a Load,
    poll: Poll,
    connections: Vec<Connection>,
    idle: Vec<usize>,
    sent: usize,
    next_due: Instant,
    deadline: Instant,
    outcome: Outcome,
}

impl<'a> Generator<'a> {
    fn new(load: &'a Load) -> Result<Self> {
        let now = Instant::now();
        let connection = |_| Connection {
            stream: None,
            request: Vec::new(),
            written: 0,
            reply: Vec::new(),
            since: now,
            busy: false,
        };
        Ok(Self {
            load,
            poll: Poll::new()?,
            connections: (0..load.connections).map(connection).collect(),
            idle: (0..load.connections).rev().collect(),
            sent: 0,
            next_due: now,
            deadline: now + load.time_max,
            outcome: Outcome {
                latencies: Latencies::default(),
                wall: Duration::ZERO,
                failed: 0,
                first_failure: None,
                generator_busy: 0.0,
            },
        })
    }

    fn drive(&mut self, requests: &mut dyn Requests) -> Result<()> {
        let mut events = Events::with_capacity(self.load.connections.max(16));
        loop {
            self.send_due(requests)?;
            let outstanding = self.connections.len() - self.idle.len();
            if outstanding == 0 && self.is_over() {
                return Ok(());
            }
            self.poll.poll(&mut events, Some(self.wait(outstanding)))?;
            for event in &events {
                let at = event.token().0;
                if self.connections[at].busy {
                    self.advance(at, requests)?;
                }
            }
            if Instant::now() > self.deadline + PATIENCE {
                return Err(format!("{outstanding} requests were not answered within {PATIENCE:?}").into());
            }
        }
    }

    fn is_over(&self) -> bool {
        self.sent >= self.load.requests_max || Instant::now() >= self.deadline
    }

    /// How long nothing is to be sent.
    fn wait(&self, outstanding: usize) -> Duration {
        match self.load.rate {
            Some(_) if outstanding < self.connections.len() && !self.is_over() => {
                self.next_due.saturating_duration_since(Instant::now())
            }
            _ => Duration::from_secs(1),
        }
    }

    /// Sends what is due on idle connections.
    fn send_due(&mut self, requests: &mut dyn Requests) -> Result<()> {
        while !self.idle.is_empty() && !self.is_over() {
            let mut since = Instant::now();
            if let Some(rate) = self.load.rate {
                if since < self.next_due {
                    return Ok(());
                }
                since = self.next_due;
                self.next_due += Duration::from_secs_f64(1.0 / rate);
            }
            if let Some(at) = self.idle.pop() {
                self.send(at, since, requests)?;
            }
        }
        Ok(())
    }

    fn send(&mut self, at: usize, since: Instant, requests: &mut dyn Requests) -> Result<()> {
        let connection = &mut self.connections[at];
        requests.next(at, &mut connection.request);
        connection.written = 0;
        connection.reply.clear();
        connection.since = since;
        connection.busy = true;
        self.sent += 1;
        if connection.stream.is_none() {
            match connect(self.load.address, &self.poll, at) {
                Ok(stream) => connection.stream = Some(stream),
                Err(error) => return self.finish(at, Err(error.to_string())),
            }
        }
        if let Err(error) = connection.write() {
            return self.finish(at, Err(error.to_string()));
        }
        Ok(())
    }

    /// Continues with a connection, through as many requests as it can without waiting.
    fn advance(&mut self, at: usize, requests: &mut dyn Requests) -> Result<()> {
        loop {
            let outcome = match self.connections[at].exchange() {
                Ok(None) => return Ok(()),
                Ok(Some(status)) if (200..300).contains(&status) => Ok(()),
                Ok(Some(_)) => Err(String::from_utf8_lossy(&self.connections[at].reply).into_owned()),
                Err(error) => Err(error.to_string()),
            };
            self.finish(at, outcome)?;
            if self.load.rate.is_some() || self.is_over() {
                return Ok(());
            }
            self.idle.pop();
            self.send(at, Instant::now(), requests)?;
            if !self.connections[at].busy {
                return Ok(());
            }
        }
    }

    fn finish(&mut self, at: usize, outcome: std::result::Result<(), String>) -> Result<()> {
        let connection = &mut self.connections[at];
        connection.busy = false;
        if self.load.reconnect || outcome.is_err() {
            connection.stream = None;
        }
        self.idle.push(at);
        match outcome {
            Ok(()) => self.outcome.latencies.add(connection.since.elapsed()),
            Err(reason) => {
                self.outcome.failed += 1;
                if self.outcome.failed > FAILURES_MAX {
                    return Err(format!("more than {FAILURES_MAX} requests failed, last: {reason}").into());
                }
                self.outcome.first_failure.get_or_insert(reason);
            }
        }
        Ok(())
    }
}

fn connect(address: SocketAddr, poll: &Poll, at: usize) -> io::Result<TcpStream> {
    // On the loopback this returns at once, so connecting needs no state of its own.
    let stream = Blocking::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    let mut stream = TcpStream::from_std(stream);
    poll.registry().register(&mut stream, Token(at), Interest::READABLE | Interest::WRITABLE)?;
    Ok(stream)
}

impl Connection {
    fn stream(&mut self) -> io::Result<&mut TcpStream> {
        self.stream.as_mut().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    fn write(&mut self) -> io::Result<()> {
        while self.written < self.request.len() {
            let rest = self.written..;
            let Some(stream) = &mut self.stream else { return Err(io::ErrorKind::NotConnected.into()) };
            match stream.write(&self.request[rest]) {
                Ok(written) => self.written += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes what is left of the request and reads what is there of the reply: its status once it is complete.
    fn exchange(&mut self) -> io::Result<Option<u16>> {
        self.write()?;
        let mut bytes = [0; 4096];
        loop {
            match self.stream()?.read(&mut bytes) {
                Ok(0) => return Err(io::Error::other("the server closed the connection before it answered")),
                Ok(read) => self.reply.extend_from_slice(&bytes[..read]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            if let Some(status) = complete(&self.reply)? {
                return Ok(Some(status));
            }
        }
    }
}

/// The status of a reply, if all of it is there.
fn complete(reply: &[u8]) -> io::Result<Option<u16>> {
    if reply.len() > REPLY_BYTES_MAX {
        return Err(io::Error::other("the reply is too long"));
    }
    let Some(end) = reply.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    let head = std::str::from_utf8(&reply[..end]).map_err(io::Error::other)?;
    let status = head.get(9..12).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| io::Error::other(format!("not HTTP: {head}")))?;
    let header = |name: &str| {
        let mut headers = head.lines().skip(1).filter_map(|line| line.split_once(':'));
        headers.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    };
    let body = &reply[end + 4..];
    let whole = match header("content-length") {
        Some(length) => body.len() >= length.parse().map_err(io::Error::other)?,
        None if header("transfer-encoding").is_some() => body.ends_with(b"0\r\n\r\n"),
        None => status == 204,
    };
    Ok(whole.then_some(status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_complete_with_its_last_byte() {
        let replies: [(&[u8], u16); 3] = [
            (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", 200),
            (b"HTTP/1.1 204 No Content\r\nX: y\r\n\r\n", 204),
            (b"HTTP/1.1 400 Bad Request\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n", 400),
        ];
        for (reply, status) in replies {
            assert_eq!(complete(reply).unwrap(), Some(status));
            assert!((0..reply.len()).all(|at| complete(&reply[..at]).unwrap().is_none()));
        }
    }
}
