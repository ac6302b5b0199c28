//! `pushrelay pki token NAME`: a token for an edge, and the hub's table that knows it.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::model::LabelSet;
use crate::net::credentials::{CredentialsError, replace_file};
use crate::net::identity::EdgeIdentity;
use crate::net::token::BearerToken;

/// The reasons for which there is no token.
#[derive(Debug, thiserror::Error)]
pub enum NewTokenError {
    /// The operating system gives no random numbers.
    #[error("the system has no randomness: {0}")]
    Random(#[from] getrandom::Error),
    /// The file exists already.
    #[error("{0:?} exists already: move it away, or replace it with --force")]
    Exists(PathBuf),
    /// The file cannot be written.
    #[error("{0}")]
    File(#[from] CredentialsError),
    /// The token could not be printed.
    #[error("cannot print: {0}")]
    Io(#[from] io::Error),
}

/// Makes a token for the edge. Writes it to `file`, or else prints it; then prints the table of the hub's configuration.
///
/// # Errors
/// See [`NewTokenError`].
pub fn make(edge: &EdgeIdentity, file: Option<&Path>, force: bool, out: &mut dyn Write) -> Result<(), NewTokenError> {
    let token = BearerToken::generate()?;
    let EdgeIdentity { name, labels } = edge;
    match file {
        Some(file) if file.exists() && !force => return Err(NewTokenError::Exists(file.into())),
        Some(file) => {
            replace_file(file, &format!("{}\n", token.reveal()), 0o600)?;
            writeln!(out, "# {} (secret): copy it to the edge, where uplink.token_file names it", file.display())?;
        }
        None => {
            writeln!(out, "{}", token.reveal())?;
            writeln!(out, "# on the edge: that line alone, in a file of mode 600 that uplink.token_file names")?;
        }
    }
    let digest = token.digest();
    let labels = toml_labels(labels);
    let table = format!("[[hub.edge]]\nname = \"{name}\"\nlabels = {labels}\ntoken_sha256 = \"{digest}\"");
    writeln!(out, "# at the hub, in its configuration (read again with SIGHUP):\n{table}")?;
    Ok(())
}

/// Labels as a table of TOML. JSON's texts are TOML's too.
fn toml_labels(labels: &LabelSet) -> String {
    let pairs: Vec<String> =
        labels.iter().map(|label| format!("{} = {}", label.name, serde_json::Value::from(label.value))).collect();
    format!("{{ {} }}", pairs.join(", "))
}
