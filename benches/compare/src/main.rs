#![forbid(unsafe_code)]
#![warn(missing_docs)]
//! Measures pushrelay side by side with the servers that a user could choose instead, and with a floor server.
//!
//! `rows` says what is measured; all other modules support it. From the bottom up: `process` and `machine` read the
//! kernel's counters, `floor` is the minimal server, `deployment` starts the compared systems, `body`, `drift`, `load`
//! and `fetch` are their clients, `proxy` is between edge and hub, `results` and `report` collect and print the
//! figures.

mod bench;
mod body;
mod deployment;
mod drift;
mod fetch;
mod floor;
mod latency;
mod load;
mod machine;
mod options;
mod peers;
mod process;
mod proxy;
mod report;
mod results;
mod rows;
mod sink;

use std::process::ExitCode;

use options::Command;

fn main() -> ExitCode {
    let outcome = match options::parse(std::env::args().skip(1)) {
        Ok(Command::Help) => {
            print!("{}", options::HELP);
            Ok(())
        }
        Ok(Command::List) => {
            rows::list();
            Ok(())
        }
        Ok(Command::Floor(floor)) => floor::run(&floor),
        Ok(Command::Compare(options)) => bench::Bench::new(options).and_then(bench::Bench::run),
        Err(mistake) => Err(mistake.into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("compare: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Errors are for the person who runs the comparison; no code handles them.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;
