//! Names and their escaping, and the headers by which a scraper asks for it.

use pushrelay::exposition::name::unescape_values;
use pushrelay::exposition::negotiate::negotiate;
use pushrelay::exposition::{Escaping, NameValidation, number};

/// The bytes as a name, as an escaped name, as an `Accept` header, and as a number.
pub fn run(data: &[u8]) {
    let _ = number::parse(data).map(|value| {
        let mut printed = Vec::new();
        number::print(value, &mut printed);
        let again = number::parse(&printed).expect("what is printed is a number");
        assert!(again == value || (again.is_nan() && value.is_nan()), "{value} is printed as {again}");
    });
    let Ok(name) = std::str::from_utf8(data) else { return };
    let _ = unescape_values(name);
    for escaping in [Escaping::Underscores, Escaping::Dots, Escaping::Values] {
        let escaped = escaping.escape(name);
        assert!(name.is_empty() || NameValidation::Legacy.allows_metric(&escaped), "{name:?} becomes {escaped:?}");
        assert_eq!(escaping.escape(&escaped), escaped, "escaping twice is escaping once");
        // As in Pushgateway, escapes end at U+FFFFF.
        let can_be_undone = !NameValidation::Legacy.allows_metric(name) && name.chars().all(|c| c <= '\u{fffff}');
        if escaping == Escaping::Values && can_be_undone {
            assert_eq!(unescape_values(&escaped), name);
        }
    }
    let format = negotiate(name);
    assert_eq!(negotiate(&format.content_type()), format, "a content type asks for itself");
}
