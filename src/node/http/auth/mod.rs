//! Authentication and rate limits: [`guard`] checks every request before the service sees it, [`passwords`] verifies
//! basic authentication.

pub mod guard;
pub mod passwords;
