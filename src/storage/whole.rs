//! Small files that are replaced as a whole, beside the files of the store.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use super::files::UNFINISHED;

/// Replaces a file durably: after a crash it has the old or the new content.
///
/// # Errors
/// If the disk refuses; the old content stays.
pub fn replace(folder: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    let (path, unfinished) = (folder.join(name), folder.join(format!("{name}{UNFINISHED}")));
    let mut file = File::create(&unfinished)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(unfinished, path)?;
    File::open(folder)?.sync_all()
}

/// Reads a file of at most `bytes_max` bytes; `None` if it does not exist.
///
/// # Errors
/// If it cannot be read, is larger, or is not UTF-8.
pub fn read(path: &Path, bytes_max: u64) -> io::Result<Option<String>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut text = String::new();
    file.take(bytes_max.saturating_add(1)).read_to_string(&mut text)?;
    if text.len() as u64 > bytes_max {
        return Err(io::Error::other(format!("it is larger than {bytes_max} bytes")));
    }
    Ok(Some(text))
}
