//! Replies to requests: the type, and the replies that need no further data.

use std::borrow::Cow;

use super::oddity::PathOddity;
use crate::store::StoreRefusal;

/// Plain text, as Go's handlers label it.
pub const TEXT: &str = "text/plain; charset=utf-8";
/// A page.
pub const HTML: &str = "text/html; charset=utf-8";
/// A reply of the query API.
pub const JSON: &str = "application/json";

/// A complete reply to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpReply {
    /// The HTTP status.
    pub status: u16,
    /// The Content-Type header, if there is one.
    pub content_type: Option<&'static str>,
    /// Other headers.
    pub headers: Vec<(&'static str, Cow<'static, str>)>,
    /// The body. It is not sent in answer to HEAD.
    pub body: Vec<u8>,
}

impl HttpReply {
    /// A reply with a status only.
    pub fn empty(status: u16) -> Self {
        Self { status, content_type: None, headers: Vec::new(), body: Vec::new() }
    }

    /// A reply with a body of that type.
    pub fn new(status: u16, content_type: &'static str, body: impl Into<Vec<u8>>) -> Self {
        Self { content_type: Some(content_type), body: body.into(), ..Self::empty(status) }
    }

    /// Adds a header.
    pub fn with(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// An error as Go's `http.Error` sends it: the message, a line feed, and `X-Content-Type-Options: nosniff`.
    pub fn error(status: u16, message: impl std::fmt::Display) -> Self {
        Self::new(status, TEXT, format!("{message}\n")).with("X-Content-Type-Options", "nosniff")
    }

    /// 400 to a request that is not valid HTTP for Pushgateway. As there, it closes the connection.
    pub fn bad_request() -> Self {
        Self::new(400, TEXT, "400 Bad Request").with("Connection", "close")
    }

    /// 404.
    pub fn not_found() -> Self {
        Self::error(404, "404 page not found")
    }

    /// 404 to a request for that decoded path, with a second line for a write in another protocol.
    pub(super) fn no_route(method: &str, path: &[u8]) -> Self {
        match super::misdirected::advice(path).filter(|_| is_write(method)) {
            Some(advice) => Self::error(404, format_args!("404 page not found\n{advice}")),
            None => Self::not_found(),
        }
    }

    /// 405, with the allowed methods.
    pub fn method_not_allowed(allow: String) -> Self {
        Self::error(405, "Method Not Allowed").with("Allow", allow)
    }

    /// 413: the body, or what it decompresses to, is larger than `bytes_max`.
    pub fn too_large(bytes_max: usize) -> Self {
        let message =
            format!("the request body is larger than the limit of {bytes_max} bytes, decompressed; split the push");
        Self::error(413, message)
    }

    /// The reply to a push that was applied: 200, or 202 if consistency is not checked before the answer.
    pub fn pushed(checked: bool) -> Self {
        Self::empty(if checked { 200 } else { 202 })
    }

    /// The reply to a push that conflicts with other metrics or is invalid in itself.
    pub fn refused(reason: impl std::fmt::Display) -> Self {
        Self::error(400, format_args!("pushed metrics are invalid or inconsistent with existing metrics: {reason}"))
    }

    /// The reply to a write that the store refused.
    pub fn of_refusal(refusal: &StoreRefusal) -> Self {
        match refusal {
            StoreRefusal::Conflict(_) | StoreRefusal::Limit { .. } | StoreRefusal::Sum(_) => Self::refused(refusal),
            StoreRefusal::PlainGroup { .. } | StoreRefusal::AddingGroup { .. } | StoreRefusal::Contributors { .. } => {
                Self::error(409, refusal)
            }
            StoreRefusal::Quota { .. } => Self::error(403, refusal),
            StoreRefusal::KeyReused => Self::error(422, refusal),
            StoreRefusal::KeysFull => Self::error(503, refusal),
            StoreRefusal::Reserved => Self::error(400, refusal),
        }
    }

    /// The reply to a delete or a wipe.
    pub fn accepted() -> Self {
        Self::empty(202)
    }

    /// The reply to a write that could not be made durable. The client may retry.
    pub fn unavailable(reason: impl std::fmt::Display) -> Self {
        Self::error(503, reason)
    }

    /// The reply to `/-/healthy` and `/-/ready` if the node works.
    pub fn ok() -> Self {
        Self::new(200, TEXT, "OK")
    }

    /// The reply to `/-/healthy` and `/-/ready` if the node does not work.
    pub fn failing(reason: impl std::fmt::Display) -> Self {
        Self::error(500, reason)
    }

    /// The reply to `/-/quit`.
    pub fn goodbye() -> Self {
        Self::new(200, TEXT, "Requesting termination... Goodbye!")
    }

    /// The reply to `/-/quit` and `/-/reload` if they are not enabled.
    pub fn lifecycle_disabled() -> Self {
        Self::new(403, TEXT, "Lifecycle API is not enabled.")
    }

    /// The reply to `/-/reload`. `Err` is the reason why the old configuration stays in force.
    /// `Ok` has the changed options that are in force now, and those that need a restart.
    pub fn reloaded(outcome: Result<(Vec<String>, Vec<String>), impl std::fmt::Display>) -> Self {
        let named = |keys: &[String]| if keys.is_empty() { "nothing".to_owned() } else { keys.join(", ") };
        match outcome {
            Ok((taken, waiting)) => {
                let waits = format!("waits for a restart: {}", named(&waiting));
                let text =
                    format!("certificates, keys and passwords are read again\ntaken: {}\n{waits}\n", named(&taken));
                Self::new(200, TEXT, text)
            }
            Err(reason) => Self::error(400, format_args!("failed to reload config: {reason}")),
        }
    }

    /// The reply to OPTIONS: the allowed methods.
    pub(super) fn options(allow: String) -> Self {
        Self::empty(200).with("Allow", allow)
    }

    /// A redirect to `location`. The answer to GET has Go's body; the answer to a push or delete says that nothing was
    /// changed, because most clients take a redirect for success. Pushgateway's answer to these has no body.
    pub(super) fn redirect(status: u16, method: &str, location: String, oddity: Option<PathOddity>) -> Self {
        let text = if status == 301 { "Moved Permanently" } else { "Temporary Redirect" };
        let body = match method {
            "GET" => format!("<a href=\"{}\">{text}</a>.\n\n", escape_html(&location)),
            _ if is_write(method) => {
                let reason = oddity.map_or_else(String::new, |oddity| format!("{oddity}\n"));
                format!("nothing was pushed or deleted: the path is redirected to {location}\n{reason}")
            }
            _ => String::new(),
        };
        let content_type = match method {
            "GET" | "HEAD" => Some(HTML),
            _ => (!body.is_empty()).then_some(TEXT),
        };
        Self { content_type, body: body.into(), ..Self::empty(status).with("Location", location) }
    }
}

/// Whether a request of that method changes a group.
pub(super) fn is_write(method: &str) -> bool {
    ["PUT", "POST", "DELETE"].contains(&method)
}

fn escape_html(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&#34;"),
            '\'' => escaped.push_str("&#39;"),
            _ => escaped.push(c),
        }
    }
    escaped
}
