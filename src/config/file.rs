//! Reads a configuration file of bounded size.

use std::fs::File;
use std::io::Read;
use std::path::Path;

/// A larger file is no configuration.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The text of a configuration file.
///
/// # Errors
/// A message for the operator if the file cannot be read, is not UTF-8, or has more than [`FILE_BYTES_MAX`] bytes.
pub(super) fn read_file(file: &Path) -> Result<String, String> {
    let mut text = String::new();
    let opened = File::open(file);
    match opened.and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)) {
        Ok(_) if text.len() as u64 > FILE_BYTES_MAX => {
            Err(format!("this file is larger than {FILE_BYTES_MAX} bytes: it is no configuration"))
        }
        Ok(_) => Ok(text),
        Err(error) => Err(format!("cannot read the configuration: {error}")),
    }
}
