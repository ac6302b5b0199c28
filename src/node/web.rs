//! The gateway's face: the service behind its gate, in TLS or not, with what protects it replaceable while it runs.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::future::Either;
use tokio::net::TcpListener;
use tracing::{error, warn};

use super::certificates::EXPIRY_WARNING;
use super::metrics::{counter, gauge};
use super::options::WebSecurity;
use super::running::StartError;
use super::service::Service;
use crate::model::Family;
use crate::net::gate::{Gate, Refusals};
use crate::net::http::{self, HttpLimits, encrypted};
use crate::net::stop::Stop;
use crate::net::tls::TlsError;
use crate::net::tls::web::{ClientAuth, WebAcceptor, WebTls};

/// What protects the face, as far as it is told of in metrics. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Protection {
    acceptor: Option<Arc<WebAcceptor>>,
    refusals: Arc<Refusals>,
}

/// See the module's documentation.
pub struct Web {
    gate: Arc<Gate<Service>>,
    acceptor: Option<Arc<WebAcceptor>>,
    guards: Mutex<Guards>,
}

/// What keeps strangers out.
#[derive(Clone, Copy, Debug)]
struct Guards {
    passwords: bool,
    certificates: bool,
}

impl Guards {
    fn of(security: &WebSecurity) -> Self {
        let asks = |tls: &WebTls| {
            let required = [ClientAuth::RequireAnyClientCert, ClientAuth::RequireAndVerifyClientCert];
            required.contains(&tls.client_auth) || !tls.client_allowed_sans.is_empty()
        };
        Self { passwords: !security.gate.users.is_empty(), certificates: security.tls.as_ref().is_some_and(asks) }
    }
}

/// Reads the gateway's certificate and key, if it is to speak TLS; warns if the certificate is not valid or soon will not be.
///
/// # Errors
/// If they cannot be used.
pub fn acceptor(security: &WebSecurity) -> Result<Option<WebAcceptor>, TlsError> {
    let Some(tls) = &security.tls else { return Ok(None) };
    let acceptor = WebAcceptor::new(tls, security.http2)?;
    let now = SystemTime::now();
    if let Some(problem) = acceptor.check(now) {
        error!(%problem, "the gateway's certificate cannot be used now: clients will refuse it until it is replaced");
    } else if let Some(problem) = acceptor.check(now + EXPIRY_WARNING) {
        warn!(%problem, "the gateway's certificate expires within 14 days");
    }
    Ok(Some(acceptor))
}

impl Protection {
    /// The protection that these options ask for.
    ///
    /// # Errors
    /// See [`acceptor`].
    pub fn new(security: &WebSecurity) -> Result<Self, TlsError> {
        Ok(Self { acceptor: acceptor(security)?.map(Arc::new), refusals: Arc::default() })
    }

    /// What there is to tell of it.
    pub fn gather(&self) -> Vec<Family> {
        let count = |refused: &AtomicU64| refused.load(Ordering::Relaxed) as f64;
        let refused = [
            ([("reason", "credentials")], count(&self.refusals.credentials)),
            ([("reason", "rate")], count(&self.refusals.rate)),
            ([("reason", "waiting")], count(&self.refusals.waiting)),
        ];
        let mut families =
            vec![counter("pushrelay_web_refused_total", "Requests that the gateway did not let in.", refused)];
        let expiry = self.acceptor.as_ref().and_then(|acceptor| acceptor.not_after().duration_since(UNIX_EPOCH).ok());
        if let Some(expiry) = expiry {
            let name = "pushrelay_web_certificate_expiry_timestamp_seconds";
            families.push(gauge(name, "When the gateway's certificate expires.", [([], expiry.as_secs_f64())]));
        }
        families
    }
}

impl Web {
    /// The face of a service. For `secret` see [`Gate::new`].
    pub fn new(security: &WebSecurity, service: Service, secret: [u8; 32]) -> Self {
        let Protection { acceptor, refusals } = service.protection.clone();
        let gate = Arc::new(Gate::new(service, security.gate.clone(), refusals, secret));
        Self { gate, acceptor, guards: Mutex::new(Guards::of(security)) }
    }

    /// Serves those who come to a listener until told to stop.
    pub fn serve(
        &self,
        listener: TcpListener,
        limits: Arc<HttpLimits>,
        stop: Stop,
    ) -> impl Future<Output = ()> + Send + use<> {
        let gate = self.gate.clone();
        match self.acceptor.clone() {
            Some(acceptor) => Either::Left(encrypted::serve(listener, gate, acceptor, limits, stop)),
            None => Either::Right(http::serve(listener, gate, limits, stop)),
        }
    }

    /// Whether all of this can be taken while the node runs. TLS cannot come or go: clients in the middle of a conversation
    /// would not know what happened to them, and to take the rest alone might let everybody in. If nobody `asked`, neither
    /// can passwords or clients' certificates cease to be asked for: a file that was emptied, or is not written to its
    /// end, says that too.
    ///
    /// # Errors
    /// If not.
    pub fn check(&self, security: &WebSecurity, asked: bool) -> Result<(), StartError> {
        if self.acceptor.is_some() != security.tls.is_some() {
            let now = if security.tls.is_some() { "asks for TLS, which" } else { "is without TLS, which" };
            let text = format!("the new configuration {now} takes a restart; nothing of it was taken");
            return Err(StartError::Restart(text));
        }
        let (had, has) = (*self.guards.lock().unwrap_or_else(PoisonError::into_inner), Guards::of(security));
        let lost = match (had.passwords && !has.passwords, had.certificates && !has.certificates) {
            (true, _) => "passwords",
            (false, true) => "clients' certificates",
            (false, false) => return Ok(()),
        };
        if asked {
            warn!(no_longer = lost, "the gateway no longer asks for what it asked for");
            return Ok(());
        }
        let text = format!("{lost} would no longer be asked for: send SIGHUP, or POST /-/reload, if that is meant");
        Err(StartError::Restart(text))
    }

    /// Takes other rules for the requests to come, and other certificates for the connections to come: of what passed
    /// [`Self::check`].
    pub fn replace(&self, security: &WebSecurity, fresh: Option<WebAcceptor>) {
        if let (Some(acceptor), Some(fresh)) = (&self.acceptor, &fresh) {
            acceptor.replace(fresh);
        }
        *self.guards.lock().unwrap_or_else(PoisonError::into_inner) = Guards::of(security);
        self.gate.replace(security.gate.clone());
    }
}
