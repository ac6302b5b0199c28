//! The token of an uplink: its file, and the authorities by which the hub is verified, examined.

use std::path::Path;

use super::doubts;
use super::reader::{ConfigReader, Section};
use crate::net::tls::Connector;
use crate::net::token::BearerToken;
use crate::node::options::UplinkTls;

impl<'a> ConfigReader<'a> {
    /// Adds what is wrong with the token of the uplink in `section`, whose section `tls` is `files`, and what is doubtful.
    pub(super) fn examine_token(
        &mut self,
        (section, files): (Section<'a>, Section<'a>),
        token_file: &Path,
        tls: &UplinkTls,
    ) {
        match (BearerToken::read(token_file), tls) {
            (Err(error), _) => self.mistake(section, "token_file", error.to_string()),
            (Ok(token), UplinkTls::Authorities(ca_file)) => {
                if let Err(error) = Connector::with_token(ca_file, token) {
                    self.mistake(files, "ca_file", error.to_string());
                }
            }
            (Ok(_), UplinkTls::Certificate(_) | UplinkTls::Off) => {}
        }
        self.warn(section, doubts::of_secret("token_file", Some(token_file)));
    }
}
