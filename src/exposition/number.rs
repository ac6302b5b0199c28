//! Numbers as Go reads and prints them (`strconv.ParseFloat`, `FormatFloat(…, 'g', -1, 64)`).

/// The bits of Pushgateway's NaN, which are visible in protobuf.
const NAN: f64 = f64::from_bits(0x7ff8_0000_0000_0001);

/// Reads a number of the text format: a decimal, or an infinity or NaN in upper or lower case. `None` for anything
/// else; as in Pushgateway, that includes hexadecimal floats, underscores and finite numbers beyond the range of an
/// `f64`.
pub fn parse(token: &[u8]) -> Option<f64> {
    if let Some(value) = parse_short_decimal(token) {
        return Some(value);
    }
    let token = std::str::from_utf8(token).ok()?;
    let magnitude = token.strip_prefix(['+', '-']).unwrap_or(token);
    match magnitude.as_bytes().first()? {
        b'0'..=b'9' | b'.' => token.parse().ok().filter(|value: &f64| value.is_finite()),
        b'n' | b'N' => token.eq_ignore_ascii_case("nan").then_some(NAN),
        _ => {
            let infinite = ["inf", "infinity"].iter().any(|name| magnitude.eq_ignore_ascii_case(name));
            infinite.then_some(if token.starts_with('-') { f64::NEG_INFINITY } else { f64::INFINITY })
        }
    }
}

/// Reads the number that ends a line, as [`parse`] does. Returns the number and its length, without the line feed.
pub fn parse_line(text: &[u8]) -> Option<(f64, usize)> {
    if let Some((value, length)) = read_short_decimal(text)
        && text.get(length) == Some(&b'\n')
    {
        return Some((value, length));
    }
    let length = text.iter().position(|byte| *byte == b'\n')?;
    Some((parse(&text[..length])?, length))
}

fn parse_short_decimal(token: &[u8]) -> Option<f64> {
    read_short_decimal(token).filter(|(_, length)| *length == token.len()).map(|(value, _)| value)
}

/// Fast path for at most 15 digits, perhaps with a point among them; returns the value and its length. The value is
/// exact: digits and power of ten are exact as `f64`, and their quotient is rounded once.
fn read_short_decimal(text: &[u8]) -> Option<(f64, usize)> {
    const DIGITS_MAX: usize = 15;
    /// At least one digit is before the point, and the point counts as one of the characters.
    const POWERS: [f64; DIGITS_MAX - 1] = [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13];
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    if !digits.first()?.is_ascii_digit() {
        return None;
    }
    let (mut mantissa, mut point, mut length) = (0_u64, None, 0);
    for (at, &byte) in digits.iter().enumerate() {
        match byte {
            b'0'..=b'9' => mantissa = mantissa * 10 + u64::from(byte - b'0'),
            b'.' if point.is_none() => point = Some(at),
            _ => break,
        }
        length = at + 1;
        if length > DIGITS_MAX {
            return None;
        }
    }
    let fraction = point.map_or(0, |at| length - 1 - at);
    let value = mantissa as f64 / POWERS[fraction];
    Some((if negative { -value } else { value }, length + usize::from(negative)))
}

/// Converts a float to an unsigned integer as Go does on amd64, for counts of summaries: negative numbers wrap around,
/// numbers outside the range become 2^63.
pub fn to_count(value: f64) -> u64 {
    const HALF: f64 = (1_u64 << 63) as f64;
    let signed = |value: f64| if (-HALF..HALF).contains(&value) { value as i64 as u64 } else { 1 << 63 };
    if value < HALF { signed(value) } else { signed(value - HALF) | 1 << 63 }
}

/// `value` as an integer; `None` if it is not whole, or outside the range of a count.
pub fn as_count(value: f64) -> Option<u64> {
    ((0.0..18_446_744_073_709_551_616.0).contains(&value) && value.trunc() == value).then_some(value as u64)
}

/// Appends `value` as the text format prints it, with the fewest digits that read back the same. Exponents below -4 and
/// from 6 on are written as exponents, infinities have a sign, and negative zero is `0`.
pub fn print(value: f64, into: &mut Vec<u8>) {
    print_with_zero(value, into, b"0");
}

/// Like [`print()`], but negative zero keeps its sign, as in the query API.
pub fn print_signed_zero(value: f64, into: &mut Vec<u8>) {
    print_with_zero(value, into, if value.is_sign_negative() { b"-0" } else { b"0" });
}

fn print_with_zero(value: f64, into: &mut Vec<u8>, zero: &[u8]) {
    const INTEGERS_EXACT: f64 = 9_007_199_254_740_992.0;
    let magnitude = value.abs();
    if value.is_nan() {
        return into.extend_from_slice(b"NaN");
    }
    if magnitude == 0.0 {
        return into.extend_from_slice(zero);
    }
    if value < 0.0 {
        into.push(b'-');
    } else if magnitude.is_infinite() {
        into.push(b'+');
    }
    if magnitude.is_infinite() {
        return into.extend_from_slice(b"Inf");
    }
    if magnitude < INTEGERS_EXACT && magnitude.trunc() == magnitude {
        let mut buffer = itoa::Buffer::new();
        let digits = buffer.format(magnitude as u64).as_bytes();
        print_digits(digits, digits.len() as i32, into);
    } else {
        print_shortest(magnitude, into);
    }
}

/// Prints with the shortest-digits algorithm, and reformats digits and exponent unless the form is right already.
fn print_shortest(magnitude: f64, into: &mut Vec<u8>) {
    let mut buffer = zmij::Buffer::new();
    let text = buffer.format_finite(magnitude).as_bytes();
    if (1e-4..1e6).contains(&magnitude) && !text.contains(&b'e') {
        return into.extend_from_slice(text);
    }
    let mut digits = [0_u8; 32];
    let (mut len, mut point, mut exponent) = (0, None, 0_i32);
    for (at, &byte) in text.iter().enumerate() {
        match byte {
            b'.' => point = Some(len as i32),
            b'e' => {
                exponent = std::str::from_utf8(&text[at + 1..]).ok().and_then(|t| t.parse().ok()).unwrap_or(0);
                break;
            }
            digit if len < digits.len() => {
                digits[len] = digit;
                len += 1;
            }
            _ => {}
        }
    }
    let point = point.unwrap_or(len as i32) + exponent;
    let zeros = digits[..len].iter().take_while(|&&digit| digit == b'0').count();
    print_digits(&digits[zeros..len], point - zeros as i32, into);
}

/// Prints 0.DIGITS × 10^point; the first digit is not zero.
fn print_digits(digits: &[u8], point: i32, into: &mut Vec<u8>) {
    let trailing = digits.iter().rev().take_while(|&&digit| digit == b'0').count();
    let significant = &digits[..digits.len() - trailing];
    let exponent = point - 1;
    if !(-4..6).contains(&exponent) {
        return print_exponential(significant, exponent, into);
    }
    if point <= 0 {
        into.extend_from_slice(b"0.");
        into.resize(into.len() + point.unsigned_abs() as usize, b'0');
        into.extend_from_slice(significant);
    } else if significant.len() <= point as usize {
        into.extend_from_slice(significant);
        into.resize(into.len() + point as usize - significant.len(), b'0');
    } else {
        into.extend_from_slice(&significant[..point as usize]);
        into.push(b'.');
        into.extend_from_slice(&significant[point as usize..]);
    }
}

fn print_exponential(significant: &[u8], exponent: i32, into: &mut Vec<u8>) {
    into.push(significant[0]);
    if significant.len() > 1 {
        into.push(b'.');
        into.extend_from_slice(&significant[1..]);
    }
    into.extend_from_slice(if exponent < 0 { b"e-" } else { b"e+" });
    let exponent = exponent.unsigned_abs();
    if exponent < 10 {
        into.push(b'0');
    }
    into.extend_from_slice(itoa::Buffer::new().format(exponent).as_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn printed(value: f64) -> String {
        let mut text = Vec::new();
        print(value, &mut text);
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn numbers_are_printed_as_go_prints_them() {
        let cases = [
            (0.0, "0"),
            (-0.0, "0"),
            (1.0, "1"),
            (-1.0, "-1"),
            (100_000.0, "100000"),
            (999_999.0, "999999"),
            (1e6, "1e+06"),
            (-1e6, "-1e+06"),
            (123_456_789.0, "1.23456789e+08"),
            (100_000.5, "100000.5"),
            (1_234_567.5, "1.2345675e+06"),
            (1e20, "1e+20"),
            (1e22, "1e+22"),
            (12_345_678_901_234_567_890.0, "1.2345678901234567e+19"),
            (0.0001, "0.0001"),
            (0.000_123_45, "0.00012345"),
            (1e-5, "1e-05"),
            (0.1, "0.1"),
            (3.15, "3.15"),
            (2398.283, "2398.283"),
            (5e-324, "5e-324"),
            (f64::MAX, "1.7976931348623157e+308"),
            (9_007_199_254_740_993.0, "9.007199254740992e+15"),
            (1.7e9 + 0.25, "1.70000000025e+09"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
            (f64::NAN, "NaN"),
        ];
        for (value, text) in cases {
            assert_eq!(printed(value), text);
        }
        let mut text = Vec::new();
        print_signed_zero(-0.0, &mut text);
        assert_eq!(text, b"-0");
    }

    #[test]
    fn numbers_are_read_as_go_reads_them() {
        let good = [
            ("1", 1.0),
            ("-1", -1.0),
            ("+1.5", 1.5),
            ("00012", 12.0),
            (".5", 0.5),
            ("5.", 5.0),
            ("-.5e-3", -0.0005),
            ("1E+5", 1e5),
            ("1e00000000000000000001", 10.0),
            ("1e-400", 0.0),
            ("0e99999999999", 0.0),
            ("inf", f64::INFINITY),
            ("+INFINITY", f64::INFINITY),
            ("-Inf", f64::NEG_INFINITY),
            ("0.1", 0.1),
            ("123456789012345.6", 123456789012345.6),
            ("9007199254740993", 9007199254740992.0),
        ];
        for (text, value) in good {
            assert_eq!(parse(text.as_bytes()), Some(value), "{text}");
        }
        assert_eq!([&b"NaN"[..], b"nan"].map(|text| parse(text).unwrap().to_bits()), [0x7ff8_0000_0000_0001; 2]);
        let bad = [
            "", "+", "-", ".", "-.", "e5", "1e", "1e+", "1.2.3", "0x1", "0x1p3", "1_0", "+NaN", "-nan", "infi", "i",
            "1d", "1f", "1e400", "-1e400", "1 ", "--1", "+-1", "\u{663}", "nano",
        ];
        for text in bad {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn counts_are_converted_as_go_converts_them() {
        let cases = [
            (-1.0, u64::MAX),
            (-2.0, u64::MAX - 1),
            (f64::NAN, 1 << 63),
            (f64::INFINITY, 1 << 63),
            (f64::NEG_INFINITY, 1 << 63),
            (1e19, 10_000_000_000_000_000_000),
            (2e19, 1 << 63),
            (1e30, 1 << 63),
            (1.5, 1),
            (-0.5, 0),
        ];
        for (value, count) in cases {
            assert_eq!(to_count(value), count, "{value}");
        }
        assert_eq!([-1.0, 0.5, f64::NAN, f64::INFINITY, 2e19].map(as_count), [None; 5]);
        assert_eq!(as_count(1e19), Some(10_000_000_000_000_000_000));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn printed_numbers_read_back_the_same(bits: u64, decimal in -1_000_000_000_i64..1_000_000_000, scale in 0..12) {
            for value in [f64::from_bits(bits), decimal as f64, decimal as f64 / 10_f64.powi(scale)] {
                let back = parse(printed(value).as_bytes()).unwrap();
                prop_assert!(back == value || (back.is_nan() && value.is_nan()), "{} {}", value, printed(value));
            }
        }

        #[test]
        fn short_decimals_are_read_exactly(text in "-?([0-9]{1,9}(\\.[0-9]{0,9})?|[0-9]\\.[0-9]{11,15}|[0-9]{13,22})") {
            prop_assert_eq!(parse(text.as_bytes()).unwrap().to_bits(), text.parse::<f64>().unwrap().to_bits());
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let _ = parse(&bytes);
        }
    }
}
