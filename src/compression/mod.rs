//! Floor 1: compressed bodies and streams, each bounded by what it may grow to.
//!
//! The only files that name `flate2` and `snap`. [`gunzip`] and [`unsnappy`] decode the body of a request, whole or not
//! at all; [`Packer`] compresses the pieces that a [`Member`], the body of a reply,
//! is put together of; [`Deflater`] and [`Inflater`] are the two ends of one direction of a
//! link, which compresses each message against all that went before.

mod deflate;
mod gzip;
mod member;
mod snappy;
mod stream;

use std::fmt;

pub use gzip::{check_gzip_header, gunzip};
pub use member::{LEVEL_DEFAULT, Member, Packer, Piece};
pub use snappy::unsnappy;
pub use stream::{Deflater, Inflater};

/// Why something cannot be decompressed. Trying again cannot help: the bytes are wrong.
///
/// Printed in the words of Go's decoders, which are what the users of a Pushgateway know and search for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// There is nothing at all; a gzip body has at least a header.
    Empty,
    /// A gzip member does not begin as one: something else was sent, or follows the last member.
    GzipHeader,
    /// The deflate data makes no sense from this byte of the input on, counted from the start of the member or chunk.
    Deflate {
        /// How far it made sense.
        offset: usize,
    },
    /// The data is not what the gzip member's checksum or length say.
    GzipChecksum,
    /// The data ends before its end is marked.
    Truncated,
    /// The snappy data makes no sense, ends early, or does not match a checksum.
    SnappyCorrupt,
    /// A snappy frame has a kind or a size that the framing format reserves.
    SnappyUnsupported,
    /// A link's stream ends although the connection goes on.
    StreamEnded,
    /// There is more data than allowed.
    TooLarge {
        /// The bound, in bytes after decompression.
        bytes_max: usize,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("EOF"),
            Self::GzipHeader => f.write_str("gzip: invalid header"),
            Self::Deflate { offset } => write!(f, "flate: corrupt input before offset {offset}"),
            Self::GzipChecksum => f.write_str("gzip: invalid checksum"),
            Self::Truncated => f.write_str("unexpected EOF"),
            Self::SnappyCorrupt => f.write_str("snappy: corrupt input"),
            Self::SnappyUnsupported => f.write_str("snappy: unsupported input"),
            Self::StreamEnded => f.write_str("the deflate stream was ended by its sender"),
            Self::TooLarge { bytes_max } => write!(f, "more than {bytes_max} bytes after decompression"),
        }
    }
}

impl std::error::Error for Error {}
