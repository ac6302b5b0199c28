//! Reading options and credentials again while the node runs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::certificates::{Certificates, CredentialsUser, FreshEnd, LinkSide, load_credentials, log_problems};
use super::error::StartError;
use super::http::server::HttpServer;
use super::http::service::Reloaded;
use super::link::hub::HubLinks;
use super::link::renewal::{RenewalFiles, SharedRenewalFiles};
use super::link::site_rules::SiteRules;
use super::link::uplink_credentials::UplinkCredentials;
use super::options::NodeOptions;
use crate::net::address::HostPort;
use crate::net::dial::Dialler;
use crate::net::http::sender::{HttpSender, SenderKeys};
use crate::net::proxy::ProxyKeys;
use crate::net::tls::Credentials;
use crate::store::Published;

/// The parts that a reload replaces.
pub(super) struct Reloadable {
    pub certificates: Arc<Certificates>,
    pub diallers: Vec<(Arc<Dialler>, HostPort)>,
    /// The files of certificates that are renewed, by the hub.
    pub renewals: Vec<(HostPort, SharedRenewalFiles)>,
    pub hub: Option<Arc<HubLinks>>,
    /// The published state, which has the rules of expiry.
    pub published: Published,
    pub web: Option<HttpServer>,
    /// The senders of remote write, by the name of the receiver.
    pub senders: Vec<(Arc<HttpSender>, String)>,
    /// Runs the tasks of links, until the token is cancelled.
    pub runtime: Handle,
    /// Cancelled when the links end.
    pub stop: CancellationToken,
    /// The options that the node was started with.
    pub flags: Vec<(String, String)>,
    /// The options of the last reload.
    pub read: Mutex<Vec<(String, String)>>,
}

impl Reloadable {
    /// Uses credentials from now on. An uplink that the node was not started with has no dialler: it needs a restart.
    fn replace(&self, fresh: FreshEnd<'_>) {
        let FreshEnd { user, credentials, side } = fresh;
        match (&side, &user) {
            (LinkSide::Hub(acceptor), _) => {
                let Some((hub_links, present)) = self.hub.as_ref().and_then(|hub| Some((hub, hub.acceptor.as_ref()?)))
                else {
                    return;
                };
                let is_renewed = !present.has_certificate_of(acceptor);
                present.replace(acceptor);
                hub_links.end_unverified();
                if is_renewed {
                    self.runtime.spawn(hub_links.clone().move_sessions(self.stop.clone()));
                }
            }
            (LinkSide::Uplink(connector, keys), CredentialsUser::Uplink(hub)) => {
                match self.diallers.iter().find(|(_, of)| of == hub) {
                    Some((present, _)) => present.replace(connector, keys.clone()),
                    None => return,
                }
            }
            _ => return,
        }
        match credentials {
            Some(credentials) => {
                log_problems(credentials);
                self.certificates.in_use(&user, credentials.certificate(), credentials.certificates());
            }
            None => self.certificates.not_in_use(&user),
        }
    }
}

impl Reloadable {
    /// Uses the credentials of a receiver from now on. One that the node was not started with needs a restart.
    fn replace_sender(&self, user: &CredentialsUser, keys: SenderKeys) {
        let is_its = |(_, name): &&(Arc<HttpSender>, String)| *user == CredentialsUser::RemoteWrite(name.clone());
        if let Some((sender, _)) = self.senders.iter().find(is_its) {
            sender.replace(keys);
        }
    }

    /// Applies the options that a reload can change: certificates, the gateway's protection, the hub's list of
    /// edges, and the rules of rights and of expiry. If one of them is not valid, none is applied. Other changed options are named in a warning: they need a
    /// restart.
    ///
    /// # Errors
    /// If certificates cannot be used, or TLS of the gateway would be switched on or off; the old options stay.
    pub fn reload(&self, options: &NodeOptions) -> Result<Reloaded, StartError> {
        let (parts, certificates, options) = (self, &self.certificates, &self.as_started(options));
        if let Some(web) = &parts.web {
            web.check(&options.web.security, true)?;
        }
        let has_hub_tls = options.hub.as_ref().map(|hub| hub.tls.is_some());
        if let (Some(hub_links), Some(has_tls)) = (&parts.hub, has_hub_tls)
            && hub_links.acceptor.is_some() != has_tls
        {
            let now = if has_tls { "has [hub.tls], which" } else { "has no [hub.tls], which" };
            let text = format!("the new configuration {now} takes a restart; nothing of it was taken");
            return Err(StartError::Restart(text));
        }
        let credentials = load_credentials(options)?;
        let mut fresh = Vec::new();
        for (uplink, credentials) in options.uplinks.iter().zip(&credentials.uplinks) {
            let proxy = uplink.proxy.as_ref().map(ProxyKeys::load).transpose()?;
            fresh.push(FreshEnd::of_uplink(certificates, &uplink.hub, credentials, proxy)?);
        }
        if let Some(credentials) = &credentials.hub {
            fresh.push(FreshEnd::of_hub(certificates, credentials)?);
        }
        let mut sender_keys = Vec::new();
        for (user, _) in CredentialsUser::all(options) {
            sender_keys.extend(user.load_receiver(options)?.map(|keys| (user, keys)));
        }
        let web_acceptor = parts.web.as_ref().map(|web| web.read(&options.web.security)).transpose()?;
        // Nothing fails after this line.
        if let (Some(web), Some(acceptor)) = (&parts.web, web_acceptor) {
            web.replace(&options.web.security, acceptor, Some(&options.allow));
        }
        fresh.into_iter().for_each(|end| parts.replace(end));
        for (hub, files) in &parts.renewals {
            let uplink = options.uplinks.iter().find(|uplink| uplink.hub == *hub);
            let fresh = uplink.and_then(|uplink| RenewalFiles::of(uplink, options));
            *files.lock().unwrap_or_else(PoisonError::into_inner) = fresh;
        }
        sender_keys.into_iter().for_each(|(user, keys)| parts.replace_sender(&user, keys));
        if let (Some(hub_links), Some(hub)) = (&parts.hub, &options.hub) {
            hub_links.replace_site_rules(SiteRules::new(hub));
            if let (Some(enrolment), Some(tls)) = (&hub_links.enrolment, &hub.tls) {
                enrolment.follow(&tls.ca_file);
            }
        }
        self.published.set_expiry_rules(options.expiry.clone());
        certificates.all_read(CredentialsUser::all(options).into_iter().map(|(user, _)| user));
        info!("configuration and certificates read again");
        let waiting = needs_restart(&parts.flags, &options.flags);
        if !waiting.is_empty() {
            warn!(keys = waiting.join(","), "changed options need a restart");
        }
        let mut read = parts.read.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *read, options.flags.clone());
        let taken = changed(&before, &options.flags).into_iter().filter(|name| is_reloadable(name)).collect();
        Ok(Reloaded { taken, waiting })
    }

    /// Reads the credentials of one user again, and nothing else: at the gateway its certificates, users, headers and
    /// rate limit. No operator asked for this, so the gateway cannot drop a requirement of passwords or client
    /// certificates.
    ///
    /// # Errors
    /// If certificates cannot be used, TLS of the gateway would be switched on or off, or a requirement would be dropped;
    /// the old credentials stay.
    pub fn reload_credentials(&self, user: &CredentialsUser, options: &NodeOptions) -> Result<(), StartError> {
        let (parts, options) = (self, &self.as_started(options));
        if let Some(uplink) = user.uplink(options) {
            let (credentials, proxy) = (UplinkCredentials::load(uplink)?, user.load_proxy(options)?);
            parts.replace(FreshEnd::of_uplink(&parts.certificates, &uplink.hub, &credentials, proxy)?);
        }
        let hub_files = options.hub.as_ref().and_then(|hub| hub.tls.as_ref());
        if let (CredentialsUser::Hub, Some(files)) = (user, hub_files) {
            parts.replace(FreshEnd::of_hub(&parts.certificates, &Credentials::load(files)?)?);
        }
        if let (CredentialsUser::Revocations, Some(hub_links)) = (user, &parts.hub) {
            let crl_file = hub_files.and_then(|files| files.crl_file.as_deref());
            if let (Some(crl_file), Some(acceptor)) = (crl_file, &hub_links.acceptor) {
                acceptor.read_revocations(crl_file)?;
                hub_links.end_unverified();
            }
        }
        if let Some(keys) = user.load_receiver(options)? {
            parts.replace_sender(user, keys);
        }
        if let (CredentialsUser::Gateway, Some(web)) = (user, &parts.web) {
            web.check(&options.web.security, false)?;
            let acceptor = web.read(&options.web.security)?;
            // Tokens wait for changed rules: a name may have gone to somebody else.
            let (allow, tokens) = web.rights();
            let mut security = options.web.security.clone();
            if allow != options.allow && security.guard.tokens != tokens {
                warn!("changed tokens wait for a reload: the [[allow]] rules have changed, too");
                security.guard.tokens = tokens;
            }
            web.replace(&security, acceptor, None);
        }
        info!(used_by = %user, "credentials read again");
        Ok(())
    }

    /// Options with the enrolment that the node was started with: it begins and ends with a restart only.
    fn as_started(&self, options: &NodeOptions) -> NodeOptions {
        let mut options = options.clone();
        if let (Some(hub), Some(hub_links)) = (&mut options.hub, &self.hub) {
            let has_tokens = hub.edges.iter().any(|edge| !edge.tokens.is_empty());
            if let Some(tls) = &mut hub.tls {
                tls.anonymous = hub_links.enrolment.is_some() || has_tokens;
            }
        }
        options
    }

    /// Records for the metrics whether the credentials of a user could be read.
    pub fn credentials_read(&self, user: &CredentialsUser, succeeded: bool) {
        self.certificates.read(user, succeeded);
    }
}

/// The changed options that a reload does not apply.
fn needs_restart(started: &[(String, String)], now: &[(String, String)]) -> Vec<String> {
    changed(started, now).into_iter().filter(|name| !is_reloadable(name)).collect()
}

/// Whether a reload applies an option.
fn is_reloadable(name: &str) -> bool {
    let sections = ["allow.", "expire.", "uplink.tls.", "hub.tls.", "hub.edge.", "web.tls.", "web.rate-limit."];
    let keys = [
        "uplink.token-file",
        "uplink.plaintext",
        "hub.trust-edge-labels",
        "hub.allow",
        "hub.required-labels",
        "web.http2",
        "web.headers",
        "web.basic_auth_users",
        "web.tokens",
        "web.config.file",
    ];
    let is_started_once = name == "uplink.tls.renew";
    !is_started_once && (sections.iter().any(|section| name.starts_with(section)) || keys.contains(&name))
}

/// The options whose values differ.
fn changed(before: &[(String, String)], now: &[(String, String)]) -> Vec<String> {
    let before: BTreeMap<&str, &str> = before.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let now: BTreeMap<&str, &str> = now.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let names: BTreeSet<&str> = before.keys().chain(now.keys()).copied().collect();
    names.into_iter().filter(|name| before.get(name) != now.get(name)).map(String::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_need_a_restart_are_named() {
        let flags = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
        };
        let started = flags(&[("web.listen-address", ":9091"), ("hub.tls.key-file", "a"), ("log.level", "info")]);
        assert!(needs_restart(&started, &started).is_empty());
        let now = flags(&[("hub.tls.key-file", "b"), ("hub.edge.name", "syq-1"), ("log.level", "debug")]);
        assert_eq!(needs_restart(&started, &now), ["log.level", "web.listen-address"]);
        let renewing = flags(&[("uplink.tls.renew", "true"), ("uplink.tls.key-file", "b"), ("uplink.token-file", "t")]);
        assert_eq!(needs_restart(&[], &renewing), ["uplink.tls.renew"], "its task begins with the node only");
    }
}
