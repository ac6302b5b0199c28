//! A blocking HTTP/1.1 client. It sends targets, headers and bodies exactly as given, does not retry, and follows no
//! redirects.
//!
//! [`request`] makes one request on its own connection. [`Client`] keeps its connection and passes on a body as it
//! arrives, for large scrapes. [`connect`] and [`Reply::receive`] are for requests that a test writes by hand.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::Deref;
use std::time::Duration;

/// The time limit for connecting, and for each read and write.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The length of a line of the head, and of a chunk's header, at most.
const LINE_BYTES_MAX: u64 = 64 << 10;
/// The length of a body, at most.
const BODY_BYTES_MAX: u64 = 2 << 30;
/// Bytes that one read takes from the socket.
const BUFFER_BYTES: usize = 256 << 10;

/// Status and headers of a response.
#[derive(Clone, Debug, Default)]
pub struct Head {
    /// The status code.
    pub status: u16,
    /// The names are in lower case.
    headers: Vec<(String, String)>,
}

/// A whole response.
#[derive(Clone, Debug, Default)]
pub struct Reply {
    head: Head,
    /// The body, with any chunked coding removed.
    pub body: Vec<u8>,
}

enum Framing {
    Length(u64),
    Chunked,
    UntilClose,
}

/// Sends a request and reads the response. Fails if the server is not there or disconnects meanwhile.
///
/// # Errors
/// Returns an error if the server cannot be reached, disconnects, or sends no valid response.
pub fn request(
    server: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<Reply> {
    let mut stream = connect(server)?;
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {server}\r\nconnection: close\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    if !body.is_empty() || ["PUT", "POST"].contains(&method) {
        head += &format!("content-length: {}\r\n", body.len());
    }
    stream.write_all((head + "\r\n").as_bytes())?;
    // The server may refuse a body before it has read it. Its response must still be read.
    let sent = stream.write_all(body);
    Reply::receive(method, &mut stream).map_err(|error| sent.err().unwrap_or(error))
}

/// A connection with timeouts, for tests that write requests by hand.
///
/// # Errors
/// Returns an error if the server cannot be reached.
pub fn connect(server: SocketAddr) -> io::Result<TcpStream> {
    connect_within(server, TIMEOUT)
}

fn connect_within(server: SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&server, timeout)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    Ok(stream)
}

impl Head {
    /// Reads the head of a response, after any interim one (`100 Continue`).
    fn read(stream: &mut impl BufRead) -> io::Result<Head> {
        loop {
            let line = read_line(stream)?;
            let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
            let status = status.ok_or_else(|| io::Error::other(format!("not HTTP: {line}")))?;
            let mut headers = Vec::new();
            loop {
                let line = read_line(stream)?;
                match line.split_once(':') {
                    Some((name, value)) => headers.push((name.to_ascii_lowercase(), value.trim().to_owned())),
                    None if line.is_empty() => break,
                    None => return Err(io::Error::other(format!("not a header: {line}"))),
                }
            }
            if status != 100 {
                return Ok(Head { status, headers });
            }
        }
    }

    /// The first value of a header, by its lower-case name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| &**value)
    }

    /// All values of a header, joined by commas.
    pub fn header_values(&self, name: &str) -> Option<String> {
        let values: Vec<&str> = self.headers.iter().filter(|(n, _)| n == name).map(|(_, value)| &**value).collect();
        (!values.is_empty()).then(|| values.join(", "))
    }

    fn framing(&self, method: &str) -> io::Result<Framing> {
        if method == "HEAD" || [204, 304].contains(&self.status) {
            return Ok(Framing::Length(0));
        }
        if self.header("transfer-encoding") == Some("chunked") {
            return Ok(Framing::Chunked);
        }
        Ok(match self.header("content-length") {
            Some(length) => Framing::Length(length.parse().map_err(io::Error::other)?),
            None => Framing::UntilClose,
        })
    }
}

impl Reply {
    /// Reads the response to a request with that method, until the server closes the connection.
    ///
    /// # Errors
    /// Returns an error if the server disconnects, or sends no valid response.
    pub fn receive(method: &str, stream: &mut impl Read) -> io::Result<Reply> {
        let mut bytes = Vec::new();
        let end = stream.read_to_end(&mut bytes);
        Reply::parse(method, &bytes).map_err(|error| end.err().unwrap_or(error))
    }

    fn parse(method: &str, mut bytes: &[u8]) -> io::Result<Reply> {
        let head = Head::read(&mut bytes)?;
        let mut body = Vec::new();
        head.framing(method)?.copy(&mut bytes, &mut |piece| body.extend_from_slice(piece))?;
        if bytes.is_empty() { Ok(Reply { head, body }) } else { Err(io::Error::other("bytes follow the response")) }
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    #[cfg(feature = "product")]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }
}

impl Deref for Reply {
    type Target = Head;

    fn deref(&self) -> &Head {
        &self.head
    }
}

/// A client of one server, on one connection that is kept between requests.
#[derive(Debug)]
pub struct Client {
    server: SocketAddr,
    timeout: Duration,
    stream: Option<BufReader<TcpStream>>,
}

impl Client {
    /// A client that connects with its first request. `timeout` limits connecting, and each read and write.
    pub fn new(server: SocketAddr, timeout: Duration) -> Client {
        Client { server, timeout, stream: None }
    }

    /// The address of the server.
    pub fn server(&self) -> SocketAddr {
        self.server
    }

    /// Sends `bytes`, a whole request with that method, and passes the body of the response to `piece` as it arrives.
    /// Returns the head, and the length of the body as transferred.
    ///
    /// # Errors
    /// Returns an error if the server cannot be reached, disconnects, or sends no valid response.
    pub fn send(&mut self, method: &str, bytes: &[u8], mut piece: impl FnMut(&[u8])) -> io::Result<(Head, u64)> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => BufReader::with_capacity(BUFFER_BYTES, connect_within(self.server, self.timeout)?),
        };
        stream.get_mut().write_all(bytes)?;
        let head = Head::read(&mut stream)?;
        let framing = head.framing(method)?;
        let body_bytes = framing.copy(&mut stream, &mut piece)?;
        if !matches!(framing, Framing::UntilClose) && head.header("connection") != Some("close") {
            self.stream = Some(stream);
        }
        Ok((head, body_bytes))
    }
}

impl Framing {
    /// Passes the body to `piece`; returns its length.
    fn copy(&self, stream: &mut impl BufRead, piece: &mut impl FnMut(&[u8])) -> io::Result<u64> {
        match self {
            Framing::Length(length) => copy(stream, *length, piece),
            Framing::Chunked => copy_chunks(stream, piece),
            Framing::UntilClose => copy_to_end(stream, piece),
        }
    }
}

fn read_line(stream: &mut impl BufRead) -> io::Result<String> {
    let mut line = Vec::new();
    stream.take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
    match line.strip_suffix(b"\r\n") {
        Some(line) => Ok(String::from_utf8_lossy(line).into_owned()),
        None => Err(io::Error::other("the response ends inside a line, or a line is too long")),
    }
}

fn copy(stream: &mut impl BufRead, length: u64, piece: &mut impl FnMut(&[u8])) -> io::Result<u64> {
    let mut left = length;
    while left > 0 {
        let bytes = stream.fill_buf()?;
        if bytes.is_empty() {
            return Err(io::Error::other(format!("the response ends {left} bytes early")));
        }
        let taken = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        piece(&bytes[..taken]);
        stream.consume(taken);
        left -= taken as u64;
    }
    Ok(length)
}

fn copy_chunks(stream: &mut impl BufRead, piece: &mut impl FnMut(&[u8])) -> io::Result<u64> {
    let mut total = 0;
    loop {
        let line = read_line(stream)?;
        let length = line.split(';').next().unwrap_or_default().trim();
        let length = u64::from_str_radix(length, 16).map_err(io::Error::other)?;
        total = within_limit(total + copy(stream, length, piece)?)?;
        read_line(stream)?;
        if length == 0 {
            return Ok(total);
        }
    }
}

fn copy_to_end(stream: &mut impl BufRead, piece: &mut impl FnMut(&[u8])) -> io::Result<u64> {
    let mut total = 0;
    loop {
        let bytes = stream.fill_buf()?;
        let taken = bytes.len();
        if taken == 0 {
            return Ok(total);
        }
        piece(bytes);
        stream.consume(taken);
        total = within_limit(total + taken as u64)?;
    }
}

fn within_limit(body_bytes: u64) -> io::Result<u64> {
    if body_bytes > BODY_BYTES_MAX { Err(io::Error::other("the response is too long")) } else { Ok(body_bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_framing_is_read() {
        let replies = [
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello",
        ];
        for reply in replies {
            let reply = Reply::parse("GET", reply.as_bytes()).unwrap();
            assert_eq!((reply.status, reply.text()), (200, "hello".to_owned()));
        }
        let cut = |reply: &str| (0..reply.len()).all(|at| Reply::parse("GET", &reply.as_bytes()[..at]).is_err());
        assert!(replies[..2].iter().all(|reply| cut(reply)), "a response that ends early is an error");
        assert!(Reply::parse("GET", format!("{}more", replies[0]).as_bytes()).is_err());
        let head = replies[0].trim_end_matches("hello").as_bytes();
        assert_eq!(Reply::parse("HEAD", head).unwrap().header("content-length"), Some("5"));
    }
}
