//! Records as the payload of a frame.
//!
//! In the words of [`crate::model::bytes`], a payload is any number of entries, each a byte for its kind and a body; a
//! log's frame is one transaction, and one without entries says that the store was closed:
//!
//! ```text
//! 1 schema     = reference:fixed128 schema                       (schema: see model::encode)
//! 2 opened    = epoch:fixed64 revision:number
//! 3 group     = id flags:byte [cleared_at:stamp] [deleted:stamp] [pushed:moment] [failed:moment] header:mark
//!               families:number family{families}
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
//! - `flags` of a group say which of the four follow: 1, 2, 4, 8.
//! - A stamp is 0: the zero stamp; 1: the same as the stamp before it in this entry; 2: in full; 3: by the node of the
//!   stamp before it. So families pushed together take a byte each.
//! - A mark's flags: 1 held; 2 revision and origin as in the mark before it in this entry; 4 an origin follows.
//! - A family names its schema by reference, and has as many values as the schema says, and a raw metric a series or none. A
//!   reference means the schema most recently defined under it, and a schema is defined in a file before the file refers to
//!   it; a reader that lost the definition to damage may take one of an earlier frame or file. This writer uses the schema's
//!   digest, and defines again what it cannot compare, so that a collision does no harm; and what many frames refer to it
//!   defines in several.

mod read;
#[cfg(test)]
mod tests;
mod write;

pub(super) use read::{SchemasRead, decode};
pub(super) use write::{SchemasWritten, encode, encode_end};

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

const STAMP_ZERO: u8 = 0;
const STAMP_SAME: u8 = 1;
const STAMP_FULL: u8 = 2;
const STAMP_NODE: u8 = 3;

const MARK_HELD: u8 = 1;
const MARK_SAME: u8 = 2;
const MARK_ORIGIN: u8 = 4;
