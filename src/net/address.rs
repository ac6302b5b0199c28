//! Addresses in the forms that people write: `HOST:PORT`, `[::1]:PORT`, and for listeners `:PORT` for every interface.

use std::fmt;
use std::net::{Ipv6Addr, SocketAddr};
use std::str::FromStr;

use thiserror::Error;

/// An address to listen on: a host, or none for every interface, and a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ListenAddress {
    host: String,
    port: u16,
}

/// An address to connect to: a host and a port, neither of them empty.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPort {
    host: String,
    port: u16,
}

/// The reasons for which a text is not an address. Each variant carries the text.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AddressError {
    /// There is no `:PORT` at the end.
    #[error("{0:?} has no port: write HOST:PORT, like \"127.0.0.1:9091\"")]
    NoPort(String),
    /// The text after the last colon is not a port number.
    #[error("{0:?} does not end in a port number from 0 to 65535")]
    BadPort(String),
    /// The text before the last colon is neither a host name nor an IP address.
    #[error("{0:?} has no valid host: write a name, an IPv4 address or an IPv6 address in brackets, without https://")]
    BadHost(String),
    /// An address to connect to needs a host and a port other than 0.
    #[error("{0:?} is no address to connect to: write HOST:PORT, like \"hub.example.org:9443\"")]
    NotDialable(String),
}

impl ListenAddress {
    /// The address of that port on every interface.
    pub fn every_interface(port: u16) -> Self {
        Self { host: String::new(), port }
    }

    /// The host; empty for every interface.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port; 0 lets the system choose.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl HostPort {
    /// The host name or IP address; an IPv6 address is without its brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port; never 0.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl FromStr for ListenAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (host, port) = split(text)?;
        Ok(Self { host, port })
    }
}

impl FromStr for HostPort {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (host, port) = split(text)?;
        if host.is_empty() || port == 0 {
            return Err(AddressError::NotDialable(text.into()));
        }
        Ok(Self { host, port })
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        display(&self.host, self.port, f)
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        display(&self.host, self.port, f)
    }
}

fn display(host: &str, port: u16, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
}

/// An address for people: without its port if that is not known.
pub fn shown(address: SocketAddr) -> String {
    if address.port() == 0 { address.ip().to_string() } else { address.to_string() }
}

fn split(text: &str) -> Result<(String, u16), AddressError> {
    let (host, port) = text.rsplit_once(':').ok_or_else(|| AddressError::NoPort(text.into()))?;
    // `u16::from_str` accepts a leading plus sign; an address does not.
    let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    let port = port.parse().ok().filter(|_| digits).ok_or_else(|| AddressError::BadPort(text.into()))?;
    let host = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) if address.parse::<Ipv6Addr>().is_ok() => address,
        None if host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_')) => host,
        _ => return Err(AddressError::BadHost(text.into())),
    };
    Ok((host.into(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_print_as_they_were_written() {
        for text in ["127.0.0.1:9091", ":9091", "[::1]:0", "hub.example.org:65535", "localhost:1"] {
            assert_eq!(text.parse::<ListenAddress>().unwrap().to_string(), text);
        }
        assert_eq!("[::1]:9443".parse::<HostPort>().unwrap().host(), "::1");
    }

    #[test]
    fn a_port_that_nobody_named_is_not_shown() {
        for text in ["192.0.2.7:80", "[2001:db8::7]:80"] {
            assert_eq!(shown(text.parse().unwrap()), text);
        }
        assert_eq!(shown("[2001:db8::7]:0".parse().unwrap()), "2001:db8::7");
    }

    #[test]
    fn each_mistake_has_its_error() {
        let listen = |text: &str| text.parse::<ListenAddress>().unwrap_err();
        assert_eq!(listen("localhost"), AddressError::NoPort("localhost".into()));
        for text in ["a:", "a:+1", "a:65536", "a:http"] {
            assert_eq!(listen(text), AddressError::BadPort(text.into()));
        }
        for text in ["::1:9091", "[::g]:1", "a b:1", "http://a:1"] {
            assert_eq!(listen(text), AddressError::BadHost(text.into()));
        }
        for text in [":9443", "hub:0"] {
            assert_eq!(text.parse::<HostPort>().unwrap_err(), AddressError::NotDialable(text.into()));
        }
    }
}
