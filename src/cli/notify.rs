//! Tells systemd that the node is ready, and that it stops: one datagram to the socket in `NOTIFY_SOCKET`
//! (`Type=notify`).

use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use tracing::warn;

/// The node accepts requests.
pub const READY: &str = "READY=1";
/// The node ends.
pub const STOPPING: &str = "STOPPING=1";

/// Sends the state, if there is a supervisor that wants it.
pub fn notify(state: &str) {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty()) else { return };
    if let Err(error) = send(&socket, state) {
        warn!(socket = %socket.to_string_lossy(), %error, "the supervisor cannot be notified");
    }
}

fn send(socket: &OsString, state: &str) -> io::Result<()> {
    let bytes = socket.as_bytes();
    let address = match bytes.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address).map(drop)
}
