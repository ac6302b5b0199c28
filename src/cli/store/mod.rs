//! `pushrelay store check|dump|compact PATH`: what an operator does with the files of a stopped node.
//!
//! All three read what is intact as a node would at its start. Only [`compact`] changes anything, and never for the worse.

pub mod compact;
pub mod dump;

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::net::identity::parse_label;
use crate::node::metrics::OWN_FAMILIES;
use crate::storage::{Inspection, Report, inspect};

/// The command's arguments.
#[derive(Clone, Debug, Args)]
pub struct StoreCommand {
    #[command(subcommand)]
    what: What,
}

#[derive(Clone, Debug, Subcommand)]
enum What {
    /// Read everything and say what is intact and what is damaged
    Check {
        /// The directory that storage.path names
        path: PathBuf,
    },
    /// Print all groups as text that can be pushed again
    Dump {
        /// The directory that storage.path names
        path: PathBuf,
        /// Only groups that show this label; may be repeated
        #[arg(long = "label", value_name = "NAME=VALUE", value_parser = parse_label)]
        labels: Vec<(String, String)>,
        /// Print a bash script that pushes the groups to the node whose URL it is given
        #[arg(long)]
        script: bool,
        /// Leave the labels of the place out, as for pushing a hub's groups to their edges again
        #[arg(long)]
        without_place: bool,
    },
    /// Replace all files by one checkpoint of what is intact
    Compact {
        /// The directory that storage.path names
        path: PathBuf,
        /// Keep the old files in a directory beside, even if they are intact
        #[arg(long)]
        keep: bool,
    },
}

/// Why a command could not do its work; its text says what to do.
#[derive(Debug)]
pub struct Failure(String);

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self(format!("cannot print: {error}"))
    }
}

impl StoreCommand {
    /// Prints to `out` what was asked for, and damage that was found on the way to `errors`. Says whether the store was
    /// intact.
    pub fn run(self, out: &mut dyn Write, errors: &mut dyn Write) -> Result<bool, Failure> {
        let mut out = BufWriter::new(out);
        let intact = match self.what {
            What::Check { path } => {
                let inspection = inspected(&path)?;
                check(&path, &inspection, &mut out)?;
                inspection.report.is_intact()
            }
            What::Dump { path, labels, script, without_place } => {
                let inspection = inspected(&path)?;
                tell_damage(&inspection.report, errors)?;
                dump::Dump { labels, script, without_place }.print(&path, &inspection, &mut out)?;
                inspection.report.is_intact()
            }
            What::Compact { path, keep } => compact::run(&path, keep, &mut out)?,
        };
        out.flush()?;
        Ok(intact)
    }
}

fn inspected(path: &std::path::Path) -> Result<Inspection, Failure> {
    inspect(path, OWN_FAMILIES).map_err(|error| Failure(error.to_string()))
}

/// Says what is in the store and what is not.
fn check(path: &std::path::Path, inspection: &Inspection, out: &mut dyn Write) -> io::Result<()> {
    let Inspection { report, identity, files, store, .. } = inspection;
    match identity {
        Some(identity) => writeln!(out, "store {} in {}", identity.store, path.display())?,
        None => writeln!(out, "a store in {}, of which nothing says who it is", path.display())?,
    }
    for (name, len) in files {
        writeln!(out, "file {name}: {len} bytes")?;
    }
    let counts = store.published().counts();
    writeln!(out, "intact: {} records in {} bytes of {} files", report.records, report.bytes, report.files)?;
    let (groups, series) = (counts.groups, counts.series);
    writeln!(
        out,
        "holds: {groups} groups, {series} series, {} families held back, {} tombstones",
        counts.suppressed, counts.tombstones
    )?;
    if report.torn_bytes > 0 {
        let torn = report.torn_bytes;
        writeln!(out, "cut short: {torn} bytes of a commit that a crash interrupted; nobody was told of it")?;
    }
    tell_damage(report, out)?;
    if report.is_intact() {
        return writeln!(out, "OK");
    }
    writeln!(
        out,
        "what is intact is kept at the next start, or by `pushrelay store compact`; links restore the rest where they can"
    )
}

/// Says what is lost, a line a place.
fn tell_damage(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    for lost in &report.lost {
        writeln!(out, "DAMAGED: {lost}")?;
    }
    let more = report.lost_count.saturating_sub(report.lost.len() as u64);
    if more > 0 {
        writeln!(out, "DAMAGED: {more} more places")?;
    }
    Ok(())
}
