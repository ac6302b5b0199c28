//! The errors for which a decoder refuses a message; the link then ends.

use crate::model::bytes::Malformed;

/// Reasons why bytes are not a message. The connection cannot continue: later messages refer to this one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The message has more bytes than allowed.
    #[error("a message of {bytes} bytes, where {max} are allowed")]
    TooLarge {
        /// Bytes of the message.
        bytes: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// The message is empty.
    #[error("a message without bytes")]
    Empty,
    /// The message has a kind that this version does not know.
    #[error("a message of unknown kind {0}")]
    UnknownMessage(u8),
    /// The body is not the expected protobuf message.
    #[error("a message {message} that is not protobuf: {error}")]
    Protobuf {
        /// The message's name.
        message: &'static str,
        /// The protobuf decoder's error.
        error: String,
    },
    /// A number exceeds its bound.
    #[error("{what}: {value}, where {max} are allowed")]
    Bound {
        /// The bounded things.
        what: &'static str,
        /// Their number.
        value: usize,
        /// The bound.
        max: usize,
    },
    /// The message breaks this rule of the protocol.
    #[error("a broken rule: {0}")]
    Rule(&'static str),
    /// A column of an update is malformed.
    #[error("an update in which {0}")]
    Column(Malformed),
}

impl DecodeError {
    pub(super) fn protobuf(message: &'static str, error: prost::DecodeError) -> Self {
        Self::Protobuf { message, error: error.to_string() }
    }
}

impl From<Malformed> for DecodeError {
    fn from(error: Malformed) -> Self {
        Self::Column(error)
    }
}
