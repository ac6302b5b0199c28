//! The gateway's face: the service behind its gate, in TLS or not, with what protects it replaceable while it runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::future::Either;
use tokio::net::TcpListener;
use tracing::{error, warn};

use super::certificates::EXPIRY_WARNING;
use super::metrics::{counter, gauge};
use super::options::WebSecurity;
use super::service::Service;
use crate::model::Family;
use crate::net::gate::{Gate, Refusals};
use crate::net::http::{self, HttpLimits, encrypted};
use crate::net::stop::Stop;
use crate::net::tls::TlsError;
use crate::net::tls::web::WebAcceptor;

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
        Self { gate: Arc::new(Gate::new(service, security.gate.clone(), refusals, secret)), acceptor }
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

    /// Takes other rules for the requests to come, and other certificates for the connections to come.
    pub fn replace(&self, security: &WebSecurity, fresh: Option<WebAcceptor>) {
        match (&self.acceptor, &fresh) {
            (Some(acceptor), Some(fresh)) => acceptor.replace(fresh),
            (None, None) => {}
            // Clients in the middle of a conversation would not know what happened to them.
            _ => warn!("whether the gateway speaks TLS changes only when the node is restarted"),
        }
        self.gate.replace(security.gate.clone());
    }
}
