//! The files of a receiver of remote write, and the keys that name them.

use std::path::{Path, PathBuf};

use super::reader::{ConfigReader, Section};
use crate::net::http::sender::{ReceiverLogin, SenderKeys, SenderOptions};
use crate::net::tls::ReceiverTlsFiles;

impl<'a> ConfigReader<'a> {
    /// Examines the files of a receiver, except those of its proxy, which are examined as those of each proxy.
    pub(super) fn examine_receiver(&mut self, section: Section<'a>, options: &SenderOptions) {
        let Err(error) = SenderKeys::load(options) else { return };
        if let Some((path, name)) = error.path().and_then(|file| key_of(options, file)) {
            self.mistake(self.section(section, path), name, error.to_string());
        }
    }
}

/// The section and the key that name a file; `None` for the files of the proxy.
fn key_of(options: &SenderOptions, file: &Path) -> Option<(&'static str, &'static str)> {
    let is_of_tls = |tls: &ReceiverTlsFiles| tls.files().any(|other| other == file);
    match &options.login {
        Some(ReceiverLogin::Basic { password_file, .. }) if password_file == file => {
            Some(("remote_write.basic_auth", "password_file"))
        }
        Some(ReceiverLogin::Credentials { credentials_file, .. }) if credentials_file == file => {
            Some(("remote_write.authorization", "credentials_file"))
        }
        _ => match &options.tls {
            Some(tls) if is_of_tls(tls) => {
                let is_own = |own: &&(PathBuf, PathBuf)| own.0 == file || own.1 == file;
                let name = match tls.identity.as_ref().filter(is_own) {
                    Some((cert, _)) if cert == file => "cert_file",
                    Some(_) => "key_file",
                    None => "ca_file",
                };
                Some(("remote_write.tls_config", name))
            }
            _ => None,
        },
    }
}
