//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

/// The output of `--help`.
pub const HELP: &str = "\
Measures pushrelay side by side with Pushgateway, vmagent and a floor server, and prints tables.

Usage: compare [OPTIONS]          (scripts/compare builds everything and calls it)

  --only ROW[,ROW…]   measure these rows only; --list names them
  --servers S[,S…]    measure these servers only, by the names that head the columns
  --quick             small loads, one round: whether everything works, in less than three minutes
  --rounds N          rounds a row, interleaved between the servers (default 3; heavy rows take fewer)
  --ours FILE         pushrelay's binary (default target/dist/pushrelay)
  --peers DIR         folder with the peers' binaries, as scripts/install-peers makes it (default: PATH)
  --work DIR          folder for data and logs, on the disk to be measured (default target/compare/work)
  --json FILE         where the raw figures go (default target/compare/figures.json)
  --list              name the rows and end
";

/// The command.
pub enum Command {
    Help,
    List,
    /// Run the floor server.
    Floor(FloorOptions),
    Compare(Options),
}

/// Options of a comparison.
pub struct Options {
    pub only: Vec<String>,
    pub servers: Vec<String>,
    pub quick: bool,
    pub rounds: usize,
    pub ours: PathBuf,
    pub peers: Option<PathBuf>,
    pub work: PathBuf,
    pub json: PathBuf,
}

/// Options of the floor server.
pub struct FloorOptions {
    pub listen: SocketAddr,
    /// The append log that is synced before answering.
    pub log: Option<PathBuf>,
}

/// Reads the arguments.
pub fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Command, String> {
    let mut options = Options {
        only: Vec::new(),
        servers: Vec::new(),
        quick: false,
        rounds: 3,
        ours: "target/dist/pushrelay".into(),
        peers: None,
        work: "target/compare/work".into(),
        json: "target/compare/figures.json".into(),
    };
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} wants a value"));
        match argument.as_str() {
            "--help" | "-h" => return Ok(Command::Help),
            "--list" => return Ok(Command::List),
            "--only" => options.only = words(&value()?),
            "--servers" => options.servers = words(&value()?),
            "--quick" => options.quick = true,
            "--rounds" => {
                let text = value()?;
                options.rounds =
                    text.parse().ok().filter(|n| (1..=100).contains(n)).ok_or(format!("--rounds {text}: 1 to 100"))?;
            }
            "--ours" => options.ours = value()?.into(),
            "--peers" => options.peers = Some(value()?.into()),
            "--work" => options.work = value()?.into(),
            "--json" => options.json = value()?.into(),
            "floor" => return floor(arguments).map(Command::Floor),
            _ => return Err(format!("unknown argument {argument}; --help names them")),
        }
    }
    if options.quick {
        options.rounds = 1;
    }
    let known = |row: &&String| !crate::rows::is_known(row);
    match options.only.iter().find(known) {
        Some(row) => Err(format!("--only {row}: no such row; --list names them")),
        None => Ok(Command::Compare(options)),
    }
}

fn words(list: &str) -> Vec<String> {
    list.split(',').map(str::to_owned).collect()
}

/// `floor ADDRESS [LOG]`, as the comparison starts it.
fn floor(mut arguments: impl Iterator<Item = String>) -> Result<FloorOptions, String> {
    let address = arguments.next().ok_or("floor wants an address")?;
    let listen = address.parse().map_err(|error| format!("floor {address}: {error}"))?;
    Ok(FloorOptions { listen, log: arguments.next().map(PathBuf::from) })
}
