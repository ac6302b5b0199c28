//! Where pushrelay is not as Pushgateway, and why: `differences.toml`, which the cases in question and the
//! documentation are checked against. What pushrelay does in these cases is recorded too, from itself, in
//! `recordings/ours.json`.

use serde::Deserialize;

use crate::case::folder;

/// A way in which pushrelay differs.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Difference {
    /// What it is about; a heading of the documentation.
    pub title: String,
    /// What Pushgateway does.
    pub pushgateway: String,
    /// What pushrelay does.
    pub ours: String,
    /// Why that is better.
    pub reason: String,
    /// The cases that show it, as `suite/case`.
    pub cases: Vec<String>,
}

/// All of them.
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
