//! The keys that name the files that errors are about.

use crate::net::tls::web::WebTls;
use crate::net::tls::{TlsError, TlsFiles};

/// The key that names the file that an error of a link's files is about.
pub(super) fn link_name(ca_name: &'static str, files: &TlsFiles, error: &TlsError) -> &'static str {
    match error.path() {
        Some(path) if path == files.ca_file => ca_name,
        Some(path) if path == files.cert_file => "cert_file",
        path if path.is_some() && path == files.crl_file.as_deref() => "crl_file",
        _ => "key_file",
    }
}

/// The key that names the file that an error of the gateway's files is about.
pub(super) fn web_name(tls: &WebTls, error: &TlsError) -> &'static str {
    match error.path() {
        Some(path) if path == tls.cert.path() => "cert_file",
        Some(path) if path == tls.key.path() => "key_file",
        Some(_) => "client_ca_file",
        None => "cipher_suites",
    }
}
