//! HTTP/2 at the gateway: requests at once, and connections of clients that mean harm.

use std::io::{self, Read, Write};
use std::path::Path;
use std::process::Command;

use pushrelay_testkit::{Site, tls};

use crate::web_security::{TLS, connected_status, curl, gateway, hash, have_curl};

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
/// `GET https://a/metrics`, by HPACK's static table.
const GET_METRICS: &[u8] = b"\x82\x87\x04\x08/metrics\x41\x01a";

/// Reads frames until one of that kind or the end; returns its stream and its payload.
fn next_of(stream: &mut impl Read, kind: u8) -> Option<(u32, Vec<u8>)> {
    let mut head = [0; 9];
    while stream.read_exact(&mut head).is_ok() {
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        stream.read_exact(&mut payload).ok()?;
        if head[3] == kind {
            return Some((u32::from_be_bytes([head[5], head[6], head[7], head[8]]), payload));
        }
    }
    None
}

/// Whether the server has closed the connection. A server that only stopped reading has not.
fn is_closed(written: &io::Result<()>) -> bool {
    let stuck = [io::ErrorKind::TimedOut, io::ErrorKind::WouldBlock];
    written.as_ref().is_err_and(|error| {
        assert!(!stuck.contains(&error.kind()), "what is sent is neither read nor refused: {error}");
        true
    })
}

/// The kinds of the frames that answer the first request, until its end.
fn kinds_until_end(stream: &mut impl Read) -> Vec<u8> {
    let (mut kinds, mut head) = (Vec::new(), [0; 9]);
    loop {
        stream.read_exact(&mut head).unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        stream.read_exact(&mut vec![0; length]).unwrap();
        if head[5..] == 1u32.to_be_bytes() && head[3] != WINDOW_UPDATE {
            kinds.push(head[3]);
            if head[4] & 1 == 1 {
                return kinds;
            }
        }
    }
}

#[test]
fn head_gets_no_body() {
    if !have_curl() {
        return;
    }
    let site = Site::new();
    let users = format!("[web.basic_auth_users]\nalice = '{}'\n", hash("pass"));
    let node = gateway(&site, "head", &format!("{users}{TLS}"));
    for version in ["--http1.1", "--http2"] {
        let answer = curl(&site, &node, "https", &["--head", version]);
        let head = answer.body.to_ascii_lowercase();
        assert_eq!(answer.status, 401);
        assert!(head.contains("content-length: 13\r\n") && head.ends_with("\r\n\r\n"), "{head}");
    }
    // A frame that ends the request, HEAD https://a/ in HPACK. The response must be a head and nothing else.
    let mut stream = tls::connect(node.web(), &site.cert("ca.pem"), b"h2");
    stream.write_all(PREFACE).unwrap();
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).unwrap();
    stream.write_all(&frame(HEADERS, 5, 1, b"\x02\x04HEAD\x87\x84\x41\x01a")).unwrap();
    assert_eq!(kinds_until_end(&mut stream), [HEADERS]);
}

#[test]
fn requests_opened_to_be_reset_end_the_connection() {
    let site = Site::new();
    let mut node = gateway(&site, "reset", TLS);
    let memory_before = node.process().memory_bytes_max();
    for _ in 0..5 {
        let mut stream = tls::connect(node.web(), &site.cert("ca.pem"), b"h2");
        stream.write_all(PREFACE).unwrap();
        stream.write_all(&frame(SETTINGS, 0, 0, &[])).unwrap();
        let mut ended = false;
        for round in 0..200u32 {
            let requests: Vec<u8> = (0..100)
                .flat_map(|i| {
                    let id = (round * 100 + i) * 2 + 1;
                    [frame(HEADERS, 5, id, GET_METRICS), frame(RST_STREAM, 0, id, &[0, 0, 0, 8])].concat()
                })
                .collect();
            ended = is_closed(&stream.write_all(&requests).and_then(|()| stream.flush()));
            if ended {
                break;
            }
        }
        assert!(ended || next_of(&mut stream, GOAWAY).is_some(), "20,000 requests that nobody wants are too many");
    }
    let memory = node.process().memory_bytes_max();
    assert!(memory < memory_before + (64 << 20), "{memory_before} bytes before, {memory} after");
    assert_eq!(connected_status(&node, &site), 200);
}

#[test]
fn an_answer_that_the_client_does_not_read_is_given_up() {
    let site = Site::new();
    let node = gateway(&site, "still", &format!("{TLS}[limits]\nbody_timeout = '1s'\nwrite_timeout = '1s'\n"));
    let mut stream = tls::connect(node.web(), &site.cert("ca.pem"), b"h2");
    stream.write_all(PREFACE).unwrap();
    // A client that opens no window for any response (SETTINGS_INITIAL_WINDOW_SIZE 0).
    stream.write_all(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])).unwrap();
    stream.write_all(&frame(HEADERS, 5, 1, GET_METRICS)).unwrap();
    let ended = next_of(&mut stream, RST_STREAM);
    assert_eq!(ended.map(|(id, _)| id), Some(1), "the request is ended, not the connection");
}

#[test]
fn an_idle_http2_connection_gets_goaway_when_another_needs_its_room() {
    let site = Site::new();
    let node = gateway(&site, "room", &format!("{TLS}[limits]\nconnections_max = 16\n"));
    let ask = |_| {
        let mut stream = tls::connect(node.web(), &site.cert("ca.pem"), b"h2");
        stream.write_all(PREFACE).unwrap();
        stream.write_all(&frame(SETTINGS, 0, 0, &[])).unwrap();
        stream.write_all(&frame(HEADERS, 5, 1, GET_METRICS)).unwrap();
        assert_eq!(kinds_until_end(&mut stream)[0], HEADERS);
        stream
    };
    let mut idle: Vec<_> = (0..40).map(ask).collect();
    assert!(next_of(&mut idle[0], GOAWAY).is_some());
    assert_eq!(connected_status(&node, &site), 200);
}

#[test]
fn more_requests_at_once_than_allowed_and_huge_headers_are_refused() {
    let site = Site::new();
    let node = gateway(&site, "many", TLS);
    let mut stream = tls::connect(node.web(), &site.cert("ca.pem"), b"h2");
    stream.write_all(PREFACE).unwrap();
    stream.write_all(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])).unwrap();
    let requests: Vec<u8> = (0..101).flat_map(|i| frame(HEADERS, 5, i * 2 + 1, GET_METRICS)).collect();
    stream.write_all(&requests).unwrap();
    let refused_stream = vec![0, 0, 0, 7];
    assert_eq!(next_of(&mut stream, RST_STREAM), Some((201, refused_stream)), "the last of 101 is refused");

    // A head without an end: CONTINUATION frames without END_HEADERS.
    let mut stream = tls::connect(node.web(), &site.cert("ca.pem"), b"h2");
    stream.write_all(PREFACE).unwrap();
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).unwrap();
    stream.write_all(&frame(HEADERS, 1, 1, GET_METRICS)).unwrap();
    let more = [&b"\x00\x01x\x7f\x81\x7d"[..], &[b'y'; 16_000]].concat();
    let written = (0..5_000).try_for_each(|_| stream.write_all(&frame(9, 0, 1, &more)).and_then(|()| stream.flush()));
    assert!(is_closed(&written) || next_of(&mut stream, GOAWAY).is_some());
    assert_eq!(connected_status(&node, &site), 200);
}

#[test]
fn many_requests_on_one_connection_are_all_answered() {
    if !have_curl() {
        return;
    }
    let site = Site::new();
    let node = gateway(&site, "load", TLS);
    let folder: &Path = site.path();
    let mut command = Command::new("curl");
    command.args(["--silent", "--fail", "--parallel", "--parallel-max", "200", "--http2", "--cacert"]);
    command.arg(site.cert("ca.pem")).args(["--data-binary", "x 1\n", "--write-out", "%{http_code} %{http_version}\n"]);
    command.arg(format!("https://{}/metrics/job/j/n/[1-1000]", node.web())).current_dir(folder);
    let output = String::from_utf8(command.output().unwrap().stdout).unwrap();
    assert_eq!(output.lines().filter(|line| *line == "200 2").count(), 1_000, "{output}");
    let page = curl(&site, &node, "https", &["/metrics"]).body;
    assert_eq!(page.lines().filter(|line| line.starts_with("x{")).count(), 1_000);
}
