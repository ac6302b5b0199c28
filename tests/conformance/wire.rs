//! HTTP/1 by hand, one request per connection. So targets and bodies arrive exactly as in the cases, and a connection
//! that is dropped without an answer can be distinguished from a refused one.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::case::Step;

const TIMEOUT: Duration = Duration::from_secs(30);

/// An answer.
#[derive(Debug, Default)]
pub struct Reply {
    /// The status; 0 if the connection was closed without one.
    pub status: u16,
    /// Names in lower case.
    headers: Vec<(String, String)>,
    /// Without chunked coding.
    pub body: Vec<u8>,
}

impl Reply {
    /// The values of a header, joined.
    pub fn header(&self, name: &str) -> Option<String> {
        let values: Vec<&str> = self.headers.iter().filter(|(n, _)| n == name).map(|(_, value)| &**value).collect();
        (!values.is_empty()).then(|| values.join(", "))
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Sends `step` to the server. An error only if the server cannot be reached.
pub fn send(server: SocketAddr, step: &Step) -> io::Result<Reply> {
    let mut stream = TcpStream::connect_timeout(&server, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    // A server may answer and close before it has read the whole request; its answer counts.
    let _ = stream.write_all(&request(server, step));
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    Ok(parse(&bytes).unwrap_or_default())
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

fn parse(mut bytes: &[u8]) -> Option<Reply> {
    loop {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let mut lines = head.split("\r\n");
        let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        bytes = &bytes[end + 4..];
        if status == 100 {
            continue;
        }
        let split = |line: &str| line.split_once(':').map(|(n, v)| (n.to_ascii_lowercase(), v.trim().to_owned()));
        let mut reply = Reply { status, headers: lines.filter_map(split).collect(), body: bytes.to_vec() };
        if reply.header("transfer-encoding").as_deref() == Some("chunked") {
            reply.body = unchunked(bytes)?;
        }
        return Some(reply);
    }
}

fn unchunked(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|window| window == b"\r\n")?;
        let len = usize::from_str_radix(std::str::from_utf8(&rest[..end]).ok()?, 16).ok()?;
        if len == 0 {
            return Some(body);
        }
        body.extend_from_slice(rest.get(end + 2..end + 2 + len)?);
        rest = rest.get(end + 2 + len + 2..)?;
    }
}
