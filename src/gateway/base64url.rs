//! Base64 (RFC 4648 §5, URL-safe, padding ignored) as Go's `encoding/base64` reads it: line breaks are skipped, and
//! spare bits need not be zero. An error has the position of the bad byte, which is part of Pushgateway's answer.

/// The input is not base64.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Illegal {
    /// The position of the bad byte in the input.
    pub(super) at: usize,
    /// The bytes decoded before it.
    pub(super) decoded: Vec<u8>,
}

/// Decodes `input`, with or without `=` at its end.
pub(super) fn decode(input: &[u8]) -> Result<Vec<u8>, Illegal> {
    let end = input.iter().rposition(|&byte| byte != b'=').map_or(0, |last| last + 1);
    let mut decoded = Vec::with_capacity(end / 4 * 3 + 2);
    let (mut bits, mut digits) = (0u32, 0);
    for (at, &byte) in input[..end].iter().enumerate() {
        if matches!(byte, b'\n' | b'\r') {
            continue;
        }
        let Some(digit) = digit(byte) else { return Err(Illegal { at, decoded }) };
        bits = bits << 6 | digit;
        digits += 1;
        if digits == 4 {
            decoded.extend_from_slice(&bits.to_be_bytes()[1..]);
            (bits, digits) = (0, 0);
        }
    }
    match digits {
        0 => {}
        1 => return Err(Illegal { at: end - 1, decoded }),
        2 => decoded.push((bits >> 4) as u8),
        _ => decoded.extend_from_slice(&((bits >> 2) as u16).to_be_bytes()),
    }
    Ok(decoded)
}

fn digit(byte: u8) -> Option<u32> {
    let digit = match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'-' => 62,
        b'_' => 63,
        _ => return None,
    };
    Some(u32::from(digit))
}

/// Encodes without padding. An empty input becomes `=`, since a path has no empty components.
pub fn encode(input: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    if input.is_empty() {
        return "=".to_owned();
    }
    let mut encoded = String::with_capacity(input.len().div_ceil(3) * 4);
    for chunk in input.chunks(3) {
        let bits = chunk.iter().enumerate().fold(0, |bits, (i, &byte)| bits | u32::from(byte) << (16 - 8 * i));
        let digits = (0..=chunk.len()).map(|i| DIGITS[(bits >> (18 - 6 * i)) as usize & 63]);
        encoded.extend(digits.map(char::from));
    }
    encoded
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn round_trip(bytes: Vec<u8>) {
            prop_assert_eq!(decode(encode(&bytes).as_bytes()).unwrap(), bytes);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = decode(&bytes);
        }
    }

    #[test]
    fn bytes_are_decoded_as_go_decodes_them() {
        let decoded = |text: &str| decode(text.as_bytes()).map_err(|illegal| illegal.at);
        assert_eq!(decoded("L3Zhci90bXA=").unwrap(), b"/var/tmp");
        assert_eq!(decoded("L3Zhci90bXA==").unwrap(), b"/var/tmp");
        assert_eq!(decoded("=").unwrap(), b"");
        assert_eq!(decoded("YR").unwrap(), b"a");
        assert_eq!(decoded("Y\nQ").unwrap(), b"a");
        assert_eq!(decoded("YWJ\nj").unwrap(), b"abc");
        assert_eq!(decoded("a"), Err(0));
        assert_eq!(decoded("abcde"), Err(4));
        assert_eq!(decoded("Y+Q"), Err(1));
        assert_eq!(decoded("!!"), Err(0));
        assert_eq!(decode(b"YWJjYWJj!").unwrap_err().decoded, b"abcabc");
    }
}
