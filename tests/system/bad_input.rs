//! Bad input of every kind: the node answers as a Pushgateway user expects, does not crash, and harms no other client.

use std::io::{Read, Write};

use flate2::Compression;
use flate2::write::GzEncoder;

use pushrelay_testkit::{Node, Reply, Site, eventually, http};

/// Twice the memory that may be resident: the largest body allowed, and its parsed form.
const MEMORY_BYTES_MAX: u64 = 512 << 20;
/// The default limit on a decompressed body.
const BODY_BYTES_MAX: usize = 64 << 20;

/// Checks after bad input: the node lives, other pushes are accepted, and the hub shows them.
fn unharmed(hub: &Node, edge: &mut Node) {
    edge.put("job/witness", "witness 1\n");
    hub.shows("witness", &[("job", "witness")], 1.0);
    edge.delete("job/witness");
    hub.lacks("witness", &[]);
    assert!(edge.process().is_alive());
    let output = edge.process().output();
    assert!(!output.contains("panicked"), "{output}");
}

fn push(node: &Node, headers: &[(&str, &str)], body: &[u8]) -> Reply {
    node.request("POST", "/metrics/job/bad", headers, body)
}

#[test]
fn malformed_bodies_are_400_and_change_nothing() {
    let (_site, hub, mut edge) = Site::with_one_edge();
    edge.push("job/bad", "kept 1\n");
    let bodies: &[(&str, &[u8])] = &[
        ("an open brace", b"foo{\n"),
        ("no value", b"foo\n"),
        ("a word for a value", b"a b c\n"),
        ("no line feed at the end", b"x 1"),
        ("not UTF-8", b"x{l=\"\xff\xfe\"} 1\n"),
        ("a name that is none", b"1x 1\n"),
        ("an empty brace", b"{} 1\n"),
        ("an unknown type", b"# TYPE x nonsense\nx 1\n"),
        ("a type too late", b"x 1\n# TYPE x counter\n"),
        ("nothing but bytes", b"\x00\x01\x02\x03"),
    ];
    let before = edge.page().values("push_failure_time_seconds", &[]);
    for (what, body) in bodies {
        let reply = push(&edge, &[], body);
        assert_eq!(reply.status, 400, "{what}: {}", reply.text());
        assert!(!reply.body.is_empty(), "{what}: says why");
    }
    let page = edge.page();
    assert_eq!(page.values("kept", &[]), [1.0]);
    assert_eq!(page.values("push_failure_time_seconds", &[]), before, "what cannot be parsed changes nothing");
    unharmed(&hub, &mut edge);
}

#[test]
fn refused_pushes_are_400_and_mark_the_group() {
    let (_site, hub, mut edge) = Site::with_one_edge();
    for body in ["x 1 1700000000000\n", "x 1\nx 2\n"] {
        let reply = push(&edge, &[], body.as_bytes());
        assert_eq!(reply.status, 400, "{body}");
        assert!(reply.text().contains("pushed metrics are invalid or inconsistent"), "{}", reply.text());
    }
    let page = edge.page();
    assert!(page.values("push_failure_time_seconds", &[("job", "bad")])[0] > 0.0);
    assert_eq!(page.values("push_time_seconds", &[("job", "bad")]), [0.0]);
    unharmed(&hub, &mut edge);
}

#[test]
fn wrong_paths_and_methods_are_named() {
    let (_site, hub, mut edge) = Site::with_one_edge();
    let cases = [
        ("PATCH", "/metrics/job/j", 405),
        ("BREW", "/metrics/job/j", 405),
        ("GET", "/metrics/job/j", 405),
        ("POST", "/metrics/job/j/odd", 400),
        ("POST", "/metrics/job/", 307),
        ("POST", "/metrics/job/j/1bad/v", 400),
        ("POST", "/metrics/job@base64/!!!", 400),
        ("POST", "/metrics/job/%ff", 400),
        ("GET", "/no/such/page", 404),
        ("PUT", "/api/v1/admin/wipe", 404),
        ("POST", "/-/quit", 403),
    ];
    for (method, path, status) in cases {
        let reply = edge.request(method, path, &[], b"x 1\n");
        assert_eq!(reply.status, status, "{method} {path}: {}", reply.text());
    }
    unharmed(&hub, &mut edge);
}

#[test]
fn a_body_too_large_is_413_and_names_the_bound() {
    let (_site, hub, mut edge) = Site::with_one_edge();
    let mut body = b"x 1\n".to_vec();
    body.resize(BODY_BYTES_MAX + (1 << 20), b'\n');
    let reply = push(&edge, &[], &body);
    assert_eq!(reply.status, 413, "{}", reply.text());
    let bound = [BODY_BYTES_MAX.to_string(), String::from("64MiB"), String::from("64 MiB")];
    assert!(bound.iter().any(|bound| reply.text().contains(bound)), "{}", reply.text());

    // The body exceeds the limit by its Content-Length alone: refused before it is sent, or when the sender stops.
    let mut stream = http::connect(edge.web()).unwrap();
    stream.write_all(b"POST /metrics/job/j HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999\r\n\r\n").unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413");
    unharmed(&hub, &mut edge);
}

#[test]
fn a_gzip_bomb_is_413_and_bounded() {
    let (_site, hub, mut edge) = Site::with_one_edge();
    let mut bomb = GzEncoder::new(Vec::new(), Compression::best());
    let chunk = vec![b'\n'; 1 << 20];
    for _ in 0..256 {
        bomb.write_all(&chunk).unwrap();
    }
    let bomb = bomb.finish().unwrap();
    for _ in 0..8 {
        let reply = push(&edge, &[("content-encoding", "gzip")], &bomb);
        assert_eq!(reply.status, 413, "{}", reply.text());
    }
    let memory = edge.process().memory_bytes_max();
    assert!(memory < MEMORY_BYTES_MAX, "{memory} bytes were resident");
    unharmed(&hub, &mut edge);
}

#[test]
fn damaged_compression_is_400() {
    let (_site, hub, mut edge) = Site::with_one_edge();
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(b"x 1\n").unwrap();
    let whole = encoder.finish().unwrap();
    for cut in [0, 1, 5, 12, whole.len() - 1] {
        let reply = push(&edge, &[("content-encoding", "gzip")], &whole[..cut]);
        assert_eq!(reply.status, 400, "cut at {cut}: {}", reply.text());
    }
    let mut wrong = whole.clone();
    let checksum = wrong.len() - 6;
    wrong[checksum] ^= 1;
    assert_eq!(push(&edge, &[("content-encoding", "gzip")], &wrong).status, 400);
    assert_eq!(push(&edge, &[("content-encoding", "snappy")], b"no snappy").status, 400);
    assert_eq!(push(&edge, &[("content-encoding", "gzip")], &whole).status, 200);
    unharmed(&hub, &mut edge);
}

#[test]
fn hostile_protobuf_is_400() {
    let (_site, hub, mut edge) = Site::with_one_edge();
    let protobuf = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";
    let bodies: &[&[u8]] = &[
        &[0xff; 32],
        &[0xff, 0xff, 0xff, 0xff, 0x0f, 0x0a],
        &[0x05, 0x0a, 0x01],
        &[0x04, 0x0a, 0x7f, b'x', b'y'],
        &[0x03, 0x0b, 0x0b, 0x0b],
    ];
    for body in bodies {
        let reply = push(&edge, &[("content-type", protobuf)], body);
        assert_eq!(reply.status, 400, "{body:x?}: {}", reply.text());
    }
    // The gauge x = 1, for comparison: the other bodies are refused for their contents.
    let good = [18, 0x0a, 1, b'x', 0x18, 1, 0x22, 11, 0x12, 9, 0x09, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f];
    let reply = push(&edge, &[("content-type", protobuf)], &good);
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(edge.page().values("x", &[("job", "bad")]), [1.0]);
    unharmed(&hub, &mut edge);
}

#[test]
fn slow_clients_do_not_delay_others() {
    let (_site, hub, mut edge) = Site::with_one_edge();
    let beginnings: [&[u8]; 4] = [
        b"",
        b"POST /metrics/job/slow HTT",
        b"POST /metrics/job/slow HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nx 1",
        b"POST /metrics/job/slow HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n4\r\nx 1\n\r\n",
    ];
    let mut waiting = Vec::new();
    for i in 0..100 {
        let mut stream = http::connect(edge.web()).unwrap();
        stream.write_all(beginnings[i % beginnings.len()]).unwrap();
        waiting.push(stream);
    }
    for _ in 0..20 {
        unharmed(&hub, &mut edge);
    }
    drop(waiting);
    unharmed(&hub, &mut edge);
    assert!(edge.page().values("x", &[]).is_empty(), "a push that did not arrive whole is none");
}

#[test]
fn scrapes_beyond_the_bound_are_503() {
    let site = Site::new();
    let mut node = site.hub().flags(&["--limits.scrapes-max=2"]);
    node.start();
    // The request is larger than the buffers of the sockets.
    let long = "x".repeat(1_000);
    let series: String = (0..20_000).map(|number| format!("m{{number=\"{number}\",long=\"{long}\"}} 1\n")).collect();
    node.push("job/large", &series);
    let waiting = ["/metrics", "/api/v1/metrics"].map(|path| {
        let mut stream = http::connect(node.web()).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        let mut begun = [0; 12];
        stream.read_exact(&mut begun).unwrap();
        assert_eq!(&begun, b"HTTP/1.1 200");
        stream
    });
    for path in ["/metrics", "/api/v1/metrics"] {
        let reply = node.get(path);
        assert_eq!(reply.status, 503, "{path}");
        assert_eq!(reply.text(), "2 scrapes are on their way already (limits.scrapes_max): try again later\n");
    }
    assert_eq!(node.get("/-/ready").status, 200);
    node.push("job/small", "n 1\n");
    drop(waiting);
    eventually("clients that went away leave their turns", || (node.get("/metrics").status == 200).then_some(()));
}

#[test]
fn noise_instead_of_http_is_survived() {
    let (site, hub, mut edge) = Site::with_one_edge();
    let long = [b"GET /".as_slice(), &vec![b'a'; 1 << 20], b" HTTP/1.1\r\n\r\n"].concat();
    let noise: [&[u8]; 4] = [b"\x16\x03\x01\x02\x00", b"\0\0\0\0\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", &long];
    for address in [edge.web(), hub.web(), hub.edge_listener()] {
        for bytes in noise {
            let mut stream = http::connect(address).unwrap();
            // The server may close the connection during this write. That is an answer too.
            let _ = stream.write_all(bytes);
        }
    }
    unharmed(&hub, &mut edge);
    let mut other = site.edge("bj-1", "BJ", &hub);
    other.start();
    other.push("job/j", "v 1\n");
    hub.shows("v", &[("IDC", "BJ")], 1.0);
}

#[test]
fn decompressed_bodies_count_in_the_limit_on_all_bodies() {
    let site = Site::new();
    let mut hub = site.hub();
    hub.start();
    let mut edge = site.edge("syq-1", "SYQ", &hub).flags(&["--limits.inflight-bytes-max=1MiB"]);
    edge.start();
    let long = format!("v{{l=\"{}\"}} 1\n", "a".repeat(2 << 20));
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(long.as_bytes()).unwrap();
    let reply = push(&edge, &[("content-encoding", "gzip")], &gzip.finish().unwrap());
    assert_eq!(reply.status, 503, "{}", reply.text());
    assert!(reply.text().contains("limits.inflight_bytes_max"), "{}", reply.text());
    unharmed(&hub, &mut edge);
}

/// A client that sends the head and the body apart, and then closes its sending half.
#[test]
fn a_client_that_is_answered_early_or_half_closes_gets_the_answer() {
    let (_site, hub, mut edge) = Site::with_one_edge();
    let send = |path: &str, body: &[u8]| {
        let mut stream = http::connect(edge.web()).unwrap();
        let head = format!("POST {path} HTTP/1.0\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).unwrap();
        // One thread serves all connections in turn: when it has answered a later one, it has handled this head.
        assert_eq!(edge.get("/-/ready").status, 200);
        stream.write_all(body).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        Reply::receive("GET", &mut stream).unwrap()
    };
    let odd = send("/metrics/job/a/b", &b"v 1\n".repeat(40_000));
    assert_eq!(odd.status, 400);
    assert!(odd.text().contains("odd number of components"), "{}", odd.text());
    assert_eq!(send("/metrics/job/closing", b"closing 1\n").status, 200);
    hub.shows("closing", &[], 1.0);
    unharmed(&hub, &mut edge);
}
