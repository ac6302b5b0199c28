//! `pushrelay config init edge|hub`: prints a minimal configuration file.

use std::io::{self, Write};

use clap::{Args, Subcommand};

use crate::net::address::HostPort;
use crate::net::identity::EdgeName;

/// The command's arguments.
#[derive(Clone, Debug, Args)]
pub struct ConfigCommand {
    #[command(subcommand)]
    action: ConfigAction,
}

#[derive(Clone, Debug, Subcommand)]
enum ConfigAction {
    /// Print a file of some ten lines, to be changed where needed. The commented files in the folder config have every key
    Init {
        #[command(subcommand)]
        role: ConfigRole,
    },
}

#[derive(Clone, Debug, Subcommand)]
enum ConfigRole {
    /// A node that sends to a hub
    Edge {
        /// Address of the hub
        #[arg(long, value_name = "HOST:PORT", default_value = "hub.example.org:9443")]
        hub: HostPort,
        /// Name of the edge, which its certificate and key have: NAME.pem and NAME.key
        #[arg(long, value_name = "NAME", default_value = "edge")]
        name: EdgeName,
    },
    /// A node that accepts edges
    Hub,
}

impl ConfigCommand {
    /// Prints the file.
    ///
    /// # Errors
    /// If it cannot print.
    pub fn run(self, out: &mut dyn Write) -> io::Result<()> {
        let ConfigAction::Init { role } = self.action;
        let begin = "\
[web]
listen_address = [\":9091\"]
[storage]
path = \"/var/lib/pushrelay\"
";
        let (command, rest) = match role {
            ConfigRole::Edge { hub, name } => {
                let name = name.as_str();
                let files = format!("cert_file = \"{name}.pem\"\nkey_file = \"{name}.key\"\n");
                ("edge", format!("[[uplink]]\nhub = \"{hub}\"\n[uplink.tls]\nca_file = \"ca.pem\"\n{files}"))
            }
            ConfigRole::Hub => {
                let files = "client_ca_file = \"ca.pem\"\ncert_file = \"hub.pem\"\nkey_file = \"hub.key\"\n";
                ("hub", format!("[hub]\nlisten_address = [\":9443\"]\n[hub.tls]\n{files}"))
            }
        };
        write!(out, "# pushrelay {command} --config.file FILE; `pushrelay check-config FILE` checks it.\n{begin}{rest}")
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::config::{self, Flags};
    use crate::net::testing::TempDir;
    use crate::node::options::NodeRole;

    #[derive(Parser)]
    struct InitParser {
        #[command(flatten)]
        config: ConfigCommand,
    }

    #[test]
    fn the_files_are_short_and_valid() {
        let temp = TempDir::new();
        for (arguments, role) in [
            (&["config", "init", "edge", "--hub", "[::1]:9443", "--name", "syq-1"][..], NodeRole::Edge),
            (&["config", "init", "hub"], NodeRole::Hub),
        ] {
            let mut printed = Vec::new();
            InitParser::try_parse_from(arguments).unwrap().config.run(&mut printed).unwrap();
            let text = String::from_utf8(printed).unwrap();
            assert!(text.lines().count() <= 12, "{text}");
            let options = config::load(None, &Flags::of_file(temp.write("c.toml", &text))).unwrap().node;
            assert_eq!((options.role, options.uplinks.len()), (role, usize::from(role == NodeRole::Edge)), "{text}");
        }
    }
}
