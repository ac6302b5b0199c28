//! `pushrelay groups list|delete`: lists and deletes groups of a running node by selectors.

use std::io::{self, BufRead, IsTerminal, Write};

use clap::{Args, Subcommand};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::node_url::NodeUrl;
use super::progress::Bar;
use crate::model::duration_text;
use crate::selector::{Selector, SelectorError};

/// Groups of one answer of a node.
const PAGE: usize = 1_000;

/// The command's arguments.
#[derive(Clone, Debug, Args)]
pub struct GroupsCommand {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    node: NodeUrl,
    /// Print JSON. A table is printed only on a terminal
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// List groups: labels, site, times of pushes, number of series
    List {
        /// List only groups that this selector matches, such as '{job="backup",IDC=~"SYQ|BJ"}'; may be repeated
        #[arg(long = "match", value_name = "SELECTOR", value_parser = selector)]
        selectors: Vec<Selector>,
        /// List at most so many groups
        #[arg(long, value_name = "N")]
        limit: Option<usize>,
    },
    /// Delete groups. At a hub the deletes travel to the edges
    Delete {
        /// Delete the groups that this selector matches, such as '{job="backup"}'; may be repeated
        #[arg(long = "match", value_name = "SELECTOR", value_parser = selector, required = true)]
        selectors: Vec<Selector>,
        /// Print what would be deleted, and delete nothing
        #[arg(long)]
        dry_run: bool,
        /// Do not ask. Without a terminal nothing is asked either
        #[arg(long)]
        yes: bool,
    },
}

fn selector(text: &str) -> Result<Selector, SelectorError> {
    Selector::parse(text)
}

/// The query that selects.
fn query(selectors: &[Selector]) -> String {
    let encoded = selectors.iter().map(|selector| {
        let text = selector.to_string();
        format!("match%5B%5D={}&", utf8_percent_encode(&text, NON_ALPHANUMERIC))
    });
    encoded.collect()
}

impl GroupsCommand {
    /// Performs the command. Returns whether it did what it should.
    ///
    /// # Errors
    /// The node cannot be reached or refuses the request, or nothing can be printed.
    pub fn run(self) -> Result<bool, String> {
        let mut out = io::stdout().lock();
        let is_table = !self.json && out.is_terminal();
        let printed = match self.command {
            Command::List { selectors, limit } => list(&self.node, &selectors, limit, is_table, &mut out)?,
            Command::Delete { selectors, dry_run, yes } => {
                let is_asked = io::stdin().is_terminal() && io::stderr().is_terminal();
                if is_asked && !yes && !dry_run && !confirm(&self.node, &selectors)? {
                    return Ok(false);
                }
                delete(&self.node, &selectors, dry_run, is_table, &mut out)?
            }
        };
        printed.map(|()| true).map_err(|error| format!("cannot print: {error}"))
    }
}

/// Prints the groups, page by page.
fn list(
    node: &NodeUrl,
    selectors: &[Selector],
    limit: Option<usize>,
    is_table: bool,
    out: &mut impl Write,
) -> Result<io::Result<()>, String> {
    let limit = limit.unwrap_or(usize::MAX);
    let (mut groups, mut after, mut total) = (Vec::new(), String::new(), 0);
    let bar = Bar::of("listing");
    while groups.len() < limit {
        let page = PAGE.min(limit - groups.len());
        let path = format!("/api/v1/groups?{}limit={page}{after}", query(selectors));
        let mut answer = node.json("GET", &path)?;
        let data = &mut answer["data"];
        total = data["total"].as_u64().unwrap_or_default();
        if let Value::Array(page) = data["groups"].take() {
            groups.extend(page);
        }
        bar.set(groups.len() as u64, total.min(limit as u64));
        match data["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    drop(bar);
    Ok(match is_table {
        true => print_table(&groups, out).and_then(|()| writeln!(out, "{} of {total} {}", groups.len(), noun(total))),
        false => writeln!(out, "{}", Value::Array(groups)),
    })
}

/// Deletes the groups, or only prints them.
fn delete(
    node: &NodeUrl,
    selectors: &[Selector],
    dry_run: bool,
    is_table: bool,
    out: &mut impl Write,
) -> Result<io::Result<()>, String> {
    let path = format!("/api/v1/groups?{}dry_run={dry_run}", query(selectors));
    let bar = Bar::of(if dry_run { "counting" } else { "deleting" });
    let mut answer = node.json("DELETE", &path)?;
    drop(bar);
    let data = &mut answer["data"];
    let number = |name: &str| data[name].as_u64().unwrap_or_default();
    if !is_table {
        return Ok(writeln!(out, "{data}"));
    }
    let (total, series, deleted) = (number("total"), number("series"), number("deleted"));
    let Value::Array(groups) = data["groups"].take() else { return Ok(Ok(())) };
    let printed = print_table(&groups, out).and_then(|()| match (groups.len() as u64) < total {
        true => writeln!(out, "… and {} more", total - groups.len() as u64),
        false => Ok(()),
    });
    Ok(printed.and_then(|()| match dry_run {
        true => writeln!(out, "{total} {} with {series} series would be deleted", noun(total)),
        false => writeln!(out, "{deleted} {} with {series} series deleted", noun(deleted)),
    }))
}

/// Asks whether to delete.
fn confirm(node: &NodeUrl, selectors: &[Selector]) -> Result<bool, String> {
    let answer = node.json("DELETE", &format!("/api/v1/groups?{}dry_run=true&limit=1", query(selectors)))?;
    let number = |name: &str| answer["data"][name].as_u64().unwrap_or_default();
    let total = number("total");
    let asked = write!(io::stderr(), "Delete {total} {} with {} series? [y/N] ", noun(total), number("series"));
    let mut line = String::new();
    let read = asked.and_then(|()| io::stdin().lock().read_line(&mut line));
    read.map_err(|error| format!("cannot ask: {error}"))?;
    Ok(matches!(line.trim(), "y" | "Y" | "yes"))
}

fn noun(number: u64) -> &'static str {
    if number == 1 { "group" } else { "groups" }
}

/// Labels as `NAME=VALUE`, one after the other.
fn labels(value: &Value) -> String {
    let labels = value.as_object().into_iter().flatten();
    let labels = labels.map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default()));
    super::table::shown(&labels.collect::<Vec<_>>().join(" "))
}

/// The two largest units of the time that a group has left.
fn left(seconds: u64) -> String {
    if seconds == 0 {
        return "0s".to_owned();
    }
    let unit_seconds = match seconds {
        ..3_600 => 1,
        3_600..86_400 => 60,
        _ => 3_600,
    };
    duration_text(seconds / unit_seconds * unit_seconds * 1_000)
}

fn print_table(groups: &[Value], out: &mut impl Write) -> io::Result<()> {
    let row = |group: &Value| {
        let text = |name: &str| group[name].as_str().unwrap_or("-").split('.').next().unwrap_or_default().to_owned();
        let is_failing = group["last_push_successful"] == false;
        let state = if is_failing { "failed" } else { "ok" };
        let left = group["seconds_left"].as_u64().map_or("-".to_owned(), left);
        [text("push_time"), state.to_owned(), left, group["series"].to_string(), labels(&group["labels"])]
    };
    let head = ["PUSHED", "LAST", "LEFT", "SERIES", "LABELS"].map(str::to_owned);
    let rows: Vec<[String; 5]> = std::iter::once(head).chain(groups.iter().map(row)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths = [width(0), width(1), width(2), width(3)];
    for [pushed, last, left, series, labels] in &rows {
        let [first, second, third, fourth] = widths;
        writeln!(out, "{pushed:first$}  {last:second$}  {left:>third$}  {series:>fourth$}  {labels}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_table_has_a_row_for_each_group() {
        let groups = [
            json!({"labels": {"job": "a\u{1b}[2J"}, "push_time": "2026-11-30T06:46:30.95Z", "series": 3,
                   "last_push_successful": true, "seconds_left": 93_784}),
            json!({"labels": {"IDC": "BJ", "job": "b"}, "push_time": null, "series": 12, "last_push_successful": false}),
        ];
        let mut out = Vec::new();
        print_table(&groups, &mut out).unwrap();
        let expected = "PUSHED               LAST    LEFT  SERIES  LABELS\n\
                        2026-11-30T06:46:30  ok      1d2h       3  job=a\u{fffd}[2J\n\
                        -                    failed     -      12  IDC=BJ job=b\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn selectors_are_encoded() {
        let selector = Selector::parse("{job=\"a b&\"}").unwrap();
        assert_eq!(query(&[selector]), "match%5B%5D=%7Bjob%3D%22a%20b%26%22%7D&");
    }
}
