//! The binaries that are compared, and how to get those that are missing.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The binaries found.
pub struct Peers {
    pub ours: Option<PathBuf>,
    pub pushgateway: Option<PathBuf>,
    pub vmagent: Option<PathBuf>,
    pub victoria_metrics: Option<PathBuf>,
    pub prometheus: Option<PathBuf>,
    /// The packages that `scripts/install-peers` unpacked, as it recorded them.
    packages: Vec<(String, String)>,
}

impl Peers {
    /// Looks for them in the folder given, or on the PATH.
    pub fn find(ours: &Path, folder: Option<&Path>) -> Self {
        let path = env::var_os("PATH").unwrap_or_default();
        let folders: Vec<PathBuf> = match folder {
            Some(folder) => vec![folder.to_owned(), folder.join("bin")],
            None => env::split_paths(&path).collect(),
        };
        let find = |names: &[&str]| {
            let mut candidates = names.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
            candidates.find(|candidate| candidate.is_file())
        };
        Self {
            ours: ours.is_file().then(|| ours.to_owned()),
            pushgateway: find(&["pushgateway", "prometheus-pushgateway"]),
            vmagent: find(&["vmagent", "vmagent-prod"]),
            victoria_metrics: find(&["victoria-metrics", "victoria-metrics-prod"]),
            prometheus: find(&["prometheus"]),
            packages: folder.map(packages).unwrap_or_default(),
        }
    }

    fn named(&self) -> [(&'static str, Option<&PathBuf>); 5] {
        [
            ("pushrelay", self.ours.as_ref()),
            ("pushgateway", self.pushgateway.as_ref()),
            ("vmagent", self.vmagent.as_ref()),
            ("victoria-metrics", self.victoria_metrics.as_ref()),
            ("prometheus", self.prometheus.as_ref()),
        ]
    }

    /// The missing binaries, each with how to get it.
    pub fn missing(&self) -> Vec<String> {
        let how = |name| match name {
            "pushrelay" => "cargo build --profile dist, or --ours FILE",
            _ => "scripts/install-peers DIR, then --peers DIR/bin",
        };
        let missing = self.named().into_iter().filter(|(_, path)| path.is_none());
        missing.map(|(name, _)| format!("{name} is missing: {}", how(name))).collect()
    }

    /// The versions of the binaries found.
    pub fn versions(&self) -> Vec<(String, String)> {
        let present = self.named().into_iter().filter_map(|(name, path)| Some((name, path?)));
        // Debian's vmagent and VictoriaMetrics do not print their version.
        let told = present.map(|(name, path)| (name.to_owned(), version(path)));
        told.filter(|(_, version)| !version.is_empty()).chain(self.packages.iter().cloned()).collect()
    }
}

fn packages(folder: &Path) -> Vec<(String, String)> {
    let notes = [folder.join("versions"), folder.join("../versions")];
    let notes = notes.iter().find_map(|path| fs::read_to_string(path).ok()).unwrap_or_default();
    let package =
        |line: &str| line.split_once(' ').map(|(name, version)| (format!("package {name}"), version.to_owned()));
    notes.lines().filter_map(package).collect()
}

/// The first line that a program prints when asked for its version; empty if it prints none.
fn version(program: &Path) -> String {
    let Ok(output) = Command::new(program).arg("--version").output() else { return String::new() };
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default().to_owned()
}
