//! The header by which a push asks for the lifetime of its group.

use crate::model::{Lifetime, NotALifetime};

/// The header of pushes, in lower case. Its value is a duration, or `never`.
pub const EXPIRE_AFTER: &str = "pushrelay-expire-after";

/// A push asks for no lifetime that there is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LifetimeError {
    /// The value is no lifetime.
    #[error("the header Pushrelay-Expire-After: {0}; nothing was changed")]
    Value(#[from] NotALifetime),
    /// There are several values.
    #[error("the header Pushrelay-Expire-After is there more than once; nothing was changed")]
    Twice,
}

/// The lifetime that a push asks for. `values` are those of all headers [`EXPIRE_AFTER`].
///
/// # Errors
/// The value is no lifetime, or there are several.
pub fn lifetime<'a>(mut values: impl Iterator<Item = &'a str>) -> Result<Option<Lifetime>, LifetimeError> {
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(LifetimeError::Twice);
    }
    Ok(Some(value.trim().parse()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_header_says_the_lifetime() {
        let read = |values: &[&str]| lifetime(values.iter().copied()).map_err(|error| error.to_string());
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&[" 2h "]), Ok(Lifetime::of_ms(7_200_000)));
        assert_eq!(read(&["never"]), Ok(Some(Lifetime::NEVER)));
        assert!(read(&["2h", "2h"]).unwrap_err().contains("more than once"));
        for value in ["", "2", "soon", "-2h"] {
            let error = read(&[value]).unwrap_err();
            assert!(error.starts_with(&format!("the header Pushrelay-Expire-After: {value:?} is neither")), "{error}");
        }
    }
}
