//! `pushrelay hash-password`: the bcrypt hash of a password, for `web.basic_auth_users`.

use std::io::{self, BufRead, IsTerminal, Write};

use clap::Args;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use crate::node::http::auth::passwords::PasswordHash;
use crate::node::random::random_bytes;

/// The command's arguments.
#[derive(Clone, Debug, Args)]
pub struct HashPassword {
    /// Print a line for [web.basic_auth_users] with this name
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
}

impl HashPassword {
    /// Reads a password from a terminal, twice and without showing it, or a line of standard input, and prints its hash.
    ///
    /// # Errors
    /// The password cannot be read or hashed, or nothing can be printed.
    pub fn run(self, out: &mut dyn Write) -> Result<(), String> {
        let input = io::stdin().lock();
        let password = match input.is_terminal() {
            true => ask(input)?,
            false => line(input)?,
        };
        let salt = random_bytes(16).map_err(|error| format!("the system has no randomness: {error}"))?;
        let hash = PasswordHash::of(&password, &salt)?;
        let line = match self.user {
            Some(user) => format!("{user:?} = \"{hash}\""),
            None => hash,
        };
        writeln!(out, "{line}").map_err(|error| format!("cannot print: {error}"))
    }
}

fn line(mut input: impl BufRead) -> Result<String, String> {
    let mut line = String::new();
    input.read_line(&mut line).map_err(|error| format!("cannot read the password: {error}"))?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// Asks on the terminal, which does not show what is typed meanwhile.
fn ask(mut input: io::StdinLock<'_>) -> Result<String, String> {
    let failed = |error: rustix::io::Errno| format!("cannot read the password from the terminal: {error}");
    let before = tcgetattr(&input).map_err(failed)?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    tcsetattr(&input, OptionalActions::Flush, &silent).map_err(failed)?;
    let mut prompt = |text: &str| {
        let prompted = write!(io::stderr(), "{text}: ");
        let answer = prompted.map_err(|error| format!("cannot ask: {error}")).and_then(|()| line(&mut input));
        let _ = writeln!(io::stderr());
        answer
    };
    let answers = prompt("Password").and_then(|first| Ok((first, prompt("Again")?)));
    tcsetattr(&input, OptionalActions::Flush, &before).map_err(failed)?;
    let (first, second) = answers?;
    if first == second { Ok(first) } else { Err("the two passwords differ".into()) }
}
