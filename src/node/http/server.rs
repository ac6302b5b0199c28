//! The HTTP server of the gateway: the service behind the guard, with or without TLS. Its protection can be replaced
//! while it runs.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use futures_util::future::Either;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::auth::guard::Guard;
use super::auth::tokens::Tokens;
use super::protection::{self, Protection};
use super::service::Service;
use crate::gateway::rights::AllowRules;
use crate::model::Family;
use crate::net::http::{self, HttpLimits, encrypted};
use crate::net::tls::TlsError;
use crate::net::tls::web::{WebAcceptor, WebTls};
use crate::node::error::StartError;
use crate::node::options::{WebOptions, WebSecurity};

/// The service behind the guard, with the TLS acceptor.
pub struct HttpServer {
    guard: Arc<Guard<Service>>,
    acceptor: Option<Arc<WebAcceptor>>,
    required: Mutex<RequiredCredentials>,
}

/// The credentials that clients must present.
#[derive(Clone, Copy, Debug)]
struct RequiredCredentials {
    passwords: bool,
    certificates: bool,
}

impl RequiredCredentials {
    fn of(security: &WebSecurity) -> Self {
        let certificates = security.tls.as_ref().is_some_and(WebTls::requires_certificate);
        Self { passwords: !security.guard.users.is_empty(), certificates }
    }
}

impl HttpServer {
    /// The server of a service. For `secret` see [`Guard::new`].
    pub fn new(web: &WebOptions, allow: AllowRules, service: Service, secret: [u8; 32]) -> Self {
        let (security, Protection { acceptor, refusals }) = (&web.security, service.protection.clone());
        let open_paths = web.open_paths.iter().map(|path| format!("{}{path}", web.route_prefix)).collect();
        let unlimited = ["/-/healthy", "/-/ready", web.telemetry_path.as_str()];
        let unlimited = unlimited.map(|path| format!("{}{path}", web.route_prefix)).into();
        let (access, rules) = (service.access.clone(), security.guard.clone());
        access.replace(allow, !rules.users.is_empty(), service.committer.published());
        let guard = Arc::new(Guard::new(service, rules, access, open_paths, unlimited, refusals, secret));
        Self { guard, acceptor, required: Mutex::new(RequiredCredentials::of(security)) }
    }

    /// Gathers all metrics of the node itself, as a scrape shows them.
    pub fn own_families(&self) -> Arc<dyn Fn() -> Vec<Family> + Send + Sync> {
        let guard = self.guard.clone();
        Arc::new(move || guard.inner().own_families())
    }

    /// Serves the connections of a listener until `stop`.
    pub fn serve(
        &self,
        listener: TcpListener,
        limits: Arc<HttpLimits>,
        stop: CancellationToken,
    ) -> impl Future<Output = ()> + Send + use<> {
        let guard = self.guard.clone();
        match self.acceptor.clone() {
            Some(acceptor) => Either::Left(encrypted::serve(listener, guard, acceptor, limits, stop)),
            None => Either::Right(http::serve(listener, guard, limits, stop)),
        }
    }

    /// Checks whether the node can take these options while it runs. TLS cannot be switched on or off: open connections
    /// could not follow, and applying the other options alone could let everybody in. If no operator `asked` for the
    /// reload, the requirement of passwords or client certificates cannot be dropped either: a file that was emptied,
    /// or is still being written, would drop it too.
    ///
    /// # Errors
    /// If the options need a restart, or drop a requirement unasked.
    pub fn check(&self, security: &WebSecurity, asked: bool) -> Result<(), StartError> {
        if self.acceptor.is_some() != security.tls.is_some() {
            let now = if security.tls.is_some() { "asks for TLS, which" } else { "is without TLS, which" };
            let text = format!("the new configuration {now} takes a restart; nothing of it was taken");
            return Err(StartError::Restart(text));
        }
        let (had, has) =
            (*self.required.lock().unwrap_or_else(PoisonError::into_inner), RequiredCredentials::of(security));
        let lost = match (had.passwords && !has.passwords, had.certificates && !has.certificates) {
            (true, _) => "passwords",
            (false, true) => "clients' certificates",
            (false, false) => return Ok(()),
        };
        if asked {
            warn!(no_longer = lost, "the gateway stops requiring credentials that it required before");
            return Ok(());
        }
        let text = format!("{lost} would no longer be required: send SIGHUP, or POST /-/reload, if that is intended");
        Err(StartError::Restart(text))
    }

    /// Reads the certificate that these options name, and checks that it can take the place of the present one.
    ///
    /// # Errors
    /// If it cannot be read or used.
    pub fn read(&self, security: &WebSecurity) -> Result<Option<WebAcceptor>, TlsError> {
        let fresh = protection::acceptor(security)?;
        if let (Some(acceptor), Some(fresh)) = (&self.acceptor, &fresh) {
            acceptor.check_successor(fresh, SystemTime::now())?;
        }
        Ok(fresh)
    }

    /// Applies rules to later requests and certificates to later connections; without `allow` the rights stay. [`Self::check`] must have accepted the
    /// options, and [`Self::read`] made the acceptor.
    pub fn replace(&self, security: &WebSecurity, fresh: Option<WebAcceptor>, allow: Option<&AllowRules>) {
        if let (Some(acceptor), Some(fresh)) = (&self.acceptor, &fresh) {
            protection::log_problems(fresh);
            acceptor.replace(fresh);
        }
        *self.required.lock().unwrap_or_else(PoisonError::into_inner) = RequiredCredentials::of(security);
        let service = self.guard.inner();
        let rules = service.access.rules();
        if allow.is_some_and(AllowRules::is_empty) && !rules.is_empty() {
            warn!(no_longer = "rights", "the gateway stops requiring credentials that it required before");
        }
        let has_users = !security.guard.users.is_empty();
        let allow = allow.cloned().unwrap_or(rules);
        service.access.replace(allow, has_users, service.committer.published());
        // From here on requests are judged by both.
        self.guard.replace(security.guard.clone());
    }

    /// The `[[allow]]` rules in force, and the bearer tokens that they name.
    pub fn rights(&self) -> (AllowRules, Tokens) {
        (self.guard.inner().access.rules(), self.guard.tokens())
    }
}
