//! `scripts/test-runner`: the line that ends `cargo test`.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use pushrelay_testkit::Folder;
use pushrelay_testkit::folder::project;

/// Standard output and exit status of the runner with a program that is no test harness, but answers as one.
fn run(program: &Path) -> (String, Option<i32>) {
    let output = Command::new(project().join("scripts/test-runner")).arg(program).output().unwrap();
    (String::from_utf8(output.stdout).unwrap(), output.status.code())
}

/// A program in the folder of Cargo's test programs whose tests have these results.
fn program(folder: &Path, name: &str, results: &str, skipped: &str, status: i32) -> std::path::PathBuf {
    let deps = folder.join("target/debug/deps");
    std::fs::create_dir_all(&deps).unwrap();
    let path = deps.join(name);
    let text = format!(
        "#!/bin/sh\necho 'test result: ok. {results}; 0 ignored; 0 measured; 7 filtered out; finished in 0.00s'\n\
         printf '{skipped}' >>\"$PUSHRELAY_SKIPPED\"\nexit {status}\n"
    );
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[test]
fn the_last_line_of_cargo_test_counts_the_tests_of_all_programs() {
    let folder = Folder::new();
    // One test that is skipped twice is one skipped test, and none that passed.
    let first = program(folder.path(), "first", "3 passed; 0 failed", "b: no tool\\nb: no tool\\n", 0);
    let (text, status) = run(&first);
    assert!(text.contains("\n\n2 passed, 0 failed, 1 skipped\n"), "{text}");
    assert_eq!(status, Some(0));
    let second = program(folder.path(), "second", "1 passed; 1 failed", "", 101);
    let (text, status) = run(&second);
    assert!(text.contains("\n\n3 passed, 1 failed, 1 skipped\n"), "{text}");
    assert_eq!(status, Some(101));
}
