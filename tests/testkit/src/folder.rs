//! The folders of the tests: the project's, the build's, and temporary ones.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

/// The folder of the project.
pub fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("this crate is two folders below the project")
}

/// The folder of the build's output, `target`. A test's executable is in `target/PROFILE/deps`.
pub fn target() -> PathBuf {
    let executable = std::env::current_exe().unwrap();
    executable.ancestors().nth(3).expect("cargo built this test").to_owned()
}

/// The folder in the build's output for the files of tests, `target/tmp`.
pub fn temporary() -> PathBuf {
    target().join("tmp")
}

/// The binary that cargo built for this test.
pub fn binary() -> PathBuf {
    let beside = || std::env::current_exe().unwrap().ancestors().nth(2).map(|profile| profile.join("pushrelay"));
    let named = std::env::var_os("CARGO_BIN_EXE_pushrelay").map(PathBuf::from);
    named.or_else(beside).expect("cargo built this test")
}

/// A temporary folder, removed on drop.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// Creates an empty folder. Its name begins with the id of the process.
    #[expect(clippy::new_without_default, reason = "it creates a folder on disk")]
    pub fn new() -> Folder {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = temporary().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    /// The path of the folder.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
