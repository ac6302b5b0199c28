//! Layer 4: the sockets of a node: listeners and dialling, TLS and certificates, the WebSocket of the link, the HTTP server
//! and its limits.
//!
//! Read in this order: [`address`], [`listen`], [`dial`] and [`proxy`] (how a connection is made),
//! [`counted`] (bytes on the wire), [`tls`], [`certificate`] and [`identity`] (who the peer is), [`authority`],
//! [`credentials`] and [`invitation`] (how certificates are issued), [`token`] (secrets beside certificates),
//! [`websocket`] (the link's frames), [`http`] with [`timeouts`] (the gateway's server), [`proxy_protocol`] and
//! [`forwarded`] (boxes in front of a hub), [`slots`] (the limit on connections) and [`failures`] (connections that come to
//! nothing).
//!
//! Each outside library is used by one module: rustls by `tls`, x509-parser by `certificate`, rcgen by `authority`,
//! tokio-tungstenite by `websocket`, hyper by `http`, httparse and tokio-socks by `proxy`.

pub mod address;
pub mod authority;
pub mod certificate;
pub mod counted;
pub mod credentials;
pub mod dial;
pub mod failures;
pub mod forwarded;
pub mod http;
pub mod identity;
pub mod invitation;
pub mod listen;
pub mod proxy;
pub mod proxy_protocol;
pub mod slots;
#[cfg(test)]
pub(crate) mod testing;
pub mod timeouts;
pub mod tls;
pub mod token;
pub mod websocket;
