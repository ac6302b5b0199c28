//! Reads values from flags and a file, and collects every mistake.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::doubts;
use super::file_keys::{link_name, web_name};
use super::flags::Flags;
use super::keys::{self, Key, LISTS};
use super::mistake::{KeySpans, Mistake, SourceSpan, line_and_column, nearest};
use super::value::{ConfigValue, wrong_type};
use crate::model::LabelSet;
use crate::net::credentials::Directory;
use crate::net::http::sender::SenderOptions;
use crate::net::identity::{parse_label, site_labels};
use crate::net::proxy::{ProxyKeys, ProxyOptions, ProxyPassword};
use crate::net::tls::problem::CertificateUse;
use crate::net::tls::web::{WebAcceptor, WebTls};
use crate::net::tls::{Credentials, TlsError, TlsFiles};
use crate::node::options::UplinkTls;

/// A configuration file after parsing.
#[derive(Clone, Copy)]
pub(super) struct ConfigSource<'a> {
    /// The file's name, as the user gave it.
    pub file: &'a Path,
    pub text: &'a str,
    pub table: &'a DeTable<'a>,
}

/// A section, whether or not the file has it; flags can set its keys in either case.
#[derive(Clone, Copy)]
pub(super) struct Section<'a> {
    /// The path with dots, as in [`Key::path`]; empty for the file itself.
    path: &'static str,
    table: Option<&'a DeTable<'a>>,
    /// The byte of the file at which the section begins.
    at: Option<usize>,
}

impl Section<'_> {
    /// Whether the file has it.
    pub fn is_there(self) -> bool {
        self.table.is_some()
    }
}

/// The text that replaces a secret value, as in Prometheus.
const SECRET: &str = "<secret>";

enum Given<'a> {
    Flag(&'a [String]),
    File(&'a Spanned<DeValue<'a>>),
    Nothing,
}

pub(super) struct ConfigReader<'a> {
    source: Option<ConfigSource<'a>>,
    flags: &'a Flags,
    mistakes: Vec<Mistake>,
    warnings: Vec<Mistake>,
    seen: Vec<(&'static Key, String)>,
    files: Vec<NotedFiles<'a>>,
    /// Names by which others reach this node, with the end whose certificate must have them.
    names: Vec<(CertificateUse, Vec<String>)>,
}

/// Certificates and a key that a configuration names; they are examined after everything is read.
enum NotedFiles<'a> {
    /// Named in a section for a link; the authorities are under the key `ca_name`.
    Link { section: Section<'a>, ca_name: &'static str, files: TlsFiles },
    /// The certificate of an edge, and the site labels that its section claims.
    Site { section: Section<'a>, labels: LabelSet, files: TlsFiles },
    /// The authority's, in a directory that a section names.
    Authority { section: Section<'a>, directory: PathBuf },
    /// The token of an uplink, and the authorities of its hub if it has no certificate.
    Token { sections: (Section<'a>, Section<'a>), token_file: PathBuf, tls: UplinkTls },
    /// The proxy's, named in the section of an uplink.
    Proxy { section: Section<'a>, options: ProxyOptions },
    /// Named in the section of a receiver of remote write.
    Receiver { section: Section<'a>, options: SenderOptions },
    /// Named in the section for the gateway.
    Web { section: Section<'a>, tls: WebTls },
    /// Named in the gateway's web configuration file.
    WebFile { file: PathBuf, spans: KeySpans, tls: WebTls },
}

impl<'a> ConfigReader<'a> {
    pub fn new(source: Option<ConfigSource<'a>>, flags: &'a Flags) -> Self {
        let (mistakes, warnings) = (Vec::new(), Vec::new());
        Self { source, flags, mistakes, warnings, seen: Vec::new(), files: Vec::new(), names: Vec::new() }
    }

    /// Whether there is a configuration file.
    pub fn has_file(&self) -> bool {
        self.source.is_some()
    }

    /// Every mistake, in the order of the file; and every key that was read, with its value.
    pub fn finish(mut self) -> (Vec<Mistake>, Vec<(&'static Key, String)>) {
        self.mistakes.sort();
        self.mistakes.dedup();
        (self.mistakes, self.seen)
    }

    /// The file as a section.
    pub fn root(&self) -> Section<'a> {
        Section { path: "", table: self.source.map(|source| source.table), at: None }
    }

    /// A section in another; empty if the file has none. (If the file has something else under that name,
    /// [`ConfigReader::check_names`] reports it.)
    pub fn section(&self, parent: Section<'a>, path: &'static str) -> Section<'a> {
        let found = parent.table.and_then(|table| table.get(last(path)));
        Section { path, table: found.and_then(|v| v.get_ref().as_table()), at: found.map(|v| v.span().start) }
    }

    /// The sections of a list.
    pub fn sections(&self, parent: Section<'a>, path: &'static str) -> Vec<Section<'a>> {
        let found = parent.table.and_then(|table| table.get(last(path))).and_then(|v| v.get_ref().as_array());
        let tables = found.into_iter().flatten().filter_map(|v| Some((v.get_ref().as_table()?, v.span().start)));
        tables.map(|(table, at)| Section { path, table: Some(table), at: Some(at) }).collect()
    }

    /// A section of a list that only flags set.
    pub fn no_section(&self, path: &'static str) -> Section<'a> {
        Section { path, table: None, at: None }
    }

    /// A flag that sets a key of that section, if one is given.
    pub fn has_flags_in(&self, section: &str) -> Option<&'static str> {
        let in_section = |key: &&Key| key.path.strip_prefix(section).is_some_and(|rest| rest.starts_with('.'));
        keys::KEYS.iter().filter(in_section).find(|key| self.flags.get(key.path).is_some())?.flag
    }

    /// Whether the file or a flag sets a key.
    pub fn is_given(&self, section: Section<'a>, name: &str) -> bool {
        !matches!(self.given(section, name), Given::Nothing)
    }

    /// One value, or its default.
    pub fn value<T: ConfigValue>(&mut self, section: Section<'a>, name: &str, default: T) -> T {
        let value = self.optional(section, name).unwrap_or(default);
        self.note(section, name, value.to_text());
        value
    }

    /// One value without a default; a mistake if it is not given.
    pub fn required<T: ConfigValue>(&mut self, section: Section<'a>, name: &str) -> Option<T> {
        let before = self.mistakes.len();
        let value: Option<T> = self.optional(section, name);
        if let Some(value) = &value {
            self.note(section, name, value.to_text());
        } else if self.mistakes.len() == before {
            let key = self.key(section, name);
            let flag = key.flag.map(|flag| format!(", or --{flag}")).unwrap_or_default();
            self.mistake_at(section, format!("{} is not given: add {name} = …{flag} ({})", key.path, key.meaning));
        }
        value
    }

    /// One optional value.
    pub fn maybe<T: ConfigValue>(&mut self, section: Section<'a>, name: &str) -> Option<T> {
        let value: Option<T> = self.optional(section, name);
        self.note(section, name, value.as_ref().map_or(String::new(), ConfigValue::to_text));
        value
    }

    /// One optional secret text; empty counts as not given.
    pub fn secret(&mut self, section: Section<'a>, name: &str) -> Option<String> {
        let value: Option<String> = self.optional(section, name).filter(|text: &String| !text.is_empty());
        self.note(section, name, value.as_ref().map_or(String::new(), |_| SECRET.into()));
        value
    }

    /// One optional text; empty counts as not given.
    pub fn maybe_text(&mut self, section: Section<'a>, name: &str) -> Option<String> {
        let text: Option<String> = self.optional(section, name).filter(|text: &String| !text.is_empty());
        self.note(section, name, text.clone().unwrap_or_default());
        text
    }

    /// The name of an optional file, resolved as in [`ConfigReader::file`]; empty counts as not given.
    pub fn maybe_file(&mut self, section: Section<'a>, name: &str) -> Option<PathBuf> {
        let text: Option<String> = self.optional(section, name).filter(|text: &String| !text.is_empty());
        self.note(section, name, text.clone().unwrap_or_default());
        text.map(|text| self.resolve(section, name, &text))
    }

    /// Names and values of a table in the file; the values are not shown if they are `secret`.
    pub fn table(&mut self, section: Section<'a>, name: &str, secret: bool) -> Vec<(String, String)> {
        let Given::File(value) = self.given(section, name) else {
            self.note(section, name, String::new());
            return Vec::new();
        };
        let DeValue::Table(table) = value.get_ref() else {
            let text = wrong_type("a table: write a section of that name", value.get_ref());
            self.file_mistake(value.span().start, text);
            return Vec::new();
        };
        let pairs: Vec<(String, String)> = table
            .iter()
            .filter_map(|(name, value)| Some((name.get_ref().to_string(), self.from_file::<String>(value)?)))
            .collect();
        let shown = |(name, value): &(String, String)| format!("{name}={}", if secret { SECRET } else { value });
        self.note(section, name, pairs.iter().map(shown).collect::<Vec<_>>().join(","));
        pairs
    }

    /// The name of a file, relative to the configuration file, or to the working directory if a flag gives it.
    pub fn file(&mut self, section: Section<'a>, name: &str) -> Option<PathBuf> {
        let text: String = self.required(section, name)?;
        Some(self.resolve(section, name, &text))
    }

    /// The name of a directory, resolved in the same way; `None` if it is empty.
    pub fn directory(&mut self, section: Section<'a>, name: &str, default: Option<PathBuf>) -> Option<PathBuf> {
        match self.optional::<String>(section, name) {
            Some(text) => {
                let path = (!text.is_empty()).then(|| self.resolve(section, name, &text));
                self.note(section, name, path.as_deref().unwrap_or(Path::new("")).display().to_string());
                path
            }
            None => {
                self.note(section, name, default.as_deref().unwrap_or(Path::new("")).display().to_string());
                default
            }
        }
    }

    /// Several values: an array in a file, a repeated flag.
    pub fn list<T: ConfigValue>(&mut self, section: Section<'a>, name: &str, default: Vec<T>) -> Vec<T> {
        let values = match self.given(section, name) {
            Given::Flag(texts) => self.flag_values(section, name, texts),
            Given::File(value) => match value.get_ref() {
                DeValue::Array(array) => array.iter().filter_map(|item| self.from_file(item)).collect(),
                _ => self.from_file(value).into_iter().collect(),
            },
            Given::Nothing => default,
        };
        let texts: Vec<String> = values.iter().map(ConfigValue::to_text).collect();
        self.note(section, name, texts.join(","));
        values
    }

    /// The values of a repeated flag, whatever the file has.
    pub fn flag_list<T: ConfigValue>(&mut self, section: Section<'a>, name: &str) -> Vec<T> {
        let texts = self.flags.get(self.key(section, name).path);
        texts.map_or(Vec::new(), |texts| self.flag_values(section, name, texts))
    }

    /// Site labels: a table in a file, `NAME=VALUE` in flags.
    pub fn labels(&mut self, section: Section<'a>, name: &str) -> LabelSet {
        let pairs = match self.given(section, name) {
            Given::Nothing => Ok(Vec::new()),
            Given::Flag(texts) => texts.iter().map(|text| parse_label(text)).collect(),
            Given::File(value) => Ok(self.label_pairs(value)),
        };
        let labels = pairs.and_then(site_labels).unwrap_or_else(|error| {
            self.mistake(section, name, error.to_string());
            LabelSet::default()
        });
        let texts: Vec<String> = labels.iter().map(|label| format!("{}={}", label.name, label.value)).collect();
        self.note(section, name, texts.join(","));
        labels
    }

    fn label_pairs(&mut self, value: &Spanned<DeValue<'_>>) -> Vec<(String, String)> {
        match value.get_ref() {
            DeValue::Table(table) => table
                .iter()
                .filter_map(|(name, value)| Some((name.get_ref().to_string(), self.from_file::<String>(value)?)))
                .collect(),
            other => {
                self.file_mistake(value.span().start, wrong_type("a table like { IDC = \"SYQ\" }", other));
                Vec::new()
            }
        }
    }

    /// Records a value that was read as one of several.
    pub fn note_value(&mut self, section: Section<'a>, name: &str, value: String) {
        self.note(section, name, value);
    }

    /// Records the files that a section names, for [`ConfigReader::examine`]; the authorities are under the key
    /// `ca_name`.
    pub fn note_files(&mut self, section: Section<'a>, ca_name: &'static str, files: &TlsFiles) {
        self.files.push(NotedFiles::Link { section, ca_name, files: files.clone() });
    }

    /// Records the site labels that an uplink claims, and the files that have its certificate.
    pub fn note_site(&mut self, section: Section<'a>, labels: &LabelSet, files: &TlsFiles) {
        self.files.push(NotedFiles::Site { section, labels: labels.clone(), files: files.clone() });
    }

    /// Records the directory of the authority that a section names.
    pub fn note_authority(&mut self, section: Section<'a>, directory: &Path) {
        self.files.push(NotedFiles::Authority { section, directory: directory.into() });
    }

    /// Records the token of an uplink, and its section `tls`.
    pub fn note_token(&mut self, sections: (Section<'a>, Section<'a>), token_file: &Path, tls: &UplinkTls) {
        self.files.push(NotedFiles::Token { sections, token_file: token_file.into(), tls: tls.clone() });
    }

    /// Records the files of a proxy that a section names.
    pub fn note_proxy(&mut self, section: Section<'a>, options: &ProxyOptions) {
        self.files.push(NotedFiles::Proxy { section, options: options.clone() });
    }

    /// Records the files of a receiver that a section names.
    pub fn note_receiver(&mut self, section: Section<'a>, options: &SenderOptions) {
        self.files.push(NotedFiles::Receiver { section, options: options.clone() });
    }

    /// Records the files of the gateway's TLS that a section names.
    pub fn note_web_tls(&mut self, section: Section<'a>, tls: &WebTls) {
        self.files.push(NotedFiles::Web { section, tls: tls.clone() });
    }

    /// Records the files of the gateway's TLS that a web configuration file names, with the positions of its keys.
    pub fn note_web_file_tls(&mut self, file: &Path, spans: KeySpans, tls: &WebTls) {
        self.files.push(NotedFiles::WebFile { file: file.into(), spans, tls: tls.clone() });
    }

    /// Records names by which others reach an end of this node, for [`ConfigReader::examine`].
    pub fn note_names(&mut self, end: CertificateUse, names: Vec<String>) {
        self.names.push((end, names));
    }

    /// Examines all recorded files as they are at `now`. Errors are mistakes, and doubts are warnings.
    pub fn examine(&mut self, now: SystemTime) {
        for noted in std::mem::take(&mut self.files) {
            match &noted {
                NotedFiles::Link { section, ca_name, files } => {
                    for error in self.examine_link(files, now) {
                        let name = link_name(ca_name, files, &error);
                        self.add_error(&error, |reader, text| reader.mistake(*section, name, text));
                    }
                    self.warn(*section, doubts::of_link(files, ca_name, now));
                }
                NotedFiles::Site { section, labels, files } => {
                    self.warn(*section, doubts::of_site(labels, files));
                }
                NotedFiles::Web { section, tls } => {
                    for error in self.examine_web(tls, now) {
                        let name = web_name(tls, &error);
                        self.add_error(&error, |reader, text| reader.mistake(*section, name, text));
                    }
                    self.warn(*section, doubts::of_web(tls, now));
                }
                NotedFiles::WebFile { file, spans, tls } => {
                    for error in self.examine_web(tls, now) {
                        let at = spans.get(web_name(tls, &error)).map(|at| SourceSpan::in_file(file, *at));
                        let span = at.unwrap_or(SourceSpan::Key(file.display().to_string()));
                        self.add_error(&error, |reader, text| reader.mistakes.push(Mistake { span, text }));
                    }
                    for (name, text) in doubts::of_web(tls, now) {
                        let at = spans.get(name).map(|at| SourceSpan::in_file(file, *at));
                        let span = at.unwrap_or(SourceSpan::Key(file.display().to_string()));
                        self.warnings.push(Mistake { span, text });
                    }
                }
                NotedFiles::Receiver { section, options } => self.examine_receiver(*section, options),
                NotedFiles::Authority { section, directory } => {
                    let checked = Directory::new(directory).check_authority();
                    checked.unwrap_or_else(|error| self.mistake(*section, "dir", error.to_string()));
                }
                NotedFiles::Token { sections, token_file, tls } => self.examine_token(*sections, token_file, tls),
                NotedFiles::Proxy { section, options } => {
                    if let Err(error) = ProxyKeys::load(options) {
                        let is_authority = error.path() == options.ca_file.as_deref();
                        let name = if is_authority { "proxy_ca_file" } else { "proxy_password_file" };
                        self.mistake(*section, name, error.to_string());
                    }
                    let password = match &options.login {
                        Some((_, ProxyPassword::File(path))) => Some(path.as_path()),
                        _ => None,
                    };
                    self.warn(*section, doubts::of_secret("proxy_password_file", password));
                }
            }
        }
    }

    /// Adds an error as a mistake by `add`, or as a warning if it is a doubt.
    fn add_error(&mut self, error: &TlsError, add: impl FnOnce(&mut Self, String)) {
        let before = self.mistakes.len();
        add(self, error.to_string());
        if error.is_doubt() {
            self.warnings.extend(self.mistakes.drain(before..));
        }
    }

    /// Adds warnings about keys of a section.
    pub(super) fn warn(&mut self, section: Section<'a>, doubts: impl IntoIterator<Item = (&'static str, String)>) {
        let before = self.mistakes.len();
        for (name, text) in doubts {
            self.mistake(section, name, text);
        }
        self.warnings.extend(self.mistakes.drain(before..));
    }

    fn names_of(&self, end: CertificateUse) -> impl Iterator<Item = &String> {
        self.names.iter().filter(move |(other, _)| *other == end).flat_map(|(_, names)| names)
    }

    fn examine_link(&self, files: &TlsFiles, now: SystemTime) -> Vec<TlsError> {
        let mut errors = Credentials::examine(files, now);
        if let Ok(credentials) = Credentials::load(files) {
            let names = self.names_of(files.used_by);
            errors.extend(names.filter_map(|name| credentials.check_name(name, "hub.listen_address")));
        }
        errors
    }

    fn examine_web(&self, tls: &WebTls, now: SystemTime) -> Vec<TlsError> {
        match WebAcceptor::new(tls, true) {
            Ok(acceptor) => {
                let mut errors = acceptor.problems(now);
                let names = self.names_of(CertificateUse::Gateway);
                errors.extend(names.filter_map(|name| acceptor.check_name(name, "web.external_url")));
                errors
            }
            Err(error) => vec![error],
        }
    }

    /// Adds a doubt about a key, at the position where it is given.
    pub fn doubt(&mut self, section: Section<'a>, name: &str, text: String) {
        let before = self.mistakes.len();
        self.mistake(section, name, text);
        self.warnings.extend(self.mistakes.drain(before..));
    }

    /// The line at which a section of the file begins.
    pub fn line_of(&self, section: Section<'a>) -> Option<usize> {
        Some(line_and_column(self.source?.text, section.at?).0)
    }

    /// The warnings, in the order of the file.
    pub fn take_warnings(&mut self) -> Vec<Mistake> {
        self.warnings.sort();
        self.warnings.dedup();
        std::mem::take(&mut self.warnings)
    }

    /// Adds mistakes that another reader found.
    pub fn add_mistakes(&mut self, mistakes: Vec<Mistake>) {
        self.mistakes.extend(mistakes);
    }

    /// Number of mistakes so far.
    pub fn mistakes_len(&self) -> usize {
        self.mistakes.len()
    }

    /// Adds a mistake about a key, at the position where it is given, if it is.
    pub fn mistake(&mut self, section: Section<'a>, name: &str, text: String) {
        match self.given(section, name) {
            Given::Flag(_) => self.flag_mistake(section, name, text),
            Given::File(value) => self.file_mistake(value.span().start, text),
            Given::Nothing => self.mistake_at(section, text),
        }
    }

    /// Adds a mistake about a section.
    pub fn mistake_at(&mut self, section: Section<'a>, text: String) {
        match section.at {
            Some(at) => self.file_mistake(at, text),
            None => {
                let name = if section.path.is_empty() { "configuration" } else { section.path };
                self.mistakes.push(Mistake { span: SourceSpan::Key(name.into()), text });
            }
        }
    }

    /// Adds a mistake about a flag.
    pub fn mistake_in_flag(&mut self, flag: &str, text: String) {
        self.mistakes.push(Mistake { span: SourceSpan::Flag(format!("--{flag}")), text });
    }

    /// Adds a mistake at a byte of the file.
    pub fn file_mistake(&mut self, at: usize, text: String) {
        let Some(source) = self.source else { return };
        let (line, column) = line_and_column(source.text, at);
        let span = SourceSpan::in_file(source.file, (line, column));
        self.mistakes.push(Mistake { span, text });
    }

    /// Adds a mistake for every unknown name in the file, for every section in place of a value, and for every value
    /// in place of a section.
    pub fn check_names(&mut self) {
        if let Some(source) = self.source {
            self.check_section(source.table, "");
        }
    }

    fn check_section(&mut self, table: &'a DeTable<'a>, section: &str) {
        for (name, value) in table {
            let path =
                if section.is_empty() { name.get_ref().to_string() } else { format!("{section}.{}", name.get_ref()) };
            let is_section = !keys::names_in(&path).is_empty();
            let list = LISTS.contains(&path.as_str());
            match value.get_ref() {
                _ if keys::find(&path).is_some() => {}
                DeValue::Array(sections) if list => {
                    for item in sections {
                        match item.get_ref().as_table() {
                            Some(table) => self.check_section(table, &path),
                            None => self.file_mistake(item.span().start, format!("write [[{path}]] sections")),
                        }
                    }
                }
                DeValue::Table(table) if is_section && !list => self.check_section(table, &path),
                _ if list => self.file_mistake(
                    name.span().start,
                    format!("{path} may be there several times: write [[{path}]] with two brackets"),
                ),
                _ if is_section => {
                    self.file_mistake(name.span().start, format!("{path} is a section: write [{path}]"));
                }
                _ => self.file_mistake(name.span().start, unknown(section, name.get_ref())),
            }
        }
    }

    fn key(&self, section: Section<'a>, name: &str) -> &'static Key {
        keys::find(&format!("{}.{name}", section.path)).expect("every key that is read is listed")
    }

    fn given(&self, section: Section<'a>, name: &str) -> Given<'a> {
        if let Some(texts) = self.flags.get(self.key(section, name).path) {
            return Given::Flag(texts);
        }
        section.table.and_then(|table| table.get(name)).map_or(Given::Nothing, Given::File)
    }

    fn note(&mut self, section: Section<'a>, name: &str, value: String) {
        let key = self.key(section, name);
        self.seen.push((key, value));
    }

    fn optional<T: ConfigValue>(&mut self, section: Section<'a>, name: &str) -> Option<T> {
        match self.given(section, name) {
            // The last of several flags counts, as in other programs.
            Given::Flag(texts) => self.flag_values(section, name, &texts[texts.len().saturating_sub(1)..]).pop(),
            Given::File(value) => self.from_file(value),
            Given::Nothing => None,
        }
    }

    fn flag_values<T: ConfigValue>(&mut self, section: Section<'a>, name: &str, texts: &[String]) -> Vec<T> {
        let mut values = Vec::new();
        for text in texts {
            match T::from_text(text) {
                Ok(value) => values.push(value),
                Err(error) => self.flag_mistake(section, name, error),
            }
        }
        values
    }

    #[allow(clippy::wrong_self_convention)]
    fn from_file<T: ConfigValue>(&mut self, value: &Spanned<DeValue<'_>>) -> Option<T> {
        T::from_toml(value.get_ref()).map_err(|error| self.file_mistake(value.span().start, error)).ok()
    }

    fn flag_mistake(&mut self, section: Section<'a>, name: &str, text: String) {
        let key = self.key(section, name);
        self.mistake_in_flag(key.flag.unwrap_or(key.path), text);
    }

    fn resolve(&self, section: Section<'a>, name: &str, text: &str) -> PathBuf {
        match (self.given(section, name), self.source) {
            (Given::File(_), Some(source)) => source.file.parent().unwrap_or(Path::new("")).join(text),
            _ => text.into(),
        }
    }
}

/// The part of a name after the last dot.
fn last(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}

fn unknown(section: &str, name: &str) -> String {
    let span = if section.is_empty() { String::new() } else { format!(" in [{section}]") };
    let elsewhere = || keys::KEYS.iter().map(|key| key.path).find(|path| last(path) == name);
    let hint = match nearest(name, keys::names_in(section)) {
        Some(near) => format!("; did you mean {near:?}?"),
        None => elsewhere().map(|path| format!("; did you mean {path}?")).unwrap_or_default(),
    };
    format!("unknown key {name:?}{span}{hint}")
}
