//! A receiver of remote write that counts, and stores nothing.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use crate::Result;

/// The counts so far.
#[derive(Debug, Default)]
pub struct Counts {
    /// Requests with samples, their bytes with heads, and their samples. Requests with metadata alone count as bytes only.
    pub requests: AtomicU64,
    pub bytes: AtomicU64,
    pub samples: AtomicU64,
}

/// A running sink. It ends with the program.
pub struct Sink {
    pub address: SocketAddr,
    pub counts: Arc<Counts>,
}

impl Sink {
    pub fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let (address, counts) = (listener.local_addr()?, Arc::<Counts>::default());
        let shared = counts.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let counts = shared.clone();
                thread::spawn(move || while_open(&stream, &counts));
            }
        });
        Ok(Self { address, counts })
    }
}

fn while_open(stream: &TcpStream, counts: &Counts) {
    let mut reader = BufReader::with_capacity(1 << 16, stream);
    while answer(&mut reader, stream, counts).is_some() {}
}

/// Reads a request and answers it; `None` when the connection is over.
fn answer(reader: &mut BufReader<&TcpStream>, mut stream: &TcpStream, counts: &Counts) -> Option<()> {
    let (mut head, mut length, mut is_v2) = (0, 0, false);
    loop {
        let mut line = String::new();
        let read = reader.read_line(&mut line).ok()?;
        head += read;
        match line.trim_end().to_ascii_lowercase().split_once(':') {
            _ if read == 0 => return None,
            _ if line.trim_end().is_empty() => break,
            Some(("content-length", value)) => length = value.trim().parse().ok()?,
            Some(("content-type", value)) => is_v2 = value.contains("write.v2"),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let message = snap::raw::Decoder::new().decompress_vec(&body).unwrap_or_default();
    let samples = series(&message, if is_v2 { 5 } else { 1 });
    counts.bytes.fetch_add((head + length) as u64, Ordering::Relaxed);
    counts.samples.fetch_add(samples, Ordering::Relaxed);
    counts.requests.fetch_add(u64::from(samples > 0), Ordering::Relaxed);
    let answer = format!("HTTP/1.1 204 No Content\r\nX-Prometheus-Remote-Write-Samples-Written: {samples}\r\n\r\n");
    stream.write_all(answer.as_bytes()).ok()
}

/// The number of fields of that number: each series has one sample. The other fields are length-delimited too.
fn series(mut message: &[u8], number: u8) -> u64 {
    let mut series = 0;
    while let [tag, rest @ ..] = message {
        let (mut length, mut shift) = (0_usize, 0);
        message = rest;
        while let [byte, rest @ ..] = message {
            length |= usize::from(byte & 0x7f) << shift;
            (shift, message) = (shift + 7, rest);
            if *byte < 0x80 || shift > 35 {
                break;
            }
        }
        message = message.get(length..).unwrap_or_default();
        series += u64::from(tag >> 3 == number);
    }
    series
}
