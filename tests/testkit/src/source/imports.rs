//! Which file imports which: paths that begin with `crate`, `super`, `self` or a child module, followed through re-exports.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::File;

/// Re-exports that are followed from one name to the file that defines it, at most.
const HOPS_MAX: usize = 8;

/// A module's path from the crate's root: `["store", "view"]`.
type Module = Vec<String>;

/// Groups of files that import each other in a circle, each sorted by path.
pub fn circles(files: &[File]) -> Vec<Vec<String>> {
    let imports = Imports::new(files);
    let edges: Vec<BTreeSet<usize>> = (0..files.len()).map(|file| imports.of(file)).collect();
    let reachable: Vec<BTreeSet<usize>> = (0..files.len()).map(|file| reach(&edges, file)).collect();
    let mut circles = BTreeSet::new();
    for file in 0..files.len() {
        let circle: BTreeSet<usize> =
            reachable[file].iter().copied().filter(|other| reachable[*other].contains(&file)).collect();
        if circle.len() > 1 {
            circles.insert(circle);
        }
    }
    let name = |file: &usize| files[*file].path.display().to_string();
    circles.iter().map(|circle| circle.iter().map(name).collect()).collect()
}

fn reach(edges: &[BTreeSet<usize>], from: usize) -> BTreeSet<usize> {
    let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
    while let Some(file) = open.pop() {
        for next in &edges[file] {
            if seen.insert(*next) {
                open.push(*next);
            }
        }
    }
    seen
}

/// A path that a file names.
struct Imported {
    /// From the crate's root.
    path: Module,
    /// Its name in the file, if that differs from the last segment.
    alias: Option<String>,
    /// A re-export (`pub use`): followed to resolve names, and no import of the file's own.
    is_export: bool,
}

struct Imports<'a> {
    files: &'a [File],
    modules: BTreeMap<Module, usize>,
    /// By file: names that it re-exports or imports, and the path of each.
    names: Vec<BTreeMap<String, Module>>,
}

impl<'a> Imports<'a> {
    fn new(files: &'a [File]) -> Self {
        let modules: BTreeMap<Module, usize> =
            files.iter().enumerate().map(|(at, file)| (module_of(&file.path), at)).collect();
        let mut imports = Imports { files, modules, names: Vec::new() };
        imports.names = files.iter().map(|file| imports.names_of(file)).collect();
        imports
    }

    /// The files that one file imports.
    fn of(&self, at: usize) -> BTreeSet<usize> {
        let own = module_of(&self.files[at].path);
        let paths = self.paths(&self.files[at], &own);
        let imports = paths.iter().filter(|path| !path.is_export);
        let mut found: BTreeSet<usize> = imports.filter_map(|path| self.resolve(&path.path, HOPS_MAX)).collect();
        found.remove(&at);
        found
    }

    fn names_of(&self, file: &File) -> BTreeMap<String, Module> {
        let own = module_of(&file.path);
        let paths = self.paths(file, &own).into_iter();
        paths.filter_map(|path| Some((path.alias.or_else(|| path.path.last().cloned())?, path.path))).collect()
    }

    /// The paths in the code of a file, made absolute.
    fn paths(&self, file: &File, own: &Module) -> Vec<Imported> {
        let mut found = Vec::new();
        let code = &file.code;
        for (at, _) in code.match_indices("::") {
            let head = head_before(&code[..at]);
            let start = at - head.len();
            let before = code[..start].chars().next_back();
            if head.is_empty() || before.is_some_and(|c| c == ':' || c == '.') {
                continue;
            }
            let base = match head {
                "crate" => Vec::new(),
                "self" => own.clone(),
                "super" => own[..own.len().saturating_sub(1)].to_vec(),
                child if self.modules.contains_key(&joined(own, child)) => joined(own, child),
                _ => continue,
            };
            let statement = code[..start].rsplit([';', '{', '}', ']']).next().unwrap_or_default().trim();
            let is_export = statement.starts_with("pub") && statement.ends_with("use");
            let first = found.len();
            tree(&code[at + 2..], base, &mut found);
            found[first..].iter_mut().for_each(|path: &mut Imported| path.is_export = is_export);
        }
        found
    }

    /// The file in which the path ends.
    fn resolve(&self, path: &[String], hops: usize) -> Option<usize> {
        let mut module = Module::new();
        for (at, segment) in path.iter().enumerate() {
            let child = joined(&module, segment);
            if self.modules.contains_key(&child) {
                module = child;
                continue;
            }
            let file = *self.modules.get(&module)?;
            let target = self.names.get(file).and_then(|names| names.get(segment));
            return match target.filter(|_| hops > 0) {
                Some(target) => self.resolve(&[target, &path[at + 1..]].concat(), hops - 1),
                None => Some(file),
            };
        }
        self.modules.get(&module).copied()
    }
}

fn joined(module: &[String], segment: &str) -> Module {
    let mut joined = module.to_vec();
    joined.push(segment.to_owned());
    joined
}

fn module_of(path: &Path) -> Module {
    let path = path.with_extension("");
    let mut module: Module = path.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
    if module.last().is_some_and(|last| last == "mod" || last == "lib") {
        module.pop();
    }
    module
}

fn is_ident(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The identifier that ends `text`.
fn head_before(text: &str) -> &str {
    &text[text.trim_end_matches(is_ident).len()..]
}

/// Reads what follows `base::` as a tree of paths; returns the rest of the text.
fn tree<'t>(text: &'t str, mut base: Module, found: &mut Vec<Imported>) -> &'t str {
    let mut text = text.trim_start();
    loop {
        if let Some(mut group) = text.strip_prefix('{') {
            loop {
                group = tree(group, base.clone(), found).trim_start();
                match group.strip_prefix(',') {
                    Some(rest) => group = rest.trim_start(),
                    None => return group.strip_prefix('}').unwrap_or(group),
                }
                if let Some(rest) = group.strip_prefix('}') {
                    return rest;
                }
            }
        }
        let end = text.find(|c| !is_ident(c)).unwrap_or(text.len());
        let (segment, rest) = text.split_at(end);
        match segment {
            "" => {
                found.push(Imported { path: base, alias: None, is_export: false });
                return rest.strip_prefix('*').unwrap_or(rest);
            }
            "self" => {}
            "super" => drop(base.pop()),
            _ => base.push(segment.to_owned()),
        }
        match rest.strip_prefix("::") {
            Some(rest) => text = rest.trim_start(),
            None => {
                let alias = rest.trim_start().strip_prefix("as ").map(str::trim_start);
                let alias = alias.map(|text| text.split_at(text.find(|c| !is_ident(c)).unwrap_or(text.len())));
                let name = alias.map(|(alias, _)| alias.to_owned());
                found.push(Imported { path: base, alias: name, is_export: false });
                return alias.map_or(rest, |(_, rest)| rest);
            }
        }
    }
}
