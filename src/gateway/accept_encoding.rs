//! The Accept-Encoding header of a scrape, read as Pushgateway 1.11 does (`client_golang`'s `NegotiateContentEncoding`
//! with the offers identity and gzip, in that order).
//!
//! The coding with the highest quality wins; between equals, the one offered first. So `gzip, identity` and `*` are
//! answered uncompressed. Names of codings are case-sensitive. A line is read up to the first malformed choice.

/// Whether to compress with gzip. `lines` are the values of the header's lines.
pub fn accepts_gzip<'a>(lines: impl Iterator<Item = &'a str>) -> bool {
    let (mut identity, mut gzip) = (-1.0, -1.0);
    for line in lines {
        let mut rest = Some(line);
        while let Some(choice) = rest.and_then(choice) {
            for (offer, best) in [("identity", &mut identity), ("gzip", &mut gzip)] {
                if choice.coding == offer || choice.coding == "*" {
                    *best = choice.quality.max(*best);
                }
            }
            rest = choice.rest;
        }
    }
    gzip > identity && gzip > 0.0
}

/// A coding and its quality.
struct Choice<'a> {
    coding: &'a str,
    quality: f64,
    /// The text after the comma, if there is one.
    rest: Option<&'a str>,
}

fn choice(text: &str) -> Option<Choice<'_>> {
    let of_token = |c: char| c == '/' || c.is_ascii_graphic() && !"()<>@,;:\\\"[]?={}".contains(c);
    let (coding, rest) = text.split_at(text.find(|c| !of_token(c)).unwrap_or(text.len()));
    if coding.is_empty() {
        return None;
    }
    let rest = skip_blanks(rest);
    let (quality, rest) = match rest.strip_prefix(';') {
        Some(parameter) => quality(skip_blanks(parameter).strip_prefix("q=")?)?,
        None => (1.0, rest),
    };
    Some(Choice { coding, quality, rest: skip_blanks(rest).strip_prefix(',').map(skip_blanks) })
}

/// A number that begins with 0 or 1, and the text after it.
fn quality(text: &str) -> Option<(f64, &str)> {
    let (whole, rest) = match text.as_bytes().first()? {
        b'0' => (0.0, &text[1..]),
        b'1' => (1.0, &text[1..]),
        _ => return None,
    };
    let Some(decimals) = rest.strip_prefix('.') else { return Some((whole, rest)) };
    let end = decimals.find(|c: char| !c.is_ascii_digit()).unwrap_or(decimals.len());
    let fraction = format!("0.{}", &decimals[..end]).parse().unwrap_or(0.0);
    Some((whole + fraction, &decimals[end..]))
}

fn skip_blanks(text: &str) -> &str {
    text.trim_start_matches([' ', '\t', '\r', '\n'])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Answers recorded from Pushgateway 1.11.2.
    #[test]
    fn the_header_is_read_as_pushgateway_reads_it() {
        let yes = [
            "gzip",
            "gzip;q=0.5, identity;q=0.4",
            "gzip;q=1, *;q=0.5",
            "gzip ;q=1",
            "gzip; q=1",
            "gzip;q=1.5",
            "gzip foo",
            "gzip,",
            "deflate;q=0.9, gzip;q=0.1",
            "gzip;q=0.0001",
            "gzip;q=1;x=1",
            "gzip;q=0.5x, y",
            "zstd, gzip",
            "zstd;q=1, gzip;q=0.9",
        ];
        let no = [
            "",
            "gzip, identity",
            "gzip;q=0.4, identity;q=0.5",
            "*",
            "gzip, *",
            "gzip;q=0",
            "gzip;q=0, *;q=0",
            "identity;q=0, gzip;q=0",
            "gzip;q= 1",
            "gzip;q=2",
            "gzip;q=0.",
            "gzip;q=.5",
            "gzip;q=",
            "gzip;Q=1",
            "gzip;x=1",
            "GZIP",
            "foo bar, gzip",
            ",gzip",
            "x;z=1,gzip",
            "x/gzip",
            "\"gzip\"",
            "zstd",
        ];
        for (headers, accepted) in [(&yes[..], true), (&no[..], false)] {
            for header in headers {
                assert_eq!(accepts_gzip([*header].into_iter()), accepted, "{header}");
            }
        }
        assert!(accepts_gzip(["foo bar", "gzip"].into_iter()));
    }

    proptest! {
        #[test]
        fn no_header_makes_it_panic(header: String) {
            accepts_gzip([&*header].into_iter());
        }
    }
}
