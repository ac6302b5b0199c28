//! A strict parser of the text exposition format: it refuses what a lenient scraper accepts.
//!
//! Each family is one block: HELP (at most one), TYPE (exactly one), then samples of that family only. No series occurs
//! twice, no label occurs twice in a series; there are no unknown types, no timestamps and no blank lines, and the text
//! ends with a line feed.

use std::collections::{BTreeMap, BTreeSet};

/// A series: the sample's name and its labels.
type Series = (String, BTreeMap<String, String>);

/// A parsed scrape.
pub struct Page {
    types: BTreeMap<String, String>,
    samples: BTreeMap<Series, f64>,
}

impl Page {
    /// Parses a scrape; the error names the rule and the line.
    ///
    /// # Errors
    /// Returns the first violated rule, with its line.
    pub fn parse(text: &str) -> Result<Page, String> {
        if !text.is_empty() && !text.ends_with('\n') {
            return Err("the last line does not end".to_owned());
        }
        let mut reader = Reader::default();
        for (number, line) in text.lines().enumerate() {
            reader.line(line).map_err(|error| format!("line {}: {error}: {line}", number + 1))?;
        }
        Ok(Page { types: reader.types, samples: reader.samples })
    }

    /// The type of a family.
    pub fn metric_type(&self, family: &str) -> Option<&str> {
        self.types.get(family).map(String::as_str)
    }

    /// The names of all families.
    pub fn families(&self) -> impl Iterator<Item = &str> {
        self.types.keys().map(String::as_str)
    }

    /// The values of all series of that name with these labels, among others.
    pub fn values(&self, name: &str, labels: &[(&str, &str)]) -> Vec<f64> {
        let has = |series: &Series| {
            series.0 == name && labels.iter().all(|(n, value)| series.1.get(*n).is_some_and(|v| v == value))
        };
        self.samples.iter().filter(|(series, _)| has(series)).map(|(_, value)| *value).collect()
    }

    /// The value of the one series with exactly these labels.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        self.samples.get(&(name.to_owned(), labels)).copied()
    }

    /// All series that have this label, for a comparison of two nodes.
    pub fn samples_with(&self, label: &str, value: &str) -> BTreeMap<Series, u64> {
        let has = |series: &Series| series.1.get(label).is_some_and(|v| v == value);
        self.samples.iter().filter(|(series, _)| has(series)).map(|(s, value)| (s.clone(), value.to_bits())).collect()
    }
}

#[derive(Default)]
struct Reader {
    types: BTreeMap<String, String>,
    helped: BTreeSet<String>,
    samples: BTreeMap<Series, f64>,
    /// The family of the current block, and its type once TYPE was read.
    current: String,
    current_type: Option<String>,
}

impl Reader {
    fn line(&mut self, line: &str) -> Result<(), String> {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let name = rest.split_once(' ').map_or(rest, |(name, _)| name);
            let fresh = self.helped.insert(name.to_owned()) && !self.types.contains_key(name);
            self.open(name);
            return fresh.then_some(()).ok_or("HELP twice, or after TYPE".to_owned());
        }
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            return self.type_line(rest);
        }
        self.sample(line)
    }

    fn open(&mut self, name: &str) {
        name.clone_into(&mut self.current);
        self.current_type = None;
    }

    fn type_line(&mut self, rest: &str) -> Result<(), String> {
        let (name, metric_type) = rest.split_once(' ').ok_or("TYPE without a type")?;
        if !["counter", "gauge", "histogram", "summary", "untyped"].contains(&metric_type) {
            return Err(format!("unknown type {metric_type:?}"));
        }
        if self.types.insert(name.to_owned(), metric_type.to_owned()).is_some() {
            return Err("a second block of one family".to_owned());
        }
        if self.helped.contains(name) && self.current != name {
            return Err("TYPE away from its HELP".to_owned());
        }
        self.open(name);
        self.current_type = Some(metric_type.to_owned());
        Ok(())
    }

    fn sample(&mut self, line: &str) -> Result<(), String> {
        let (name, labels, rest) = series(line)?;
        let metric_type = self.current_type.as_deref().ok_or("a sample before the TYPE of its block")?;
        let suffix = name.strip_prefix(&*self.current).ok_or("a sample in another family's block")?;
        let fits = match (metric_type, suffix) {
            ("histogram", "_bucket") => labels.contains_key("le"),
            ("histogram" | "summary", "_sum" | "_count") => true,
            ("summary", "") => labels.contains_key("quantile"),
            ("counter" | "gauge" | "untyped", "") => true,
            _ => false,
        };
        if !fits {
            return Err(format!("not a sample of a {metric_type} {:?}", self.current));
        }
        let value = number(rest.strip_prefix(' ').ok_or("no space before the value")?)?;
        match self.samples.insert((name, labels), value) {
            None => Ok(()),
            Some(_) => Err("a series twice".to_owned()),
        }
    }
}

/// Splits a line into name, labels and the rest.
fn series(line: &str) -> Result<(String, BTreeMap<String, String>, &str), String> {
    let end = line.find(['{', ' ']).ok_or("neither labels nor a value")?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = BTreeMap::new();
    if !is_name(name, true) {
        return Err(format!("no metric name: {name:?}"));
    }
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        while !rest.starts_with('}') {
            let (label, after) = rest.split_once("=\"").ok_or("no value of a label")?;
            let (value, after) = quoted(after)?;
            if !is_name(label, false) {
                return Err(format!("no label name: {label:?}"));
            }
            if labels.insert(label.to_owned(), value).is_some() {
                return Err(format!("label {label:?} twice"));
            }
            rest = after.strip_prefix(',').unwrap_or(after);
            if rest.len() == after.len() && !rest.starts_with('}') {
                return Err("neither a comma nor the end after a label".to_owned());
            }
        }
        rest = &rest[1..];
    }
    Ok((name.to_owned(), labels, rest))
}

/// Reads a label's value up to its closing quote, unescaped; returns it and the rest.
fn quoted(text: &str) -> Result<(String, &str), String> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((value, &text[at + 1..])),
            '\\' => match chars.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, c @ ('\\' | '"'))) => value.push(c),
                _ => return Err("an unknown escape".to_owned()),
            },
            c => value.push(c),
        }
    }
    Err("a label's value does not end".to_owned())
}

fn number(text: &str) -> Result<f64, String> {
    match text {
        "+Inf" => Ok(f64::INFINITY),
        "-Inf" => Ok(f64::NEG_INFINITY),
        "NaN" => Ok(f64::NAN),
        _ if text.starts_with(|c: char| c.is_ascii_digit() || c == '-') => {
            text.parse().map_err(|_| format!("not a number: {text:?}"))
        }
        _ => Err(format!("not a number: {text:?}")),
    }
}

fn is_name(name: &str, colon: bool) -> bool {
    let ok = |c: char| c.is_ascii_alphanumeric() || c == '_' || (colon && c == ':');
    !name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit()) && name.chars().all(ok)
}

#[test]
fn a_valid_page_is_read() {
    let text = "# HELP a Some \\n help\n# TYPE a counter\na{x=\"1\",y=\"\\\"\\\\\\n,}\"} 1e+06\na 2\n# TYPE h histogram\n\
                h_bucket{le=\"+Inf\"} 3\nh_sum NaN\nh_count 3\n";
    let page = Page::parse(text).unwrap();
    assert_eq!(page.value("a", &[("x", "1"), ("y", "\"\\\n,}")]), Some(1e6));
    assert_eq!(page.values("a", &[]).len(), 2);
    assert_eq!(page.metric_type("h"), Some("histogram"));
}

#[test]
fn an_invalid_page_is_refused() {
    let wrong = [
        ("no TYPE", "a 1\n"),
        ("two blocks", "# TYPE a gauge\na 1\n# TYPE b gauge\nb 1\n# TYPE a gauge\na{x=\"1\"} 1\n"),
        ("back in an old block", "# TYPE a gauge\na 1\n# TYPE b gauge\na{x=\"1\"} 1\n"),
        ("a series twice", "# TYPE a gauge\na{x=\"1\",y=\"2\"} 1\na{y=\"2\",x=\"1\"} 1\n"),
        ("a label twice", "# TYPE a gauge\na{x=\"1\",x=\"2\"} 1\n"),
        ("a timestamp", "# TYPE a gauge\na 1 123\n"),
        ("no end", "# TYPE a gauge\na 1"),
        ("a blank line", "# TYPE a gauge\n\na 1\n"),
        ("HELP after TYPE", "# TYPE a gauge\n# HELP a x\na 1\n"),
        ("a bucket without le", "# TYPE a histogram\na_bucket 1\n"),
        ("a stray sample", "# TYPE a gauge\na_sum 1\n"),
    ];
    for (what, text) in wrong {
        assert!(Page::parse(text).is_err(), "{what}");
    }
}
