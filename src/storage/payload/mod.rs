//! Records as the payload of a frame.
//!
//! In the notation of [`crate::model::bytes`], a payload is any number of entries: a byte for the kind, and a body. A
//! log's frame is one transaction; one without entries marks an orderly close:
//!
//! ```text
//! 1 schema     = reference:fixed128 schema                       (schema: see model::encode)
//! 2 opened    = epoch:fixed64 revision:number
//! 3 group     = id flags:byte [cleared_at:stamp] [deleted:stamp] [pushed:moment] [failed:moment]
//!               [lifetime:number] [expired_hour:number] header:mark families:number family{families}
//! 4 forgotten = id stamp revision:number
//! 5 cursor    = peer:fixed64 epoch:fixed64 revision:number place:labels
//! 6 end       =                                                (the last entry of a checkpoint)
//!
//! id     = place:labels key:labels
//! labels = labels:number (name:text value:text){labels}        (names ascending)
//! family = reference:fixed128 stamp mark values:number fixed float{values} raw_metrics:number raw_metric:block{raw_metrics}
//! moment = stamp difference:number                             (wall time less the stamp's, zigzag)
//! stamp  = 0 | 1 | 2 time:fixed64 node:fixed64 | 3 time:fixed64
//! mark   = flags:byte [revision:number [origin:fixed64]]
//! block  = length:number byte{length}
//! ```
//!
//! - A group that adds up has an entry for its header and plain families, and one for the contributions of each
//!   contributor, whose key has one label more (see [`crate::model::contribution`]). A key of an idempotent push is
//!   the tombstone of a group that never existed (see `key`). So a reader that knows neither keeps both.
//! - `flags` of a group say which of the six optional fields follow: 1, 2, 4, 8, 16, 32. The last two need a file of
//!   format 2 ([`needs_format_2`]).
//! - `lifetime` is the one that the last push asked for, in milliseconds; 0 says that the group never expires.
//! - `expired_hour` is the number of hours from the Unix epoch to the end of the hour in which the group was last found
//!   expired.
//! - The first byte of a stamp (a write timestamp) is 0 for the zero stamp, 1 for the same stamp as the one before it
//!   in this entry, 2 for a stamp in full, 3 for another time of the same node as in the stamp before. So families
//!   pushed together take one byte each.
//! - A mark's flags: 1 suppressed; 2 same revision and origin as the mark before it in this entry; 4 an origin
//!   follows.
//! - A family names its schema by reference. It has as many values as the schema says, and either one raw metric for
//!   each series or none. A reference means the schema most recently defined under it, and a file defines a schema
//!   before it refers to it. A reader that lost the definition to damage may use one of an earlier frame or file. This
//!   writer uses the schema's digest as reference; a schema that it cannot compare is defined again, so that a
//!   collision does no harm; and a schema that many frames refer to is defined in several.

mod key;
mod read;
#[cfg(test)]
mod tests;
mod write;

use key::{key_header, key_labels, read_key};
pub(super) use read::{SchemasRead, decode};
pub(super) use write::{SchemasWritten, encode, encode_end, needs_format_2};

const SCHEMA: u8 = 1;
const OPENED: u8 = 2;
const GROUP: u8 = 3;
const FORGOTTEN: u8 = 4;
const CURSOR: u8 = 5;
const END: u8 = 6;

const CLEARED_AT: u8 = 1;
const DELETED: u8 = 2;
const PUSHED: u8 = 4;
const FAILED: u8 = 8;
const LIFETIME: u8 = 16;
const EXPIRED_HOUR: u8 = 32;

const STAMP_ZERO: u8 = 0;
const STAMP_SAME: u8 = 1;
const STAMP_FULL: u8 = 2;
const STAMP_NODE: u8 = 3;

const MARK_SUPPRESSED: u8 = 1;
const MARK_SAME: u8 = 2;
const MARK_ORIGIN: u8 = 4;
