//! Sockets: listeners, TLS, WebSocket, HTTP.
