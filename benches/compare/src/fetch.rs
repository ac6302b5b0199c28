//! A scraper: one blocking connection, kept between requests.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use flate2::bufread::MultiGzDecoder;

use crate::Result;

/// No server may take longer between two reads.
const TIMEOUT: Duration = Duration::from_secs(120);
const LINE_BYTES_MAX: u64 = 64 << 10;
const BODY_BYTES_MAX: u64 = 2 << 30;

/// A client of one server.
pub struct Client {
    address: SocketAddr,
    stream: Option<BufReader<TcpStream>>,
}

/// The answer to a request.
#[derive(Clone, Copy, Debug)]
pub struct Reply {
    pub status: u16,
    /// From the request to the last byte.
    pub wall: Duration,
    /// Bytes as transferred.
    pub body_bytes: u64,
}

enum Framing {
    Length(u64),
    Chunked,
    UntilClose,
}

impl Client {
    pub fn new(address: SocketAddr) -> Self {
        Self { address, stream: None }
    }

    /// Gets a page, handing its body piece by piece to `piece`.
    pub fn get(&mut self, path: &str, gzip: bool, piece: impl FnMut(&[u8])) -> Result<Reply> {
        let encoding = if gzip { "gzip" } else { "identity" };
        let head = format!("GET {path} HTTP/1.1\r\nHost: {}\r\nAccept-Encoding: {encoding}\r\n\r\n", self.address);
        self.request(head.as_bytes(), piece)
    }

    /// Pushes one body.
    pub fn put(&mut self, path: &str, body: &str) -> Result<()> {
        let head = format!("PUT {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n\r\n", self.address, body.len());
        let mut reason = Vec::new();
        let reply = self.request(format!("{head}{body}").as_bytes(), |piece| reason.extend_from_slice(piece))?;
        match reply.status {
            200..=299 => Ok(()),
            status => Err(format!("PUT {path}: {status} {}", String::from_utf8_lossy(&reason)).into()),
        }
    }

    /// Gets a page as text, decompressed if it came as gzip.
    pub fn text(&mut self, path: &str, gzip: bool) -> Result<String> {
        let mut body = Vec::new();
        let reply = self.get(path, gzip, |piece| body.extend_from_slice(piece))?;
        if reply.status != 200 {
            return Err(format!("GET {path}: {} {}", reply.status, String::from_utf8_lossy(&body)).into());
        }
        let mut text = String::new();
        if body.starts_with(&[0x1f, 0x8b]) {
            MultiGzDecoder::new(&body[..]).take(BODY_BYTES_MAX).read_to_string(&mut text)?;
        } else {
            text = String::from_utf8(body)?;
        }
        Ok(text)
    }

    fn request(&mut self, request: &[u8], mut piece: impl FnMut(&[u8])) -> Result<Reply> {
        let started = Instant::now();
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => self.connect()?,
        };
        stream.get_mut().write_all(request)?;
        let (status, framing, keep) = read_head(&mut stream)?;
        let body_bytes = match framing {
            Framing::Length(length) => copy(&mut stream, length, &mut piece)?,
            Framing::Chunked => copy_chunks(&mut stream, &mut piece)?,
            Framing::UntilClose => copy(&mut stream, BODY_BYTES_MAX, &mut piece)?,
        };
        if keep && !matches!(framing, Framing::UntilClose) {
            self.stream = Some(stream);
        }
        Ok(Reply { status, wall: started.elapsed(), body_bytes })
    }

    fn connect(&self) -> Result<BufReader<TcpStream>> {
        let stream = TcpStream::connect_timeout(&self.address, TIMEOUT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        Ok(BufReader::with_capacity(256 << 10, stream))
    }
}

fn read_line(stream: &mut impl BufRead) -> Result<String> {
    let mut line = Vec::new();
    stream.take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
    match line.strip_suffix(b"\r\n") {
        Some(line) => Ok(String::from_utf8_lossy(line).into_owned()),
        None => Err("the reply ends inside of a line, or a line is too long".into()),
    }
}

/// Reads status and headers; whether the connection stays open.
fn read_head(stream: &mut impl BufRead) -> Result<(u16, Framing, bool)> {
    let line = read_line(stream)?;
    let status: u16 = line.get(9..12).and_then(|code| code.parse().ok()).ok_or(format!("not HTTP: {line}"))?;
    let (mut framing, mut keep) = (Framing::UntilClose, true);
    if status == 204 || status == 304 {
        framing = Framing::Length(0);
    }
    loop {
        let line = read_line(stream)?.to_ascii_lowercase();
        match line.split_once(':').map(|(name, value)| (name, value.trim())) {
            None if line.is_empty() => return Ok((status, framing, keep)),
            None => return Err(format!("not a header: {line}").into()),
            Some(("content-length", value)) => framing = Framing::Length(value.parse()?),
            Some(("transfer-encoding", "chunked")) => framing = Framing::Chunked,
            Some(("connection", "close")) => keep = false,
            Some(_) => {}
        }
    }
}

fn copy(stream: &mut impl BufRead, length: u64, piece: &mut impl FnMut(&[u8])) -> Result<u64> {
    let mut left = length;
    while left > 0 {
        let bytes = stream.fill_buf()?;
        if bytes.is_empty() {
            break;
        }
        let taken = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        piece(&bytes[..taken]);
        stream.consume(taken);
        left -= taken as u64;
    }
    if left > 0 && length < BODY_BYTES_MAX {
        return Err(format!("the reply ends {left} bytes early").into());
    }
    Ok(length - left)
}

fn copy_chunks(stream: &mut impl BufRead, piece: &mut impl FnMut(&[u8])) -> Result<u64> {
    let mut total = 0;
    loop {
        let line = read_line(stream)?;
        let length = u64::from_str_radix(line.split(';').next().unwrap_or("").trim(), 16)?;
        total += copy(stream, length, piece)?;
        read_line(stream)?;
        if length == 0 {
            return Ok(total);
        }
        if total > BODY_BYTES_MAX {
            return Err("the reply is too long".into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(reply: &str) -> Result<(u16, Vec<u8>)> {
        let mut stream = reply.as_bytes();
        let (status, framing, _) = read_head(&mut stream)?;
        let mut body = Vec::new();
        let mut keep = |piece: &[u8]| body.extend_from_slice(piece);
        match framing {
            Framing::Length(length) => copy(&mut stream, length, &mut keep)?,
            Framing::Chunked => copy_chunks(&mut stream, &mut keep)?,
            Framing::UntilClose => copy(&mut stream, BODY_BYTES_MAX, &mut keep)?,
        };
        Ok((status, body))
    }

    #[test]
    fn every_framing_is_read() {
        let replies = [
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello",
        ];
        for reply in replies {
            assert_eq!(read(reply).unwrap(), (200, b"hello".to_vec()));
        }
        assert!(replies[..2].iter().all(|reply| (0..reply.len()).all(|at| read(&reply[..at]).is_err())));
    }
}
