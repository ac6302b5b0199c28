//! The house rules of `docs/architecture.md`, checked on the source: who imports whom, what the pure floors do not name,
//! which files name a replaceable library, and how files look.

mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use source::File;

/// No file may be longer; longer ones state more than one idea.
const LINES_MAX: usize = 600;

/// What floors 1–3 may not name: they do no I/O, read no clock and draw no randomness. The seeds of hashes are
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

/// Libraries that are to be replaceable by changing one room, and the files (or folders) that may name them.
const NAMED_ONLY_BY: &[(&str, &[&str])] = &[
    ("rustls", &["net/tls.rs", "net/tls/"]),
    ("rcgen", &["net/authority.rs"]),
    ("tokio_tungstenite", &["net/websocket.rs"]),
    ("hyper", &["net/http.rs", "net/http/"]),
    ("hyper_util", &["net/http.rs", "net/http/"]),
    ("flate2", &["compression/"]),
    ("snap", &["compression/"]),
    ("bcrypt", &["net/passwords.rs"]),
    ("listenfd", &["net/listen.rs"]),
    ("serde_saphyr", &["config/web_file.rs"]),
    ("backoff", &["node/backoff.rs"]),
    ("x509_parser", &["net/certificate.rs"]),
];

/// On the top floor the command line stands on the configuration; elsewhere rooms of one floor do not know each other.
const NEIGHBOURS: &[(&str, &str)] = &[("main.rs", "cli"), ("main.rs", "config"), ("cli", "config")];

/// The floor of each room, read from the table in `docs/architecture.md`.
fn floors() -> BTreeMap<String, u32> {
    let page = std::fs::read_to_string(source::root().join("docs/architecture.md")).unwrap();
    let mut floors = BTreeMap::new();
    for row in page.lines().filter(|line| line.starts_with("| ")) {
        let mut cells = row.split('|').map(str::trim).skip(1);
        let Some(Ok(floor)) = cells.next().map(str::parse::<u32>) else { continue };
        let rooms = cells.next().unwrap();
        for room in rooms.split('`').skip(1).step_by(2) {
            floors.insert(room.trim_end_matches('/').to_owned(), floor);
        }
    }
    floors
}

/// The room that a path under `src/` belongs to; `lib.rs`, the map of the house, belongs to none.
fn room(path: &Path) -> Option<String> {
    let first = path.components().next().unwrap().as_os_str().to_str().unwrap();
    (first != "lib.rs").then(|| first.to_owned())
}

/// What `file` imports that it may not, by the floors.
fn forbidden_imports(file: &File, floors: &BTreeMap<String, u32>) -> Vec<String> {
    let Some(own) = room(&file.path) else { return Vec::new() };
    let own_floor = floors[&own];
    let allowed = |other: &str| {
        other == own
            || floors.get(other).is_some_and(|floor| *floor < own_floor)
            || NEIGHBOURS.contains(&(&*own, other))
    };
    let imports = file.crate_paths().into_iter().filter(|import| !allowed(import));
    imports.map(|import| format!("{}: floor {own_floor} imports crate::{import}", file.path.display())).collect()
}

#[test]
fn every_room_has_its_floor() {
    let rooms: BTreeSet<String> = source::files().iter().filter_map(|file| room(&file.path)).collect();
    let known: BTreeSet<String> = floors().into_keys().collect();
    assert_eq!(rooms, known, "rooms in src/ (left) and in the table of docs/architecture.md (right)");
}

#[test]
fn a_floor_imports_only_lower_floors() {
    let (files, floors) = (source::files(), floors());
    assert!(files.len() >= 20, "only {} files seen: the walk is broken", files.len());
    let found: Vec<String> = files.iter().flat_map(|file| forbidden_imports(file, &floors)).collect();
    assert!(found.is_empty(), "imports that do not go down:\n{}", found.join("\n"));
}

#[test]
fn the_pure_floors_touch_no_socket_clock_or_randomness() {
    let floors = floors();
    let pure = |file: &&File| room(&file.path).is_some_and(|room| floors[&room] <= 3);
    let files = source::files();
    let files: Vec<&File> = files.iter().filter(pure).collect();
    assert!(files.len() >= 12, "only {} files seen on floors 1–3", files.len());
    let named = |file: &&File| {
        let names = IMPURE.iter().filter(|name| file.names(name));
        names.map(|name| format!("{}: names {name}", file.path.display())).collect::<Vec<_>>()
    };
    let found: Vec<String> = files.iter().flat_map(named).collect();
    assert!(found.is_empty(), "floors 1–3 must stay pure:\n{}", found.join("\n"));
}

#[test]
fn replaceable_libraries_are_named_in_one_room() {
    let files = source::files();
    for (library, places) in NAMED_ONLY_BY {
        let naming = files.iter().filter(|file| file.names(library));
        let strangers: Vec<_> = naming
            .map(|file| file.path.to_str().unwrap().to_owned())
            .filter(|path| !places.iter().any(|place| path == place || place.ends_with('/') && path.starts_with(place)))
            .collect();
        assert!(strangers.is_empty(), "{library} may be named by {places:?}; it is also named by {strangers:?}");
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

#[test]
fn the_check_finds_what_it_looks_for() {
    let floors: BTreeMap<String, u32> =
        [("model", 1), ("store", 2), ("wire", 2), ("node", 5)].map(|(room, floor)| (room.to_owned(), floor)).into();
    let wrong = |text: &str| forbidden_imports(&File::parse("store/x.rs", text), &floors).len();
    assert_eq!(wrong("use crate::model::Group;"), 0);
    assert_eq!(wrong("use crate::store::{a, b::c};"), 0);
    assert_eq!(wrong("use crate::wire::Delta;"), 1, "a neighbour");
    assert_eq!(wrong("use crate::{model::{self, wire}, node};"), 1, "a higher floor in a group");
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
