//! The protection of the gateway: its TLS certificate, and the counters of the requests that were refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use tracing::{error, warn};

use super::auth::guard::Refusals;
use crate::model::Family;
use crate::net::certificate::EXPIRY_WARNING;
use crate::net::tls::TlsError;
use crate::net::tls::web::WebAcceptor;
use crate::node::metrics::{counter, gauge};
use crate::node::options::WebSecurity;

/// The TLS acceptor and the refusal counters of the gateway, for the server and for metrics. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Protection {
    pub(super) acceptor: Option<Arc<WebAcceptor>>,
    /// The numbers of refused requests.
    pub refusals: Arc<Refusals>,
}

impl Protection {
    /// Reads the certificate and private key that the options name.
    ///
    /// # Errors
    /// See [`acceptor`].
    pub fn new(security: &WebSecurity) -> Result<Self, TlsError> {
        let acceptor = acceptor(security)?.map(Arc::new);
        if let Some(acceptor) = &acceptor {
            log_problems(acceptor);
        }
        Ok(Self { acceptor, refusals: Arc::default() })
    }

    /// The metrics of refused requests and of the certificate's expiry.
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

/// Reads the gateway's certificate and private key, if TLS is configured.
///
/// # Errors
/// If they cannot be read or used.
pub fn acceptor(security: &WebSecurity) -> Result<Option<WebAcceptor>, TlsError> {
    security.tls.as_ref().map(|tls| WebAcceptor::new(tls, security.http2)).transpose()
}

/// Logs that the gateway's certificate is not valid or expires soon.
pub fn log_problems(acceptor: &WebAcceptor) {
    let now = SystemTime::now();
    let problems = acceptor.problems(now);
    for problem in &problems {
        if problem.is_doubt() {
            warn!(%problem, "clients may refuse the gateway's certificate");
        } else {
            error!(%problem, "the gateway's certificate cannot be used now: clients will refuse it until it is replaced");
        }
    }
    if problems.iter().all(TlsError::is_doubt)
        && let Some(problem) = acceptor.check(now + EXPIRY_WARNING)
    {
        warn!(%problem, "the gateway's certificate expires within 14 days");
    }
}
