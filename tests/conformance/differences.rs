//! The deliberate differences from Pushgateway, with reasons: `differences.toml`. The cases and the documentation are
//! checked against it. Pushrelay's own answers in these cases are recorded in `recordings/ours.json`.

use serde::Deserialize;

use crate::case::folder;

/// A difference from Pushgateway.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Difference {
    /// The subject; a heading of the documentation.
    pub title: String,
    /// Pushgateway's behaviour.
    pub pushgateway: String,
    /// Pushrelay's behaviour.
    pub ours: String,
    /// The reason for the difference.
    pub reason: String,
    /// The cases that show it, as `suite/case`.
    pub cases: Vec<String>,
}

/// All differences.
pub fn differences() -> Vec<Difference> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Page {
        difference: Vec<Difference>,
    }
    let file = folder().join("differences.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let page: Page = toml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    page.difference
}
