//! Digests of contents that are only compared, such as keys and bodies of pushes.

use xxhash_rust::xxh3::Xxh3;

/// A hash of several parts (XXH3, 128 bits), the same in every process. Each part is hashed after its length, so that
/// different parts are different bytes. It does not resist collisions made by an adversary.
pub fn content_digest(parts: &[&[u8]]) -> u128 {
    let mut hash = Xxh3::new();
    for part in parts {
        hash.update(&(part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.digest128()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_told_apart() {
        assert_ne!(content_digest(&[b"ab", b"c"]), content_digest(&[b"a", b"bc"]));
        assert_eq!(content_digest(&[b"a"]), content_digest(&[b"a"]));
    }
}
