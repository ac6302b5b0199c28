//! The options by which a command reaches a running node.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use clap::Args;
use serde_json::Value;

use crate::net::http::client::{Answer, Client};

/// The variable of the environment that has the node's URL.
const VARIABLE: &str = "PUSHRELAY_NODE";
/// The URL without option and variable.
const URL_DEFAULT: &str = "http://localhost:9091";

/// The node, and how to speak to it.
#[derive(Clone, Debug, Args)]
pub struct NodeUrl {
    /// URL of the node's gateway [default: the variable PUSHRELAY_NODE, or http://localhost:9091]
    #[arg(long = "node", global = true, value_name = "URL")]
    url: Option<String>,
    /// File with the authority of the node's certificate, for https
    #[arg(long, global = true, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Name for basic authentication
    #[arg(long, global = true, value_name = "NAME", requires = "password_file")]
    user: Option<String>,
    /// File with the password for basic authentication
    #[arg(long, global = true, value_name = "FILE", requires = "user")]
    password_file: Option<PathBuf>,
    /// File with a bearer token, instead of a name and a password
    #[arg(long, global = true, value_name = "FILE", conflicts_with = "user")]
    token_file: Option<PathBuf>,
}

impl NodeUrl {
    /// The URL that the option, the variable or the default gives.
    pub fn url(&self) -> String {
        let url = self.url.clone().or_else(|| std::env::var(VARIABLE).ok().filter(|url| !url.is_empty()));
        url.unwrap_or_else(|| URL_DEFAULT.to_owned())
    }

    /// A client of the node.
    ///
    /// # Errors
    /// The URL or a file cannot be used.
    pub fn client(&self) -> Result<Client, String> {
        let password = self.password_file.as_deref().map(read_secret).transpose()?;
        let user = self.user.as_deref().zip(password.as_deref());
        let client = Client::new(&self.url(), self.ca_file.as_deref(), user).map_err(|error| error.to_string())?;
        match self.token_file.as_deref().map(read_secret).transpose()? {
            Some(token) => client.with_token(&token).map_err(|error| error.to_string()),
            None => Ok(client),
        }
    }

    /// Sends a request; returns the answer, whatever its status.
    ///
    /// # Errors
    /// The node cannot be reached.
    pub fn send(&self, method: &str, path: &str, body: Bytes) -> Result<Answer, String> {
        let client = self.client()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| format!("cannot start: {error}"))?;
        runtime.block_on(client.request(method, path, body)).map_err(|error| error.to_string())
    }

    /// Sends a request; returns the JSON of the answer.
    ///
    /// # Errors
    /// The node cannot be reached, refuses the request, or its answer is no JSON.
    pub fn json(&self, method: &str, path: &str) -> Result<Value, String> {
        let answer = self.send(method, path, Bytes::new())?;
        let url = self.url();
        if answer.status != 200 {
            return Err(refusal(&url, &answer));
        }
        serde_json::from_slice(&answer.body).map_err(|error| format!("{url} is no node of pushrelay: {error}"))
    }
}

/// The sentence for an answer that refuses a request.
pub fn refusal(url: &str, answer: &Answer) -> String {
    let text = String::from_utf8_lossy(&answer.body);
    let reason = match answer.status {
        401 => "give a name and a password with --user and --password-file, or a token with --token-file",
        404 => "the node has no such path: is it older, or has it a prefix (web.route_prefix)?",
        _ => text.trim(),
    };
    format!("{url} answers {}: {reason}", answer.status)
}

/// The password or token in a file, without the line feed at its end.
fn read_secret(file: &Path) -> Result<String, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}
