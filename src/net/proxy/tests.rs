//! Proxies that answer as real ones were seen to, or worse, and the text that an operator gets for it.

use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::net::testing::TempDir;

/// What a test's proxy does after the request.
enum Then {
    Closes,
    StaysOpen,
}
use Then::{Closes, StaysOpen};

fn options(url: &str, login: bool) -> ProxyOptions {
    let password = ProxyPassword::Environment(Secret::new("hunter2".into()));
    ProxyOptions {
        url: url.parse().unwrap(),
        login: login.then(|| ("alice".into(), password)),
        ca_file: None,
        connect_headers: vec![ConnectHeader::new("X-Zone".into(), "dmz".into()).unwrap()],
        no_proxy: NoProxy::default(),
        timeout: Duration::from_secs(60),
    }
}

/// Asks a proxy that answers these bytes for a tunnel; returns the result, and the request as it arrived.
async fn asked(
    options: ProxyOptions,
    target: &str,
    answer: &[u8],
    then: Then,
) -> (Result<(Carrier, String), ProxyError>, Vec<u8>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let proxy = Proxy::new(options.clone(), ProxyKeys::load(&options).unwrap());
    let target = target.parse().unwrap();
    let serve = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::with_capacity(4_096);
        stream.read_buf(&mut request).await.unwrap();
        stream.write_all(answer).await.unwrap();
        match then {
            Closes => drop(stream),
            StaysOpen => std::mem::forget(stream),
        }
        request
    };
    tokio::join!(proxy.open(Counted::new(stream), &target), serve)
}

async fn refused(answer: &str, login: bool, then: Then) -> String {
    let (opened, _) = asked(options("http://proxy:3128", login), "hub.example.org:9443", answer.as_bytes(), then).await;
    let text = opened.map(|(_, answer)| answer).unwrap_err().to_string();
    assert!(!text.contains("hunter2") && !text.contains('\n'), "{text}");
    text
}

#[tokio::test]
async fn the_request_has_a_host_a_login_and_the_headers() {
    let answer = b"HTTP/1.0 200 Verbindung steht\r\nProxy-agent: tinyproxy/1.11.1\r\n\r\n";
    let (opened, request) = asked(options("http://proxy:3128", true), "hub.example.org:9443", answer, StaysOpen).await;
    assert_eq!(opened.unwrap().1, "HTTP/1.0 200 Verbindung steht");
    let version = env!("CARGO_PKG_VERSION");
    let expected = format!(
        "CONNECT hub.example.org:9443 HTTP/1.1\r\nHost: hub.example.org:9443\r\nUser-Agent: pushrelay/{version}\r\n\
         Proxy-Authorization: Basic YWxpY2U6aHVudGVyMg==\r\nX-Zone: dmz\r\n\r\n"
    );
    assert_eq!(String::from_utf8(request).unwrap(), expected);
}

#[tokio::test]
async fn a_success_may_have_any_form() {
    for answer in [
        "HTTP/1.1 200 Connection established\r\n\r\n",
        "HTTP/1.0 200\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 204 No Content\r\nVia: 1.1 box\r\nX Odd: 1\r\n\r\n",
    ] {
        let opened = asked(options("http://proxy:3128", false), "[::1]:443", answer.as_bytes(), StaysOpen).await.0;
        assert!(opened.is_ok(), "{answer:?}: {:?}", opened.err());
    }
}

#[tokio::test]
async fn each_answer_of_an_http_proxy_has_its_text() {
    let squid = "HTTP/1.1 403 Forbidden\r\nX-Squid-Error: ERR_ACCESS_DENIED 0\r\nContent-Length: 58\r\n\r\n\
                 <html><h1>ERROR</h1><p>Access Denied.</p>Generated today ";
    let login = "HTTP/1.1 407 Proxy Authentication Required\r\n";
    let basic = format!("{login}Proxy-Authenticate: Negotiate\r\nProxy-Authenticate: Basic realm=\"a, b\"\r\n\r\n");
    let windows = format!("{login}Proxy-Authenticate: NTLM, Negotiate\r\n\r\n");
    let digest = format!("{login}Proxy-Authenticate: Digest realm=\"x\", nonce=\"y\", qop=\"auth\"\r\n\r\n");
    let reached = "it could not reach hub.example.org:9443 (";
    for (answer, with_login, expected) in [
        (
            squid,
            false,
            "it refuses a tunnel to hub.example.org:9443 (403 Forbidden, ERR_ACCESS_DENIED 0: ERROR Access Denied.); many proxies allow tunnels to port 443 only",
        ),
        (
            &basic,
            false,
            "it requires a login (407 Proxy Authentication Required; it offers Negotiate, Basic): set uplink.proxy_username and uplink.proxy_password_file",
        ),
        (&basic, true, ", and refuses the user \"alice\": check uplink.proxy_username"),
        (
            &windows,
            true,
            "it offers NTLM, Negotiate): pushrelay logs in with Basic only; run a helper such as cntlm or px on this host",
        ),
        (&digest, false, "it offers Digest): pushrelay logs in with Basic only; have that allowed at the proxy"),
        ("HTTP/1.1 404 No such domain\r\n\r\n", false, &format!("{reached}404 No such domain)")),
        ("HTTP/1.0 500 Unable to connect\r\n\r\n", false, &format!("{reached}500 Unable to connect)")),
        ("HTTP/1.1 502 Proxy Error\r\n\r\n", false, &format!("{reached}502 Proxy Error)")),
        ("HTTP/1.1 503 Connect failed\r\n\r\nno route\r\n", false, &format!("{reached}503 Connect failed: no route)")),
        ("HTTP/1.1 504 Gateway Timeout\r\n\r\n", false, &format!("{reached}504 Gateway Timeout)")),
        ("HTTP/1.1 302 Found\r\nLocation: http://login/\r\n\r\n", false, "it redirects to \"http://login/\""),
        ("HTTP/1.1 405 Method Not Allowed\r\n\r\n", false, "it does not do CONNECT (405 Method Not Allowed)"),
        ("HTTP/1.1 429 Slow\r\n\r\n", false, "it opens no tunnel to hub.example.org:9443 (429 Slow)"),
        (
            "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<p>Please log in",
            false,
            "it answered \"200 OK\" and sent a page instead of a tunnel",
        ),
        ("HTTP/1.1 200 OK\r\n\r\n<p>Please log in", false, "the page: \"Please log in\""),
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", false, "sent a page instead of a tunnel"),
        ("\x15\x03\x01\x00\x02\x02\x46", false, "it speaks TLS; write https:// into uplink.proxy_url"),
        ("\x05\u{7f}", false, "it seems to speak SOCKS; write socks5h://"),
        ("220 mail.example.org ESMTP\r\n", false, "it does not answer in HTTP: is that the port of an HTTP proxy?"),
        ("HTTP/1.1 abc\r\n\r\n", false, "its answer cannot be read"),
        ("HTTP/1.1 200 OK\r\n", false, "it ends inside its head"),
        ("", false, "it closed the connection without an answer"),
    ] {
        let text = refused(answer, with_login, Closes).await;
        assert!(text.contains(expected), "{answer:?}: {text}");
    }
}

#[tokio::test]
async fn a_refusal_is_not_waited_for_although_the_proxy_stays_open() {
    let begun = Instant::now();
    let text = refused("HTTP/1.1 403 Forbidden\r\n\r\n<b>no", false, StaysOpen).await;
    assert!(text.contains("(403 Forbidden: no)") && begun.elapsed() < Duration::from_secs(20), "{text}");
}

#[tokio::test]
async fn nothing_that_a_proxy_sends_grows_without_bound() {
    let endless = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(HEAD));
    const HEAD: usize = 80 << 10;
    assert!(refused(&endless, false, StaysOpen).await.contains("its head is longer than"));
    let headers = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(1_000));
    assert!(refused(&headers, false, StaysOpen).await.contains("its answer cannot be read"));
    let page = format!("HTTP/1.1 500 {}\r\n\r\n{}", "r".repeat(9_000), "b".repeat(1 << 20));
    assert!(refused(&page, false, Closes).await.len() < 1_000);
}

#[tokio::test]
async fn a_proxy_that_hangs_is_given_up() {
    for url in ["http://proxy:3128", "socks5h://proxy:1080"] {
        let hanging = ProxyOptions { timeout: Duration::from_millis(50), ..options(url, false) };
        let text = asked(hanging, "hub.example.org:9443", b"", StaysOpen).await.0.map(drop).unwrap_err().to_string();
        assert!(text.contains("it gave no answer within 0.05 s (uplink.proxy_timeout)"), "{text}");
    }
}

#[tokio::test]
async fn each_answer_of_a_socks_proxy_has_its_text() {
    for (answer, with_login, expected) in [
        (&[5, 255][..], false, "it requires a login: set uplink.proxy_username"),
        (&[5, 255], true, "it accepts neither a user with a password nor"),
        (&[5, 2, 1, 1], true, "it refuses the user \"alice\": check uplink.proxy_username"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", false, "it does not speak SOCKS5: is that the port of an HTTP proxy?"),
        (&[5, 0, 5, 1, 0, 1, 0, 0, 0, 0, 0, 0], false, "it could not reach hub.example.org:9443, or does not know"),
        (&[5, 0, 5, 2, 0, 1, 0, 0, 0, 0, 0, 0], false, "its rules forbid a tunnel to hub.example.org:9443"),
        // As dante answers for a name that does not resolve.
        (
            &[5, 0, 5, 4, 0, 3, 3, b'h', b'u', b'b', 0, 80],
            false,
            "it could not reach hub.example.org:9443 (Host unreachable)",
        ),
        (&[5, 0, 5, 5, 0, 1, 0, 0, 0, 0, 0, 0], false, "nothing listens there"),
        (&[5, 0, 5, 8, 0, 1, 0, 0, 0, 0, 0, 0], false, "it does not take this kind of address"),
        (&[5, 0, 5, 99, 0, 1], false, "it opens no tunnel to hub.example.org:9443"),
        (&[5, 0, 5, 0, 0, 3], false, "it closed the connection without an answer"),
        (&[5], true, "it closed the connection during the handshake: check uplink.proxy_username"),
    ] {
        let proxy = options("socks5h://proxy:1080", with_login);
        let text = asked(proxy, "hub.example.org:9443", answer, Closes).await.0.map(drop).unwrap_err().to_string();
        assert!(text.contains(expected) && !text.contains("hunter2"), "{answer:?}: {text}");
    }
    for answer in [&[5, 0, 5, 0, 0, 1, 0, 0, 0, 0, 0, 0][..], &[5, 0, 5, 0, 0, 3, 3, b'h', b'u', b'b', 0, 80]] {
        let opened = asked(options("socks5h://proxy:1080", false), "hub:9443", answer, StaysOpen).await.0;
        assert!(opened.is_ok(), "{answer:?}: {:?}", opened.err());
    }
}

#[test]
fn a_password_file_has_one_line() {
    let temp = TempDir::new();
    let read = |text: &str| read_password(&temp.write("password", text)).map_err(|error| error.to_string());
    for text in ["hunter 2", "hunter 2\n", "hunter 2\r\n"] {
        assert_eq!(read(text).unwrap().reveal(), "hunter 2");
    }
    for (text, expected) in [("", "it is empty"), ("\n", "it is empty"), ("a\nb\n", "it has several lines")] {
        assert!(read(text).unwrap_err().contains(expected));
    }
    assert!(read(&"x".repeat(2_000)).unwrap_err().contains("larger than 1024 bytes"));
    let missing = read_password(&temp.path().join("none")).unwrap_err();
    assert!(missing.to_string().contains("cannot read the proxy's password from"), "{missing}");
}

#[test]
fn no_debug_output_has_a_secret() {
    let options = options("http://proxy:3128", true);
    let keys = ProxyKeys::load(&options).unwrap();
    let proxy = Proxy::new(options.clone(), keys.clone());
    for shown in [format!("{options:?}"), format!("{keys:?}"), format!("{proxy:?}")] {
        assert!(!shown.contains("hunter2") && !shown.contains("dmz") && shown.contains("alice"), "{shown}");
    }
}

#[test]
fn headers_of_connect_are_checked() {
    let header = |name: &str, value: &str| ConnectHeader::new(name.into(), value.into()).map(drop);
    assert!(header("X-Zone", "a b\tc").is_ok());
    for (name, value) in [("", "a"), ("X Zone", "a"), ("X-Zone", "a\r\nb"), ("Host", "a"), ("proxy-AUTHORIZATION", "a")]
    {
        assert!(header(name, value).is_err(), "{name}");
    }
}
