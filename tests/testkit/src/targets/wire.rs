//! Messages of a peer: any bytes are safe to decode, and a decoded message can be encoded again.

use pushrelay::wire::{Decoder, Encoder};

use super::blocks;

/// The bytes of a message, at most.
pub(super) const MESSAGE_BYTES_MAX: usize = 1 << 16;

/// Each block is a message of one connection.
pub fn run(data: &[u8]) {
    let mut decoder = Decoder::new(MESSAGE_BYTES_MAX);
    let (mut encoder, mut next) = (Encoder::new(), Decoder::new(usize::MAX));
    for bytes in blocks(data) {
        let Ok(message) = decoder.decode(bytes) else { return };
        let mut said = Vec::new();
        encoder.encode(&message, &mut said);
        let again = next.decode(&said).expect("what was understood can be said again");
        // A decoded value has the bits that were sent; equal messages may differ in NaN by `==`.
        assert_eq!(format!("{again:?}"), format!("{message:?}"));
    }
}
