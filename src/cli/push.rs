//! `pushrelay push` and `pushrelay delete`: pushes text to a group, and deletes a group.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use clap::Args;

use super::group_args::{GroupArgs, push_path, read_text};
use super::node_url::{NodeUrl, refusal};

/// Bytes of a text, at most: `limits.body_bytes_max` of a node, unless it is set higher there.
const TEXT_BYTES_MAX: u64 = 64 << 20;

/// The arguments of `push`.
#[derive(Clone, Debug, Args)]
pub struct PushCommand {
    #[command(flatten)]
    group: GroupArgs,
    /// Replace the whole group (PUT). Otherwise only metrics of the same names are replaced (POST)
    #[arg(long)]
    replace: bool,
    /// File with metrics in Prometheus's text format; - is standard input
    #[arg(value_name = "FILE", default_value = "-")]
    file: PathBuf,
    #[command(flatten)]
    node: NodeUrl,
}

impl PushCommand {
    /// Checks the text, and pushes it.
    ///
    /// # Errors
    /// The text has a mistake, or the node does not take it.
    pub fn run(self) -> Result<(), String> {
        let labels = self.group.labels()?;
        let (name, body) = read(&self.file)?;
        read_text(&body, &labels, &name)?;
        let method = if self.replace { "PUT" } else { "POST" };
        let answer = self.node.send(method, &push_path(&labels), body.into())?;
        match answer.status {
            200 | 202 => Ok(()),
            _ => Err(refusal(&self.node.url(), &answer)),
        }
    }
}

/// The name of the text, for errors, and its contents.
fn read(file: &Path) -> Result<(String, Vec<u8>), String> {
    let is_input = file == Path::new("-");
    let name = if is_input { "standard input".to_owned() } else { file.display().to_string() };
    let mut body = Vec::new();
    let read = match is_input {
        true => io::stdin().lock().take(TEXT_BYTES_MAX + 1).read_to_end(&mut body),
        false => File::open(file).and_then(|file| file.take(TEXT_BYTES_MAX + 1).read_to_end(&mut body)),
    };
    read.map_err(|error| format!("cannot read {name}: {error}"))?;
    if body.len() as u64 > TEXT_BYTES_MAX {
        return Err(format!("{name} is larger than {} MiB: split it", TEXT_BYTES_MAX >> 20));
    }
    Ok((name, body))
}

/// The arguments of `delete`.
#[derive(Clone, Debug, Args)]
pub struct DeleteCommand {
    #[command(flatten)]
    group: GroupArgs,
    #[command(flatten)]
    node: NodeUrl,
}

impl DeleteCommand {
    /// Deletes the group with exactly these labels, if there is one.
    ///
    /// # Errors
    /// The node refuses, or cannot be reached.
    pub fn run(self) -> Result<(), String> {
        let answer = self.node.send("DELETE", &push_path(&self.group.labels()?), Bytes::new())?;
        match answer.status {
            200 | 202 => Ok(()),
            _ => Err(refusal(&self.node.url(), &answer)),
        }
    }
}
