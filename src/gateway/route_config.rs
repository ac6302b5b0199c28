//! The settings that decide which routes exist.

use crate::exposition::name::NameValidation;

/// The settings that decide which routes exist, and at which paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteConfig {
    /// The prefix of all paths; empty or `/` for none. A leading slash is added, trailing ones are removed.
    pub route_prefix: String,
    /// The path of the scrape, below the prefix.
    pub telemetry_path: String,
    /// Whether the API may delete all groups.
    pub admin_api: bool,
    /// Whether `/-/quit` and `/-/reload` are enabled.
    pub lifecycle: bool,
    /// The rule for label names in a grouping key.
    pub names: NameValidation,
}

/// The defaults of Pushgateway's flags.
impl Default for RouteConfig {
    fn default() -> Self {
        Self {
            route_prefix: String::new(),
            telemetry_path: "/metrics".to_owned(),
            admin_api: false,
            lifecycle: false,
            names: NameValidation::default(),
        }
    }
}

/// A route prefix as Pushgateway normalizes it: empty, or with a leading slash and without a trailing one.
pub fn normal_prefix(prefix: &str) -> String {
    let prefix = prefix.trim_end_matches('/');
    if prefix.is_empty() || prefix.starts_with('/') { prefix.to_owned() } else { format!("/{prefix}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_normalized() {
        for (prefix, expected) in [("", ""), ("/", ""), ("a", "/a"), ("/a/", "/a"), ("/a/b", "/a/b")] {
            assert_eq!(normal_prefix(prefix), expected);
        }
    }
}
