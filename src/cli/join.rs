//! `pushrelay join HUB WORD`: makes the key of a new edge, gets its certificate from the hub, and writes a configuration.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use clap::Args;

use super::run;
use crate::config::Flags;
use crate::model::LabelSet;
use crate::net::address::HostPort;
use crate::net::authority::EdgeKey;
use crate::net::certificate::date;
use crate::net::credentials::replace_file;
use crate::net::dial::{DialLimits, Dialler};
use crate::net::invitation::InvitationWord;
use crate::net::proxy::{NoProxy, Proxy, ProxyKeys, ProxyOptions, ProxyUrl};
use crate::net::tls::Connector;
use crate::node::link::enrolment::edge::ask;
use crate::node::link::renewal::check;
use crate::node::options::{DialOptions, LinkOptions, NodeRole};

/// The file of the edge's key and certificate, in the directory.
const OWN_FILE: &str = "edge.pem";
/// The extension of the file of a key whose certificate is asked for, while there is another certificate.
const PENDING: &str = "pem.joining";
const AUTHORITIES_FILE: &str = "ca.pem";
const CONFIG_FILE: &str = "edge.toml";

/// The command's arguments.
#[derive(Clone, Debug, Args)]
pub struct Join {
    /// The hub's address for edges; its certificate must be for this host
    #[arg(value_name = "HOST:PORT")]
    hub: HostPort,
    /// The word that `pushrelay pki invite` printed; - reads it from standard input
    #[arg(value_name = "WORD")]
    word: String,
    /// Directory of the new configuration, key and certificate
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// Address of the new edge's gateway
    #[arg(long, value_name = "HOST:PORT", default_value = ":9091")]
    listen: String,
    /// URL of a proxy to the hub: http, https, socks5 or socks5h, with host and port
    #[arg(long, value_name = "URL")]
    proxy_url: Option<ProxyUrl>,
    /// Replace the configuration and the certificate of an edge that is there
    #[arg(long)]
    force: bool,
    /// Run the edge afterwards
    #[arg(long)]
    run: bool,
}

impl Join {
    /// Joins; prints to `out` what was made. With `--run` it returns when the edge has ended.
    ///
    /// # Errors
    /// A message for the operator: the invitation cannot be used, the hub cannot be reached or is another one, or a file
    /// cannot be written.
    pub fn run(self, now: SystemTime, out: &mut dyn Write) -> Result<bool, String> {
        let word = self.word()?;
        fs::create_dir_all(&self.dir).map_err(|error| format!("cannot create {:?}: {error}", self.dir))?;
        let config = self.dir.join(CONFIG_FILE);
        let config_text = self.config()?;
        if config.exists() && !self.force {
            return Err(format!(
                "{config:?} exists already: an edge joined here; choose another --dir, or use --force"
            ));
        }
        let (own, authorities) = (self.dir.join(OWN_FILE), self.dir.join(AUTHORITIES_FILE));
        // An earlier attempt may have written the authorities; the directory of an authority or of another node has more.
        if authorities.exists() && !own.exists() && !self.force {
            return Err(format!("{authorities:?} exists already: choose another --dir, or use --force to replace it"));
        }
        let (key, key_file) = self.key(&own)?;
        let runtime = run::runtime()?;
        let granted = runtime.block_on(self.ask(&word, &key, now))?;
        drop(runtime);
        let certificate = check(&granted, &key)?;
        let identity = certificate.edge().map_err(|error| error.to_string())?;
        let write = |path: &Path, text: &str, mode| replace_file(path, text, mode).map_err(|error| error.to_string());
        write(&authorities, granted.authorities.pem(), 0o644)?;
        write(&own, &(key.to_pem() + &granted.certificate_pem), 0o600)?;
        write(&config, &config_text, 0o644)?;
        if key_file != own {
            // The key is in the file of the certificate now.
            let _ = fs::remove_file(&key_file);
        }
        let labels: &LabelSet = &identity.labels;
        let text = format!(
            "joined as {} with the site labels {labels}; the certificate is valid until {} and renews itself\n\
             {}\n{} (secret)\n{}\nrun it with: pushrelay edge --config.file {}",
            identity.name,
            date(certificate.not_after),
            config.display(),
            own.display(),
            authorities.display(),
            config.display(),
        );
        writeln!(out, "{text}").map_err(|error| format!("cannot print: {error}"))?;
        if self.run { run::run(NodeRole::Edge, &Flags::of_file(config)) } else { Ok(true) }
    }

    fn word(&self) -> Result<InvitationWord, String> {
        let text = match self.word.as_str() {
            "-" => {
                let mut line = String::new();
                let read = io::stdin().read_line(&mut line);
                read.map_err(|error| format!("cannot read the invitation from standard input: {error}"))?;
                line
            }
            word => word.to_owned(),
        };
        text.parse().map_err(|error| format!("{error}"))
    }

    /// The key of an earlier attempt that failed, or a new one. It is on disk before the hub learns of it, so that the
    /// invitation is not lost with an answer that does not arrive.
    fn key(&self, own: &Path) -> Result<(EdgeKey, PathBuf), String> {
        // With --force the present key and certificate stay until there is a new certificate.
        let has_certificate = fs::read_to_string(own).is_ok_and(|pem| pem.contains("CERTIFICATE"));
        let path = if has_certificate && self.force { own.with_extension(PENDING) } else { own.to_owned() };
        let path = path.as_path();
        match fs::read_to_string(path) {
            Ok(pem) if !pem.contains("CERTIFICATE") => {
                let key = EdgeKey::from_pem(&pem);
                let key = key.map_err(|error| format!("{path:?} has no key that can be used: {error}"))?;
                return Ok((key, path.into()));
            }
            Ok(_) => {
                return Err(format!(
                    "{path:?} exists already: an edge joined here; choose another --dir, or use --force"
                ));
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(format!("cannot read {path:?}: {error}"));
            }
            Err(_) => {}
        }
        let key = EdgeKey::generate().map_err(|error| error.to_string())?;
        replace_file(path, &key.to_pem(), 0o600).map_err(|error| error.to_string())?;
        Ok((key, path.into()))
    }

    async fn ask(
        &self,
        word: &InvitationWord,
        key: &EdgeKey,
        now: SystemTime,
    ) -> Result<crate::node::link::enrolment::edge::Granted, String> {
        let link = LinkOptions::default();
        let limits = DialLimits {
            connect_timeout: DialOptions::default().connect_timeout,
            handshake_timeout: link.handshake_timeout,
            message_bytes_max: link.message_bytes_max,
        };
        let connector = Connector::for_joining().map_err(|error| error.to_string())?;
        let proxy = self.proxy().map(|options| {
            let keys = ProxyKeys::load(&options).map_err(|error| error.to_string())?;
            Ok::<_, String>(Proxy::new(options, keys))
        });
        let dialler = Dialler::new(self.hub.clone(), &[], limits, connector, proxy.transpose()?);
        let dialled = dialler.dial_enrolment(&mut ()).await.map_err(|error| {
            let is_closed = error.needs_certificate();
            let advice = if is_closed { "; this hub issues no certificates: set hub.enrol.dir there" } else { "" };
            format!("{error}{advice}")
        })?;
        let Some(hub_chain) = dialled.hub_chain else { return Err("the hub showed no certificate".into()) };
        let host = self.hub.host();
        let granted = ask(dialled.connection, Some(word.secret()), key, |authorities| {
            authorities.verify_hub(host, &hub_chain, |fingerprint| word.is_of(fingerprint), now)
        });
        granted.await.map_err(|error| error.to_string())
    }

    fn proxy(&self) -> Option<ProxyOptions> {
        let url = self.proxy_url.clone()?;
        let (login, ca_file, connect_headers) = (None, None, Vec::new());
        let no_proxy = NoProxy(Vec::new());
        Some(ProxyOptions { url, login, ca_file, connect_headers, no_proxy, timeout: ProxyOptions::TIMEOUT })
    }

    /// The configuration of the new edge. Names of files are relative to it.
    fn config(&self) -> Result<String, String> {
        self.listen.parse::<crate::net::address::ListenAddress>().map_err(|error| format!("--listen: {error}"))?;
        let proxy = self.proxy_url.as_ref().map(|url| format!("proxy_url = \"{url}\"\n")).unwrap_or_default();
        Ok(format!(
            "# Written by `pushrelay join`. The file config/edge.toml of the package has every key with its default.\n\
             [web]\nlisten_address = [\"{}\"]\n\n[storage]\npath = \"data\"\n\n[[uplink]]\nhub = \"{}\"\n{proxy}\n\
             [uplink.tls]\nca_file = \"{AUTHORITIES_FILE}\"\ncert_file = \"{OWN_FILE}\"\nkey_file = \"{OWN_FILE}\"\n\
             renew = true\n",
            self.listen, self.hub
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::testing::TempDir;

    #[test]
    fn a_repeat_after_a_lost_answer_has_the_same_key_also_with_force() {
        let temp = TempDir::new();
        let join = |force| Join {
            hub: "hub:9443".parse().unwrap(),
            word: String::new(),
            dir: temp.path().into(),
            listen: ":9091".into(),
            proxy_url: None,
            force,
            run: false,
        };
        let own = temp.path().join(OWN_FILE);
        let pem = |force| join(force).key(&own).map(|(key, path)| (key.to_pem(), path));
        assert_eq!(pem(false).unwrap(), pem(false).unwrap());
        assert_eq!(pem(true).unwrap(), pem(false).unwrap());
        let (first, _) = pem(false).unwrap();
        fs::write(&own, format!("{first}-----BEGIN CERTIFICATE-----\n")).unwrap();
        assert!(pem(false).unwrap_err().contains("exists already"));
        let (other, path) = pem(true).unwrap();
        assert!(other != first && path != own && fs::read_to_string(&own).unwrap().contains("CERTIFICATE"));
        assert_eq!(pem(true).unwrap(), (other, path));
    }
}
