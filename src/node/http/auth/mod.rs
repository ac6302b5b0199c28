//! Authentication, rights and rate limits: [`guard`] checks every request before the service sees it, [`passwords`]
//! verifies basic authentication, [`tokens`] bearer tokens, [`access`] says what a sender may do, [`bucket`] limits rates.

pub mod access;
pub mod bucket;
pub mod guard;
pub mod passwords;
pub mod tokens;
