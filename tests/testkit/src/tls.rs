//! A TLS client for hand-written requests.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;

use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};

use super::http;

/// A TLS connection.
pub type Connection = StreamOwned<ClientConnection, TcpStream>;

/// Connects to a server with a certificate from that authority, and requests a protocol such as `h2` by ALPN.
pub fn connect(server: SocketAddr, ca: &Path, protocol: &[u8]) -> Connection {
    connect_as(server, ca, protocol, None)
}

/// Connects as [`connect`] does, and presents a certificate with that key.
pub fn connect_as(server: SocketAddr, ca: &Path, protocol: &[u8], client: Option<(&Path, &Path)>) -> Connection {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let builder = builder.with_root_certificates(roots);
    let mut config = match client {
        Some((cert, key)) => {
            let chain = vec![CertificateDer::from_pem_file(cert).unwrap()];
            builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(key).unwrap()).unwrap()
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![protocol.to_vec()];
    let name = ServerName::from(server.ip());
    let session = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut stream = StreamOwned::new(session, http::connect(server).unwrap());
    stream.flush().unwrap();
    stream
}

/// Sends a request on a kept-alive HTTP/1.1 connection; returns the status of the response, whose body must be short.
pub fn ask(stream: &mut (impl Read + Write), request: &str) -> u16 {
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    let mut byte = [0];
    while !answer.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        answer.push(byte[0]);
    }
    let head = String::from_utf8(answer).unwrap().to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |n| n.parse().unwrap());
    stream.read_exact(&mut vec![0; length]).unwrap();
    head.split(' ').nth(1).unwrap().parse().unwrap()
}

/// The serial numbers of the certificates that the server presents.
pub fn certificate(stream: &Connection) -> Vec<u8> {
    stream.conn.peer_certificates().unwrap()[0].to_vec()
}
