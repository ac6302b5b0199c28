//! Layer 2: the messages of the link and their encoding, for both ends (`docs/reference/protocol.md` is the
//! specification).
//!
//! Read in this order: [`message`] (the messages), [`delta`] (the contents of an update), `layout` (flags in its
//! columns), `protobuf` (messages as bytes), [`values`] (numbers relative to numbers that the peer has), `dictionary`
//! (the state that both ends of a direction share), `named` (the groups that an update names), [`encoder`] and
//! [`decoder`]. [`health`] is what heartbeats report of a node. An encoder and a decoder live as long as their connection.

pub mod decoder;
pub mod delta;
mod dictionary;
pub mod encoder;
pub mod error;
pub mod health;
mod layout;
pub mod message;
mod named;
mod protobuf;
#[cfg(test)]
mod tests;
pub mod values;

pub use decoder::Decoder;
pub use delta::{Cost, Delta};
pub use encoder::Encoder;
pub use error::DecodeError;
pub use health::Health;
pub use message::{
    Ack, ClockSample, Close, CloseReason, ConflictReport, Echo, EpochStart, Heartbeat, Hello, Message, PeerInfo,
    StoreCursor, Update, VERSION, Welcome,
};
