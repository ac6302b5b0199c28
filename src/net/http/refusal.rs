//! Requests that are refused before the handler sees them, with the responses of Go's HTTP server, which Pushgateway
//! uses.

use hyper::Version;
use hyper::header::{EXPECT, HOST, HeaderMap, TRANSFER_ENCODING};
use hyper::http::request::Parts;

use super::Response;

/// The response to a request that must not be handled; `None` for all others. The connection is closed after it.
///
/// These requests are refused: an HTTP/1.1 request without exactly one valid Host header (RFC 9112, section 3.2), a
/// transfer coding other than `chunked`, which nothing here can decode, and an expectation other than `100-continue`.
pub(super) fn refusal(parts: &Parts) -> Option<Response> {
    let text = |status, body| {
        let response = Response::new(status).header("content-type", "text/plain; charset=utf-8");
        Some(response.header("connection", "close").body(body))
    };
    if parts.version > Version::HTTP_11 {
        return None;
    }
    if !is_chunked_or_plain(&parts.headers) {
        return text(501, "Unsupported transfer encoding");
    }
    let mut hosts = parts.headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) if parts.version == Version::HTTP_11 => {
            return text(400, "400 Bad Request: missing required Host header");
        }
        (Some(host), None) if !host.as_bytes().iter().all(|&byte| is_of_host(byte)) => {
            return text(400, "400 Bad Request: malformed Host header");
        }
        (_, Some(_)) => return text(400, "400 Bad Request"),
        _ => {}
    }
    let expectation = parts.headers.get(EXPECT).map(|value| String::from_utf8_lossy(value.as_bytes()));
    let is_unknown = expectation.filter(|expectation| !expectation.is_empty()).is_some_and(|expectation| {
        !expectation.split(',').any(|token| token.trim().eq_ignore_ascii_case("100-continue"))
    });
    is_unknown.then(|| Response::new(417).header("connection", "close"))
}

/// The response to a push on a connection that only reads may use: all others are busy.
pub(super) fn no_slot() -> Response {
    let response = Response::new(503).header("content-type", "text/plain; charset=utf-8").header("retry-after", "1");
    response.body("too many connections (limits.connections_max)\n")
}

fn is_chunked_or_plain(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => true,
        (Some(coding), None) => coding.as_bytes().eq_ignore_ascii_case(b"chunked"),
        (Some(_), Some(_)) => false,
    }
}

fn is_of_host(byte: u8) -> bool {
    let is_mark = matches!(byte, b'!' | b'$' | b'%'..=b'.' | b':' | b';' | b'=' | b'[' | b']' | b'_' | b'~');
    byte.is_ascii_alphanumeric() || is_mark
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(version: Version, headers: &[(&str, &str)]) -> Option<u16> {
        let mut request = hyper::Request::builder().version(version);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        refusal(&request.body(()).unwrap().into_parts().0).map(|response| response.status())
    }

    #[test]
    fn a_request_has_one_valid_host() {
        let one = |host: &str| refused(Version::HTTP_11, &[("host", host)]);
        for good in ["a", "a.example:9091", "[::1]:80", ""] {
            assert_eq!(one(good), None, "{good}");
        }
        for bad in ["a b", "a/b", "u@a", "a\"", "<a>"] {
            assert_eq!(one(bad), Some(400), "{bad}");
        }
        assert_eq!(refused(Version::HTTP_11, &[]), Some(400));
        assert_eq!(refused(Version::HTTP_11, &[("host", "a"), ("host", "a")]), Some(400));
        assert_eq!(refused(Version::HTTP_10, &[]), None);
        assert_eq!(refused(Version::HTTP_2, &[]), None);
    }

    #[test]
    fn bodies_that_could_not_be_decoded_are_refused() {
        let coded = |coding: &str| refused(Version::HTTP_11, &[("host", "a"), ("transfer-encoding", coding)]);
        assert_eq!(coded("Chunked"), None);
        for other in ["gzip, chunked", "chunked, chunked", "identity", "foo", ""] {
            assert_eq!(coded(other), Some(501), "{other}");
        }
        let twice = [("host", "a"), ("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")];
        assert_eq!(refused(Version::HTTP_11, &twice), Some(501));
    }

    #[test]
    fn no_other_expectation_can_be_met() {
        let expecting = |what: &str| refused(Version::HTTP_11, &[("host", "a"), ("expect", what)]);
        for met in ["100-continue", "100-Continue", "x, 100-continue", ""] {
            assert_eq!(expecting(met), None, "{met}");
        }
        assert_eq!(expecting("x"), Some(417));
    }
}
