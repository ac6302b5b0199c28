//! Layer 1: compression, for the bodies of requests and replies and for the streams of links; every output is bounded.
//!
//! Only these files name `flate2` and `snap`. [`gunzip`] and [`unsnappy`] decompress the body of a request, whole or
//! not at all. [`FragmentEncoder`] compresses the fragments of which a [`GzipMember`], the body of a reply, is made.
//! [`Deflater`] and [`Inflater`] are the two ends of one direction of a link; each message is compressed relative to
//! all messages before it.

mod deflate;
mod gzip;
mod member;
mod snappy;
mod stream;

pub use gzip::{check_gzip_header, gunzip};
pub use member::{Fragment, FragmentEncoder, GzipMember, LEVEL_DEFAULT};
pub use snappy::{snappy_block, unsnappy};
pub use stream::{Deflater, Inflater};

/// Reasons why data cannot be decompressed. A retry cannot help: the data is wrong.
///
/// The texts are those of Go's decoders, which users of Pushgateway know and search for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecompressError {
    /// There is no data; a gzip body has at least a header.
    #[error("EOF")]
    Empty,
    /// A gzip member has no gzip header: the body is not gzip, or other data follows the last member.
    #[error("gzip: invalid header")]
    GzipHeader,
    /// The deflate data is invalid from this byte of the input on, counted from the start of the member or chunk.
    #[error("flate: corrupt input before offset {offset}")]
    Deflate {
        /// Bytes before the invalid data.
        offset: usize,
    },
    /// The data differs from the gzip member's checksum or length.
    #[error("gzip: invalid checksum")]
    GzipChecksum,
    /// The data ends before its end mark.
    #[error("unexpected EOF")]
    Truncated,
    /// The snappy data is invalid, ends early, or differs from a checksum.
    #[error("snappy: corrupt input")]
    SnappyCorrupt,
    /// A snappy frame has a kind or a size that the framing format reserves.
    #[error("snappy: unsupported input")]
    SnappyUnsupported,
    /// A link's stream ended although the connection continues.
    #[error("the deflate stream was ended by its sender")]
    StreamEnded,
    /// There is more data than allowed.
    #[error("more than {bytes_max} bytes after decompression")]
    TooLarge {
        /// The bound, in bytes after decompression.
        bytes_max: usize,
    },
}
