//! A node whose clock starts far in the past, as on a machine without a battery.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use pushrelay_testkit::{Node, Site, eventually, skip};

/// A library that, loaded before the C library, adds the seconds in the file `CLOCK_SHIFT` to the wall clock.
const SHIFTED: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
int clock_gettime(clockid_t id, struct timespec *now) {
  static int (*real)(clockid_t, struct timespec *);
  if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
  int result = real(id, now);
  long shift = 0;
  FILE *file = id == CLOCK_REALTIME ? fopen(getenv("CLOCK_SHIFT"), "r") : NULL;
  if (file) { if (fscanf(file, "%ld", &shift) == 1) now->tv_sec += shift; fclose(file); }
  return result;
}
"#;

/// A wall clock that a test sets.
struct WallClock {
    library: PathBuf,
    shift: PathBuf,
}

impl WallClock {
    /// A right clock; `None` without a C compiler.
    fn new(folder: &Path) -> Option<Self> {
        let (source, library, shift) = (folder.join("clock.c"), folder.join("clock.so"), folder.join("shift"));
        fs::write(&source, SHIFTED).unwrap();
        let built = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).arg("-ldl").status();
        if !built.is_ok_and(|status| status.success()) {
            skip("a clock in the past is not tried: there is no C compiler");
            return None;
        }
        let clock = Self { library, shift };
        clock.set(0);
        Some(clock)
    }

    fn set(&self, shift_seconds: i64) {
        let draft = self.shift.with_extension("new");
        fs::write(&draft, shift_seconds.to_string()).unwrap();
        fs::rename(draft, &self.shift).unwrap();
    }

    /// Sets the clock to a moment of 1970.
    fn forget(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        self.set(1_000 - i64::try_from(now).unwrap());
    }

    fn of(&self, node: Node) -> Node {
        let path = |path: &Path| path.display().to_string();
        node.env("LD_PRELOAD", &path(&self.library)).env("CLOCK_SHIFT", &path(&self.shift))
    }
}

fn metric(node: &Node, name: &str) -> f64 {
    node.page().values(name, &[])[0]
}

#[test]
fn a_push_to_an_edge_with_a_clock_in_the_past_is_not_lost_to_an_older_one() {
    let site = Site::new();
    let Some(clock) = WallClock::new(site.path()) else { return };
    for has_lost_its_disk in [true, false] {
        let site = Site::new();
        let mut hub = site.hub();
        hub.start();
        let mut edge = clock.of(site.edge("syq-1", "SYQ", &hub));
        // The other edge of a redundant pair.
        let mut twin = site.edge("syq-2", "SYQ", &hub);
        edge.start();
        edge.push("job/a", "m 1\n");
        hub.shows("m", &[("job", "a")], 1.0);
        assert_eq!(metric(&edge, "pushrelay_clock_confirmed"), 1.0);
        edge.kill();
        twin.start();
        twin.shows("m", &[("job", "a")], 1.0);
        twin.push("job/a", "m 2\n");
        twin.push("job/b", "m 2\n");
        hub.shows("m", &[("job", "b")], 2.0);

        if has_lost_its_disk {
            fs::remove_dir_all(edge.store()).unwrap();
        }
        clock.forget();
        edge.start();
        edge.process()
            .line("a line about the clock", |line| line.contains("this host's clock cannot be right").then_some(()));
        edge.push("job/a", "m 3\n");
        edge.push("job/b", "m 3\n");
        let waiting =
            ["pushrelay_clock_confirmed", "pushrelay_clock_unconfirmed_groups"].map(|name| metric(&edge, name));
        assert_eq!(waiting, [0.0, 2.0]);
        assert!(edge.get("/status/group/job/a").text().contains("not confirmed yet"));
        // Across a restart, too.
        edge.restart();
        edge.push("job/b", "m 4\n");
        clock.set(0);
        for node in [&hub, &twin, &edge] {
            node.shows("m", &[("job", "a")], 3.0);
            node.shows("m", &[("job", "b")], 4.0);
        }
        edge.process().line("a line about the correction", |line| line.contains("the clock was behind").then_some(()));
        assert_eq!(metric(&edge, "pushrelay_clock_corrected_groups_total"), 2.0);
        assert_eq!(
            (metric(&edge, "pushrelay_clock_confirmed"), metric(&edge, "pushrelay_clock_unconfirmed_groups")),
            (1.0, 0.0)
        );
        // Newer pushes elsewhere win as always.
        twin.push("job/a", "m 5\n");
        for node in [&hub, &edge] {
            node.shows("m", &[("job", "a")], 5.0);
        }
    }
}

#[test]
fn a_push_to_a_hub_with_a_clock_in_the_past_is_not_lost_to_an_older_one() {
    let site = Site::new();
    let Some(clock) = WallClock::new(site.path()) else { return };
    let mut hub = clock.of(site.hub());
    hub.start();
    let mut edge = site.edge("syq-1", "SYQ", &hub);
    edge.start();
    edge.push("job/a", "m 1\n");
    hub.shows("m", &[("job", "a"), ("IDC", "SYQ")], 1.0);
    hub.wipe();
    clock.forget();
    hub.start();
    hub.push("job/a/IDC/SYQ", "m 2\n");
    clock.set(0);
    edge.shows("m", &[("job", "a")], 2.0);
    hub.shows("m", &[("job", "a"), ("IDC", "SYQ")], 2.0);
    let corrected = || (metric(&hub, "pushrelay_clock_corrected_groups_total") >= 1.0).then_some(());
    eventually("the correction is counted", corrected);
}
