//! Flags and codes in the columns of an update.

pub(super) const CLEARED_AT: u8 = 1;
pub(super) const DELETED: u8 = 2;
pub(super) const PUSHED: u8 = 4;
pub(super) const FAILED: u8 = 8;
/// The families are listed; otherwise they are all known families of the group, each with its known schema and raw
/// metrics.
pub(super) const LISTED: u8 = 16;
/// Each timestamp is given; otherwise all are the latest one.
pub(super) const SPREAD: u8 = 32;
/// The header is relative to an empty one, not to the one last sent.
pub(super) const FRESH: u8 = 64;

/// Times that differ by a multiple of this are written in these units.
pub(super) const COARSE_NS: i64 = 100_000;

pub(super) const NO_RAW_METRICS: u8 = 0;
pub(super) const SAME_RAW_METRICS: u8 = 1;
pub(super) const NEW_RAW_METRICS: u8 = 2;

/// An entry of the column of lifetimes has the lifetime of the last push.
pub(super) const LIFETIME: u8 = 1;
/// It has the hour in which the group was found expired.
pub(super) const EXPIRED_HOUR: u8 = 2;
