//! URL paths as Go's `net/url`, `path` and `http.ServeMux` handle them: routes match the decoded and cleaned path, and
//! redirects escape it again.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, percent_encode};

/// The characters that `url.URL.EscapedPath` does not escape in a path.
const PATH: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b',')
    .remove(b'/')
    .remove(b':')
    .remove(b';')
    .remove(b'=')
    .remove(b'@');

/// Decodes percent-encoding; `None` if a `%` is not followed by two hexadecimal digits.
pub(super) fn decode(path: &str) -> Option<Cow<'_, [u8]>> {
    let bytes = path.as_bytes();
    if !bytes.contains(&b'%') {
        return Some(bytes.into());
    }
    let well_formed = |at: usize| bytes.get(at + 1..at + 3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit));
    let all = bytes.iter().enumerate().all(|(at, &byte)| byte != b'%' || well_formed(at));
    all.then(|| percent_decode(bytes).into())
}

/// Escapes the path for a Location header.
pub(super) fn escape(path: &[u8]) -> String {
    percent_encode(path, PATH).to_string()
}

/// Removes empty, `.` and `..` components, and keeps a trailing slash. `None` if the path is clean already.
pub(super) fn clean(path: &[u8]) -> Option<Vec<u8>> {
    let plain = |component: &[u8]| !matches!(component, b"" | b"." | b"..");
    if let Some(relative) = path.strip_prefix(b"/") {
        let body = relative.strip_suffix(b"/").unwrap_or(relative);
        if relative.is_empty() || body.split(|&byte| byte == b'/').all(plain) {
            return None;
        }
    }
    let mut components: Vec<&[u8]> = Vec::new();
    for component in path.split(|&byte| byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => drop(components.pop()),
            _ => components.push(component),
        }
    }
    let mut cleaned = Vec::with_capacity(path.len() + 1);
    for component in &components {
        cleaned.push(b'/');
        cleaned.extend_from_slice(component);
    }
    if components.is_empty() || path.ends_with(b"/") {
        cleaned.push(b'/');
    }
    Some(cleaned)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cleaned(path: &str) -> String {
        String::from_utf8(clean(path.as_bytes()).unwrap_or(path.into())).unwrap()
    }

    proptest! {
        #[test]
        fn cleaning_twice_is_cleaning_once(path in "[/.a]{0,12}") {
            let once = cleaned(&path);
            prop_assert_eq!(clean(once.as_bytes()), None, "{}", once);
        }

        #[test]
        fn escaping_round_trips(path: Vec<u8>) {
            let escaped = escape(&path);
            prop_assert_eq!(&*decode(&escaped).unwrap(), &path);
        }
    }

    #[test]
    fn paths_are_cleaned_as_go_does() {
        for same in ["/", "/a", "/a/", "/a/b.c/..d/"] {
            assert_eq!(clean(same.as_bytes()), None);
        }
        for (path, expected) in [
            ("", "/"),
            ("//", "/"),
            ("/a//b", "/a/b"),
            ("/a/./b/", "/a/b/"),
            ("/a/x/..", "/a"),
            ("/a/../../b", "/b"),
            ("a", "/a"),
            ("/a//", "/a/"),
        ] {
            assert_eq!(cleaned(path), expected, "{path}");
        }
    }

    #[test]
    fn escapes_must_be_whole() {
        assert_eq!(&*decode("/a%2fb%FF").unwrap(), b"/a/b\xff");
        for bad in ["%", "%1", "/%zz", "%+1"] {
            assert_eq!(decode(bad), None);
        }
    }
}
