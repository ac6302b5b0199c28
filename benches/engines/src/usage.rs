//! The resources that the process and its directory use, as Linux reports them.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A directory that is removed at the end.
pub struct Directory {
    pub path: PathBuf,
}

impl Directory {
    pub fn new(parent: &Path) -> io::Result<Directory> {
        let path = parent.join(format!("engines-{}", std::process::id()));
        fs::create_dir_all(&path)?;
        Ok(Directory { path })
    }

    /// Bytes of the blocks that its files take.
    pub fn disk_bytes(&self) -> io::Result<u64> {
        Ok(files(&self.path)?.iter().map(|file| fs::metadata(file).map_or(0, |found| found.blocks() * 512)).sum())
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// All files under `path`, sorted.
pub fn files(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() { found.extend(files(&entry.path())?) } else { found.push(entry.path()) }
    }
    found.sort();
    Ok(found)
}

/// CPU time of all threads so far.
pub fn cpu() -> io::Result<Duration> {
    let mut total = 0;
    for task in fs::read_dir("/proc/self/task")? {
        let text = fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
        total += text.split(' ').next().and_then(|first| first.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(Duration::from_nanos(total))
}

/// Resident memory.
pub fn resident_bytes() -> io::Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) * 1024)
}
