//! `pushrelay pki`: a small certificate authority for operators without one.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};

use super::pki_show::print_files;
use super::pki_token::{self, NewTokenError};
use crate::net::authority::{AUTHORITY_DAYS, DAYS_MAX, LEAF_DAYS};
use crate::net::certificate::date;
use crate::net::credentials::{CredentialsError, Directory, IssueOptions, KeyPairFiles, Revoked};
use crate::net::identity::{EdgeIdentity, EdgeName, IdentityError, parse_label, site_labels};
use crate::net::tls::TlsError;

/// The command's arguments.
#[derive(Clone, Debug, Args)]
pub struct Pki {
    #[command(subcommand)]
    make: Make,
    /// Directory of the certificates and keys
    #[arg(long, global = true, value_name = "DIR", default_value = "certs")]
    dir: PathBuf,
    /// Replace existing files
    #[arg(long, global = true)]
    force: bool,
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(DAYS_MAX)))]
    #[arg(help = format!("Days of validity [default: {AUTHORITY_DAYS} for the authority, {LEAF_DAYS} for others]"))]
    days: Option<u32>,
}

#[derive(Clone, Debug, Subcommand)]
enum Make {
    /// Make a certificate authority: ca.pem and ca.key
    Init,
    /// Make a hub's certificate: hub.pem and hub.key
    Hub {
        /// Names and addresses that edges use to reach the hub
        #[arg(required = true, value_name = "HOST")]
        hosts: Vec<String>,
    },
    /// Make an edge's certificate: NAME.pem and NAME.key
    Edge {
        /// The edge's name
        name: EdgeName,
        /// A site label, added to everything that the edge sends, such as IDC=SYQ (IDC: Internet data centre; SYQ is
        /// an example of a code); may be repeated
        #[arg(long = "label", value_name = "NAME=VALUE", value_parser = parse_label)]
        labels: Vec<(String, String)>,
    },
    /// Invite an edge: print a one-time word for `pushrelay join`, which gets the edge's certificate from the hub
    Invite {
        /// The edge's name
        name: EdgeName,
        /// A site label, as for `edge`; may be repeated
        #[arg(long = "label", value_name = "NAME=VALUE", value_parser = parse_label)]
        labels: Vec<(String, String)>,
        /// Hours for which the word can be used
        #[arg(long, value_name = "N", default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=8_760))]
        hours: u32,
    },
    /// Make a token for an edge behind a box that ends TLS, and print the hub's table that knows it
    Token {
        /// The edge's name
        name: EdgeName,
        /// A site label of the hub's table, such as IDC=SYQ; may be repeated
        #[arg(long = "label", required = true, value_name = "NAME=VALUE", value_parser = parse_label)]
        labels: Vec<(String, String)>,
        /// Write the token to this file, and print the table only
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Revoke the certificates of an edge: put them on crl.pem, the list that hub.tls.crl_file names; without a name,
    /// sign that list anew
    Revoke {
        /// The edge's name
        name: Option<EdgeName>,
        /// Revoke the certificate in this file too, which may be of another program
        #[arg(long, value_name = "FILE")]
        certificate: Option<PathBuf>,
    },
    /// Print what certificates are for, and how long; exit 1 if one is not valid now
    Show {
        /// Files with certificates, PEM
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
}

/// Reasons why the command failed; the text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file could not be made.
    #[error("{0}")]
    Credentials(CredentialsError),
    /// A certificate cannot have these labels.
    #[error("--label: {0}")]
    Identity(IdentityError),
    /// A certificate cannot be read.
    #[error("{0}")]
    Unreadable(TlsError),
    /// There is no token.
    #[error(transparent)]
    Token(NewTokenError),
    /// The result could not be printed.
    #[error("cannot print: {0}")]
    Io(io::Error),
}

impl Pki {
    /// Makes the files, and prints their names, and where to copy them; or prints certificates. Returns whether all of these
    /// are valid.
    ///
    /// # Errors
    /// See [`PkiError`].
    pub fn run(self, now: SystemTime, out: &mut dyn Write) -> Result<bool, PkiError> {
        let directory = Directory::new(self.dir);
        let issue = IssueOptions { now, days: self.days, force: self.force };
        let (files, advice) = match self.make {
            Make::Show { files } => {
                return print_files(&files, now, out).map_err(PkiError::Unreadable)?.map_err(PkiError::Io);
            }
            Make::Init => (directory.init(issue), "copy ca.pem to every hub and edge; ca.key signs: keep it offline"),
            Make::Hub { hosts } => (directory.hub(&hosts, issue), "copy both to the hub: [hub.tls] names them"),
            Make::Edge { name, labels } => {
                let labels = site_labels(labels).map_err(PkiError::Identity)?;
                let identity = EdgeIdentity { name, labels };
                (directory.edge(&identity, issue), "copy both to the edge: [uplink.tls] names them")
            }
            Make::Token { name, labels, out: file } => {
                let labels = site_labels(labels).map_err(PkiError::Identity)?;
                let made = pki_token::make(&EdgeIdentity { name, labels }, file.as_deref(), self.force, out);
                return made.map(|()| true).map_err(PkiError::Token);
            }
            Make::Invite { name, labels, hours } => {
                let labels = site_labels(labels).map_err(PkiError::Identity)?;
                let identity = EdgeIdentity { name, labels };
                let expires = now + Duration::from_secs(u64::from(hours) * 3_600);
                let word = directory.invite(&identity, expires, now).map_err(PkiError::Credentials)?.reveal();
                let until = date(expires);
                return writeln!(out, "{word}\non the edge, once, until {until}: pushrelay join HUB:PORT {word}")
                    .map(|()| true)
                    .map_err(PkiError::Io);
            }
            Make::Revoke { name, certificate } => {
                let revoked = directory.revoke(name.as_ref(), certificate.as_deref(), now);
                let Revoked { list, certificates } = revoked.map_err(PkiError::Credentials)?;
                let of = name.map(|name| format!(" of {name}")).unwrap_or_default();
                let advice = "the hub reads it within a second if it is hub.tls.crl_file; else copy it there";
                return writeln!(out, "{}\ncertificates{of} newly revoked: {certificates}\n{advice}", list.display())
                    .map(|()| true)
                    .map_err(PkiError::Io);
            }
        };
        let KeyPairFiles { certificate, key } = files.map_err(PkiError::Credentials)?;
        writeln!(out, "{}\n{} (secret)\n{advice}", certificate.display(), key.display()).map_err(PkiError::Io)?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::net::testing::TempDir;
    use crate::net::tls::problem::CertificateUse;
    use crate::net::tls::{Credentials, TlsFiles};

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        pki: Pki,
    }

    fn run(temp: &TempDir, arguments: &[&str]) -> Result<String, String> {
        let directory = temp.path().to_str().unwrap();
        let all = [&["pki"], arguments, &["--dir", directory]].concat();
        let command = Command::try_parse_from(all).map_err(|error| error.to_string())?;
        let mut out = Vec::new();
        command.pki.run(SystemTime::now(), &mut out).map_err(|error| error.to_string())?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn the_files_fit_each_other() {
        let temp = TempDir::new();
        run(&temp, &["init"]).unwrap();
        run(&temp, &["hub", "hub.example.org", "192.0.2.1", "--days", "30"]).unwrap();
        let printed = run(&temp, &["edge", "syq-1", "--label", "IDC=SYQ", "--label", "room=1"]).unwrap();
        assert!(printed.contains("syq-1.pem") && printed.contains("syq-1.key (secret)"), "{printed}");
        for name in ["hub", "syq-1"] {
            let path = |file: String| temp.path().join(file);
            let files = TlsFiles {
                ca_file: path("ca.pem".into()),
                cert_file: path(format!("{name}.pem")),
                key_file: path(format!("{name}.key")),
                crl_file: None,
                anonymous: false,
                used_by: if name == "hub" { CertificateUse::Hub } else { CertificateUse::Edge },
            };
            assert!(Credentials::examine(&files, SystemTime::now()).is_empty());
            let edge = Credentials::load(&files).unwrap().certificate().edge();
            let expected = if name == "hub" { "{}" } else { r#"{IDC="SYQ",room="1"}"# };
            assert_eq!(edge.map(|edge| edge.labels.to_string()).unwrap_or_default(), expected);
        }
    }

    #[test]
    fn certificates_are_shown() {
        let temp = TempDir::new();
        run(&temp, &["init"]).unwrap();
        run(&temp, &["edge", "syq-1", "--label", "IDC=SYQ"]).unwrap();
        let file = |name: &str| temp.path().join(name).display().to_string();
        let text = run(&temp, &["show", &file("syq-1.pem"), &file("ca.pem")]).unwrap();
        assert!(text.contains("syq-1.pem: the edge syq-1 of the site {IDC=\"SYQ\"}\n"), "{text}");
        assert!(text.contains("ca.pem: an authority\n") && text.contains("for      clientAuth\n"), "{text}");
        assert!(run(&temp, &["show", &file("syq-1.key")]).unwrap_err().contains("no certificate"));
    }

    #[test]
    fn each_mistake_has_its_message() {
        let temp = TempDir::new();
        assert!(run(&temp, &["edge", "a"]).unwrap_err().contains("pushrelay pki init"));
        run(&temp, &["init"]).unwrap();
        assert!(run(&temp, &["init"]).unwrap_err().contains("--force"));
        assert!(run(&temp, &["hub"]).unwrap_err().contains("HOST"));
        assert!(run(&temp, &["hub", "a:9443"]).unwrap_err().contains("without a port"));
        assert!(run(&temp, &["edge", "a/b"]).unwrap_err().contains("is no edge name"));
        assert!(run(&temp, &["edge", "hub"]).unwrap_err().contains("cannot be called"));
        assert!(run(&temp, &["edge", "a", "--label", "IDC"]).unwrap_err().contains("write NAME=VALUE"));
        assert!(run(&temp, &["edge", "a", "--label", "job=x"]).unwrap_err().contains("cannot be a label of a place"));
        assert!(run(&temp, &["edge", "a", "--days", "0"]).is_err());
    }
}
