//! The targets that are dialled without the proxy: hosts, suffixes, addresses, networks, each with a port perhaps.
//!
//! The rules are those of Go's `NO_PROXY`, which Prometheus uses: `example.org` is that host and every host below it,
//! `.example.org` and `*.example.org` only those below it, `*` every host. A name is not resolved for the comparison:
//! addresses and networks fit targets that are given by their address.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use ipnet::IpNet;
use thiserror::Error;

use crate::net::address::HostPort;

/// All rules. A target is dialled without the proxy if one of them fits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NoProxy(pub Vec<NoProxyRule>);

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoProxyRule {
    hosts: Hosts,
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Hosts {
    Every,
    /// The name in lower case, and whether the host itself fits beside those below it.
    Name(String, bool),
    Network(IpNet),
}

/// A text that is no rule.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "{0:?} is neither a host (\"hub.example.org\"), a suffix (\".example.org\"), an address, a network (\"10.0.0.0/8\") \
     nor \"*\", each with or without a port"
)]
pub struct NoProxyError(String);

impl NoProxy {
    /// Whether a target is dialled without the proxy.
    pub fn has(&self, target: &HostPort) -> bool {
        self.0.iter().any(|rule| rule.fits(target))
    }
}

impl NoProxyRule {
    fn fits(&self, target: &HostPort) -> bool {
        if self.port.is_some_and(|port| port != target.port()) {
            return false;
        }
        match (&self.hosts, target.host().parse::<IpAddr>()) {
            (Hosts::Every, _) => true,
            (Hosts::Network(network), Ok(address)) => network.contains(&address),
            (Hosts::Name(name, itself), Err(_)) => {
                let host = target.host().trim_end_matches('.').to_ascii_lowercase();
                match host.strip_suffix(name.as_str()) {
                    Some("") => *itself,
                    Some(above) => above.ends_with('.'),
                    None => false,
                }
            }
            _ => false,
        }
    }
}

fn hosts(text: &str) -> Option<Hosts> {
    if text == "*" {
        return Some(Hosts::Every);
    }
    if let Some(address) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return address.parse::<Ipv6Addr>().ok().map(|address| Hosts::Network(IpAddr::from(address).into()));
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(Hosts::Network(address.into()));
    }
    if let Ok(network) = text.parse::<IpNet>() {
        return Some(Hosts::Network(network));
    }
    let suffix = text.strip_prefix("*.").or_else(|| text.strip_prefix('.'));
    let name = suffix.unwrap_or(text).trim_end_matches('.');
    let good = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
    good.then(|| Hosts::Name(name.to_ascii_lowercase(), suffix.is_none()))
}

impl FromStr for NoProxyRule {
    type Err = NoProxyError;

    fn from_str(text: &str) -> Result<Self, NoProxyError> {
        if let Some(hosts) = hosts(text) {
            return Ok(Self { hosts, port: None });
        }
        let with_port = text.rsplit_once(':').and_then(|(left, port)| {
            let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
            Some((hosts(left)?, port.parse::<u16>().ok().filter(|port| digits && *port > 0)?))
        });
        let (hosts, port) = with_port.ok_or_else(|| NoProxyError(text.into()))?;
        Ok(Self { hosts, port: Some(port) })
    }
}

impl fmt::Display for NoProxyRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.hosts {
            Hosts::Every => f.write_str("*")?,
            Hosts::Name(name, true) => f.write_str(name)?,
            Hosts::Name(name, false) => write!(f, ".{name}")?,
            Hosts::Network(network) if network.prefix_len() < network.max_prefix_len() => write!(f, "{network}")?,
            Hosts::Network(IpNet::V6(network)) => write!(f, "[{}]", network.addr())?,
            Hosts::Network(network) => write!(f, "{}", network.addr())?,
        }
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rules, targets that are dialled directly, and targets that go through the proxy.
    const ROWS: &[(&str, &[&str], &[&str])] = &[
        ("*", &["a:1", "10.0.0.1:1"], &[]),
        ("example.org", &["example.org:1", "Hub.Example.ORG:2", "example.org.:1"], &["an-example.org:1", "org:1"]),
        (".example.org", &["hub.example.org:1"], &["example.org:1", "an-example.org:1"]),
        ("*.example.org", &["a.hub.example.org:1"], &["example.org:1"]),
        ("hub.example.org:9443", &["hub.example.org:9443", "a.hub.example.org:9443"], &["hub.example.org:443"]),
        ("10.0.0.0/8", &["10.9.8.7:1"], &["11.0.0.1:1", "ten.example.org:1", "[::1]:1"]),
        ("10.0.0.0/8:443", &["10.9.8.7:443"], &["10.9.8.7:9443"]),
        ("192.0.2.7", &["192.0.2.7:1"], &["192.0.2.8:1"]),
        ("192.0.2.7:443", &["192.0.2.7:443"], &["192.0.2.7:1"]),
        ("fd00::/8", &["[fd12::1]:1"], &["[fe80::1]:1"]),
        ("::1", &["[::1]:1"], &["[::2]:1"]),
        ("[::1]:443", &["[::1]:443"], &["[::1]:444"]),
    ];

    #[test]
    fn each_kind_of_rule_fits_its_targets_and_prints_as_it_is_read() {
        for (text, direct, proxied) in ROWS {
            let rule: NoProxyRule = text.parse().unwrap();
            assert_eq!(rule.to_string().parse::<NoProxyRule>().unwrap(), rule, "{text}");
            let rules = NoProxy(vec![rule]);
            let has = |target: &&&str| rules.has(&target.parse().unwrap());
            assert_eq!(direct.iter().filter(has).count(), direct.len(), "{text}");
            assert_eq!(proxied.iter().filter(has).count(), 0, "{text}");
        }
        assert!(!NoProxy::default().has(&"a:1".parse().unwrap()));
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", ".", "*.", "a b", "a:0", "a:x", ":443", "10.0.0.0/33", "http://a", "[::1", "a:b:1"] {
            assert_eq!(text.parse::<NoProxyRule>().unwrap_err(), NoProxyError(text.into()));
        }
    }
}
