//! A kept connection to a receiver, and the task that moves its bytes.

use hyper::client::conn::http1::SendRequest;
use tokio::task::JoinHandle;

use super::answer::{PostAnswer, read_answer};
use crate::net::http::whole_body::WholeBody;

/// An open connection. Dropping it closes it.
#[derive(Debug)]
pub(super) struct KeptConnection {
    sender: SendRequest<WholeBody>,
    task: JoinHandle<()>,
}

/// An answer, and whether the connection can be used again.
pub(super) struct KeptAnswer {
    pub answer: PostAnswer,
    pub is_reusable: bool,
}

/// A request without an answer.
pub(super) struct ExchangeError {
    pub reason: String,
    /// Whether nothing of the request was sent.
    pub is_unsent: bool,
}

impl KeptConnection {
    /// A connection that `task` moves.
    pub fn new(sender: SendRequest<WholeBody>, task: impl Future<Output = ()> + Send + 'static) -> Self {
        Self { sender, task: tokio::spawn(task) }
    }

    /// Whether the receiver has not closed it, as far as is known.
    pub fn is_open(&self) -> bool {
        !self.sender.is_closed()
    }

    /// Sends a request, and reads its answer.
    pub async fn exchange(&mut self, request: hyper::Request<WholeBody>) -> Result<KeptAnswer, ExchangeError> {
        let failed = |error: hyper::Error| {
            let source = std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
            ExchangeError { is_unsent: error.is_canceled(), reason: format!("{error}{source}") }
        };
        if let Err(error) = self.sender.ready().await {
            return Err(ExchangeError { is_unsent: true, ..failed(error) });
        }
        let response = self.sender.send_request(request).await.map_err(failed)?;
        let (answer, is_reusable) = read_answer(response).await.map_err(failed)?;
        Ok(KeptAnswer { answer, is_reusable })
    }
}

impl Drop for KeptConnection {
    fn drop(&mut self) {
        self.task.abort();
    }
}
