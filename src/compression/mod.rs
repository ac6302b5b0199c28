//! Bounded compression: gzip and snappy bodies, gzip replies, and the deflate streams of the link.
