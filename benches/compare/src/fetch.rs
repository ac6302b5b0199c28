//! A scraper: one blocking connection, kept between requests.

use std::io::Read;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use flate2::bufread::MultiGzDecoder;
use pushrelay_testkit::http;

use crate::Result;

/// The time limit for connecting, and for each read and write.
const TIMEOUT: Duration = Duration::from_secs(120);
/// The length of a decompressed page, at most.
const PAGE_BYTES_MAX: u64 = 2 << 30;

/// A client of one server.
pub struct Client(http::Client);

/// A response whose body was passed on.
#[derive(Clone, Copy, Debug)]
pub struct Reply {
    pub status: u16,
    /// From the request to the last byte.
    pub wall: Duration,
    /// As transferred.
    pub body_bytes: u64,
}

impl Client {
    pub fn new(address: SocketAddr) -> Self {
        Self(http::Client::new(address, TIMEOUT))
    }

    /// Gets a page, and passes its body to `piece` as it arrives.
    pub fn get(&mut self, path: &str, gzip: bool, piece: impl FnMut(&[u8])) -> Result<Reply> {
        let encoding = if gzip { "gzip" } else { "identity" };
        let host = self.0.server();
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nAccept-Encoding: {encoding}\r\n\r\n");
        let started = Instant::now();
        let (head, body_bytes) = self.0.send("GET", request.as_bytes(), piece)?;
        Ok(Reply { status: head.status, wall: started.elapsed(), body_bytes })
    }

    /// Pushes one body.
    pub fn put(&mut self, path: &str, body: &str) -> Result<()> {
        let (host, length) = (self.0.server(), body.len());
        let request = format!("PUT {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n\r\n{body}");
        let mut reason = Vec::new();
        let (head, _) = self.0.send("PUT", request.as_bytes(), |piece| reason.extend_from_slice(piece))?;
        match head.status {
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
            MultiGzDecoder::new(&body[..]).take(PAGE_BYTES_MAX).read_to_string(&mut text)?;
        } else {
            text = String::from_utf8(body)?;
        }
        Ok(text)
    }
}
