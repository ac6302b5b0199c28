//! Tests of the server: over pipes in paused time if only time matters, over sockets otherwise.

use std::pin::Pin;

use futures_util::stream::iter;
use hyper::body::Body as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::response::FRAME_BYTES_MAX;
use super::*;

const TIMEOUTS: Timeouts = Timeouts {
    header_timeout: Duration::from_secs(10),
    idle_timeout: Some(Duration::from_secs(95)),
    write_timeout: Duration::from_secs(30),
};

fn limits() -> HttpLimits {
    HttpLimits {
        slots: Slots::new("web", 2),
        header_bytes_max: 8 << 10,
        timeouts: TIMEOUTS,
        body_timeout: Duration::from_secs(60),
        budget: ByteBudget::new(100),
        drain_timeout: Duration::from_secs(5),
    }
}

/// The test handler: `/echo` responds with the body of at most 50 bytes, `/stream` with two parts, `/break` with one
/// part and a failure; `/slow` takes 20 seconds, `/hold` never responds.
struct Echo;

impl Handler for Echo {
    async fn handle(&self, request: &mut Incoming) -> Response {
        match request.path() {
            "/echo" => match request.body(50, "limits.body_bytes_max").await {
                Ok(body) => Response::new(200).header("x-method", request.method()).body(body.to_vec()),
                Err(error) => Response::new(error.status()).body(error.to_string()),
            },
            "/stream" => Response::new(200).parts(iter(["one", "two"].map(|part| Ok(part.into())))),
            "/break" => Response::new(200).parts(iter([Ok("one".into()), Err(std::io::Error::other("no more"))])),
            "/slow" => {
                tokio::time::sleep(Duration::from_secs(20)).await;
                Response::new(200).body("done")
            }
            "/hold" => std::future::pending().await,
            _ => Response::new(404),
        }
    }
}

/// Serves one connection over a pipe.
fn connection(limits: HttpLimits) -> (DuplexStream, CancellationToken) {
    let (near, far) = tokio::io::duplex(64 << 10);
    let stop = CancellationToken::new();
    let (peer, kind) = (([127, 0, 0, 1], 1).into(), SlotKind::Ordinary);
    let client = Client { peer, kind, is_encrypted: false, certificate: Arc::default() };
    tokio::spawn(serve_connection(far, client, Arc::new(Echo), Arc::new(limits), stop.clone()));
    (near, stop)
}

async fn ask(stream: &mut DuplexStream, request: &str) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = vec![0; 4 << 10];
    let n = stream.read(&mut answer).await.unwrap();
    String::from_utf8(answer[..n].to_vec()).unwrap()
}

/// Reads until the server closes the connection; returns the text and the seconds it took.
async fn rest(stream: &mut DuplexStream) -> (String, u64) {
    let begun = Instant::now();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    (text, begun.elapsed().as_secs())
}

fn post(path: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test(start_paused = true)]
async fn requests_are_answered_on_one_connection() {
    let (mut stream, _stopper) = connection(limits());
    for body in ["hello", "", "again"] {
        let answer = ask(&mut stream, &post("/echo", body)).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("x-method: POST"), "{answer}");
        assert!(answer.ends_with(&format!("\r\n\r\n{body}")), "{answer}");
    }
    let chunked = "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n";
    assert!(ask(&mut stream, chunked).await.ends_with("\r\n\r\nabc"));
}

#[tokio::test(start_paused = true)]
async fn head_gets_the_length_of_the_body() {
    for (path, length) in [("break", None), ("slow", Some("content-length: 4\r\n"))] {
        let (mut stream, _stopper) = connection(limits());
        stream
            .write_all(format!("HEAD /{path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").as_bytes())
            .await
            .unwrap();
        let answer = rest(&mut stream).await.0;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\n"), "{answer}");
        assert!(length.is_none_or(|length| answer.contains(length)), "{answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_too_large_names_the_bound() {
    for request in [
        post("/echo", &"a".repeat(51)),
        // The server refuses it by its announced length, before the body is sent.
        "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 51\r\n\r\n".into(),
        format!("POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n33\r\n{}\r\n", "a".repeat(51)),
    ] {
        let (mut stream, _stopper) = connection(limits());
        let answer = ask(&mut stream, &request).await;
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
        assert!(answer.ends_with("the body is larger than 50 bytes (limits.body_bytes_max)"), "{answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn all_bodies_together_are_bounded() {
    let limits = HttpLimits { budget: ByteBudget::new(10), ..limits() };
    let budget = limits.budget.clone();
    let guard = budget.reserve(8).unwrap();
    let (mut stream, _stopper) = connection(limits);
    let answer = ask(&mut stream, &post("/echo", "abc")).await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("limits.inflight_bytes_max"), "{answer}");
    drop(guard);
    assert!(ask(&mut stream, &post("/echo", "abc")).await.starts_with("HTTP/1.1 200 "));
    assert_eq!(budget.reserved_bytes(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_slow_body_is_refused_after_its_time_limit() {
    let (mut stream, _stopper) = connection(limits());
    let begun = Instant::now();
    let answer = ask(&mut stream, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc").await;
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("limits.body_timeout"), "{answer}");
    assert_eq!(begun.elapsed().as_secs(), 60);
}

#[tokio::test(start_paused = true)]
async fn a_slow_head_is_cut_off_after_its_time_limit() {
    let (mut stream, _stopper) = connection(limits());
    stream.write_all(b"POST /echo HTTP/1.1\r\nHost").await.unwrap();
    assert_eq!(rest(&mut stream).await.1, 10);

    let (mut stream, _stopper) = connection(limits());
    ask(&mut stream, &post("/echo", "a")).await;
    let sender = async {
        // A byte now and then does not extend the time.
        for byte in b"POST /echo HTTP/1.1\r\nHo" {
            tokio::time::sleep(Duration::from_secs(1)).await;
            if stream.write_all(&[*byte]).await.is_err() {
                break;
            }
        }
    };
    let begun = Instant::now();
    sender.await;
    assert_eq!(begun.elapsed().as_secs(), 12, "cut ten seconds after the first byte, noticed at the next");
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_kept_for_longer() {
    let (mut stream, _stopper) = connection(limits());
    ask(&mut stream, &post("/echo", "a")).await;
    tokio::time::sleep(Duration::from_secs(99)).await;
    ask(&mut stream, &post("/echo", "a")).await;
    assert_eq!(rest(&mut stream).await.1, 100);
}

#[tokio::test(start_paused = true)]
async fn a_head_too_large_is_refused() {
    let (mut stream, _stopper) = connection(limits());
    let answer = ask(&mut stream, &format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", "a".repeat(9 << 10))).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    let (mut stream, _stopper) = connection(limits());
    assert!(ask(&mut stream, "\x16\x03\x01\x02\x00nonsense\r\n\r\n").await.starts_with("HTTP/1.1 400 "));
}

#[tokio::test(start_paused = true)]
async fn headers_are_bounded_in_bytes() {
    let head = |header: &str, bytes| {
        let count = (bytes - "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n".len()) / header.len();
        format!("GET /slow HTTP/1.1\r\nHost: a\r\n{}\r\n", header.repeat(count))
    };
    for header in ["x-forwarded-for: 192.0.2.1\r\n", "a: b\r\n", "a:\n"] {
        for (bytes, status) in [(101 * header.len() + 40, 200), (8 << 10, 200), ((8 << 10) + 2 * header.len(), 431)] {
            let (mut stream, _stopper) = connection(limits());
            let answer = ask(&mut stream, &head(header, bytes)).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{bytes} bytes of {header:?}: {answer}");
        }
    }
    // A limit in which more headers fit than hyper has memory for.
    let (mut stream, _stopper) = connection(HttpLimits { header_bytes_max: 1 << 20, ..limits() });
    let distinct: String = (0..15_990).map(|i| format!("x{i}:\r\n")).collect();
    let request = format!("GET /slow HTTP/1.1\r\nHost: a\r\n{distinct}\r\n");
    assert!(ask(&mut stream, &request).await.starts_with("HTTP/1.1 200 "));
    let (mut stream, _stopper) = connection(HttpLimits { header_bytes_max: 1 << 20, ..limits() });
    let answer = ask(&mut stream, &format!("GET /slow HTTP/1.1\r\n{}\r\n", "a:\r\n".repeat(16_001))).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn answers_to_get_are_not_cached() {
    for (request, cached) in [
        ("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n", false),
        ("GET /nope HTTP/1.1\r\nHost: a\r\n\r\n", false),
        ("GET /slow HTTP/1.1\r\n\r\n", false),
        ("HEAD /slow HTTP/1.1\r\nHost: a\r\n\r\n", false),
        ("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", true),
    ] {
        let (mut stream, _stopper) = connection(limits());
        let answer = ask(&mut stream, request).await;
        assert_eq!(answer.contains("cache-control: no-store\r\n"), !cached, "{request}{answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_in_parts_arrives_whole_or_is_broken_off() {
    for (path, whole) in [("stream", true), ("break", false)] {
        let (mut stream, _stopper) = connection(limits());
        let request = format!("GET /{path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let answer = rest(&mut stream).await.0;
        // The last chunk marks the end of the body.
        assert_eq!(answer.ends_with("3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"), whole, "{answer}");
        assert_eq!(answer.ends_with("0\r\n\r\n"), whole, "{answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn stopping_answers_what_was_begun() {
    let (mut stream, stop) = connection(limits());
    stream.write_all(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    stop.cancel();
    let (answer, seconds) = rest(&mut stream).await;
    assert!(answer.ends_with("done") && answer.contains("connection: close"), "{answer}");
    assert_eq!(seconds, 19);

    let (mut idle, stop) = connection(limits());
    ask(&mut idle, &post("/echo", "a")).await;
    stop.cancel();
    assert_eq!(rest(&mut idle).await.1, 0);
}

#[tokio::test]
async fn sockets_are_served_within_the_bound_and_closed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let limits = HttpLimits { drain_timeout: Duration::from_millis(1), ..limits() };
    let server = tokio::spawn(serve(listener, Arc::new(Echo), Arc::new(limits), stop.clone()));
    let mut guard = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(post("/echo", "a").as_bytes()).await.unwrap();
        stream.read_exact(&mut [0; 15]).await.unwrap();
        stream.write_all(b"GET /hold HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        guard.push(stream);
    }
    let mut third = TcpStream::connect(address).await.unwrap();
    let mut received = String::new();
    third.read_to_string(&mut received).await.unwrap();
    assert!(received.starts_with("HTTP/1.1 503 ") && received.contains("limits.connections_max"), "{received}");
    let (head, body) = received.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(&format!("Content-Length: {}", body.len())), "{head}");
    stop.cancel();
    server.await.unwrap();
}

#[tokio::test]
async fn hyper_is_given_no_more_than_a_frame_of_a_part() {
    let parts = [vec![7; 3 * FRAME_BYTES_MAX + 1], Vec::new(), vec![8]].map(|part| Ok(Bytes::from(part)));
    let mut reply = Response::new(200).parts(iter(parts)).0.into_body();
    let mut lens = Vec::new();
    while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut reply).poll_frame(cx)).await {
        lens.push(frame.unwrap().into_data().unwrap().len());
    }
    assert_eq!(lens, [FRAME_BYTES_MAX, FRAME_BYTES_MAX, FRAME_BYTES_MAX, 1, 1]);
}

#[tokio::test(start_paused = true)]
async fn clients_are_told_the_idle_limit_and_get_more() {
    let (mut stream, _stopper) = connection(limits());
    let answer = ask(&mut stream, &post("/echo", "a")).await;
    assert!(answer.contains("\r\nkeep-alive: timeout=95\r\n"), "{answer}");
    tokio::time::sleep(Duration::from_secs(97)).await;
    assert!(ask(&mut stream, &post("/echo", "b")).await.ends_with("\r\n\r\nb"), "it crossed the limit");
    assert_eq!(rest(&mut stream).await, (String::new(), 100));
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_has_no_limit_by_default() {
    let timeouts = Timeouts { idle_timeout: None, ..TIMEOUTS };
    let (mut stream, _stopper) = connection(HttpLimits { timeouts, ..limits() });
    for _ in 0..3 {
        let answer = ask(&mut stream, &post("/echo", "a")).await;
        assert!(answer.ends_with("\r\n\r\na") && !answer.contains("keep-alive:"), "{answer}");
        tokio::time::sleep(Duration::from_secs(86_400)).await;
    }
}

/// Serves connections over sockets.
async fn listening(slots: &Slots) -> (std::net::SocketAddr, CancellationToken) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let timeouts = Timeouts { idle_timeout: None, ..TIMEOUTS };
    let limits = HttpLimits { slots: slots.clone(), timeouts, ..limits() };
    tokio::spawn(serve(listener, Arc::new(Echo), Arc::new(limits), stop.clone()));
    (address, stop)
}

async fn echo(stream: &mut TcpStream, body: &str) -> std::io::Result<String> {
    stream.write_all(post("/echo", body).as_bytes()).await?;
    let mut answer = vec![0; 4 << 10];
    let n = stream.read(&mut answer).await?;
    Ok(String::from_utf8(answer[..n].to_vec()).unwrap())
}

#[tokio::test]
async fn the_idlest_connection_makes_room_for_a_new_one() {
    let slots = Slots::new("web", 3);
    let (address, _stop) = listening(&slots).await;
    let mut streams = Vec::new();
    for number in 0..20 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let answer = echo(&mut stream, "a").await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "connection {number}: {answer}");
        // Idle times are measured in milliseconds.
        tokio::time::sleep(Duration::from_millis(2)).await;
        streams.push(stream);
    }
    let (closed, open) = streams.split_at_mut(17);
    for stream in closed {
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0, "it is closed in order");
    }
    for stream in open {
        assert!(echo(stream, "b").await.unwrap().ends_with("\r\n\r\nb"));
    }
    assert_eq!((slots.open(), slots.shed()), (3, [("idle", 17), ("full", 0), ("accept_error", 0)]));
}

#[tokio::test]
async fn a_connection_is_refused_if_none_is_idle() {
    let slots = Slots::new("web", 1);
    let (address, _stop) = listening(&slots).await;
    let mut busy = TcpStream::connect(address).await.unwrap();
    busy.write_all(b"GET /hold HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut refused = TcpStream::connect(address).await.unwrap();
    let mut answer = String::new();
    refused.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("limits.connections_max"), "{answer}");
    assert_eq!(slots.shed(), [("idle", 0), ("full", 1), ("accept_error", 0)]);
}

/// A few slots are free again before they are needed, so that no client waits for another connection to close.
#[tokio::test]
async fn idle_connections_are_closed_before_the_last_slot_is_taken() {
    let slots = Slots::with_reserve("web", 16);
    let (address, _stop) = listening(&slots).await;
    let mut streams = Vec::new();
    for _ in 0..40 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        assert!(echo(&mut stream, "a").await.unwrap().starts_with("HTTP/1.1 200 "));
        streams.push(stream);
        assert!(slots.open() <= 15, "{}", slots.open());
    }
    assert_eq!(slots.shed(), [("idle", 26), ("full", 0), ("accept_error", 0)]);
}

#[tokio::test]
async fn the_last_slots_are_for_one_read_each_while_all_others_are_busy() {
    let slots = Slots::with_reserve("web", 16);
    let (address, _stop) = listening(&slots).await;
    let mut busy = Vec::new();
    for number in 1..=14 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /hold HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        busy.push(stream);
        while slots.open() < number {
            tokio::task::yield_now().await;
        }
    }
    for _ in 0..3 {
        let [mut read, mut push] =
            [TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap()];
        let (mut answer, mut refusal) = (String::new(), String::new());
        read.write_all(b"GET /stream HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        push.write_all(post("/echo", "a").as_bytes()).await.unwrap();
        read.read_to_string(&mut answer).await.unwrap();
        push.read_to_string(&mut refusal).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("connection: close"), "{answer}");
        assert!(refusal.starts_with("HTTP/1.1 503 ") && refusal.contains("limits.connections_max"), "{refusal}");
        while slots.open() > 14 {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(slots.shed(), [("idle", 0), ("full", 3), ("accept_error", 0)]);
}

#[tokio::test]
async fn a_request_that_crosses_the_close_is_answered() {
    let (near, mut far) = tokio::io::duplex(64 << 10);
    let mut stream = TimeoutStream::new(near, TIMEOUTS);
    drop(stream.tracker().in_flight());
    stream.tracker().ask_to_close();
    assert_eq!(stream.tracker().idle_since(), None, "it is not asked twice");
    far.write_all(b"P").await.unwrap();
    assert!(stream.tracker().close_if_idle());
    assert_eq!(stream.read_u8().await.unwrap(), b'P');
    drop(stream.tracker().in_flight());
    assert!(stream.tracker().idle_since().is_some(), "it stays");
    stream.tracker().ask_to_close();
    stream.tracker().close_if_idle();
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
}
