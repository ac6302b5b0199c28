//! The thread that renders scrapes for the HTTP service, so that no push waits for a scrape.
//!
//! Rendering a large scrape takes a tenth of a second of CPU time. On the gateway's thread, pushes would wait for it.
//! So scrapes are rendered on a thread of their own with a lower priority, one part at a time, in turn for all scrapes.
//! A part is rendered while the one before is being sent, and no further ahead: a client that reads nothing occupies
//! two parts and delays no other scrape.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::mpsc;
use std::task::{Context, Poll, ready};
use std::thread;

use bytes::Bytes;
use futures_util::Stream;
use tokio::sync::oneshot;
use tracing::error;

use super::scrape::ScrapeBody;
use crate::node::threads::lower_priority;

/// A scrape and its next part; `None` at the end.
type RenderedPart = (ScrapeBody, Option<Bytes>);

struct RenderJob {
    body: ScrapeBody,
    reply: oneshot::Sender<RenderedPart>,
}

/// A handle to the render thread. Cheap to clone.
#[derive(Clone)]
pub struct RenderThread(mpsc::Sender<RenderJob>);

impl RenderThread {
    /// Starts the thread. It ends when the last handle is dropped.
    ///
    /// # Errors
    /// If the operating system cannot start a thread.
    pub fn start() -> io::Result<RenderThread> {
        let (sender, queue) = mpsc::channel();
        thread::Builder::new().name("render".into()).spawn(move || run(&queue))?;
        Ok(RenderThread(sender))
    }

    /// Renders `body` part by part. Each scrape has at most one part in the queue.
    pub fn render(&self, body: ScrapeBody) -> RenderedParts {
        let mut parts = RenderedParts { thread: self.clone(), next: None };
        parts.request(body);
        parts
    }
}

fn run(queue: &mpsc::Receiver<RenderJob>) {
    lower_priority();
    while let Ok(RenderJob { mut body, reply }) = queue.recv() {
        // The client is gone: the rest need not be rendered.
        if reply.is_closed() {
            continue;
        }
        let rendered = catch_unwind(AssertUnwindSafe(move || {
            let part = body.next();
            (body, part)
        }));
        match rendered {
            Ok(rendered) => drop(reply.send(rendered)),
            Err(_) => error!("a scrape could not be rendered; its connection is closed"),
        }
    }
}

/// The parts of a scrape as they are rendered.
pub struct RenderedParts {
    thread: RenderThread,
    next: Option<oneshot::Receiver<RenderedPart>>,
}

impl RenderedParts {
    fn request(&mut self, body: ScrapeBody) {
        let (reply, next) = oneshot::channel();
        // If the thread is gone, the reply fails.
        let _ = self.thread.0.send(RenderJob { body, reply });
        self.next = Some(next);
    }
}

impl Stream for RenderedParts {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        let Some(next) = &mut self.next else { return Poll::Ready(None) };
        let rendered = ready!(Pin::new(next).poll(cx));
        self.next = None;
        Poll::Ready(match rendered {
            Ok((body, Some(part))) => {
                self.request(body);
                Some(Ok(part))
            }
            Ok((_, None)) => None,
            Err(_) => Some(Err(io::Error::other("the scrape could not be rendered"))),
        })
    }
}
