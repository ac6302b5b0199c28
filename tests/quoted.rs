//! The texts of the program that the how-to pages quote: log messages, errors and answers are in the source as quoted.

use std::fs;
use std::path::{Path, PathBuf};

/// A quoted text with fewer words is a name or a value.
const WORDS_MIN: usize = 4;
/// A shorter part of a quoted text, between two variable parts, is found anywhere.
const PART_BYTES_MIN: usize = 8;

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|is| is == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// All sources as one text, with strings that continue on another line joined.
fn source() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: PathBuf| fs::read_to_string(path).unwrap();
    let mut joined = String::new();
    for line in files(&root.join("src"), "rs").into_iter().map(read).collect::<String>().lines() {
        match line.trim().strip_suffix('\\') {
            Some(begin) => joined += begin,
            None => {
                joined += line.trim();
                joined.push('\n');
            }
        }
    }
    joined
}

/// The code spans of a page, without its code blocks.
fn spans(page: &str) -> Vec<String> {
    let mut in_block = false;
    let mut prose = String::new();
    for line in page.lines() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
        } else if !in_block {
            prose += line.trim();
            prose.push(' ');
        }
    }
    prose.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The message of a log line, `msg="…"` or `msg=word`.
fn message(span: &str) -> Option<&str> {
    let (_, rest) = span.split_once("msg=")?;
    Some(match rest.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next().unwrap_or_default(),
        None => rest.split(' ').next().unwrap_or_default(),
    })
}

/// Whether a span quotes an error or an answer, rather than a command, a key or a value.
fn is_text(span: &str) -> bool {
    let is_command = ["pushrelay ", "curl", "useradd", "systemctl"].iter().any(|command| span.starts_with(command));
    let words = span.split(' ').filter(|word| word.len() > 1 && word.chars().all(|c| c.is_ascii_lowercase()));
    !is_command && words.count() >= WORDS_MIN
}

/// The parts of a quoted text between what is variable in it: words in capitals, numbers and `…`.
fn parts(text: &str) -> Vec<String> {
    let is_variable = |word: &str| {
        let letters: String = word.chars().filter(|c| c.is_alphanumeric()).collect();
        let constant = ["TLS", "CA", "HTTP", "HTTPS", "UTC", "GET"].contains(&letters.as_str());
        word.contains('…')
            || !constant && !letters.is_empty() && letters.chars().all(|c| c.is_uppercase() || c.is_numeric())
    };
    let mut parts = vec![String::new()];
    for word in text.split(' ') {
        let last = parts.last_mut().expect("never empty");
        match (is_variable(word), last.is_empty()) {
            (true, true) => {}
            (true, false) => parts.push(String::new()),
            (false, true) => *last = word.to_owned(),
            (false, false) => *last += &format!(" {word}"),
        }
    }
    // An error and its cause are joined when they are printed.
    let texts = parts.iter().flat_map(|part| part.split(": "));
    texts.map(|part| part.trim_matches([':', ';', ',', '(', ')']).to_owned()).collect()
}

#[test]
fn quoted_texts_are_in_the_source() {
    let source = source();
    let (mut quoted, mut unknown) = (0, Vec::new());
    for path in files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/how-to"), "md") {
        for span in spans(&fs::read_to_string(&path).unwrap()) {
            let missing: Vec<String> = match message(&span) {
                Some(message) => {
                    let is_known = source.contains(&format!("\"{message}\""));
                    if is_known { Vec::new() } else { vec![message.to_owned()] }
                }
                None if is_text(&span) => {
                    let text = span.strip_prefix("reason=\"").map_or(span.as_str(), |rest| rest.trim_end_matches('"'));
                    let long = parts(text).into_iter().filter(|part| part.len() >= PART_BYTES_MIN);
                    long.filter(|part| !source.contains(part.as_str())).collect()
                }
                None => continue,
            };
            quoted += 1;
            unknown.extend(missing.into_iter().map(|text| format!("{}: {text:?} of `{span}`", path.display())));
        }
    }
    assert!(quoted > 40, "only {quoted} texts are quoted");
    assert!(unknown.is_empty(), "quoted, but not in src/:\n{}", unknown.join("\n"));
}
