//! Doubts about files and labels: each may be meant as it is, and `check-config` prints it as a warning.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::SystemTime;

use crate::model::LabelSet;
use crate::net::certificate::{EXPIRY_WARNING, date};
use crate::net::tls::web::{Pem, WebAcceptor, WebTls};
use crate::net::tls::{Credentials, TlsFiles};

const DAY_SECONDS: u64 = 24 * 3600;
/// The permissions of users who are neither the owner nor of the group.
const OTHERS: u32 = 0o006;

/// A key, and what is doubtful about its value.
type Doubt = (&'static str, String);

/// The doubts about the certificates and the key of a link; the authorities are under the key `ca_name`.
pub(super) fn of_link(files: &TlsFiles, ca_name: &'static str, now: SystemTime) -> Vec<Doubt> {
    let mut doubts: Vec<Doubt> = of_secret("key_file", Some(&files.key_file)).into_iter().collect();
    if let Ok(credentials) = Credentials::load(files) {
        for (path, certificate) in
            credentials.certificates().filter(|(_, certificate)| certificate.warning_time() < now)
        {
            let name = if path == files.ca_file { ca_name } else { "cert_file" };
            doubts.extend(ends_soon(path, certificate.not_after, now).map(|text| (name, text)));
        }
    }
    doubts
}

/// The doubts about the gateway's certificate and key.
pub(super) fn of_web(tls: &WebTls, now: SystemTime) -> Vec<Doubt> {
    let key = match &tls.key {
        Pem::File(path) => Some(path.as_path()),
        Pem::Inline { .. } => None,
    };
    let mut doubts: Vec<Doubt> = of_secret("key_file", key).into_iter().collect();
    if let Ok(acceptor) = WebAcceptor::new(tls, true) {
        doubts.extend(ends_soon(tls.cert.path(), acceptor.not_after(), now).map(|text| ("cert_file", text)));
    }
    doubts
}

/// The doubt about the site of an edge: a hub takes it from its own `[[hub.edge]]`, else from the certificate, else from
/// the labels that the edge claims.
pub(super) fn of_site(labels: &LabelSet, files: &TlsFiles) -> Option<Doubt> {
    let identity = Credentials::load(files).ok()?.certificate().edge().ok()?;
    let (name, of_certificate) = (&identity.name, &identity.labels);
    let text = match (labels.is_empty(), of_certificate.is_empty()) {
        (true, false) => return None,
        (false, false) => {
            format!("the labels are ignored: the certificate names the site {of_certificate}; remove them")
        }
        (false, true) => format!(
            "a hub uses these labels only if it has trust_edge_labels = true; otherwise it refuses the edge, as the \
             certificate names no site: make one with `pushrelay pki edge {name} --label NAME=VALUE`"
        ),
        (true, true) => {
            return Some((
                "hub",
                format!(
                    "the certificate of the edge {name} names no site: the hub refuses it unless it has a [[hub.edge]] \
                     section for it; make one with `pushrelay pki edge {name} --label IDC=…`"
                ),
            ));
        }
    };
    Some(("labels", text))
}

/// The doubt about a file with a secret that every user of the machine can read or change.
pub(super) fn of_secret(name: &'static str, path: Option<&Path>) -> Option<Doubt> {
    let path = path?;
    let mode = std::fs::metadata(path).ok()?.permissions().mode() & 0o7777;
    let text = || {
        let path = path.display();
        format!(
            "every user of this machine can read or change {path} (mode {mode:04o}): chmod 600, or 640 with the node's group"
        )
    };
    (mode & OTHERS != 0).then(|| (name, text()))
}

fn ends_soon(path: &Path, end: SystemTime, now: SystemTime) -> Option<String> {
    // One that has ended is a mistake.
    let left = end.duration_since(now).ok().filter(|left| *left < EXPIRY_WARNING)?;
    let days = left.as_secs() / DAY_SECONDS;
    let days = if days == 1 { "1 day".to_owned() } else { format!("{days} days") };
    Some(format!("{} is valid until {}, {days} from now: renew it", path.display(), date(end)))
}
