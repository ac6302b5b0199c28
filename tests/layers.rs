//! The rules of `docs/architecture.md` and `CONTRIBUTING.md`, checked on the source: which module imports which, what the
//! pure layers do not name, which files name a replaceable library, how files look and how comments begin.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use pushrelay_testkit::folder::project;
use pushrelay_testkit::source::{self, File};

/// No file may be longer; longer ones state more than one idea.
const LINES_MAX: usize = 600;

/// Names that layers 1–3 may not use: these layers do no I/O, read no clock and draw no randomness. The seeds of hashes are
/// excepted (`RandomState`).
const IMPURE: &[&str] = &[
    "tokio",
    "tokio_rustls",
    "tokio_tungstenite",
    "hyper",
    "hyper_util",
    "rustls",
    "getrandom",
    "std::time::SystemTime",
    "SystemTime",
    "Instant::now",
];

/// Libraries that are to be replaceable by changing one module, and the files (or folders) that may name them.
const NAMED_ONLY_BY: &[(&str, &[&str])] = &[
    ("rustls", &["net/tls.rs", "net/tls/"]),
    ("rcgen", &["net/authority.rs", "net/authority/"]),
    ("tokio_tungstenite", &["net/websocket.rs", "net/websocket/"]),
    ("hyper", &["net/http.rs", "net/http/"]),
    ("hyper_util", &["net/http.rs", "net/http/"]),
    ("httparse", &["net/proxy/connect.rs"]),
    ("tokio_socks", &["net/proxy/socks.rs"]),
    ("ipnet", &["net/proxy/no_proxy.rs", "net/proxy_protocol.rs"]),
    ("ppp", &["net/proxy_protocol.rs"]),
    ("flate2", &["compression/"]),
    ("snap", &["compression/"]),
    ("regex", &["selector/"]),
    ("bcrypt", &["node/http/auth/passwords.rs"]),
    ("listenfd", &["net/listen.rs"]),
    ("serde_saphyr", &["config/web_file.rs"]),
    ("backoff", &["node/link/backoff.rs"]),
    ("x509_parser", &["net/certificate.rs", "net/certificate/"]),
];

/// Imports within one layer that are allowed: the command line uses the configuration. No others are.
const SAME_LAYER: &[(&str, &str)] = &[("main.rs", "cli"), ("main.rs", "config"), ("cli", "config")];

/// The layer of each module, read from the table in `docs/architecture.md`.
fn layers() -> BTreeMap<String, u32> {
    let page = std::fs::read_to_string(project().join("docs/architecture.md")).unwrap();
    let mut layers = BTreeMap::new();
    for row in page.lines().filter(|line| line.starts_with("| ")) {
        let mut cells = row.split('|').map(str::trim).skip(1);
        let Some(Ok(layer)) = cells.next().map(str::parse::<u32>) else { continue };
        let modules = cells.next().unwrap();
        for module in modules.split('`').skip(1).step_by(2) {
            layers.insert(module.trim_end_matches('/').to_owned(), layer);
        }
    }
    layers
}

/// The top-level module that a path under `src/` belongs to; `lib.rs` belongs to none.
fn module(path: &Path) -> Option<String> {
    let first = path.components().next().unwrap().as_os_str().to_str().unwrap();
    (first != "lib.rs").then(|| first.to_owned())
}

/// Imports of `file` that do not go down the layers.
fn forbidden_imports(file: &File, layers: &BTreeMap<String, u32>) -> Vec<String> {
    let Some(own) = module(&file.path) else { return Vec::new() };
    let own_layer = layers[&own];
    let allowed = |other: &str| {
        other == own
            || layers.get(other).is_some_and(|layer| *layer < own_layer)
            || SAME_LAYER.contains(&(&*own, other))
    };
    let imports = file.crate_paths().into_iter().filter(|import| !allowed(import));
    imports.map(|import| format!("{}: layer {own_layer} imports crate::{import}", file.path.display())).collect()
}

#[test]
fn every_module_has_its_layer() {
    let modules: BTreeSet<String> = source::files().iter().filter_map(|file| module(&file.path)).collect();
    let known: BTreeSet<String> = layers().into_keys().collect();
    assert_eq!(modules, known, "modules in src/ (left) and in the table of docs/architecture.md (right)");
}

#[test]
fn a_layer_imports_only_lower_layers() {
    let (files, layers) = (source::files(), layers());
    assert!(files.len() >= 20, "only {} files seen: the walk is broken", files.len());
    let found: Vec<String> = files.iter().flat_map(|file| forbidden_imports(file, &layers)).collect();
    assert!(found.is_empty(), "imports that do not go down:\n{}", found.join("\n"));
}

#[test]
fn the_pure_layers_touch_no_socket_clock_or_randomness() {
    let layers = layers();
    let pure = |file: &&File| module(&file.path).is_some_and(|module| layers[&module] <= 3);
    let files = source::files();
    let files: Vec<&File> = files.iter().filter(pure).collect();
    assert!(files.len() >= 12, "only {} files seen on layers 1–3", files.len());
    let named = |file: &&File| {
        let names = IMPURE.iter().filter(|name| file.names(name));
        names.map(|name| format!("{}: names {name}", file.path.display())).collect::<Vec<_>>()
    };
    let found: Vec<String> = files.iter().flat_map(named).collect();
    assert!(found.is_empty(), "layers 1–3 must stay pure:\n{}", found.join("\n"));
}

#[test]
fn replaceable_libraries_are_named_in_one_module() {
    let files = source::files();
    for (library, owners) in NAMED_ONLY_BY {
        let naming = files.iter().filter(|file| file.names(library));
        let others: Vec<_> = naming
            .map(|file| file.path.to_str().unwrap().to_owned())
            .filter(|path| !owners.iter().any(|owner| path == owner || owner.ends_with('/') && path.starts_with(owner)))
            .collect();
        assert!(others.is_empty(), "{library} may be named by {owners:?}; it is also named by {others:?}");
    }
}

#[test]
fn every_file_states_its_idea_and_is_short() {
    let mut found = Vec::new();
    for file in source::files() {
        let path = file.path.display();
        let stem = file.path.file_stem().unwrap().to_str().unwrap();
        let opening = file.raw.lines().find(|line| !line.starts_with("#!["));
        if !opening.is_some_and(|line| line.starts_with("//! ")) {
            found.push(format!("{path}: does not open with `//!`"));
        }
        if file.raw.lines().count() > LINES_MAX {
            found.push(format!("{path}: has more than {LINES_MAX} lines: split it"));
        }
        if ["util", "utils", "helper", "helpers", "common", "manager", "misc"].contains(&stem) {
            found.push(format!("{path}: is named after nothing: use a word of the domain"));
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// Comment lines that open with a word of [`HEADLESS`], in thousandths of all, at most.
const HEADLESS_PER_MILLE_MAX: usize = 5;
/// Openings of sentences whose subject is a clause without a head ("What is kept …"): the reader meets the verb first and the
/// subject never. `CONTRIBUTING.md` has the rule and examples.
const HEADLESS: &[&str] = &["What", "Who", "Whoever", "Where", "Of"];
/// Type names that may be defined more than once in `src/`.
const TYPES_DEFINED_AGAIN_MAX: usize = 10;
/// Groups of files that import each other in a circle, by one file of each, and why it is left.
const CIRCLES: &[(&str, &str)] = &[
    // `http.rs` answers what it refuses itself by `refusal.rs`, whose answers have the body type of `http.rs`.
    ("net/http.rs", "one server over two files"),
];

/// The text of a comment line; `None` for other lines.
fn comment(line: &str) -> Option<&str> {
    let text = line.trim_start().strip_prefix("//")?;
    Some(text.strip_prefix(['/', '!']).unwrap_or(text).trim_start())
}

fn is_headless(comment: &str) -> bool {
    HEADLESS.contains(&comment.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default())
}

#[test]
fn comments_open_with_a_subject() {
    let files = source::all_rust_files();
    assert!(files.len() >= 200, "only {} files seen: the walk is broken", files.len());
    let (mut comments, mut found) = (0, Vec::new());
    for (path, text) in &files {
        for (number, text) in text.lines().enumerate().filter_map(|(at, line)| Some((at + 1, comment(line)?))) {
            comments += 1;
            if is_headless(text) {
                found.push(format!("{}:{number}: {text}", path.display()));
            }
        }
    }
    assert!(comments >= 3_000, "only {comments} comment lines seen: the walk is broken");
    assert!(
        found.len() * 1_000 <= comments * HEADLESS_PER_MILLE_MAX,
        "{} of {comments} comment lines open with a headless clause; name the subject first:\n{}",
        found.len(),
        found.join("\n")
    );
    assert!(is_headless(comment("    /// What is kept.").unwrap()) && is_headless("Of these, one"));
    assert!(!is_headless(comment("//! Whole pages.").unwrap()) && comment("let x = 1; // What").is_none());
}

#[test]
fn a_type_name_means_one_thing() {
    let mut defined: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for file in source::files() {
        for name in file.types() {
            defined.entry(name).or_default().push(file.path.display().to_string());
        }
    }
    assert!(defined.len() >= 300, "only {} types seen: the walk is broken", defined.len());
    defined.retain(|_, files| files.len() > 1);
    let again = defined.len();
    assert!(again <= TYPES_DEFINED_AGAIN_MAX, "{again} type names are defined more than once: {defined:#?}");
    let types = |text: &str| File::parse("x.rs", text).types();
    assert_eq!(
        types("pub(super) struct A;\nenum B { C }\ntype D = A;\nimpl X for B {\n    type Y = A;\n}"),
        ["A", "B", "D"]
    );
}

#[test]
fn files_do_not_import_each_other_in_circles() {
    let found = source::imports::circles(&source::files());
    let known = |circle: &&Vec<String>| CIRCLES.iter().any(|(file, _)| circle.iter().any(|member| member == file));
    let unknown: Vec<&Vec<String>> = found.iter().filter(|circle| !known(circle)).collect();
    assert!(
        unknown.is_empty(),
        "files that import each other; move what both need into a file below them: {unknown:#?}"
    );
    assert_eq!(found.len(), CIRCLES.len(), "the list of circles names some that are gone");
    let parse = |path: &str, text: &str| File::parse(path, text);
    let circle = [
        parse("lib.rs", "pub mod a;"),
        parse("a/mod.rs", "mod b;\nmod c;\npub use b::{B, Other as Alias};"),
        parse("a/b.rs", "use super::c::f;\npub struct B;\npub struct Other;"),
        parse("a/c.rs", "fn f(b: &crate::a::Alias) {}"),
        parse("a/d.rs", "use super::{b::B, c::f};"),
    ];
    assert_eq!(source::imports::circles(&circle), [["a/b.rs", "a/c.rs"]], "through a re-export");
    assert_eq!(source::imports::circles(&circle[2..3]), Vec::<Vec<String>>::new());
}

#[test]
fn the_check_finds_what_it_looks_for() {
    let layers: BTreeMap<String, u32> =
        [("model", 1), ("store", 2), ("wire", 2), ("node", 5)].map(|(module, layer)| (module.to_owned(), layer)).into();
    let wrong = |text: &str| forbidden_imports(&File::parse("store/x.rs", text), &layers).len();
    assert_eq!(wrong("use crate::model::Group;"), 0);
    assert_eq!(wrong("use crate::store::{a, b::c};"), 0);
    assert_eq!(wrong("use crate::wire::Delta;"), 1, "a neighbour");
    assert_eq!(wrong("use crate::{model::{self, wire}, node};"), 1, "a higher layer in a group");
    assert_eq!(wrong("fn f() { crate::node::run() }"), 1, "a path in an expression");
    assert_eq!(wrong("// crate::node\n/* crate::node /* */ crate::node */ const S: &str = \"crate::node\";"), 0);
    assert_eq!(wrong("const S: &str = r#\"\" crate::node \"#; const C: char = '\"'; use crate::node;"), 1);
    assert_eq!(wrong("#[cfg(test)]\nmod tests { use crate::node; fn f() { {} } }\n"), 0);
    assert_eq!(wrong("#[cfg(test)]\nmod tests { }\nuse crate::node;"), 1, "code after the tests");
}

#[test]
fn names_are_whole_paths() {
    let names = |text: &str, name: &str| File::parse("x/y.rs", text).names(name);
    assert!(names("use hyper::Request;", "hyper"));
    assert!(names("use hyper;", "hyper"));
    assert!(names("let x: hyper::Request = y;", "hyper"));
    assert!(names("use {bytes::Bytes, hyper::Request};", "hyper"));
    assert!(!names("use hyper_util::rt;", "hyper"));
    assert!(!names("use crate::hyper::x; self.hyper();", "hyper"));
    assert!(names("let now = std::time::Instant::now();", "Instant::now"));
    assert!(!names("fn at(now: Instant) {}", "Instant::now"));
    assert!(names("use std::time::{Duration, SystemTime};", "SystemTime"));
}
