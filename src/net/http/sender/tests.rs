//! Receivers that answer with more, or otherwise, than a sender expects.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use super::answer::TEXT_BYTES_MAX;
use super::*;
use crate::net::testing::TempDir;

/// A receiver that answers each connection's first request with these bytes, `times` over, and then closes it.
fn receiver(answer: String, times: usize) -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (heads, received) = channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
            let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
            if heads.send(head.join("\n").to_lowercase()).is_err() {
                return;
            }
            (0..times).take_while(|_| stream.write_all(answer.as_bytes()).is_ok()).for_each(drop);
        }
    });
    (address, received)
}

fn sender(address: &str, folder: &TempDir) -> HttpSender {
    let password_file = folder.path().join("password");
    std::fs::write(&password_file, "secret").unwrap();
    let login = Some(ReceiverLogin::Basic { username: "u".into(), password_file });
    let options = SenderOptions { login, ..SenderOptions::default() };
    let keys = SenderKeys::load(&options).unwrap();
    let headers = [("X-Api-Key".to_owned(), "other-secret".to_owned())];
    HttpSender::new(format!("http://{address}/write").parse().unwrap(), "test", &headers, &options, keys)
}

#[tokio::test]
async fn a_receiver_that_redirects_gets_the_login_and_the_other_does_not() {
    let folder = TempDir::new();
    let (other, at_other) = receiver("HTTP/1.1 204 x\r\n\r\n".into(), 1);
    let moved = format!("HTTP/1.1 307 x\r\nLocation: http://{other}/elsewhere\r\nContent-Length: 0\r\n\r\n");
    let (first, at_first) = receiver(moved, 1);
    let sender = sender(&first, &folder);
    let mut lane = SenderLane::default();
    let answer = sender.post(&mut lane, &[("content-type", "x/y")], Bytes::from_static(b"body")).await.unwrap();
    lane.redirect(sender.url().redirected(&answer.location.unwrap()).unwrap());
    let answer = sender.post(&mut lane, &[("content-type", "x/y")], Bytes::from_static(b"body")).await.unwrap();
    assert_eq!(answer.status, 204);
    let [head, head_at_other] = [at_first, at_other].map(|heads| heads.recv().unwrap());
    assert!(head.contains("authorization: basic dtpzzwnyzxq=") && head.contains("x-api-key: other-secret"), "{head}");
    assert!(head_at_other.starts_with("post /elsewhere") && head_at_other.contains("content-type: x/y"));
    assert!(!head_at_other.contains("authorization") && !head_at_other.contains("secret"), "{head_at_other}");
}

#[tokio::test]
async fn an_answer_without_end_is_cut() {
    let folder = TempDir::new();
    let chunk = format!("3e8\r\n{}\r\n", "word ".repeat(200));
    let answer = format!("HTTP/1.1 400 x\r\nTransfer-Encoding: chunked\r\n\r\n{}", chunk.repeat(2_000));
    let (address, _heads) = receiver(answer, 1);
    let sender = sender(&address, &folder);
    let mut lane = SenderLane::default();
    let answer = sender.post(&mut lane, &[], Bytes::from_static(b"body")).await.unwrap();
    assert_eq!(answer.status, 400);
    assert!((900..=TEXT_BYTES_MAX).contains(&answer.text.len()), "{}", answer.text.len());
    assert!(lane.kept.is_none(), "the rest of the answer is still in the connection");
}
