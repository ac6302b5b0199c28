//! Names the commit of the build: `PUSHRELAY_REVISION` of the environment, else that of the checkout.
//!
//! Builds without optimization have no commit: each commit would compile them again.

use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=PUSHRELAY_REVISION");
    let given = std::env::var("PUSHRELAY_REVISION").ok().filter(|revision| !revision.is_empty());
    let is_release = std::env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let revision = given.or_else(|| is_release.then(of_checkout).flatten());
    println!("cargo:rustc-env=PUSHRELAY_REVISION={}", revision.as_deref().unwrap_or("unknown"));
}

/// The commit of the checkout, marked if files were changed since.
fn of_checkout() -> Option<String> {
    for path in ["HEAD", "logs/HEAD"] {
        println!("cargo:rerun-if-changed={}", git(&["rev-parse", "--git-path", path])?);
    }
    // Not the index: `git status` writes it again, and each build would compile everything anew.
    for path in ["src", "Cargo.toml", "Cargo.lock"] {
        println!("cargo:rerun-if-changed={path}");
    }
    let commit = git(&["rev-parse", "HEAD"])?;
    let is_changed = !git(&["status", "--porcelain", "--untracked-files=no"])?.is_empty();
    Some(if is_changed { format!("{commit}-changed") } else { commit })
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").arg("--no-optional-locks").args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
