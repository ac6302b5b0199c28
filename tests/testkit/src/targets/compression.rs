//! Compressed bodies and streams: the output never exceeds the limit, and decompression restores the input.

use pushrelay::compression::{Deflater, FragmentEncoder, GzipMember, Inflater, gunzip, unsnappy};

use super::blocks;

const BYTES_MAX: usize = 1 << 16;

/// The first byte selects the meaning of the rest.
pub fn run(data: &[u8]) {
    let Some((mode, rest)) = data.split_first() else { return };
    match mode % 4 {
        0 => within(gunzip(rest, BYTES_MAX)),
        1 => within(unsnappy(rest, BYTES_MAX)),
        2 => inflate(rest),
        _ => there_and_back(rest),
    }
}

fn within<E>(outcome: Result<Vec<u8>, E>) {
    if let Ok(bytes) = outcome {
        assert!(bytes.len() <= BYTES_MAX);
    }
}

/// Each block is one message of a peer.
fn inflate(data: &[u8]) {
    let mut inflater = Inflater::new();
    for chunk in blocks(data) {
        let mut out = b"before".to_vec();
        let outcome = inflater.decompress(chunk, &mut out, BYTES_MAX);
        assert!(out.starts_with(b"before") && out.len() <= BYTES_MAX + b"before".len());
        if outcome.is_err() {
            assert_eq!(out, b"before", "after an error nothing is added");
            return;
        }
    }
}

fn there_and_back(data: &[u8]) {
    let (mut deflater, mut inflater) = (Deflater::new(6), Inflater::new());
    let (mut encoder, mut member, mut zipped) = (FragmentEncoder::new(1), GzipMember::new(), Vec::new());
    for message in blocks(data) {
        let (mut sent, mut received) = (Vec::new(), Vec::new());
        deflater.compress(message, &mut sent);
        inflater.decompress(&sent, &mut received, message.len()).expect("what was sent arrives");
        assert_eq!(received, message);
        member.add(&encoder.encode(message), &mut zipped);
    }
    member.finish(&mut zipped);
    let whole: Vec<u8> = blocks(data).flatten().copied().collect();
    assert_eq!(gunzip(&zipped, whole.len()).expect("what was compressed comes back"), whole);
}
