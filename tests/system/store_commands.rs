//! `pushrelay store check|dump|compact`, as an operator with a broken disk runs them on the files of a stopped node.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use pushrelay_testkit::process::bash;
use pushrelay_testkit::{Node, Site, protobuf};

/// The outcome of a run of `pushrelay store`.
struct Outcome {
    code: Option<i32>,
    out: String,
    err: String,
}

fn store(arguments: &[&str], path: &Path) -> Outcome {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pushrelay"));
    let output = command.arg("store").arg(arguments[0]).arg(path).args(&arguments[1..]).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Outcome { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// The files of a folder with their contents.
fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.is_file()).map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

/// The pushed series in a scrape, without the times of pushes.
fn shown(node: &Node) -> BTreeMap<(String, BTreeMap<String, String>), u64> {
    let mut samples = node.page().samples_with("job", "j");
    samples.retain(|(name, _), _| !name.starts_with("push_"));
    samples
}

/// Groups of every kind: unusual keys, unusual values, every type, no families, and one that text cannot express.
fn fill(edge: &Node) {
    edge.put(
        "job/j",
        "# HELP a Some \\\\ \\n help\n# TYPE a counter\na{x=\"1\",y=\"\\\"\\\\\\n'$(false)`\"} 1e300\na NaN\n",
    );
    edge.put(
        "job/j/path@base64/L3Zhci90bXA",
        "# TYPE h histogram\nh_bucket{le=\"1\"} 2\nh_bucket{le=\"+Inf\"} 3\nh_sum 4.5\nh_count 3\n",
    );
    edge.put("job/j/lone/yes/empty@base64/=", "# TYPE s summary\ns{quantile=\"0.5\"} 1\ns_sum 2\ns_count 3\n");
    edge.put("job/j/quote/it's", "v{zero=\"a\u{0}b\"} -0\n");
    edge.put("job/j/none/yes", "");
    edge.push("job/j/gone/yes", "v 1\n");
    edge.delete("job/j/gone/yes");
    let counter = protobuf::counter_with_exemplar("with_exemplar_total", "1f");
    let protobuf = [("content-type", protobuf::MEDIA_TYPE)];
    let reply = edge.request("PUT", "/metrics/job/j/kind/exemplar", &protobuf, &counter);
    assert_eq!(reply.status, 200, "{}", reply.text());
    let reply =
        edge.request("PUT", "/metrics/job/j/n%C3%A4me/%C3%BC", &[], "{\"döts.x\",\"l.b\"=\"1\"} 2\n".as_bytes());
    assert_eq!(reply.status, 200, "{}", reply.text());
}

#[test]
fn a_dump_pushed_again_makes_the_same_scrape() {
    let (site, hub, edge) = Site::with_one_edge();
    drop(edge);
    let utf8 = ["--push.enable-utf8-names"];
    let mut edge = site.edge("syq-2", "SYQ", &hub).flags(&utf8);
    edge.start();
    fill(&edge);
    let before = shown(&edge);
    assert!(before.len() >= 12, "{before:?}");
    let json = edge.get("/api/v1/metrics").json()["data"].as_array().unwrap().len();
    assert_eq!(edge.stop().0, Some(0));

    let files = contents(&edge.store());
    let dump = store(&["dump", "--script"], &edge.store());
    assert_eq!((dump.code, &*dump.err), (Some(0), ""));
    assert_eq!(contents(&edge.store()), files, "a dump changes nothing");
    let script = site.path().join("dump.sh");
    std::fs::write(&script, dump.out).unwrap();
    let mut again = site.edge("syq-3", "SYQ", &hub).flags(&utf8);
    again.start();
    bash(&format!("bash '{}' http://{}", script.display(), again.web()));
    assert_eq!(shown(&again), before);
    assert_eq!(again.get("/api/v1/metrics").json()["data"].as_array().unwrap().len(), json);
}

#[test]
fn a_dump_in_text_names_each_request_and_what_cannot_be_pushed() {
    let (_site, hub, mut edge) = Site::with_one_edge();
    edge.push("job/j/a/1", "v 1\n");
    edge.push("job/j/a/2", "v 2\n");
    edge.push("job/j/U__x_2e_y/3", "w 3\n");
    hub.shows("v", &[("a", "2")], 2.0);
    hub.cut();
    edge.delete("job/j/a/2");
    assert_eq!(edge.stop().0, Some(0));
    let dump = store(&["dump"], &edge.store());
    assert_eq!(dump.code, Some(0));
    assert!(dump.out.contains("\n# PUT /metrics/job/j/a/1\n# TYPE v untyped\nv{instance=\"\"} 1\n"), "{}", dump.out);
    assert!(
        dump.out.contains("\n# PUT /metrics/job/j/U__x_2e_y/3\n"),
        "as a node without UTF-8 names reads it: {}",
        dump.out
    );
    assert!(dump.out.contains("# deleted: {a=\"2\",job=\"j\"} at 20"), "{}", dump.out);
    let one = store(&["dump", "--label", "a=1"], &edge.store());
    assert!(one.out.contains("a/1") && !one.out.contains("\"2\""), "{}", one.out);
}

#[test]
fn a_hub_s_dump_has_the_labels_of_the_site_or_not() {
    let (_site, mut hub, edge) = Site::with_one_edge();
    edge.push("job/j", "v 1\n");
    hub.shows("v", &[("IDC", "SYQ")], 1.0);
    assert_eq!(hub.stop().0, Some(0));
    let dump = store(&["dump", "--label", "IDC=SYQ"], &hub.store());
    assert!(dump.out.contains("# PUT /metrics/job/j/IDC/SYQ\n"), "{}", dump.out);
    let dump = store(&["dump", "--without-place"], &hub.store());
    assert!(dump.out.contains("# of the site {IDC=\"SYQ\"}\n"), "{}", dump.out);
    assert!(dump.out.contains("# PUT /metrics/job/j\n"), "{}", dump.out);
}

#[test]
fn a_family_that_a_hub_holds_back_is_not_deleted_at_the_edge_by_a_dump() {
    let (site, mut hub, first) = Site::with_one_edge();
    first.put("job/j", "# TYPE m counter\nm 1\n");
    hub.shows("m", &[("IDC", "SYQ")], 1.0);
    let mut second = site.edge("wgq-1", "WGQ", &hub);
    second.start();
    second.put("job/j", "# TYPE m gauge\nm 2\n# TYPE other gauge\nother 3\n");
    hub.shows("other", &[("IDC", "WGQ")], 3.0);
    assert_eq!(hub.stop().0, Some(0));
    let dump = |flags: &[&str]| {
        let dump = store(&[&["dump", "--without-place", "--label"], flags].concat(), &hub.store());
        assert_eq!((dump.code, &*dump.err), (Some(0), ""));
        dump.out
    };
    assert!(dump(&["IDC=SYQ"]).contains("# PUT /metrics/job/j\n"));
    let text = dump(&["IDC=WGQ"]);
    assert!(text.contains("# held back: ") && text.contains("# POST /metrics/job/j\n"), "{text}");
    let script = site.path().join("dump.sh");
    std::fs::write(&script, dump(&["IDC=WGQ", "--script"])).unwrap();
    bash(&format!("bash '{}' http://{}", script.display(), second.web()));
    second.shows("other", &[("job", "j")], 3.0);
    second.shows("m", &[("job", "j")], 2.0);
}

/// Flips a byte in the last quarter of the written part of the store's largest file.
fn damage(folder: &Path) -> String {
    let (path, mut bytes) = contents(folder).into_iter().max_by_key(|(_, bytes)| bytes.len()).unwrap();
    let written = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[written / 2] ^= 0x10;
    std::fs::write(&path, bytes).unwrap();
    path.file_name().unwrap().to_string_lossy().into_owned()
}

#[test]
fn check_says_what_is_damaged_and_compact_keeps_the_rest() {
    let (_site, hub, mut edge) = Site::with_one_edge();
    for number in 0..40 {
        edge.push(&format!("job/j/group/{number}"), "v{a=\"b\"} 1\n");
    }
    let running = store(&["check"], &edge.store());
    assert_eq!(running.code, Some(2), "{}", running.out);
    assert!(running.err.contains("a node is using the store") && running.err.contains("stop it"), "{}", running.err);
    assert_eq!(store(&["compact"], &edge.store()).code, Some(2));
    hub.cut();
    assert_eq!(edge.stop().0, Some(0));

    let clean = store(&["check"], &edge.store());
    assert_eq!(clean.code, Some(0), "{}{}", clean.out, clean.err);
    assert!(clean.out.contains("holds: 40 groups") && clean.out.ends_with("OK\n"), "{}", clean.out);

    let file = damage(&edge.store());
    let files = contents(&edge.store());
    let damaged = store(&["check"], &edge.store());
    assert_eq!(damaged.code, Some(1), "{}", damaged.err);
    assert!(damaged.out.contains(&format!("DAMAGED: {file}: bytes ")), "{}", damaged.out);
    assert_eq!(contents(&edge.store()), files, "a check changes nothing");

    let compacted = store(&["compact"], &edge.store());
    assert_eq!(compacted.code, Some(1), "{}", compacted.err);
    let kept = compacted.out.lines().find_map(|line| line.strip_prefix("the old files are in ")?.split(';').next());
    let kept = contents(Path::new(kept.expect("where the old files are")));
    let names = |files: &BTreeMap<PathBuf, Vec<u8>>| {
        let named = files.iter().map(|(path, bytes)| (path.file_name().unwrap().to_owned(), bytes.clone()));
        named.filter(|(name, _)| name != "LOCK").collect::<BTreeMap<_, _>>()
    };
    assert_eq!(names(&kept), names(&files), "the old files are kept as they were");
    assert_eq!(store(&["check"], &edge.store()).code, Some(0));
    edge.start();
    let left = (0..40).filter(|n| !edge.page().values("v", &[("group", &n.to_string())]).is_empty()).count();
    assert!((30..40).contains(&left), "{left} of 40 groups after one flipped byte");
    hub.join();
    edge.shows("v", &[("group", "39")], 1.0);
    edge.shows("v", &[("group", "20")], 1.0);
}

#[test]
fn compact_leaves_a_sound_store_as_its_hub_knows_it() {
    let (_site, hub, mut edge) = Site::with_one_edge();
    for round in 0..30 {
        edge.push("job/j/group/a", &format!("v {round}\n"));
    }
    edge.push("job/j/group/b", "v 1\n");
    hub.shows("v", &[("group", "b")], 1.0);
    assert_eq!(edge.stop().0, Some(0));
    let compacted = store(&["compact"], &edge.store());
    assert_eq!((compacted.code, &*compacted.err), (Some(0), ""), "{}", compacted.out);
    let files = contents(&edge.store());
    assert_eq!(files.keys().filter(|path| path.to_string_lossy().contains("log-")).count(), 1, "{:?}", files.keys());
    assert!(std::fs::read_dir(edge.store()).unwrap().all(|entry| !entry.unwrap().path().is_dir()), "no backup");
    edge.start();
    edge.shows("v", &[("group", "a")], 29.0);
    let line = edge.process().line("linked again", |line| line.contains("linked to the hub").then(|| line.to_owned()));
    assert!(line.contains("resync=false"), "the store is still the one that the hub knows: {line}");
    assert_eq!(edge.stop().0, Some(0));
    let kept = store(&["compact", "--keep"], &edge.store());
    assert_eq!(kept.code, Some(0), "{}", kept.err);
    assert!(kept.out.contains("the old files are in "), "{}", kept.out);
}

#[test]
fn a_path_without_a_store_is_reported_and_not_created() {
    let site = Site::new();
    let nowhere = site.path().join("nowhere");
    for command in ["check", "dump", "compact"] {
        let outcome = store(&[command], &nowhere);
        assert_eq!(outcome.code, Some(2), "{}", outcome.out);
        assert!(outcome.err.contains("nowhere") && outcome.err.contains("storage.path"), "{}", outcome.err);
        assert!(!nowhere.exists());
        let outcome = store(&[command], site.path());
        assert_eq!(outcome.code, Some(2));
        assert!(outcome.err.contains("there is no store in"), "{}", outcome.err);
    }
}
