//! The one-time word of an invitation: a secret, and the fingerprint of the authority whose hub is asked.
//!
//! A word is 32 bytes in base64url without padding: 16 random bytes, and the first 16 bytes of the SHA-256 of the
//! authority's certificate. The edge sends the secret only to a hub whose certificate that authority signed, so that a box
//! in between cannot take it. The hub has only a hash of the secret.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use thiserror::Error;

const HALF: usize = 16;
/// The number of the hyphen in base64 for URLs.
const HYPHEN: u8 = 62;

/// The word of an invitation. Secret: it prints as a word only on request.
#[derive(Clone, PartialEq, Eq)]
pub struct InvitationWord {
    secret: InvitationSecret,
    authority: [u8; HALF],
}

/// The secret half of a word.
#[derive(Clone, PartialEq, Eq)]
pub struct InvitationSecret([u8; HALF]);

/// The text is no word of an invitation.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("this is no invitation: copy the whole word that `pushrelay pki invite` prints, 43 characters")]
pub struct NoInvitation;

impl InvitationWord {
    /// A new word for the authority with this SHA-256 fingerprint.
    ///
    /// # Errors
    /// If the operating system gives no random numbers.
    pub fn generate(fingerprint: &[u8; 32]) -> Result<Self, getrandom::Error> {
        let (mut secret, mut authority) = ([0; HALF], [0; HALF]);
        // A word that begins with a hyphen would be an option of the command line: draw again.
        while secret == [0; HALF] || secret[0] >> 2 == HYPHEN {
            getrandom::fill(&mut secret)?;
        }
        authority.copy_from_slice(&fingerprint[..HALF]);
        Ok(Self { secret: InvitationSecret(secret), authority })
    }

    /// The word, to be printed once.
    pub fn reveal(&self) -> String {
        URL_SAFE_NO_PAD.encode([self.secret.0, self.authority].concat())
    }

    /// The secret half.
    pub fn secret(&self) -> &InvitationSecret {
        &self.secret
    }

    /// Whether the word is of the authority with this SHA-256 fingerprint.
    pub fn is_of(&self, fingerprint: &[u8; 32]) -> bool {
        fingerprint[..HALF] == self.authority
    }
}

impl fmt::Debug for InvitationWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InvitationWord").finish_non_exhaustive()
    }
}

impl FromStr for InvitationWord {
    type Err = NoInvitation;

    fn from_str(text: &str) -> Result<Self, NoInvitation> {
        let bytes = URL_SAFE_NO_PAD.decode(text.trim()).map_err(|_| NoInvitation)?;
        let (secret, authority) = bytes.split_at_checked(HALF).ok_or(NoInvitation)?;
        let half = |bytes: &[u8]| <[u8; HALF]>::try_from(bytes).map_err(|_| NoInvitation);
        Ok(Self { secret: InvitationSecret(half(secret)?), authority: half(authority)? })
    }
}

impl InvitationSecret {
    /// The secret as the edge sends it.
    pub fn to_base64(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }

    /// Reads a secret that an edge sent.
    ///
    /// # Errors
    /// If it is none.
    pub fn from_base64(text: &str) -> Result<Self, NoInvitation> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| NoInvitation)?;
        Ok(Self(bytes.try_into().map_err(|_| NoInvitation)?))
    }

    /// The hash of the secret, in hexadecimal. The secret has 128 random bits, so that a plain hash hides it.
    pub fn hash(&self) -> String {
        sha256_hex(&self.0)
    }
}

impl fmt::Debug for InvitationSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InvitationSecret").finish_non_exhaustive()
    }
}

/// The SHA-256 of bytes, in hexadecimal.
pub fn sha256_hex(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_has_a_secret_and_an_authority_and_does_not_print() {
        let (own, other) = ([7; 32], [8; 32]);
        let word = InvitationWord::generate(&own).unwrap();
        let read: InvitationWord = word.reveal().parse().unwrap();
        assert_eq!(read, word);
        assert!(read.is_of(&own) && !read.is_of(&other));
        assert_eq!(InvitationSecret::from_base64(&word.secret().to_base64()).unwrap().hash(), word.secret().hash());
        assert_ne!(InvitationWord::generate(&own).unwrap().secret().hash(), word.secret().hash());
        let words = (0..300).map(|_| InvitationWord::generate(&own).unwrap().reveal());
        assert!(words.into_iter().all(|word| !word.starts_with('-')), "the command line would take it for an option");
        let shown = format!("{word:?}{:?}", word.secret());
        assert!(!shown.contains(&word.reveal()) && !shown.contains(&word.secret().to_base64()));
        for bad in ["", "a", &"a".repeat(42), &"a".repeat(44), "ä", &"!".repeat(43)] {
            assert_eq!(bad.parse::<InvitationWord>().unwrap_err(), NoInvitation, "{bad}");
            assert!(InvitationSecret::from_base64(bad).is_err());
        }
    }
}
