//! Bearer tokens (RFC 6750), known by their SHA-256 digests only.
//!
//! A token is random and long, so a fast digest protects it: nobody can try all of them, as one could try passwords. The
//! digests are compared in constant time.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::net::token::TokenDigest;

/// The tokens by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tokens(BTreeMap<Arc<str>, TokenDigest>);

impl Tokens {
    /// Tokens with these digests.
    pub fn new(digests: impl IntoIterator<Item = (String, TokenDigest)>) -> Self {
        Self(digests.into_iter().map(|(name, digest)| (name.into(), digest)).collect())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(|name| &**name)
    }

    /// The name of a token. It takes as long for every token.
    pub fn find(&self, token: &[u8]) -> Option<Arc<str>> {
        let presented = TokenDigest::of(token);
        let mut found = None;
        for (name, known) in &self.0 {
            if *known == presented {
                found = Some(name);
            }
        }
        found.cloned()
    }
}

/// The token of an `Authorization` header.
pub(super) fn bearer(header: &str) -> Option<&[u8]> {
    const SCHEME: &str = "Bearer ";
    let (scheme, token) = header.split_at_checked(SCHEME.len())?;
    scheme.eq_ignore_ascii_case(SCHEME).then(|| token.trim().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of "abc", from FIPS 180-4.
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn a_token_is_found_by_its_digest() {
        let digest = |text: &str| text.parse::<TokenDigest>().unwrap();
        let tokens = Tokens::new([("ci".to_owned(), digest(ABC)), ("other".to_owned(), digest(&"0".repeat(64)))]);
        assert_eq!(tokens.find(b"abc").as_deref(), Some("ci"));
        assert_eq!((tokens.find(b"abd"), tokens.find(b""), Tokens::default().find(b"abc")), (None, None, None));
        assert_eq!(digest(&ABC.to_uppercase()), digest(ABC));
    }

    #[test]
    fn a_digest_that_is_none_is_explained_and_not_shown() {
        for bad in ["", "s3cret", &ABC[1..], &format!("{ABC}0"), &ABC.replace('b', "x"), &"é".repeat(32)] {
            let error = bad.parse::<TokenDigest>().unwrap_err().to_string();
            assert!(error.contains("sha256sum") && (bad.is_empty() || !error.contains(bad)), "{error}");
        }
        assert_eq!(format!("{:?}", ABC.parse::<TokenDigest>().unwrap()), "<secret>");
    }

    #[test]
    fn headers_are_read() {
        assert_eq!(bearer("Bearer abc"), Some(&b"abc"[..]));
        assert_eq!(bearer("bearer  abc "), Some(&b"abc"[..]));
        for other in ["Bearer", "Basic abc", "", "Bearerabc"] {
            assert_eq!(bearer(other), None, "{other}");
        }
    }
}
