//! Groups, revisions, conflicts and what a scrape sees.

pub mod record;

pub use record::{GroupRecord, Identity, Mark, Record};
