//! Every dependency of the program and of the test support has its line of why in `docs/reference/dependencies.md`, and no
//! line outlives its dependency.

use std::collections::BTreeSet;
use std::path::Path;

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The crates that a manifest names.
fn named_in(manifest: &str) -> BTreeSet<String> {
    let manifest: toml::Table = read(manifest).parse().unwrap();
    let sections = ["dependencies", "dev-dependencies", "build-dependencies"];
    let tables = sections.iter().filter_map(|section| manifest.get(*section)?.as_table());
    tables.flat_map(|table| table.keys().cloned()).filter(|name| name != "pushrelay").collect()
}

#[test]
fn every_dependency_has_its_line_of_why() {
    let named: BTreeSet<String> = ["Cargo.toml", "tests/testkit/Cargo.toml"].into_iter().flat_map(named_in).collect();
    let page = read("docs/reference/dependencies.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
    let explained: BTreeSet<String> = rows.filter(|(_, why)| why.len() > 20).map(|(name, _)| name.to_owned()).collect();
    assert!(named.len() > 10, "only {} dependencies seen", named.len());
    assert_eq!(named, explained, "dependencies in both manifests (left) and explained in the page (right)");
}
