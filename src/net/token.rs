//! Tokens: the secret by which an edge, or a client of the gateway, is known where it shows no certificate.
//!
//! The owner of a token has it in a file; the other end has its digest only ([`TokenDigest`]), so that nobody who reads a
//! configuration learns a token. Tokens are long and random, so that a plain SHA-256 hides them. Tokens are compared by
//! their digests, in constant time.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use thiserror::Error;

use super::proxy::{Secret, read_secret};

/// The beginning of a token that is made here. Programs that look for secrets find it by this.
const PREFIX: &str = "prt_";
/// Random bytes of a token that is made here.
const RANDOM_BYTES: usize = 32;
/// Characters of a token, at least: a shorter one could be found from its digest.
pub const TOKEN_CHARS_MIN: usize = 32;
/// Characters of a token, at most.
pub const TOKEN_CHARS_MAX: usize = 512;

/// A token. It prints only on request.
#[derive(Clone, PartialEq, Eq)]
pub struct BearerToken(Secret);

/// The SHA-256 of a token. Two digests are compared in constant time.
#[derive(Clone, Copy, Eq)]
pub struct TokenDigest([u8; 32]);

/// The reasons for which a text is no token, or no digest of one.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TokenError {
    /// The token is too short, too long, or has characters that a header cannot have.
    #[error(
        "it has no token: one has {TOKEN_CHARS_MIN} to {TOKEN_CHARS_MAX} letters, digits and other visible ASCII characters, \
         without spaces; `pushrelay pki token NAME` makes one"
    )]
    NoToken,
    /// The text is no digest. The message does not contain it: it may be the token itself.
    #[error(
        "this is no SHA-256 digest of 64 hexadecimal digits, such as `pushrelay pki token NAME` and \
         `printf %s \"$TOKEN\" | sha256sum` print"
    )]
    NoDigest,
    /// The text is the digest of no bytes, as an empty variable gives it.
    #[error("this is the SHA-256 of an empty token: make it of the token's text")]
    EmptyDigest,
}

/// The file of a token cannot be used.
#[derive(Debug, Error)]
#[error("cannot take the token from {path:?}: {reason}")]
pub struct TokenFileError {
    /// The file.
    pub path: PathBuf,
    /// The reason.
    reason: String,
}

impl BearerToken {
    /// A new token of 256 random bits.
    ///
    /// # Errors
    /// If the operating system gives no random numbers.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut random = [0; RANDOM_BYTES];
        getrandom::fill(&mut random)?;
        Ok(Self(Secret::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(random)))))
    }

    /// Reads the token that a file contains alone, with a line end perhaps.
    ///
    /// # Errors
    /// If the file cannot be read, or has no token.
    pub fn read(path: &Path) -> Result<Self, TokenFileError> {
        let failed = |reason| TokenFileError { path: path.into(), reason };
        let secret = read_secret(path, TOKEN_CHARS_MAX as u64 + 2).map_err(failed)?;
        secret.reveal().parse().map_err(|error: TokenError| failed(error.to_string()))
    }

    /// The token itself: to be printed once, or to be sent.
    pub fn reveal(&self) -> &str {
        self.0.reveal()
    }

    /// Its digest.
    pub fn digest(&self) -> TokenDigest {
        TokenDigest::of(self.reveal().as_bytes())
    }
}

impl FromStr for BearerToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let is_good = (TOKEN_CHARS_MIN..=TOKEN_CHARS_MAX).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_graphic());
        if is_good { Ok(Self(Secret::new(text.into()))) } else { Err(TokenError::NoToken) }
    }
}

impl fmt::Debug for BearerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<token>")
    }
}

impl TokenDigest {
    /// The digest of a token as it was sent, whether or not it is one.
    pub fn of(token: &[u8]) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, token).as_ref());
        Self(bytes)
    }
}

impl PartialEq for TokenDigest {
    fn eq(&self, other: &Self) -> bool {
        verify_slices_are_equal(&self.0, &other.0).is_ok()
    }
}

impl FromStr for TokenDigest {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let bad = || TokenError::NoDigest;
        let mut bytes = [0; 32];
        if text.len() != 2 * bytes.len() || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(bad());
        }
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).map_err(|_| bad())?;
        }
        if Self(bytes) == Self::of(b"") { Err(TokenError::EmptyDigest) } else { Ok(Self(bytes)) }
    }
}

impl fmt::Display for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A digest reveals which other digests are of the same token.
impl fmt::Debug for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::testing::TempDir;

    #[test]
    fn a_token_is_known_by_its_digest_and_does_not_print() {
        let (token, other) = (BearerToken::generate().unwrap(), BearerToken::generate().unwrap());
        assert_ne!(token, other);
        assert!(token.digest() == TokenDigest::of(token.reveal().as_bytes()) && token.digest() != other.digest());
        assert!(!format!("{token:?}").contains(token.reveal()));
        assert_eq!(token.digest().to_string().to_uppercase().parse(), Ok(token.digest()));
        // As `printf %s TOKEN | sha256sum` prints it.
        let known = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae";
        assert_eq!(TokenDigest::of(b"foo").to_string(), known);
        let umlauts = "ä".repeat(32);
        for bad in ["", "zz", &known[1..], &format!("{known}0"), &known.replace('2', "g"), &umlauts] {
            assert!(bad.parse::<TokenDigest>().unwrap_err().to_string().contains("is no SHA-256"), "{bad}");
        }
    }

    #[test]
    fn a_file_has_one_token() {
        let temp = TempDir::new();
        let file = temp.path().join("token");
        let token = "t".repeat(TOKEN_CHARS_MIN);
        for text in [&token, &format!("{token}\n"), &format!("{token}\r\n")] {
            std::fs::write(&file, text).unwrap();
            assert_eq!(BearerToken::read(&file).unwrap().reveal(), token);
        }
        let long = "t".repeat(TOKEN_CHARS_MAX + 1);
        for text in ["", "\n", &token[1..], &format!("{token} {token}"), &format!("{token}ä"), &long] {
            std::fs::write(&file, text).unwrap();
            let error = BearerToken::read(&file).unwrap_err().to_string();
            assert!(error.contains("cannot take the token from") && !error.contains(&token), "{error}");
        }
        assert!(BearerToken::read(&temp.path().join("none")).unwrap_err().to_string().contains("No such file"));
    }
}
