//! The floor: a minimal server that parses and stores, as fast as a simple design allows.
//!
//! It checks nothing, forwards nothing and does not group by family, so its page is no valid exposition. One thread
//! serves all connections. With a log, all requests that arrived together share one sync before they are answered: the
//! simplest form of group commit. `?pieces` serves gzip made of fragments compressed in advance, one for each group.

mod groups;
mod log;

use std::collections::HashMap;
use std::io::{self, Read, Write};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

use crate::Result;
use crate::options::FloorOptions;
use groups::Groups;
use log::Log;

const LISTENER: Token = Token(usize::MAX);
const CONNECTIONS_MAX: usize = 4096;
const REQUEST_BYTES_MAX: usize = 64 << 20;

/// Serves until it is killed.
pub fn run(options: &FloorOptions) -> Result<()> {
    let mut floor = Floor::new(options)?;
    loop {
        floor.turn()?;
    }
}

struct Floor {
    poll: Poll,
    listener: TcpListener,
    connections: HashMap<usize, Connection>,
    next: usize,
    groups: Groups,
    log: Option<Log>,
    /// Connections whose answers wait for the sync.
    written: Vec<usize>,
}

struct Connection {
    stream: TcpStream,
    input: Vec<u8>,
    output: Vec<u8>,
    sent: usize,
}

impl Floor {
    fn new(options: &FloorOptions) -> Result<Self> {
        let poll = Poll::new()?;
        let mut listener = TcpListener::bind(options.listen)?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        let log = options.log.as_deref().map(Log::create).transpose()?;
        let (connections, written) = (HashMap::new(), Vec::new());
        Ok(Self { poll, listener, connections, next: 0, groups: Groups::default(), log, written })
    }

    /// Serves everything that is ready, then syncs, then answers.
    fn turn(&mut self) -> Result<()> {
        let mut events = Events::with_capacity(256);
        if let Err(error) = self.poll.poll(&mut events, None)
            && error.kind() != io::ErrorKind::Interrupted
        {
            return Err(error.into());
        }
        for event in &events {
            if event.token() == LISTENER {
                self.accept()?;
            } else if self.serve(event.token().0).is_err() {
                self.connections.remove(&event.token().0);
            }
        }
        if let Some(log) = &mut self.log {
            log.sync()?;
        }
        for id in std::mem::take(&mut self.written) {
            if self.connections.get_mut(&id).is_some_and(|connection| connection.flush().is_err()) {
                self.connections.remove(&id);
            }
        }
        Ok(())
    }

    fn accept(&mut self) -> Result<()> {
        loop {
            match self.listener.accept() {
                Ok(_) if self.connections.len() >= CONNECTIONS_MAX => {}
                Ok((mut stream, _)) => {
                    stream.set_nodelay(true)?;
                    let interest = Interest::READABLE | Interest::WRITABLE;
                    self.poll.registry().register(&mut stream, Token(self.next), interest)?;
                    let connection = Connection { stream, input: Vec::new(), output: Vec::new(), sent: 0 };
                    self.connections.insert(self.next, connection);
                    self.next += 1;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn serve(&mut self, id: usize) -> Result<()> {
        let Some(connection) = self.connections.get_mut(&id) else { return Ok(()) };
        connection.flush()?;
        let open = connection.fill()?;
        while let Some((head, length)) = request(&connection.input)? {
            let (head_bytes, rest) = connection.input.split_at(head);
            let body = &rest[..length];
            let line = std::str::from_utf8(head_bytes)?.lines().next().unwrap_or("");
            let gzip = contains(head_bytes, b"gzip");
            answer(&mut self.groups, self.log.as_mut(), line, gzip, body, &mut connection.output)?;
            connection.input.drain(..head + length);
            self.written.push(id);
        }
        if !open {
            return Err("closed".into());
        }
        Ok(())
    }
}

impl Connection {
    /// Reads the available bytes; returns whether the peer may send more.
    fn fill(&mut self) -> Result<bool> {
        let mut bytes = [0; 64 << 10];
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => return Ok(false),
                Ok(read) => self.input.extend_from_slice(&bytes[..read]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(error) => return Err(error.into()),
            }
            if self.input.len() > REQUEST_BYTES_MAX {
                return Err("too long".into());
            }
        }
    }

    fn flush(&mut self) -> Result<()> {
        while self.sent < self.output.len() {
            match self.stream.write(&self.output[self.sent..]) {
                Ok(sent) => self.sent += sent,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        self.sent = 0;
        self.output.clear();
        self.output.shrink_to(1 << 20);
        Ok(())
    }
}

/// The lengths of head and body of the first request, if it has arrived completely.
fn request(input: &[u8]) -> Result<Option<(usize, usize)>> {
    let Some(end) = input.windows(4).take(64 << 10).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    let head = std::str::from_utf8(&input[..end])?;
    let mut headers = head.lines().filter_map(|line| line.split_once(": "));
    let length = headers.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length = length.map_or(Ok(0), |(_, value)| value.parse::<usize>())?;
    Ok((input.len() - end - 4 >= length).then_some((end + 4, length)))
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

fn answer(
    groups: &mut Groups,
    log: Option<&mut Log>,
    line: &str,
    gzip: bool,
    body: &[u8],
    output: &mut Vec<u8>,
) -> Result<()> {
    let mut words = line.split(' ');
    let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    if method == "PUT" || method == "POST" {
        groups.push(path, std::str::from_utf8(body)?)?;
        if let Some(log) = log {
            log.append(body)?;
        }
        output.extend_from_slice(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        return Ok(());
    }
    let page = match (path.starts_with("/metrics"), gzip) {
        (false, _) => Vec::new(),
        (true, false) => groups.render(),
        (true, true) if path.ends_with("?pieces") => groups.render_pieces()?,
        (true, true) => groups::gzip(&groups.render())?,
    };
    output.extend_from_slice(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", page.len()).as_bytes());
    output.extend_from_slice(&page);
    Ok(())
}
