//! Configurations: any file and any flags give options, or mistakes with a place and an explanation.

use std::path::PathBuf;
use std::sync::OnceLock;

use pushrelay::cli::command;
use pushrelay::config::{Flags, load};
use pushrelay::node::options::NodeRole;

/// The input is a file up to the first zero byte, then flags separated by zero bytes.
pub fn run(data: &[u8]) {
    let mut parts = data.split(|byte| *byte == 0);
    let file = parts.next().unwrap_or_default();
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    let folder = || if PathBuf::from("/dev/shm").is_dir() { PathBuf::from("/dev/shm") } else { std::env::temp_dir() };
    let path = PATH.get_or_init(|| folder().join(format!("pushrelay-fuzz-{}.toml", std::process::id())));
    std::fs::write(path, file).expect("a file can be written");
    for role in [None, Some(NodeRole::Edge), Some(NodeRole::Hub)] {
        judge(load(role, &Flags::of_file(path.clone())));
    }
    let _ = std::fs::remove_file(path);
    let flags = parts.map(String::from_utf8_lossy).filter(|flag| !flag.starts_with("--config"));
    let arguments = ["pushrelay".into(), "edge".into()].into_iter().chain(flags);
    if let Ok(matches) = command().try_get_matches_from(arguments.map(|argument| argument.into_owned()))
        && let Some(("edge", matches)) = matches.subcommand()
    {
        judge(load(Some(NodeRole::Edge), &Flags::from_matches(matches)));
    }
}

fn judge<T>(outcome: Result<T, pushrelay::config::Mistakes>) {
    if let Err(mistakes) = outcome {
        assert!(!mistakes.0.is_empty(), "a refusal says why");
        assert!(mistakes.0.iter().all(|mistake| !mistake.text.is_empty()));
        assert!(!mistakes.to_string().is_empty());
    }
}
