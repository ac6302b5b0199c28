//! The thread that prints pages.
//!
//! Printing a large page takes a tenth of a second of work, and pushes are answered meanwhile: on the thread that serves
//! them they would wait for it. So pages are printed on a thread of their own, which gives way to the others, a
//! part at a time, in turn for all scrapes. A part is printed while the one before is on its way, and no further ahead:
//! a client that takes nothing holds two parts, and keeps nobody waiting.

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

use super::scrape::Page;
use crate::node::threads::give_way;

/// A page and its next part; without one it is at its end.
type Printed = (Page, Option<Bytes>);

struct Job {
    page: Page,
    reply: oneshot::Sender<Printed>,
}

/// The handle to the thread. Cheap to clone.
#[derive(Clone)]
pub struct Press(mpsc::Sender<Job>);

impl Press {
    /// Starts the thread, which ends when there is no handle any more.
    ///
    /// # Errors
    /// If the operating system has no thread to give.
    pub fn start() -> io::Result<Press> {
        let (jobs, queue) = mpsc::channel();
        thread::Builder::new().name("press".into()).spawn(move || run(&queue))?;
        Ok(Press(jobs))
    }

    /// Prints the page; each scrape has at most one part in the queue.
    pub fn print(&self, page: Page) -> Parts {
        let mut parts = Parts { press: self.clone(), next: None };
        parts.ask(page);
        parts
    }
}

fn run(queue: &mpsc::Receiver<Job>) {
    give_way();
    while let Ok(Job { mut page, reply }) = queue.recv() {
        // Who went away needs no more of it.
        if reply.is_closed() {
            continue;
        }
        let printed = catch_unwind(AssertUnwindSafe(move || {
            let part = page.next();
            (page, part)
        }));
        match printed {
            Ok(printed) => drop(reply.send(printed)),
            Err(_) => error!("a page could not be printed; its connection is ended"),
        }
    }
}

/// The parts of a page, as they are printed.
pub struct Parts {
    press: Press,
    next: Option<oneshot::Receiver<Printed>>,
}

impl Parts {
    fn ask(&mut self, page: Page) {
        let (reply, next) = oneshot::channel();
        // Without the thread, waiting for the reply fails.
        let _ = self.press.0.send(Job { page, reply });
        self.next = Some(next);
    }
}

impl Stream for Parts {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        let Some(next) = &mut self.next else { return Poll::Ready(None) };
        let printed = ready!(Pin::new(next).poll(cx));
        self.next = None;
        Poll::Ready(match printed {
            Ok((page, Some(part))) => {
                self.ask(page);
                Some(Ok(part))
            }
            Ok((_, None)) => None,
            Err(_) => Some(Err(io::Error::other("the page could not be printed"))),
        })
    }
}
