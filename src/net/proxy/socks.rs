//! SOCKS5 (RFC 1928, RFC 1929). This is the only file that names the crate `tokio-socks`.
//!
//! Each step waits for the answer to the one before: microsocks drops what follows its greeting in the same segment. The
//! address that the proxy says it bound is read, in any of its forms, and not used: microsocks answers 0.0.0.0:0.

use std::io;
use std::net::{IpAddr, SocketAddr};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_socks::tcp::socks5::Socks5Stream;
use tokio_socks::{Error, TargetAddr};

use super::error::ProxyError;
use super::login::ProxyLogin;
use crate::net::address::HostPort;

/// Asks for a tunnel to `target`; returns the proxy's answer in words. Afterwards the stream is the tunnel.
pub(super) async fn open<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    target: &HostPort,
    login: Option<&ProxyLogin>,
) -> Result<String, ProxyError> {
    let destination = match target.host().parse::<IpAddr>() {
        Ok(address) => TargetAddr::Ip(SocketAddr::new(address, target.port())),
        Err(_) => TargetAddr::Domain(target.host().into(), target.port()),
    };
    if target.host().len() > 255 {
        return Err(ProxyError::Socks("the name of the hub is longer than SOCKS5 allows".into()));
    }
    let opened = match login {
        Some(login) => {
            let (username, password) = (&login.username, login.password.reveal());
            Socks5Stream::connect_with_password_and_socket(stream, destination, username, password).await
        }
        None => Socks5Stream::connect_with_socket(stream, destination).await,
    };
    opened.map(|_| "SOCKS5: succeeded".into()).map_err(|error| explain(error, target, login))
}

fn explain(error: Error, target: &HostPort, login: Option<&ProxyLogin>) -> ProxyError {
    ProxyError::Socks(match error {
        Error::Io(error) => {
            return match (error.kind(), login) {
                (io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset, Some(_)) => ProxyError::Socks(
                    "it closed the connection during the handshake: check uplink.proxy_username and \
                     uplink.proxy_password_file; its log has the reason"
                        .into(),
                ),
                (io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset, None) => ProxyError::Closed,
                _ => ProxyError::Io(error),
            };
        }
        Error::PasswordAuthFailure(_) => format!(
            "it refuses the user {:?}: check uplink.proxy_username and uplink.proxy_password_file",
            login.map_or("", |login| &login.username)
        ),
        Error::NoAcceptableAuthMethods | Error::AuthorizationRequired => match login {
            None => "it requires a login: set uplink.proxy_username and uplink.proxy_password_file".into(),
            Some(_) => "it accepts neither a user with a password nor a connection without a login; its log has the \
                        reason"
                .into(),
        },
        Error::InvalidResponseVersion => {
            "it does not speak SOCKS5: is that the port of an HTTP proxy? write http:// into uplink.proxy_url".into()
        }
        Error::ConnectionNotAllowedByRuleset => {
            format!("its rules forbid a tunnel to {target}: have this host and its target allowed at the proxy")
        }
        Error::GeneralSocksServerFailure => {
            format!("it could not reach {target}, or does not know its name (general failure); its log has the reason")
        }
        Error::NetworkUnreachable | Error::HostUnreachable | Error::TtlExpired => format!(
            "it could not reach {target} ({error}); check that its resolver knows the name, and that the hub is not \
             behind a firewall of the proxy"
        ),
        Error::ConnectionRefused => format!("it could not reach {target}: nothing listens there (connection refused)"),
        Error::AddressTypeNotSupported => "it does not take this kind of address: with socks5:// names are resolved \
                                           here, with socks5h:// by the proxy"
            .into(),
        // The library has this error for unknown codes of replies too.
        Error::UnknownAuthMethod => {
            format!(
                "it opens no tunnel to {target}: it answered a code that SOCKS5 does not have; its log has the reason"
            )
        }
        other => format!("it opens no tunnel to {target} ({other}); its log has the reason"),
    })
}
