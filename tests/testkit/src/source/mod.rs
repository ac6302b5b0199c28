//! The crate's own source as a test reads it: without comments, strings and test modules.

pub mod imports;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::folder::project;

/// A file under `src/`.
pub struct File {
    /// Its path under `src/`.
    pub path: PathBuf,
    /// Its text as it is.
    pub raw: String,
    /// Its code: comments, string contents and `#[cfg(test)]` items removed.
    code: String,
}

/// Every Rust file under `src/` that is part of the program: files of test modules are left out.
pub fn files() -> Vec<File> {
    let src = project().join("src");
    let (mut files, mut folders) = (Vec::new(), vec![src.clone()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                files.push(File::parse(path.strip_prefix(&src).unwrap(), &text));
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    let tests: Vec<PathBuf> = files.iter().flat_map(File::test_modules).collect();
    files.retain(|file| !tests.iter().any(|module| file.path.with_extension("").starts_with(module)));
    files
}

/// Every Rust file of the project, tests, benches and examples included, with its text.
pub fn all_rust_files() -> Vec<(PathBuf, String)> {
    let mut folders: Vec<PathBuf> =
        ["src", "tests", "benches", "examples", "fuzz"].map(|folder| project().join(folder)).into();
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("target") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                files.push((path.strip_prefix(project()).unwrap().to_owned(), text));
            }
        }
    }
    files.sort();
    files
}

impl File {
    /// Reads `text` as the file at `path` under `src/`.
    pub fn parse(path: impl AsRef<Path>, text: &str) -> File {
        let code = without_test_items(&without_comments_and_strings(text));
        File { path: path.as_ref().to_owned(), raw: text.to_owned(), code }
    }

    /// The first segments of all paths that begin with `crate::`, groups included.
    pub fn crate_paths(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for (at, _) in self.code.match_indices("crate::") {
            if self.code[..at].ends_with(is_ident) {
                continue;
            }
            let rest = &self.code[at + "crate::".len()..];
            match rest.strip_prefix('{') {
                Some(group) => found.extend(group_heads(group)),
                None => found.extend(first_ident(rest)),
            }
        }
        found
    }

    /// Whether the code names the path `name`: as a whole, and not as a part of a longer path that leads elsewhere.
    pub fn names(&self, name: &str) -> bool {
        self.code.match_indices(name).any(|(at, _)| {
            let (before, after) = (&self.code[..at], &self.code[at + name.len()..]);
            // A crate is a root; a type or function may stand behind the path of its module.
            let root = name.starts_with(|c: char| c.is_lowercase());
            let inside = root && (before.trim_end().ends_with("::") || before.ends_with('.'));
            let used = after.starts_with("::")
                || !root
                || ["use ", "extern crate "].iter().any(|word| before.ends_with(word))
                || name.contains("::");
            !before.ends_with(is_ident) && !after.starts_with(is_ident) && !inside && used
        })
    }

    /// The types that the file defines: structs, enums, unions, traits and type aliases. Associated types are left out.
    pub fn types(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut depth = 0_i32;
        for line in self.code.lines() {
            let words: Vec<&str> = line.split(|c: char| !is_ident(c)).filter(|word| !word.is_empty()).collect();
            let keyword = words.iter().position(|word| !["pub", "crate", "super", "in", "unsafe"].contains(word));
            if let Some(at) = keyword
                && let Some(name) = words.get(at + 1)
                && (["struct", "enum", "union", "trait"].contains(&words[at]) || (words[at] == "type" && depth == 0))
                && line.trim_start().starts_with(words[0])
            {
                found.push((*name).to_owned());
            }
            depth +=
                i32::try_from(line.matches('{').count()).unwrap() - i32::try_from(line.matches('}').count()).unwrap();
        }
        found
    }

    /// Paths (without extension) of modules that this file declares for tests only.
    fn test_modules(&self) -> Vec<PathBuf> {
        let folder = match self.path.file_stem().unwrap().to_str().unwrap() {
            "mod" | "lib" | "main" => self.path.parent().unwrap().to_owned(),
            _ => self.path.with_extension(""),
        };
        let declared = self.raw.split("#[cfg(test)]").skip(1).filter_map(|rest| {
            let name = rest.trim_start().trim_start_matches("pub ").strip_prefix("mod ")?;
            let (name, _) = name.split_once(';')?;
            name.chars().all(is_ident).then(|| folder.join(name))
        });
        declared.collect()
    }
}

fn is_ident(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn first_ident(text: &str) -> Option<String> {
    let text = text.trim_start();
    let end = text.find(|c| !is_ident(c)).unwrap_or(text.len());
    (end > 0).then(|| text[..end].to_owned())
}

/// The first identifiers of the members of a `{…}` group, given what follows its opening brace.
fn group_heads(group: &str) -> Vec<String> {
    let (mut depth, mut start, mut heads) = (0, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                heads.extend(first_ident(&group[start..at]));
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    heads
}

/// The text without comments, and with the contents of strings and character literals removed.
fn without_comments_and_strings(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment_len(rest)
        } else if c == '"' {
            string_len(rest)
        } else if let Some(len) = raw_string_len(rest).filter(|_| !code.ends_with(is_ident)) {
            len
        } else if c == '\'' {
            char_len(rest)
        } else {
            0
        };
        if skipped > 0 {
            code.push(' ');
            rest = &rest[skipped..];
        } else {
            code.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    code
}

fn block_comment_len(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        if rest.starts_with(b"/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest.starts_with(b"*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                break;
            }
        } else {
            at += 1;
        }
    }
    at.min(text.len())
}

fn string_len(text: &str) -> usize {
    let mut escaped = false;
    let end = text.char_indices().skip(1).find(|(_, c)| {
        let closes = *c == '"' && !escaped;
        escaped = *c == '\\' && !escaped;
        closes
    });
    end.map_or(text.len(), |(at, _)| at + 1)
}

fn raw_string_len(text: &str) -> Option<usize> {
    let body = text.strip_prefix("br").or_else(|| text.strip_prefix('r'))?;
    let hashes = body.len() - body.trim_start_matches('#').len();
    let inner = body[hashes..].strip_prefix('"')?;
    let close = format!("\"{}", "#".repeat(hashes));
    let end = inner.find(&close).map_or(inner.len(), |at| at + close.len());
    Some(text.len() - inner.len() + end)
}

/// The length of a character literal, or 0 for a lifetime.
fn char_len(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), Some((after, c))) => {
            let from = after + c.len_utf8();
            text[from..].find('\'').map_or(0, |at| from + at + 1)
        }
        (Some(_), Some((close, '\''))) => close + 1,
        _ => 0,
    }
}

/// The code without the items that `#[cfg(test)]` marks.
fn without_test_items(code: &str) -> String {
    let mut kept = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(at) = rest.find("#[cfg(test)]") {
        kept.push_str(&rest[..at]);
        rest = &rest[at..];
        let mut depth = 0;
        let end = rest.char_indices().find(|(_, c)| {
            depth += i32::from(*c == '{') - i32::from(*c == '}');
            depth == 0 && matches!(c, '}' | ';')
        });
        rest = end.map_or("", |(at, _)| &rest[at + 1..]);
    }
    kept.push_str(rest);
    kept
}
