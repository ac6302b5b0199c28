//! The headers by which an HTTP proxy names the address of its client: `X-Forwarded-For` and `Forwarded` (RFC 7239).
//!
//! Each proxy adds the address that it saw at the end. Anybody can send such a header, so addresses are read from the end,
//! and only for as long as the one who added them is trusted.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::proxy_protocol::TrustedProxy;

/// The names of the headers, in lower case. The first one that a request has counts.
pub const FORWARDED_HEADERS: [&str; 2] = ["x-forwarded-for", "forwarded"];
/// Addresses of one request that are looked at, at most.
const HOPS_MAX: usize = 32;

/// The address from which a request comes: that of the connection, or the one that trusted proxies name. `headers` has the
/// values of the header of that name. A port that no proxy names is 0.
pub fn source(peer: SocketAddr, trusted: &[TrustedProxy], headers: impl Fn(&'static str) -> Vec<String>) -> SocketAddr {
    let is_trusted = |address: SocketAddr| trusted.iter().any(|proxy| proxy.has(address.ip()));
    if !is_trusted(peer) {
        return peer;
    }
    let Some((name, values)) =
        FORWARDED_HEADERS.into_iter().map(|name| (name, headers(name))).find(|(_, values)| !values.is_empty())
    else {
        return peer;
    };
    let joined = values.join(",");
    let mut source = peer;
    for hop in joined.rsplit(',').take(HOPS_MAX) {
        let address = if name == FORWARDED_HEADERS[0] { address(hop.trim()) } else { forwarded_for(hop) };
        // A proxy may hide its client ("unknown", "_hidden"): nothing before it can be trusted.
        let Some(address) = address else { break };
        source = address;
        if !is_trusted(address) {
            break;
        }
    }
    source
}

/// The parameter `for` of an element of `Forwarded`.
fn forwarded_for(element: &str) -> Option<SocketAddr> {
    element.split(';').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        let value = value.trim();
        let value = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value);
        name.trim().eq_ignore_ascii_case("for").then(|| address(value)).flatten()
    })
}

/// An address with or without a port; an IPv6 address with or without brackets.
fn address(text: &str) -> Option<SocketAddr> {
    let of = |ip: IpAddr| SocketAddr::new(ip.to_canonical(), 0);
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok();
    let with_port = || text.parse::<SocketAddr>().ok();
    text.parse().ok().map(of).or_else(|| bracketed().map(IpAddr::from).map(of)).or_else(with_port)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(name: &'static str, values: &[&str], trusted: &[&str]) -> String {
        let trusted: Vec<TrustedProxy> = trusted.iter().map(|text| text.parse().unwrap()).collect();
        let values: Vec<String> = values.iter().map(|&value| value.to_owned()).collect();
        let headers = |asked| if asked == name { values.clone() } else { Vec::new() };
        source("10.0.0.1:4711".parse().unwrap(), &trusted, headers).to_string()
    }

    #[test]
    fn the_last_address_that_no_trusted_proxy_has_is_the_source() {
        let (own, trusted) = ("10.0.0.1:4711", &["10.0.0.0/8"][..]);
        for (values, expected) in [
            (&["192.0.2.7"][..], "192.0.2.7:0"),
            // A client can write whatever it likes before the address that the proxy adds.
            (&["198.51.100.1, 192.0.2.7"], "192.0.2.7:0"),
            (&["198.51.100.1", "192.0.2.7,10.0.0.2"], "192.0.2.7:0"),
            (&["192.0.2.7:80"], "192.0.2.7:80"),
            (&["2001:db8::7"], "[2001:db8::7]:0"),
            (&["[2001:db8::7]:80"], "[2001:db8::7]:80"),
            (&["10.0.0.3"], "10.0.0.3:0"),
            (&["192.0.2.7, unknown"], own),
            (&[""], own),
            (&[], own),
        ] {
            assert_eq!(of("x-forwarded-for", values, trusted), expected, "{values:?}");
        }
        assert_eq!(of("x-forwarded-for", &["192.0.2.7"], &[]), own, "nobody is trusted");
        for (value, expected) in [
            ("for=192.0.2.7;proto=https", "192.0.2.7:0"),
            ("by=203.0.113.1; For=\"[2001:db8::7]:80\"", "[2001:db8::7]:80"),
            ("for=198.51.100.1, for=192.0.2.7", "192.0.2.7:0"),
            ("for=_hidden", own),
            ("proto=https", own),
        ] {
            assert_eq!(of("forwarded", &[value], trusted), expected, "{value}");
        }
    }

    proptest! {
        #[test]
        fn no_header_panics(value in any::<String>()) {
            of("forwarded", &[&value], &["0.0.0.0/0"]);
            of("x-forwarded-for", &[&value], &["0.0.0.0/0"]);
        }
    }
}
