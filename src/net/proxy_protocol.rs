//! The PROXY protocol, versions 1 and 2: a balancer before a listener says from which address a connection comes.
//!
//! Only trusted balancers may say so. A connection without the header is taken as it is: the first bytes of TLS differ from
//! those of a header. This is the only file that names the crate `ppp`.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use ipnet::IpNet;
use ppp::{HeaderResult, v1, v2};
use thiserror::Error;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::failures::FailureKind;

/// The beginnings of both versions' headers.
const SIGNATURES: [&[u8]; 2] = [b"PROXY ", b"\r\n\r\n\0\r\nQUIT\n"];
/// Bytes of a header of version 1, at most.
const V1_BYTES_MAX: usize = 107;
/// Bytes of a header of version 2 before its addresses.
const V2_BYTES_MIN: usize = 16;
/// Bytes of a header of version 2, at most. Balancers add certificates, but not many.
const V2_BYTES_MAX: usize = 16 << 10;

/// An address or a network of trusted balancers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrustedProxy(IpNet);

/// A text that is neither an address nor a network.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} is neither an address like \"192.0.2.7\" nor a network like \"10.0.0.0/8\"")]
pub struct TrustedProxyError(String);

impl TrustedProxy {
    /// Whether a balancer has that address.
    pub fn has(&self, ip: IpAddr) -> bool {
        self.0.contains(&ip.to_canonical())
    }
}

impl FromStr for TrustedProxy {
    type Err = TrustedProxyError;

    fn from_str(text: &str) -> Result<Self, TrustedProxyError> {
        let network = text.parse::<IpAddr>().map(IpNet::from).or_else(|_| text.parse());
        network.map(Self).map_err(|_| TrustedProxyError(text.into()))
    }
}

impl fmt::Display for TrustedProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(network) = self;
        if network.prefix_len() == network.max_prefix_len() {
            write!(f, "{}", network.addr())
        } else {
            write!(f, "{network}")
        }
    }
}

/// The reasons for which the header of a connection is not accepted.
#[derive(Debug, Error)]
pub enum ProxyHeaderError {
    /// The sender is not trusted.
    #[error(
        "the connection begins with a PROXY protocol header, and {0} is not in hub.trusted_proxies: add it there if it is a \
         balancer's address, or switch the PROXY protocol off"
    )]
    Untrusted(IpAddr),
    /// The header is not valid.
    #[error("its PROXY protocol header cannot be read: {0}")]
    Malformed(String),
    /// The connection failed.
    #[error("the connection ended inside its PROXY protocol header: {0}")]
    Io(#[from] io::Error),
}

impl ProxyHeaderError {
    /// The kind of the failed connection.
    pub fn failure(&self) -> FailureKind {
        match self {
            Self::Untrusted(_) => FailureKind::Refused,
            Self::Malformed(_) => FailureKind::Protocol,
            Self::Io(error) => FailureKind::of_io(error),
        }
    }
}

/// Reads the header of a connection from `peer`, if it has one; returns the address from which the connection comes. The
/// bytes behind the header stay unread.
///
/// # Errors
/// If there is a header and `peer` is not trusted, or the header is not valid.
pub async fn read_source(
    stream: &mut TcpStream,
    peer: SocketAddr,
    trusted: &[TrustedProxy],
) -> Result<SocketAddr, ProxyHeaderError> {
    let mut begin = [0; 12];
    let len = stream.peek(&mut begin).await?;
    let begins = |signature: &&[u8]| {
        let common = len.min(signature.len());
        common > 0 && begin[..common] == signature[..common]
    };
    let Some(version) = SIGNATURES.iter().position(begins) else { return Ok(peer) };
    let ip = peer.ip().to_canonical();
    if !trusted.iter().any(|proxy| proxy.has(ip)) {
        return Err(ProxyHeaderError::Untrusted(ip));
    }
    let header = if version == 0 { read_v1(stream).await? } else { read_v2(stream).await? };
    Ok(source(&header)?.unwrap_or(peer))
}

async fn read_v1(stream: &mut TcpStream) -> Result<Vec<u8>, ProxyHeaderError> {
    let mut header = Vec::new();
    while !header.ends_with(b"\n") {
        if header.len() >= V1_BYTES_MAX {
            return Err(ProxyHeaderError::Malformed(format!("it is longer than {V1_BYTES_MAX} bytes")));
        }
        header.push(stream.read_u8().await?);
    }
    Ok(header)
}

async fn read_v2(stream: &mut TcpStream) -> Result<Vec<u8>, ProxyHeaderError> {
    let mut header = vec![0; V2_BYTES_MIN];
    stream.read_exact(&mut header).await?;
    let len = V2_BYTES_MIN + usize::from(u16::from_be_bytes([header[14], header[15]]));
    if len > V2_BYTES_MAX {
        return Err(ProxyHeaderError::Malformed(format!("it is longer than {V2_BYTES_MAX} bytes")));
    }
    header.resize(len, 0);
    stream.read_exact(&mut header[V2_BYTES_MIN..]).await?;
    Ok(header)
}

/// The source in a whole header; `None` if the balancer speaks for itself, as its checks do.
fn source(header: &[u8]) -> Result<Option<SocketAddr>, ProxyHeaderError> {
    let malformed = |error: String| ProxyHeaderError::Malformed(error);
    match HeaderResult::parse(header) {
        HeaderResult::V1(parsed) => match parsed.map_err(|error| malformed(error.to_string()))?.addresses {
            v1::Addresses::Tcp4(pair) => Ok(Some((pair.source_address, pair.source_port).into())),
            v1::Addresses::Tcp6(pair) => Ok(Some((pair.source_address, pair.source_port).into())),
            v1::Addresses::Unknown => Ok(None),
        },
        HeaderResult::V2(parsed) => {
            let parsed = parsed.map_err(|error| malformed(error.to_string()))?;
            match parsed.addresses {
                _ if parsed.command == v2::Command::Local => Ok(None),
                v2::Addresses::IPv4(pair) => Ok(Some((pair.source_address, pair.source_port).into())),
                v2::Addresses::IPv6(pair) => Ok(Some((pair.source_address, pair.source_port).into())),
                v2::Addresses::Unspecified | v2::Addresses::Unix(_) => Ok(None),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

    fn v2(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
        let len = u16::try_from(addresses.len()).unwrap().to_be_bytes();
        [V2, &[command, family], &len, addresses].concat()
    }

    /// The source of a connection that begins with these bytes, and the bytes that are left for TLS.
    async fn read(bytes: &[u8], trusted: &[&str]) -> (Result<SocketAddr, ProxyHeaderError>, Vec<u8>, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        client.write_all(bytes).await.unwrap();
        client.shutdown().await.unwrap();
        let (mut stream, peer) = listener.accept().await.unwrap();
        let trusted: Vec<TrustedProxy> = trusted.iter().map(|text| text.parse().unwrap()).collect();
        let source = read_source(&mut stream, peer, &trusted).await;
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        (source, rest, peer)
    }

    #[tokio::test]
    async fn both_versions_name_the_source_and_leave_the_rest() {
        let ipv6 = [&[0x20, 1, 0xd, 0xb8][..], &[0; 11], &[7], &[0; 16], &[0x10, 0x20, 0, 1]].concat();
        for (header, source) in [
            (b"PROXY TCP4 192.0.2.7 192.0.2.1 4128 9443\r\n".to_vec(), "192.0.2.7:4128"),
            (b"PROXY TCP6 2001:db8::7 2001:db8::1 4128 9443\r\n".to_vec(), "[2001:db8::7]:4128"),
            (v2(0x21, 0x11, &[192, 0, 2, 7, 192, 0, 2, 1, 0x10, 0x20, 0, 1]), "192.0.2.7:4128"),
            // Extensions follow the addresses.
            (v2(0x21, 0x11, &[192, 0, 2, 7, 192, 0, 2, 1, 0x10, 0x20, 0, 1, 4, 0, 1, 9]), "192.0.2.7:4128"),
            (v2(0x21, 0x21, &ipv6), "[2001:db8::7]:4128"),
        ] {
            let (read, rest, _) = read(&[&header, &b"\x16\x03"[..]].concat(), &["10.0.0.0/8", "127.0.0.1"]).await;
            assert_eq!((read.unwrap().to_string().as_str(), rest.as_slice()), (source, &b"\x16\x03"[..]));
        }
    }

    #[tokio::test]
    async fn a_balancer_speaks_for_itself_and_a_direct_connection_has_no_header() {
        for bytes in [&b"PROXY UNKNOWN\r\n"[..], &v2(0x20, 0, &[]), b"\x16\x03\x01", b"POST /", b""] {
            let (source, _, peer) = read(bytes, &["127.0.0.0/8"]).await;
            assert_eq!(source.unwrap(), peer);
        }
        assert_eq!(read(b"\x16\x03\x01", &[]).await.1, b"\x16\x03\x01", "nothing is lost");
    }

    #[tokio::test]
    async fn a_header_of_somebody_else_is_refused_with_the_key_that_trusts_it() {
        for header in [&b"PROXY TCP4 192.0.2.7 192.0.2.1 4128 9443\r\n"[..], &v2(0x21, 0x11, &[0; 12])] {
            let error = read(header, &["10.0.0.0/8"]).await.0.unwrap_err();
            assert_eq!(error.failure(), FailureKind::Refused);
            assert!(error.to_string().contains("127.0.0.1 is not in hub.trusted_proxies"), "{error}");
        }
    }

    #[tokio::test]
    async fn other_headers_are_errors() {
        for header in [
            &b"PROXY TCP4 nowhere\r\n"[..],
            &b"PROXY TCP4 ".repeat(20),
            b"PROXY TCP4 192.0.2.7",
            &v2(0x21, 0x11, &[0; 3]),
            &v2(0x41, 0x11, &[0; 12]),
            &v2(0x21, 0x11, &[0; 12])[..20],
            &[V2, &[0x21, 0x11, 0xff, 0xff]].concat(),
        ] {
            let error = read(header, &["127.0.0.1"]).await.0.unwrap_err();
            assert!(matches!(error, ProxyHeaderError::Malformed(_) | ProxyHeaderError::Io(_)), "{error}");
        }
    }

    #[test]
    fn trusted_proxies_print_as_they_are_read() {
        for text in ["192.0.2.7", "10.0.0.0/8", "fd00::/8", "::1"] {
            assert_eq!(text.parse::<TrustedProxy>().unwrap().to_string(), text);
        }
        for text in ["", "balancer", "10.0.0.0/33", "192.0.2.7:443"] {
            assert!(text.parse::<TrustedProxy>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_header_panics(bytes in any::<Vec<u8>>()) {
            let _ = source(&bytes);
            let _ = source(&[V2, &bytes].concat());
            let _ = source(&[b"PROXY ", bytes.as_slice()].concat());
        }
    }
}
