//! The token of an uplink: its file, and the authorities by which the hub is verified, examined.

use std::path::PathBuf;

use super::doubts;
use super::reader::{ConfigReader, Section};
use crate::net::tls::Connector;
use crate::net::token::Token;
use crate::node::options::UplinkTls;

/// The file of a token that the configuration names.
pub(super) struct NotedToken<'a> {
    /// The section of the uplink.
    pub section: Section<'a>,
    /// Its section `tls`.
    pub files: Section<'a>,
    pub token_file: PathBuf,
    pub tls: UplinkTls,
}

impl<'a> ConfigReader<'a> {
    /// Adds what is wrong with the files, and what is doubtful.
    pub(super) fn examine_token(&mut self, noted: &NotedToken<'a>) {
        let NotedToken { section, files, token_file, tls } = noted;
        match (Token::read(token_file), tls) {
            (Err(error), _) => self.mistake(*section, "token_file", error.to_string()),
            (Ok(token), UplinkTls::Authorities(ca_file)) => {
                if let Err(error) = Connector::with_token(ca_file, token) {
                    self.mistake(*files, "ca_file", error.to_string());
                }
            }
            (Ok(_), UplinkTls::Certificate(_) | UplinkTls::Off) => {}
        }
        self.warn(*section, doubts::of_secret("token_file", Some(token_file)));
    }
}
