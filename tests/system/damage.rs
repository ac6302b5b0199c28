//! Files of a store that are cut or have flipped bytes at every kind of position. The node starts, keeps the intact
//! data, logs what it lost, and the link restores the rest from the other side.

use std::path::{Path, PathBuf};

use pushrelay_testkit::process::{bash, run};
use pushrelay_testkit::{Node, Site, eventually};

const GROUPS: usize = 30;

/// The damage that is done to a file.
#[derive(Clone, Copy, Debug)]
enum Harm {
    /// Cut to that percentage of the written bytes.
    Cut(usize),
    /// One bit flipped at that percentage of the written bytes.
    Flip(usize),
    /// The first bytes overwritten.
    Head,
    /// The file removed.
    Gone,
    /// A part overwritten with zeros.
    Zeros(usize),
}

impl Harm {
    fn to(self, file: &Path) {
        let mut bytes = std::fs::read(file).unwrap();
        let written = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        assert!(written > 100, "{} holds next to nothing", file.display());
        match self {
            Harm::Cut(share) => bytes.truncate(written * share / 100),
            Harm::Flip(share) => bytes[written * share / 100] ^= 0x04,
            Harm::Head => bytes[..20].fill(0x5a),
            Harm::Gone => return std::fs::remove_file(file).unwrap(),
            Harm::Zeros(share) => bytes[written * share / 100..][..40].fill(0),
        }
        std::fs::write(file, bytes).unwrap();
    }
}

fn file(store: &Path, kind: &str) -> PathBuf {
    let names = std::fs::read_dir(store).unwrap().map(|entry| entry.unwrap().path());
    let is_kind = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with(kind);
    names.filter(is_kind).max_by_key(|path| path.metadata().unwrap().len()).unwrap()
}

/// An edge whose store has a checkpoint and a log, each with half of the groups. The hub has all of them too.
fn filled() -> (Site, Node, Node) {
    let (site, hub, mut edge) = Site::with_one_edge();
    let push = |edge: &Node, numbers: std::ops::Range<usize>| {
        for number in numbers {
            edge.push(&format!("job/j/group/{number}"), &format!("v{{a=\"{number}\"}} {number}\n"));
        }
    };
    push(&edge, 0..GROUPS / 2);
    assert_eq!(edge.stop().0, Some(0));
    let path = edge.store().display().to_string();
    let compacted = run(site.path(), &["store", "compact", &path]);
    assert_eq!(compacted.code, Some(0), "{}", compacted.output);
    edge.start();
    push(&edge, GROUPS / 2..GROUPS);
    hub.shows("v", &[("group", &(GROUPS - 1).to_string())], (GROUPS - 1) as f64);
    assert_eq!(edge.stop().0, Some(0));
    (site, hub, edge)
}

fn groups(node: &Node) -> usize {
    let page = node.page();
    (0..GROUPS).filter(|number| !page.values("v", &[("group", &number.to_string())]).is_empty()).count()
}

/// After each kind of damage, at least so many groups exist before the link connects, and all of them after. The last
/// field says whether the loss is logged: a lost end of the last log looks like a log that a crash cut short, or that
/// was never written.
fn survives(kind: &str, cases: &[(Harm, usize, bool)]) {
    let (site, hub, mut edge) = filled();
    let copy = site.path().join("copy");
    bash(&format!("cp -a '{}' '{}'", edge.store().display(), copy.display()));
    for (harm, intact, is_loss_logged) in cases {
        eprintln!("{kind}: {harm:?}");
        hub.cut();
        bash(&format!("rm -r '{0}' && cp -a '{1}' '{0}'", edge.store().display(), copy.display()));
        harm.to(&file(&edge.store(), kind));
        edge.start();
        let kept = groups(&edge);
        assert!(kept >= *intact, "{harm:?}: {kept} of {GROUPS} groups are left, expected {intact}");
        let output = edge.process().output();
        let is_logged =
            |output: &str| output.contains("level=ERROR") && output.contains("a part of the store is damaged");
        assert_eq!(is_logged(&output), *is_loss_logged, "{harm:?}: whether the loss is logged:\n{output}");
        hub.join();
        eventually("the edge has all its groups again", || (groups(&edge) == GROUPS).then_some(()));
        assert_eq!(groups(&hub), GROUPS, "{harm:?}: no resync deletes anything");
        edge.push("job/j/group/0", "v{a=\"0\"} 0\n");
        if *is_loss_logged {
            let written = |node: &Node| node.page().values("pushrelay_store_checkpoints_total", &[])[0];
            eventually("a checkpoint replaces what is damaged", || (written(&edge) >= 1.0).then_some(()));
        }
        assert_eq!(edge.stop().0, Some(0));
        // The repaired store is sound.
        edge.start();
        let output = edge.process().output();
        assert!(!output.contains("level=ERROR"), "{harm:?}: damage is logged once:\n{output}");
        assert_eq!(edge.stop().0, Some(0));
    }
}

#[test]
fn a_harmed_log_costs_what_was_hit() {
    let half = GROUPS / 2;
    survives(
        "log",
        &[
            (Harm::Cut(0), half, false),
            (Harm::Cut(1), half, false),
            (Harm::Cut(50), half + 4, false),
            (Harm::Cut(99), GROUPS - 1, false),
            (Harm::Flip(0), GROUPS - 1, true),
            (Harm::Flip(50), GROUPS - 2, true),
            (Harm::Flip(99), GROUPS - 1, false),
            (Harm::Zeros(30), GROUPS - 3, true),
            (Harm::Head, GROUPS - 1, true),
            (Harm::Gone, half, false),
        ],
    );
}

#[test]
fn a_harmed_checkpoint_costs_what_was_hit() {
    let half = GROUPS / 2;
    let cases = [Harm::Cut(0), Harm::Cut(60), Harm::Flip(2), Harm::Flip(70), Harm::Head, Harm::Gone, Harm::Zeros(50)];
    survives("checkpoint", &cases.map(|harm| (harm, half, true)));
}
