//! The gateway's face: the service behind its gate, in TLS or not, with what protects it replaceable while it runs.

use std::sync::Arc;
use std::time::SystemTime;

use futures_util::future::Either;
use tokio::net::TcpListener;
use tracing::{error, warn};

use super::options::WebSecurity;
use super::running::EXPIRY_WARNING;
use super::service::Service;
use crate::net::gate::Gate;
use crate::net::http::{self, HttpLimits, encrypted};
use crate::net::stop::Stop;
use crate::net::tls::TlsError;
use crate::net::tls::web::WebAcceptor;

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

impl Web {
    /// The face of a service. For `secret` see [`Gate::new`].
    pub fn new(security: &WebSecurity, service: Service, acceptor: Option<WebAcceptor>, secret: [u8; 32]) -> Self {
        let gate = Arc::new(Gate::new(service, security.gate.clone(), secret));
        Self { gate, acceptor: acceptor.map(Arc::new) }
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
