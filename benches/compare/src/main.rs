#![forbid(unsafe_code)]
#![warn(missing_docs)]
//! Measures pushrelay side by side with what a user would pick instead, and with a floor.
//!
//! `rows` says what is measured; the rest is the bench it stands on. From the bottom up: `process` and `machine` read
//! what the kernel counts, `floor` is the throw-away server, `deployment` starts the systems compared, `body`, `drift`,
//! `load` and `fetch` are their users, `proxy` stands between edge and hub, `results` and `report` keep and print.

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

/// What goes wrong is told to whoever runs the comparison; nothing here acts on it.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;
