//! Receipts: a push or delete whose answer waits until a hub has it (`?wait=hub&timeout=5s`).

use std::time::Duration;

use super::parameters::{ParameterError, value};
use crate::model::duration_ms;

/// The longest time that an answer may wait.
const TIMEOUT_MS_MAX: u64 = 60_000;
/// The time that an answer waits, unless `timeout` says otherwise.
const TIMEOUT_MS: u64 = 5_000;

/// The wish that the answer waits until a hub has the write on its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The longest time to wait.
    pub timeout: Duration,
}

/// The receipt that the query of a push or delete asks for. Other parameters are ignored, as at Pushgateway.
///
/// # Errors
/// If `wait` names something else than `hub`, or `timeout` is no time.
pub fn receipt(query: &str) -> Result<Option<Receipt>, ParameterError> {
    match value(query, &["wait"])? {
        None => return Ok(None),
        Some(wait) if wait == "hub" => {}
        Some(wait) => return Err(ParameterError::Wait(wait)),
    }
    let timeout_ms = match value(query, &["timeout"])? {
        None => TIMEOUT_MS,
        Some(text) => {
            let ms = duration_ms(&text).filter(|ms| (1..=TIMEOUT_MS_MAX).contains(ms));
            ms.ok_or(ParameterError::Timeout(text))?
        }
    };
    Ok(Some(Receipt { timeout: Duration::from_millis(timeout_ms) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_is_asked_for_by_name_and_bounded() {
        let ms = |query: &str| receipt(query).map(|receipt| receipt.map(|receipt| receipt.timeout.as_millis()));
        for (query, expected) in [
            ("", None),
            ("timeout=5s", None),
            ("timeout=junk&other=1", None),
            ("wait=hub", Some(5_000)),
            ("a=b&wait=hub&timeout=250ms", Some(250)),
            ("wait=hub&timeout=1m", Some(60_000)),
            ("wait=h%75b", Some(5_000)),
        ] {
            assert_eq!(ms(query), Ok(expected), "{query}");
        }
        for (query, text) in [
            ("wait=", "wait=\"\" is unknown"),
            ("wait=disk", "wait=\"disk\" is unknown"),
            ("wait=hub&timeout=", "timeout=\"\" is no time"),
            ("wait=hub&timeout=5", "timeout=\"5\" is no time"),
            ("wait=hub&timeout=0s", "is no time"),
            ("wait=hub&timeout=61s", "is no time"),
            ("wait=%ff", "is not UTF-8"),
        ] {
            assert!(ms(query).unwrap_err().to_string().contains(text), "{query}");
        }
    }
}
