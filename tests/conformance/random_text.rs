//! Random text: lines are joined from the parts of the grammar, and now and then a part is unusual: allowed and
//! forbidden blanks, quotes, escapes, numbers in every spelling, parts of summaries and histograms that are missing,
//! unordered or repeated.
//!
//! No line begins with a brace, no type is a gauge histogram, and no line has a HELP text: there pushrelay differs on
//! purpose, or Pushgateway's answer is random.

use crate::case::{Case, Step};
use crate::random::Random;

const GROUPS: &[&str] = &["job/a", "job/a", "job/a", "job/a/k/v", "job/b"];
const NAMES: &[&str] = &["m", "n", "h", "s", "h_count", "s_sum", "a:b", "_x"];
const TYPES: &[&str] = &["counter", "gauge", "untyped", "summary", "summary", "histogram", "histogram", "histogram"];
const ODD_TYPES: &[&str] =
    &["COUNTER", "Histogram", "unknown", "info", "", "counter ", "co\\unter", "gauge x", "stateset"];
const BLANKS: &[&str] = &[" ", " ", " ", "\t", "  ", " \t"];
const ODD_BLANKS: &[&str] = &["", "\r", "\u{b}", "\u{a0}", "\n"];
const LABELS: &[&str] = &["k", "l", "instance", "job"];
const ODD_LABELS: &[&str] = &["__x", "__name__", "a:b", "1x", "é", "", "\"q\"", "\"q", "a b"];
const LABEL_VALUES: &[&str] = &["u", "v", "w", "1", "0.5", "é", "\\n", "\\\\", "\\\"", "a,b}=#"];
const ODD_LABEL_VALUES: &[&str] = &["\\t", "\\", "a\nb", "\"", "\0", "\r", "{"];
const NUMBERS: &[&str] = &["0", "1", "2", "3", "5", "7", "1.5", "-1", "1e3", "NaN", "+Inf", "0.1"];
const ODD_NUMBERS: &[&str] = &[
    "-0",
    "+0",
    "0x10",
    "0x1p-2",
    "1_000",
    "nan",
    "+NaN",
    "-NaN",
    "inf",
    "-INF",
    "+Infinity",
    "1e309",
    "-1e400",
    "1e-400",
    "5e-324",
    "18446744073709551615",
    "18446744073709551616",
    "9007199254740993",
    "1e19",
    "1.",
    ".5",
    ".",
    "",
    "1e",
    "--1",
    "1d",
    "0b1",
    "١",
    "1,5",
    "1\0",
    "00012",
    "123456.5",
    "1e21",
    "0.00001",
];
const BOUNDS: &[&[&str]] = &[
    &["0.1", "1", "+Inf"],
    &["1", "+Inf"],
    &["+Inf"],
    &[],
    &["1", "0.1"],
    &["1", "2"],
    &["1", "10"],
    &["NaN"],
    &["-1", "0", "-0"],
    &["x"],
    &[""],
    &["1e400"],
];
const LINES: &[&str] = &[
    "",
    "  ",
    "#",
    "# ",
    "# comment",
    "#x",
    "# HELP",
    "# TYPE",
    "# TYPE m",
    "# HELP m",
    "# EOF",
    "# UNIT m s",
    "# help m x",
    "#\tTYPE\tn\tgauge",
    "m",
    "{",
    "}",
    "m{} 1",
    "m {} 1",
    "m{,} 1",
    "m{a=\"b\",} 1",
    "m{a=\"b\",,} 1",
    "m{\"a\"=\"b\"} 1",
    "\"m\" 1",
    "\"m\"{a=\"b\"} 1",
    "m{\"n\"} 1",
    "m{n} 1",
    "m 1 1000",
    "m 1 -5",
    "m 1 1.5",
    "m 1 2 3",
    "m 1 # {} 1",
    "\r",
    "\u{feff}m 1",
];

/// The sequence of a seed.
pub fn case(seed: u64) -> Case {
    // Other sequences than those of `random::case`.
    let mut writer = Writer { random: Random::new(seed ^ 0x7e47), odds: 0 };
    writer.odds = writer.random.pick(&[1_000_000, 60, 20, 8]);
    let len = 1 + writer.random.below(3);
    Case { steps: (0..len).map(|_| writer.step()).collect() }
}

struct Writer {
    random: Random,
    /// One part in so many is unusual.
    odds: u64,
}

impl Writer {
    fn step(&mut self) -> Step {
        let group = self.random.pick(GROUPS);
        let method = self.random.pick(&["PUT", "POST"]);
        let mut lines = Vec::new();
        for _ in 0..1 + self.random.below(3) {
            self.family(&mut lines);
        }
        if self.random.one_in(6) || self.is_odd() {
            let place = self.random.below(lines.len() as u64 + 1) as usize;
            lines.insert(place, self.random.pick(LINES).to_owned());
        }
        if self.is_odd() && !lines.is_empty() {
            let again = lines[self.random.below(lines.len() as u64) as usize].clone();
            lines.push(again);
        }
        let end = if self.is_odd() { "" } else { "\n" };
        Step::new(&format!("{method} /metrics/{group}"), Some(lines.join("\n") + end), None)
    }

    fn is_odd(&mut self) -> bool {
        self.random.one_in(self.odds)
    }

    /// One of the usual ones, or an unusual one.
    fn part(&mut self, usual: &[&'static str], odd: &[&'static str]) -> &'static str {
        if self.is_odd() { self.random.pick(odd) } else { self.random.pick(usual) }
    }

    fn blanks(&mut self) -> &'static str {
        self.part(BLANKS, ODD_BLANKS)
    }

    /// Optional blanks.
    fn space(&mut self) -> &'static str {
        if self.random.one_in(5) { self.blanks() } else { "" }
    }

    fn family(&mut self, lines: &mut Vec<String>) {
        let name = self.random.pick(NAMES);
        let metric_type = self.part(TYPES, ODD_TYPES);
        if !self.random.one_in(5) {
            lines.push(format!("#{}TYPE{}{name}{}{metric_type}", self.space(), self.blanks(), self.blanks()));
        }
        for _ in 0..self.random.below(3) {
            let labels = self.labels();
            match &*metric_type.to_lowercase() {
                "histogram" => {
                    for &bound in self.random.pick(BOUNDS) {
                        lines.push(self.sample(name, "_bucket", &labels, Some(("le", bound))));
                    }
                    self.sum_and_count(name, &labels, lines);
                }
                "summary" => {
                    for &quantile in self.random.pick(BOUNDS) {
                        lines.push(self.sample(name, "", &labels, Some(("quantile", quantile))));
                    }
                    self.sum_and_count(name, &labels, lines);
                }
                _ => lines.push(self.sample(name, "", &labels, None)),
            }
        }
    }

    fn sum_and_count(&mut self, name: &str, labels: &[String], lines: &mut Vec<String>) {
        for suffix in ["_sum", "_count"] {
            if !self.random.one_in(6) {
                lines.push(self.sample(name, suffix, labels, None));
            }
        }
        if self.is_odd() {
            let suffix = self.random.pick(&["", "_bucket", "_total", "_created", "_gcount"]);
            lines.push(self.sample(name, suffix, labels, None));
        }
    }

    fn labels(&mut self) -> Vec<String> {
        let mut names: Vec<&str> = Vec::new();
        while self.random.one_in(2) {
            let name = self.part(LABELS, ODD_LABELS);
            if !names.contains(&name) || self.is_odd() {
                names.push(name);
            }
        }
        names.into_iter().map(|name| self.label(name, None)).collect()
    }

    fn label(&mut self, name: &str, value: Option<&str>) -> String {
        let value = value.unwrap_or_else(|| self.part(LABEL_VALUES, ODD_LABEL_VALUES));
        let equals = if self.is_odd() { self.random.pick(&["", "==", ":", " "]) } else { "=" };
        let blanks = [self.space(), self.space(), self.space(), self.space()];
        format!("{}{name}{}{equals}{}\"{value}\"{}", blanks[0], blanks[1], blanks[2], blanks[3])
    }

    fn sample(&mut self, name: &str, suffix: &str, labels: &[String], mark: Option<(&str, &str)>) -> String {
        let mut labels = labels.to_vec();
        if let Some((mark, value)) = mark {
            let place = self.random.below(labels.len() as u64 + 1) as usize;
            labels.insert(place, self.label(mark, Some(value)));
        }
        let comma = if self.random.one_in(8) && !labels.is_empty() { "," } else { "" };
        let labels = match labels.is_empty() && !self.random.one_in(8) {
            true => String::new(),
            false => format!("{}{{{}{comma}{}}}", self.space(), labels.join(","), self.space()),
        };
        let number = self.part(NUMBERS, ODD_NUMBERS);
        let timestamp = if self.is_odd() { self.random.pick(&[" 1000", " 0", " x", " 1.5", " +5", " "]) } else { "" };
        format!("{}{name}{suffix}{labels}{}{number}{timestamp}", self.space(), self.blanks())
    }
}
