//! Layer 6: the command line, for operators. [`main`] parses the arguments. [`run`] runs a node, [`demo`] runs three; [`pki`],
//! [`check_config`], [`doctor`], [`join`], [`store`], [`backup`], [`groups`], [`push`], [`exec`],
//! [`config_init`] and [`generate`] are the other commands. [`logging`] writes the log of all of
//! them, and `watch` notices changed files.

pub mod backup;
pub mod check_config;
pub mod config_init;
pub mod demo;
pub mod doctor;
pub mod exec;
mod family_text;
pub mod generate;
mod group_args;
pub mod groups;
pub mod hash_password;
pub mod join;
pub mod logging;
mod node_url;
mod notify;
pub mod pki;
mod pki_show;
mod pki_token;
mod progress;
pub mod push;
pub mod run;
pub mod status;
pub mod store;
mod table;
mod watch;

use std::env;
use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::SystemTime;

use clap::{ArgMatches, Args, Command, FromArgMatches};

use crate::config::{self, Flags};
use crate::node::metrics::{VERSION, VERSION_AND_REVISION};
use crate::node::options::NodeRole;

/// The exit status after a wrong command line; other failures exit with 1.
const USAGE: u8 = 2;
/// The exit status of a command that examines something, if it cannot: 1 means that something is wrong with it.
const NOT_EXAMINED: u8 = 2;
/// The commands that examine something.
const EXAMINING: [&str; 4] = ["store", "status", "edges", "backup"];

/// Runs the program with the arguments of the process.
pub fn main() -> ExitCode {
    let given: Vec<OsString> = env::args_os().collect();
    let matches = match command().try_get_matches_from(config::arguments(given.clone())) {
        Ok(matches) => matches,
        Err(error) => {
            // clap treats help and version as errors; the exit status must not.
            let _ = error.print();
            if !error.use_stderr() {
                return ExitCode::SUCCESS;
            }
            if let Some(hint) = config::hint(&given) {
                let _ = writeln!(io::stderr(), "\nhint: {hint}");
            }
            return USAGE.into();
        }
    };
    match dispatch(&matches) {
        Ok(status) => status.into(),
        Err(text) => {
            let _ = writeln!(io::stderr(), "pushrelay: {text}");
            let is_examining = matches.subcommand_name().is_some_and(|name| EXAMINING.contains(&name));
            if is_examining { NOT_EXAMINED.into() } else { ExitCode::FAILURE }
        }
    }
}

/// The definition of the command line for clap.
pub fn command() -> Command {
    let edge = Command::new("edge").about("Run an edge: accept pushes on the Pushgateway API, and send them to hubs");
    let hub =
        Command::new("hub").about("Run a hub: accept edges, merge their groups, and serve all of them in one scrape");
    Command::new("pushrelay")
        .about("The Prometheus Pushgateway API behind firewalls, and one scrape for all of it")
        .version(VERSION)
        .long_version(VERSION_AND_REVISION)
        .propagate_version(true)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(config::add_flags(edge, NodeRole::Edge))
        .subcommand(config::add_flags(hub, NodeRole::Hub))
        .subcommand(
            check_config::CheckConfig::augment_args(Command::new("check-config"))
                .about("Print what a configuration means, or every mistake in it"),
        )
        .subcommand(
            config_init::ConfigCommand::augment_args(Command::new("config"))
                .about("Print a minimal configuration file"),
        )
        .subcommand(config::add_flags(
            doctor::Doctor::augment_args(Command::new("doctor"))
                .about("Try the way to each hub once, step by step, without a session; exit 0 if a push would arrive"),
            NodeRole::Edge,
        ))
        .subcommand(
            pki::Pki::augment_args(Command::new("pki")).about("Make certificates with a small certificate authority"),
        )
        .subcommand(
            join::Join::augment_args(Command::new("join"))
                .about("Make a new edge: its key here, its certificate from the hub, and a configuration that runs"),
        )
        .subcommand(
            store::StoreCommand::augment_args(Command::new("store"))
                .about("Check, dump or compact the store of a stopped node"),
        )
        .subcommand(
            groups::GroupsCommand::augment_args(Command::new("groups"))
                .about("List and delete groups of a running node by selectors"),
        )
        .subcommand(
            status::StatusCommand::augment_args(Command::new("status"))
                .about("Print whether a running node is healthy; exit 0 if it is, 1 if not, 2 without an answer"),
        )
        .subcommand(
            status::EdgesCommand::augment_args(Command::new("edges")).about(
                "List the edges of a running hub; exit 0 if none has a trouble, 1 if one has, 2 without an answer",
            ),
        )
        .subcommand(
            backup::BackupCommand::augment_args(Command::new("backup"))
                .about("Copy the store of a running or stopped node, consistently, on the node's machine"),
        )
        .subcommand(
            hash_password::HashPassword::augment_args(Command::new("hash-password"))
                .about("Print the hash of a password for [web.basic_auth_users]"),
        )
        .subcommand(
            push::PushCommand::augment_args(Command::new("push"))
                .about("Push metrics in the text format to a group of a running node, after a check"),
        )
        .subcommand(
            push::DeleteCommand::augment_args(Command::new("delete"))
                .about("Delete the group of a running node that has exactly these labels"),
        )
        .subcommand(
            exec::ExecCommand::augment_args(Command::new("exec"))
                .about("Run the command of a cron job or timer, and push how the run went"),
        )
        .subcommand(
            demo::Demo::augment_args(Command::new("demo"))
                .about("Run a hub and two edges on this machine, with sample pushes, and print what to try"),
        )
        .subcommand(
            generate::Completions::augment_args(Command::new("completions"))
                .about("Print the completions of a shell, to be sourced by it"),
        )
        .subcommand(
            generate::ManPages::augment_args(Command::new("man")).about("Write the manual pages into a directory"),
        )
}

/// Runs the subcommand; returns the exit status.
fn dispatch(matches: &ArgMatches) -> Result<u8, String> {
    if let Some(("exec", matches)) = matches.subcommand() {
        return exec::ExecCommand::from_arg_matches(matches).map_err(|error| error.to_string())?.run();
    }
    succeeds(matches).map(|is_good| if is_good { 0 } else { 1 })
}

/// Runs a subcommand that succeeds or fails.
fn succeeds(matches: &ArgMatches) -> Result<bool, String> {
    let (name, matches) = matches.subcommand().expect("clap requires a subcommand");
    let now = SystemTime::now();
    match name {
        "edge" => run::run(NodeRole::Edge, &Flags::from_matches(matches)),
        "hub" => run::run(NodeRole::Hub, &Flags::from_matches(matches)),
        "doctor" => {
            let doctor = doctor::Doctor::from_arg_matches(matches).map_err(|error| error.to_string())?;
            doctor.run(&Flags::from_matches(matches), now, &mut io::stdout())
        }
        "demo" => demo::Demo::from_arg_matches(matches).map_err(|error| error.to_string())?.run(),
        "pki" => {
            let pki = pki::Pki::from_arg_matches(matches).map_err(|error| error.to_string())?;
            pki.run(now, &mut io::stdout()).map_err(|error| error.to_string())
        }
        "join" => join::Join::from_arg_matches(matches).map_err(|error| error.to_string())?.run(now, &mut io::stdout()),
        "groups" => groups::GroupsCommand::from_arg_matches(matches).map_err(|error| error.to_string())?.run(),
        "status" => status::StatusCommand::from_arg_matches(matches).map_err(|error| error.to_string())?.run(),
        "edges" => status::EdgesCommand::from_arg_matches(matches).map_err(|error| error.to_string())?.run(),
        "backup" => {
            let backup = backup::BackupCommand::from_arg_matches(matches).map_err(|error| error.to_string())?;
            backup.run(&mut io::stdout())
        }
        "hash-password" => {
            let hash = hash_password::HashPassword::from_arg_matches(matches).map_err(|error| error.to_string())?;
            hash.run(&mut io::stdout()).map(|()| true)
        }
        "config" => {
            let command = config_init::ConfigCommand::from_arg_matches(matches).map_err(|error| error.to_string())?;
            command.run(&mut io::stdout()).map(|()| true).map_err(|error| format!("cannot print: {error}"))
        }
        "completions" => {
            let completions = generate::Completions::from_arg_matches(matches).map_err(|error| error.to_string())?;
            completions
                .run(command(), &mut io::stdout())
                .map(|()| true)
                .map_err(|error| format!("cannot print: {error}"))
        }
        "man" => {
            let pages = generate::ManPages::from_arg_matches(matches).map_err(|error| error.to_string())?;
            pages.run(command()).map(|()| true)
        }
        "push" => {
            let push = push::PushCommand::from_arg_matches(matches).map_err(|error| error.to_string())?;
            push.run().map(|()| true)
        }
        "delete" => {
            let delete = push::DeleteCommand::from_arg_matches(matches).map_err(|error| error.to_string())?;
            delete.run().map(|()| true)
        }
        "store" => {
            let store = store::StoreCommand::from_arg_matches(matches).map_err(|error| error.to_string())?;
            store.run(&mut io::stdout(), &mut io::stderr()).map_err(|error| error.to_string())
        }
        _ => {
            let check = check_config::CheckConfig::from_arg_matches(matches).map_err(|error| error.to_string())?;
            check.run(now, &mut io::stdout(), &mut io::stderr()).map_err(|error| format!("cannot print: {error}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::{FromArgMatches, ValueEnum};
    use clap_complete::Shell;

    use super::generate::Completions;
    use crate::net::testing::TempDir;

    #[test]
    fn the_command_line_is_well_formed() {
        super::command().debug_assert();
    }

    #[test]
    fn the_help_has_headings_and_defaults() {
        let mut command = super::command();
        let help = command.find_subcommand_mut("hub").unwrap().render_help().to_string();
        assert!(help.contains("\nThe store:\n") && help.contains("\nTLS for edges:\n"), "{help}");
        let one_line = help.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(
            one_line.contains("--limits.body-bytes-max <SIZE> size of a push's body, decompressed [default: 64MiB]")
        );
        assert!(one_line.contains("[default: :9091]") && one_line.contains("[default: true]"), "{help}");
    }

    #[test]
    fn every_shell_and_every_command_has_its_file() {
        let matches = |arguments: &[&str]| super::command().try_get_matches_from(arguments).unwrap();
        let temp = TempDir::new();
        let directory = temp.path().to_str().unwrap();
        assert_eq!(super::dispatch(&matches(&["pushrelay", "man", directory])), Ok(0));
        for name in ["pushrelay.1", "pushrelay-edge.1", "pushrelay-store-check.1", "pushrelay-exec.1"] {
            let page =
                std::fs::read_to_string(temp.path().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(page.contains("pushrelay") && page.contains("SYNOPSIS"), "{name}");
        }
        assert!(super::dispatch(&matches(&["pushrelay", "man", "/no/such"])).is_err());
        for shell in Shell::value_variants() {
            let mut out = Vec::new();
            let name = shell.to_string();
            let matches = matches(&["pushrelay", "completions", &name]);
            let completions =
                Completions::from_arg_matches(matches.subcommand_matches("completions").unwrap()).unwrap();
            completions.run(super::command(), &mut out).unwrap();
            let text = String::from_utf8(out).unwrap();
            assert!(text.contains("check-config") && text.contains("web.listen-address"), "{name}");
        }
    }
}
