//! The size of the scraped page in text, before compression.
//!
//! VictoriaMetrics and vmagent drop every page that is larger than 16 MiB (`max_scrape_size`), and a person notices that
//! the metrics are gone, not why. So the node warns when its page grows that large.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tracing::{info, warn};

use crate::model::Family;
use crate::node::metrics::gauge;

/// From this size on, the node warns.
pub const PAGE_BYTES_WARN: u64 = 16 << 20;
/// Below this size, the page counts as small again, so that a size close to the limit warns once.
const PAGE_BYTES_SMALL: u64 = 15 << 20;

/// The size of the last page. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct PageSize(Arc<Size>);

#[derive(Debug, Default)]
struct Size {
    bytes: AtomicU64,
    is_large: AtomicBool,
}

impl PageSize {
    /// Bytes of the last page, before compression. Of a page that its client did not read to the end, as many as were
    /// rendered.
    pub fn bytes(&self) -> u64 {
        self.0.bytes.load(Ordering::Relaxed)
    }

    /// Whether a page was larger than [`PAGE_BYTES_WARN`], and none was clearly smaller since.
    pub fn is_large(&self) -> bool {
        self.0.is_large.load(Ordering::Relaxed)
    }

    /// The family that shows the size.
    pub fn gather(&self) -> Family {
        let help = "Bytes of the last scrape in text, before compression.";
        gauge("pushrelay_scrape_text_bytes", help, [([], self.bytes() as f64)])
    }

    /// Records a page of at least that size, of which `is_whole` says whether it is rendered to its end.
    fn record(&self, bytes: u64, is_whole: bool) {
        // A client that gives up at its own limit never sees the end, so the size counts as soon as it is reached.
        if bytes > PAGE_BYTES_WARN && !self.0.is_large.swap(true, Ordering::Relaxed) {
            warn!(
                bytes_max = PAGE_BYTES_WARN,
                "the scraped page is larger than VictoriaMetrics and vmagent accept unless their max_scrape_size is raised"
            );
        }
        if is_whole && bytes < PAGE_BYTES_SMALL && self.0.is_large.swap(false, Ordering::Relaxed) {
            info!(bytes, "the scraped page is smaller than 16 MiB again");
        }
        if is_whole || bytes > self.bytes() {
            self.0.bytes.store(bytes, Ordering::Relaxed);
        }
    }
}

/// The size of one page while it is rendered.
#[derive(Debug)]
pub struct Measured {
    size: PageSize,
    bytes: u64,
}

impl Measured {
    /// A page of which nothing is rendered.
    pub fn new(size: PageSize) -> Self {
        Self { size, bytes: 0 }
    }

    /// Bytes that the page has so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Records that the page has `bytes` so far.
    pub fn grew_to(&mut self, bytes: u64) {
        self.bytes = bytes;
        self.size.record(bytes, false);
    }

    /// Records the end of the page.
    pub fn ended(&mut self) {
        self.size.record(self.bytes, true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(size: &PageSize, bytes: u64, is_whole: bool) {
        let mut page = Measured::new(size.clone());
        for part in [bytes / 2, bytes] {
            page.grew_to(part);
        }
        if is_whole {
            page.ended();
        }
    }

    #[test]
    fn a_page_is_large_until_one_is_clearly_smaller() {
        let size = PageSize::default();
        page(&size, PAGE_BYTES_WARN, true);
        assert_eq!((size.bytes(), size.is_large()), (PAGE_BYTES_WARN, false));
        page(&size, PAGE_BYTES_WARN + 1, false);
        assert_eq!((size.bytes(), size.is_large()), (PAGE_BYTES_WARN + 1, true), "also if the client gives up");
        page(&size, PAGE_BYTES_WARN - 1, true);
        assert_eq!((size.bytes(), size.is_large()), (PAGE_BYTES_WARN - 1, true), "not clearly smaller");
        page(&size, 1_000, false);
        assert_eq!((size.bytes(), size.is_large()), (PAGE_BYTES_WARN - 1, true), "the rest is not known");
        page(&size, 1_000, true);
        assert_eq!((size.bytes(), size.is_large()), (1_000, false));
    }
}
