//! What a peer may send: any bytes are safe to decode, and what was understood can be said again.

use pushrelay::wire::{Decoder, Encoder};

use super::blocks;

/// Bytes of a message, at most.
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
        // A decoded value has the bits that were sent; two equal messages may still differ in what `==` says of NaN.
        assert_eq!(format!("{again:?}"), format!("{message:?}"));
    }
}
