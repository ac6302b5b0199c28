//! The command line.

pub mod check_config;
pub mod logging;
pub mod pki;
