//! The guard in front of the service, with the functions of Prometheus's exporter-toolkit: a rate limit, extra response
//! headers, and basic authentication. With `[[allow]]` rules, it also accepts bearer tokens and verified certificates, and
//! passes on what the sender may do. The rules can be replaced while requests arrive. Without rules the cost is one
//! atomic load.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::time::Instant;
use tracing::debug;

use super::access::{Access, AccessControl, Grant};
use super::bucket::{RateLimit, TokenBucket};
use super::passwords::{AuthOutcome, Users, Verifier};
use super::tokens::{Tokens, bearer};
use crate::gateway::rights::Subject;
use crate::net::http::{Handler, Incoming, Response};

/// The headers that may be set, with the allowed values; none means any value.
const HEADERS: [(&str, &[&str]); 5] = [
    ("Strict-Transport-Security", &[]),
    ("X-Content-Type-Options", &["nosniff"]),
    ("X-Frame-Options", &["deny", "sameorigin"]),
    ("X-XSS-Protection", &[]),
    ("Content-Security-Policy", &[]),
];

/// A checked header that is added to every response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtraHeader {
    name: &'static str,
    value: String,
}

impl ExtraHeader {
    /// Checks the name and the value.
    ///
    /// # Errors
    /// If the name or the value is not allowed.
    pub fn new(name: &str, value: &str) -> Result<Self, String> {
        let Some((name, values)) = HEADERS.iter().find(|(known, _)| *known == name) else {
            let names: Vec<&str> = HEADERS.iter().map(|(name, _)| *name).collect();
            return Err(format!("the header {name:?} cannot be set: write one of {}, like that", names.join(", ")));
        };
        if !values.is_empty() && !values.contains(&value) {
            return Err(format!("{name} cannot be {value:?}: write {}", values.join(" or ")));
        }
        if value.bytes().any(|byte| byte != b'\t' && (byte < b' ' || byte == 0x7f)) {
            return Err(format!("the value {value:?} of {name} has characters that a header cannot have"));
        }
        Ok(Self { name, value: value.into() })
    }
}

/// The rules that every request must satisfy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuardRules {
    /// Headers that are added to every response, unless it has them.
    pub headers: Vec<ExtraHeader>,
    /// The users of basic authentication; if there are none, it is off.
    pub users: Users,
    /// The bearer tokens; they count with `[[allow]]` rules only.
    pub tokens: Tokens,
    /// The limit on all requests together.
    pub rate_limit: Option<RateLimit>,
}

impl GuardRules {
    /// Whether there are no rules.
    fn is_empty(&self) -> bool {
        self.headers.is_empty() && self.users.is_empty() && self.rate_limit.is_none()
    }
}

/// The numbers of refused requests, by reason.
#[derive(Debug, Default)]
pub struct Refusals {
    /// Requests without a valid user and password.
    pub credentials: AtomicU64,
    /// Requests beyond the rate limit.
    pub rate: AtomicU64,
    /// Requests that came while too many others waited for password verification.
    pub waiting: AtomicU64,
}

impl Refusals {
    /// All refused requests.
    pub fn sum(&self) -> u64 {
        [&self.credentials, &self.rate, &self.waiting].map(|count| count.load(Ordering::Relaxed)).iter().sum()
    }
}

/// Handles requests whose sender is known.
pub trait GrantHandler: Send + Sync + 'static {
    /// Handles one request. `grant` says what its sender may do.
    fn handle(&self, request: &mut Incoming, grant: &Grant) -> impl Future<Output = Response> + Send;

    /// Whether the handler authenticates the sender of a request itself, as those of edges: no other rule applies to it.
    fn authenticates(&self, request: &Incoming) -> bool {
        let _ = request;
        false
    }
}

/// What a request is judged by. Both parts change at once: credentials of one configuration with the rules of another could
/// let everybody in.
struct InForce {
    rules: GuardRules,
    access: Option<Arc<Access>>,
}

impl InForce {
    /// Whether everybody may do everything, without limits and headers.
    fn is_empty(&self) -> bool {
        self.rules.is_empty() && self.access.is_none()
    }
}

/// Checks every request before the handler `H` sees it.
pub struct Guard<H> {
    inner: H,
    refusals: Arc<Refusals>,
    is_disabled: AtomicBool,
    in_force: RwLock<Arc<InForce>>,
    access: Arc<AccessControl>,
    /// The paths that GET requests may have without a password.
    open_paths: Vec<String>,
    /// The paths of scrapes and health checks, which the rate limit does not count.
    unlimited_paths: Vec<String>,
    verifier: Verifier,
    bucket: Mutex<TokenBucket>,
}

impl<H> fmt::Debug for Guard<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").field("is_disabled", &self.is_disabled).finish_non_exhaustive()
    }
}

impl<H> Guard<H> {
    /// A guard with these rules, which counts refused requests in `refusals`. GET requests to `open_paths`, which have
    /// the prefix of the routes, need no password; those to `unlimited_paths` are not subject to the rate limit. For
    /// `secret` see [`Verifier::new`].
    pub fn new(
        inner: H,
        rules: GuardRules,
        access: Arc<AccessControl>,
        open_paths: Vec<String>,
        unlimited_paths: Vec<String>,
        refusals: Arc<Refusals>,
        secret: [u8; 32],
    ) -> Self {
        let bucket = Mutex::new(TokenBucket::full(rules.rate_limit));
        let in_force = InForce { rules, access: access.current() };
        Self {
            inner,
            access,
            open_paths,
            unlimited_paths,
            refusals,
            is_disabled: AtomicBool::new(in_force.is_empty()),
            bucket,
            in_force: RwLock::new(Arc::new(in_force)),
            verifier: Verifier::new(secret),
        }
    }

    /// The handler behind the guard.
    pub fn inner(&self) -> &H {
        &self.inner
    }

    /// Replaces the rules, and the `[[allow]]` rules by those that are current now, for later requests.
    pub fn replace(&self, rules: GuardRules) {
        let mut current = self.in_force.write().unwrap_or_else(PoisonError::into_inner);
        if current.rules.rate_limit != rules.rate_limit {
            *self.bucket.lock().unwrap_or_else(PoisonError::into_inner) = TokenBucket::full(rules.rate_limit);
        }
        self.verifier.retain(&rules.users);
        let fresh = InForce { rules, access: self.access.current() };
        let is_disabled = fresh.is_empty();
        *current = Arc::new(fresh);
        self.is_disabled.store(is_disabled, Ordering::Release);
    }

    /// The bearer tokens in force.
    pub fn tokens(&self) -> Tokens {
        self.in_force.read().unwrap_or_else(PoisonError::into_inner).rules.tokens.clone()
    }

    /// The sender of a request.
    ///
    /// # Errors
    /// The response if its credentials are wrong, or missing.
    async fn subject(
        &self,
        rules: &GuardRules,
        access: Option<&Access>,
        request: &Incoming,
    ) -> Result<Subject, Response> {
        // An open path must be exactly as configured: the router would redirect another spelling, or reach another route.
        let is_open = || request.method() == "GET" && self.open_paths.iter().any(|path| path == request.path());
        let header = request.header("authorization");
        if let Some(token) = header.filter(|_| access.is_some()).and_then(bearer) {
            return rules.tokens.find(token).map(Subject::Token).ok_or_else(|| self.unauthorized(request, "Bearer"));
        }
        let has_users = !rules.users.is_empty();
        let credentials = header.filter(|_| has_users).and_then(credentials);
        match access {
            None if !has_users || is_open() => return Ok(Subject::Anonymous),
            Some(access) if credentials.is_none() => {
                return match request.certificate() {
                    names if !names.is_empty() => Ok(Subject::Certificate(names.clone())),
                    _ if access.is_closed() && !is_open() => Err(self.unauthorized(request, "Basic")),
                    _ => Ok(Subject::Anonymous),
                };
            }
            _ => {}
        }
        let outcome = match &credentials {
            Some((name, password)) => self.verifier.verify(&rules.users, name, password).await,
            None => AuthOutcome::Wrong,
        };
        match outcome {
            AuthOutcome::Right => Ok(Subject::User(credentials.map(|(name, _)| name).unwrap_or_default().into())),
            AuthOutcome::Wrong => Err(self.unauthorized(request, "Basic")),
            AuthOutcome::Busy => {
                self.refusals.waiting.fetch_add(1, Ordering::Relaxed);
                let text = "too many passwords wait to be verified; try again";
                Err(plain(503, text).header("retry-after", "1"))
            }
        }
    }

    fn unauthorized(&self, request: &Incoming, scheme: &str) -> Response {
        self.refusals.credentials.fetch_add(1, Ordering::Relaxed);
        debug!(peer = %request.peer(), given = request.header("authorization").is_some(), scheme, "no valid credentials");
        plain(401, "Unauthorized").header("www-authenticate", scheme)
    }
}

impl<H: GrantHandler> Handler for Guard<H> {
    async fn handle(&self, request: &mut Incoming) -> Response {
        if self.is_disabled.load(Ordering::Acquire) {
            return self.inner.handle(request, &Grant::default()).await;
        }
        let in_force = self.in_force.read().unwrap_or_else(PoisonError::into_inner).clone();
        let InForce { rules, access } = &*in_force;
        // A pusher that sends too much must not hide the node from those who watch it.
        let is_limited = request.method() != "GET" || !self.unlimited_paths.iter().any(|path| path == request.path());
        let taken = match is_limited {
            true => self.bucket.lock().unwrap_or_else(PoisonError::into_inner).take(Instant::now()),
            false => Ok(()),
        };
        if let Err(wait) = taken {
            self.refusals.rate.fetch_add(1, Ordering::Relaxed);
            request.discard().await;
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            return plain(429, "Too Many Requests").header("retry-after", seconds.max(1).to_string());
        }
        // Edges are no subjects of rules, but the rate limit and the headers are for all.
        let subject = match self.inner.authenticates(request) {
            true => Ok(None),
            false => self.subject(rules, access.as_deref(), request).await.map(Some),
        };
        let response = match subject {
            Ok(None) => self.inner.handle(request, &Grant::default()).await,
            Ok(Some(subject)) => {
                let grant = Grant::new(access.clone(), subject);
                let response = self.inner.handle(request, &grant).await;
                self.access.count(&grant, response.status());
                response
            }
            Err(refusal) => {
                request.discard().await;
                refusal
            }
        };
        rules.headers.iter().fold(response, |response, extra| response.header_if_missing(extra.name, &extra.value))
    }
}

/// An error response in the format of Go's `http.Error`.
fn plain(status: u16, text: &str) -> Response {
    Response::new(status)
        .header("content-type", "text/plain; charset=utf-8")
        .header("x-content-type-options", "nosniff")
        .body(format!("{text}\n"))
}

/// The sender of a request, for the log: the subject, or else the user that the request names. If passwords are required,
/// the guard has verified it.
pub fn user(request: &Incoming, subject: &Subject) -> Option<String> {
    match subject {
        Subject::Anonymous => request.header("authorization").and_then(credentials).map(|(name, _)| name),
        Subject::User(name) => Some(name.to_string()),
        named => Some(named.to_string()),
    }
}

/// The name and password of an `Authorization` header, parsed as Go's `Request.BasicAuth` does.
fn credentials(header: &str) -> Option<(String, Vec<u8>)> {
    const SCHEME: &str = "Basic ";
    let (scheme, encoded) = header.split_at_checked(SCHEME.len())?;
    if !scheme.eq_ignore_ascii_case(SCHEME) {
        return None;
    }
    let decoded = STANDARD.decode(encoded).ok()?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    Some((String::from_utf8(decoded[..colon].to_vec()).ok()?, decoded[colon + 1..].to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_as_go_reads_them() {
        let read =
            |header: &str| credentials(header).map(|(name, password)| (name, String::from_utf8(password).unwrap()));
        let pair = |name: &str, password: &str| Some((name.to_string(), password.to_string()));
        assert_eq!(read("Basic YTpi"), pair("a", "b"));
        assert_eq!(read("basic YTpiOmM="), pair("a", "b:c"));
        assert_eq!(read("BASIC Og=="), pair("", ""));
        for bad in ["", "Basic", "Basic ", "Bearer YTpi", "Basic YTpi=", "Basic YQ==", "Basic a:b", "Basic  YTpi"] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn only_certain_headers_can_be_set() {
        assert!(ExtraHeader::new("X-Frame-Options", "deny").is_ok());
        assert!(ExtraHeader::new("Content-Security-Policy", "frame-ancestors 'none'").is_ok());
        let error = |name, value| ExtraHeader::new(name, value).unwrap_err();
        assert!(error("X-Frame-Options", "allow").contains("deny or sameorigin"));
        assert!(error("x-frame-options", "deny").contains("X-Frame-Options"));
        assert!(error("Server", "x").contains("cannot be set"));
        assert!(error("X-XSS-Protection", "1\r\nEvil: yes").contains("characters"));
    }
}
