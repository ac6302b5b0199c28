//! Floor 2: the messages of the link, and their encoding (`docs/reference/protocol.md` is the specification).
//!
//! Read in this order: [`message`] (what the ends say to each other), [`delta`] (what an update carries), `protobuf` (the
//! messages as bytes), [`values`] (numbers against numbers that the peer has), `dictionary` (what both ends remember of
//! a direction), `named` (which groups an update names), [`encoder`] and [`decoder`], which keep these. One encoder and one
//! decoder live as long as a connection.

pub mod decoder;
pub mod delta;
mod dictionary;
pub mod encoder;
pub mod message;
mod named;
mod protobuf;
#[cfg(test)]
mod tests;
pub mod values;

pub use decoder::{DecodeError, Decoder};
pub use delta::{Cost, Delta};
pub use encoder::Encoder;
pub use message::{
    Ack, Clock, Close, CloseReason, ConflictReport, Echo, EpochStart, Heartbeat, Hello, Message, PeerInfo, StoreCursor,
    Update, VERSION, Welcome,
};
