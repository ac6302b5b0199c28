//! Both ends of a WebSocket over a pipe, and answers to requests for something else.

use tokio::io::{AsyncReadExt, DuplexStream};

use super::*;
use crate::compression::Deflater;
use crate::net::address::HostPort;

fn hub() -> HostPort {
    "localhost:9443".parse().unwrap()
}

async fn pair(bytes_max: usize) -> (WebSocket<DuplexStream>, WebSocket<DuplexStream>) {
    let (near, far) = tokio::io::duplex(1 << 10);
    let hub = hub();
    let (edge, hub) = tokio::join!(
        connect(near, LinkTarget::of(&hub), LinkPurpose::Session, bytes_max),
        accept(far, &LinkPurpose::ALL, bytes_max)
    );
    (edge.unwrap(), hub.unwrap().0)
}

#[test]
fn the_http_reference_names_path_and_subprotocol() {
    let page = include_str!("../../../docs/reference/http-api.md");
    assert!(page.contains(&format!("`GET` `{PATH}`")) && page.contains(SUBPROTOCOL));
}

#[tokio::test]
async fn messages_pass_whole_both_ways_and_are_counted() {
    let (mut edge, mut hub) = pair(1 << 20).await;
    // The message is larger than the pipe: both ends must read while they write.
    let large = vec![7; 100_000];
    let (sent, received) = tokio::join!(edge.sender.send(large.clone()), hub.receiver.receive());
    sent.unwrap();
    assert_eq!(received.unwrap().unwrap(), large);
    hub.sender.send(&b""[..]).await.unwrap();
    assert_eq!(edge.receiver.receive().await.unwrap().unwrap(), &b""[..]);
    assert_eq!((edge.traffic().sent_bytes(), hub.traffic().received_bytes()), (100_000, 100_000));
    edge.sender.close().await.unwrap();
    assert!(hub.receiver.receive().await.unwrap().is_none());
}

#[tokio::test]
async fn both_ends_can_send_at_once_while_both_receive() {
    let (mut edge, mut hub) = pair(1 << 20).await;
    let large = vec![1; 100_000];
    let (a, b, c, d) = tokio::join!(
        edge.sender.send(large.clone()),
        hub.sender.send(large.clone()),
        edge.receiver.receive(),
        hub.receiver.receive()
    );
    a.and(b).unwrap();
    assert!(c.unwrap().unwrap() == large && d.unwrap().unwrap() == large);
}

#[tokio::test]
async fn an_oversized_message_names_the_bound() {
    let (near, far) = tokio::io::duplex(1 << 10);
    let address = hub();
    let (edge, hub) = tokio::join!(
        connect(near, LinkTarget::of(&address), LinkPurpose::Session, 1 << 20),
        accept(far, &LinkPurpose::ALL, 1_000)
    );
    let (mut edge, mut hub) = (edge.unwrap(), hub.unwrap().0);
    let (_, received) = tokio::join!(
        async {
            tokio::select! {
                _ = edge.sender.send(vec![0; 3_000]) => {}
                _ = tokio::task::yield_now() => {}
            }
        },
        hub.receiver.receive()
    );
    let error = received.unwrap_err();
    assert!(matches!(error, WebSocketError::TooLarge { bytes: 3_000, bytes_max: 2_024 }), "{error}");
}

#[tokio::test]
async fn incompressible_messages_pass_up_to_the_limit() {
    for (bytes_max, level) in [(64 << 10, 3), (1 << 20, 3), (1 << 20, 0), (1 << 20, 9)] {
        let (mut edge, mut hub) = pair(bytes_max).await;
        let mut state = 1u64;
        let noise = (0..bytes_max).map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        });
        let mut deflated = Vec::new();
        Deflater::new(level).compress(&noise.collect::<Vec<u8>>(), &mut deflated);
        assert!(deflated.len() > bytes_max, "it does not compress");
        let both = async { tokio::try_join!(edge.sender.send(deflated.clone()), hub.receiver.receive()) };
        assert_eq!(both.await.unwrap().1.unwrap(), deflated);
    }
}

/// A peer that reads nothing, so that all pongs stay in memory.
#[tokio::test]
async fn pings_that_nobody_needs_end_the_connection() {
    let (mut edge, mut hub) = pair(1_000).await;
    let ping = async { while edge.sender.sink.send(Message::Ping(Bytes::from_static(&[0; 125]))).await.is_ok() {} };
    let error = tokio::select! {
        () = ping => panic!("the hub is there"),
        received = hub.receiver.receive() => received.unwrap_err(),
    };
    assert!(matches!(error, WebSocketError::Pings), "{error}");
}

#[tokio::test(start_paused = true)]
async fn pings_far_apart_are_answered_for_ever() {
    let (mut edge, mut hub) = pair(1_000).await;
    for _ in 0..3 * PINGS_MAX {
        edge.sender.sink.send(Message::Ping(Bytes::new())).await.unwrap();
        edge.sender.send(&b"x"[..]).await.unwrap();
        assert_eq!(hub.receiver.receive().await.unwrap().unwrap(), &b"x"[..]);
        // The peer reads the pong; time passes meanwhile.
        let _ = tokio::time::timeout(Duration::from_secs(2), edge.receiver.receive()).await;
    }
}

#[tokio::test]
async fn a_peer_that_goes_away_is_an_error() {
    let (edge, mut hub) = pair(1_000).await;
    drop(edge);
    assert!(matches!(hub.receiver.receive().await, Err(WebSocketError::Io(_))));
}

/// Returns the hub's response to a request, and its error.
async fn answer(request: &str) -> (String, WebSocketError) {
    let (mut near, far) = tokio::io::duplex(4 << 10);
    near.write_all(request.as_bytes()).await.unwrap();
    let error = accept(far, &LinkPurpose::ALL, 1_000).await.unwrap_err();
    let mut answer = String::new();
    near.read_to_string(&mut answer).await.unwrap();
    (answer, error)
}

fn upgrade(path: &str, subprotocol: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Protocol: {subprotocol}\r\n\r\n"
    )
}

#[tokio::test]
async fn requests_for_something_else_get_http_answers() {
    for (request, status, text) in [
        (upgrade("/metrics", SUBPROTOCOL), "404", "edges connect to /api/v1/relay"),
        (upgrade(PATH, "chat"), "400", "the subprotocol must be pushrelay.v1"),
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n".into(), "426", "a pushrelay hub's listener for edges"),
        ("POST /metrics/job/a HTTP/1.1\r\nHost: a\r\n\r\n".into(), "405", "use GET"),
        ("nonsense\r\n\r\n".into(), "400", ""),
    ] {
        let (answer, error) = answer(&request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert!(answer.contains(text), "{answer}");
        let length = answer.split("\r\n\r\n").nth(1).unwrap().len();
        assert!(answer.to_lowercase().contains(&format!("content-length: {length}\r\n")), "{answer}");
        assert!(matches!(error, WebSocketError::BadRequest { .. }), "{error}");
    }
}

#[tokio::test]
async fn an_edge_that_is_refused_learns_the_reason() {
    let (near, far) = tokio::io::duplex(4 << 10);
    let address = hub();
    let reason = "a certificate without a name. ".repeat(10);
    let (connected, ()) =
        tokio::join!(connect(near, LinkTarget::of(&address), LinkPurpose::Session, 1_000), refuse(far, &reason));
    let error = connected.unwrap_err().to_string();
    assert_eq!(error, format!("the hub refuses this edge: {}", reason.trim()));
}

#[tokio::test]
async fn a_server_that_is_no_hub_is_recognized_by_its_answer() {
    let (near, mut far) = tokio::io::duplex(4 << 10);
    let address = hub();
    let serve = async {
        let mut request = [0; 1_024];
        let n = far.read(&mut request).await.unwrap();
        assert!(request[..n].starts_with(b"GET /api/v1/relay HTTP/1.1\r\n"));
        far.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nwhat?").await.unwrap();
    };
    let (connected, ()) = tokio::join!(connect(near, LinkTarget::of(&address), LinkPurpose::Session, 1_000), serve);
    let error = connected.unwrap_err().to_string();
    assert!(error.contains("answered 404") && error.contains("what?"), "{error}");
}
