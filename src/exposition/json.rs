//! What the query API shows of a group.
