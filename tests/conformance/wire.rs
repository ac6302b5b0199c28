//! The requests of the cases as bytes, so that targets and bodies arrive exactly as written.

use std::io::{self, Write};
use std::net::SocketAddr;

use pushrelay_testkit::Reply;
use pushrelay_testkit::http::connect;

use crate::case::Step;

/// Sends `step` to the server. The status is 0 if the server closes the connection without an answer. Fails only if the
/// server cannot be reached.
pub fn send(server: SocketAddr, step: &Step) -> io::Result<Reply> {
    let mut stream = connect(server)?;
    // A server may answer and close before it has read the whole request; its answer counts.
    let _ = stream.write_all(&request(server, step));
    let (method, _) = step.method_and_target();
    Ok(Reply::receive(method, &mut stream).unwrap_or_default())
}

/// A request without a body.
pub fn get(server: SocketAddr, method: &str, target: &str, accept: Option<&str>) -> io::Result<Reply> {
    let mut step = Step::new(&format!("{method} {target}"), None, None);
    if let Some(accept) = accept {
        step.headers.insert("Accept".to_owned(), accept.to_owned());
    }
    send(server, &step)
}

fn request(server: SocketAddr, step: &Step) -> Vec<u8> {
    let (method, target) = step.method_and_target();
    let version = if step.http10 { "1.0" } else { "1.1" };
    let mut head = format!("{method} {target} HTTP/{version}\r\nHost: {server}\r\nConnection: close\r\n");
    for (name, value) in step.headers() {
        head += &format!("{name}: {value}\r\n");
    }
    let mut body = step.body();
    if step.chunked {
        head += "Transfer-Encoding: chunked\r\n";
        body = body.iter().flat_map(|byte| [b"1\r\n", &[*byte][..], b"\r\n"].concat()).collect();
        body.extend_from_slice(b"0\r\n\r\n");
    } else if !body.is_empty() || ["PUT", "POST", "DELETE", "PATCH"].contains(&method) {
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    let mut bytes = (head + "\r\n").into_bytes();
    bytes.extend_from_slice(&body);
    bytes
}
