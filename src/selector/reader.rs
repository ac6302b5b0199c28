//! Reads the text of a selector.
//!
//! ```text
//! selector = [name] ["{" [matcher {"," matcher} [","]] "}"]
//! matcher  = (label | string) ("=" | "!=" | "=~" | "!~") string | string
//! ```
//!
//! A string alone between the braces is the metric's name. Strings are those of PromQL: `"…"` and `'…'` with Go's escapes,
//! and `` `…` `` without. Blanks and comments (`#` to the end of the line) may stand between all parts.

use std::fmt::Write;

use super::bounds::{MATCHERS_MAX, METRIC_NAME, REGEXES_MAX, SELECTOR_BYTES_MAX};
use super::error::{SelectorError, SelectorProblem};
use super::matcher::{MatchOperator, Matcher};

/// Reads the matchers of a selector, which accept the empty value not all.
pub(super) fn read(text: &str) -> Result<Vec<Matcher>, SelectorError> {
    if text.len() > SELECTOR_BYTES_MAX {
        return Err(SelectorError::new(text, SELECTOR_BYTES_MAX, SelectorProblem::TooLong));
    }
    let mut reader = Reader { text, at: 0, matchers: Vec::new() };
    reader.selector().map_err(|(at, problem)| SelectorError::new(text, at, problem))?;
    Ok(reader.matchers)
}

/// The text of a selector that matches these labels.
pub(super) fn print<'a>(labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut text = String::from("{");
    for (at, (name, value)) in labels.into_iter().enumerate() {
        text.push_str(if at == 0 { "" } else { "," });
        let is_plain = name.bytes().enumerate().all(|(at, byte)| is_name_byte(byte, at == 0, false));
        match is_plain && !name.is_empty() {
            true => text.push_str(name),
            false => quote(name, &mut text),
        }
        text.push('=');
        quote(value, &mut text);
    }
    text.push('}');
    text
}

fn quote(value: &str, into: &mut String) {
    into.push('"');
    for c in value.chars() {
        match c {
            '"' | '\\' => into.extend(['\\', c]),
            '\n' => into.push_str("\\n"),
            c if c.is_control() => drop(write!(into, "\\u{:04x}", c as u32)),
            c => into.push(c),
        }
    }
    into.push('"');
}

/// A mistake at a byte of the text.
type Fault = (usize, SelectorProblem);

struct Reader<'a> {
    text: &'a str,
    at: usize,
    matchers: Vec<Matcher>,
}

fn is_name_byte(byte: u8, is_first: bool, colons: bool) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || (colons && byte == b':') || (!is_first && byte.is_ascii_digit())
}

impl<'a> Reader<'a> {
    fn selector(&mut self) -> Result<(), Fault> {
        self.skip_blanks();
        let name = self.name(true);
        if !name.is_empty() {
            self.add(0, METRIC_NAME, MatchOperator::Equal, name)?;
            self.skip_blanks();
        }
        if self.peek() == Some('{') {
            self.at += 1;
            self.matchers()?;
        } else if name.is_empty() {
            return self.unexpected("a metric name or {");
        }
        self.skip_blanks();
        if self.at < self.text.len() {
            return self.unexpected("the end of the selector");
        }
        if self.matchers.iter().all(|matcher| matcher.accepts("")) {
            return Err((0, SelectorProblem::MatchesEmpty));
        }
        Ok(())
    }

    /// The matchers up to the closing brace.
    fn matchers(&mut self) -> Result<(), Fault> {
        loop {
            self.skip_blanks();
            if self.peek() == Some('}') {
                self.at += 1;
                return Ok(());
            }
            self.matcher()?;
            self.skip_blanks();
            match self.peek() {
                Some(',') => self.at += 1,
                Some('}') => {}
                _ => return self.unexpected("a comma or }"),
            }
        }
    }

    fn matcher(&mut self) -> Result<(), Fault> {
        let start = self.at;
        let quoted = if matches!(self.peek(), Some('"' | '\'' | '`')) { Some(self.string()?) } else { None };
        let name = match &quoted {
            Some(name) => name,
            None => match self.name(false) {
                "" => return self.unexpected("the name of a label or }"),
                name => name,
            },
        };
        self.skip_blanks();
        if quoted.is_some() && matches!(self.peek(), Some(',' | '}') | None) {
            return self.add(start, METRIC_NAME, MatchOperator::Equal, name);
        }
        if name.is_empty() {
            return Err((start, SelectorProblem::NoName));
        }
        let operator = self.operator()?;
        self.skip_blanks();
        let start = self.at;
        let value = match self.peek() {
            Some('"' | '\'' | '`') => self.string()?,
            _ => return self.unexpected("a value in quotes"),
        };
        self.add(start, name, operator, &value)
    }

    /// Adds a matcher, whose name or value begins at that byte.
    fn add(&mut self, at: usize, name: &str, operator: MatchOperator, value: &str) -> Result<(), Fault> {
        let is_name = |name: &str, operator| name == METRIC_NAME && operator == MatchOperator::Equal;
        let named = self.matchers.iter().any(|matcher| matcher.name() == METRIC_NAME && matcher.only_value().is_some());
        if named && is_name(name, operator) {
            return Err((at, SelectorProblem::NameTwice));
        }
        if self.matchers.len() == MATCHERS_MAX {
            return Err((at, SelectorProblem::TooManyMatchers));
        }
        let matcher = Matcher::new(name, operator, value).map_err(|problem| (at, problem))?;
        if matcher.is_regex() && self.matchers.iter().filter(|matcher| matcher.is_regex()).count() == REGEXES_MAX {
            return Err((at, SelectorProblem::TooManyRegexes));
        }
        self.matchers.push(matcher);
        Ok(())
    }

    fn operator(&mut self) -> Result<MatchOperator, Fault> {
        const OPERATORS: [(&str, MatchOperator); 4] = [
            ("=~", MatchOperator::Regex),
            ("!~", MatchOperator::NotRegex),
            ("!=", MatchOperator::NotEqual),
            ("=", MatchOperator::Equal),
        ];
        let rest = &self.text[self.at..];
        match OPERATORS.iter().find(|(text, _)| rest.starts_with(text)) {
            Some((text, operator)) => {
                self.at += text.len();
                Ok(*operator)
            }
            None => self.unexpected("=, !=, =~ or !~"),
        }
    }

    /// A name without quotes; empty if none stands here.
    fn name(&mut self, colons: bool) -> &'a str {
        let rest = &self.text[self.at..];
        let length = rest.bytes().enumerate().take_while(|(at, byte)| is_name_byte(*byte, *at == 0, colons)).count();
        self.at += length;
        &rest[..length]
    }

    /// The text in quotes that begins here.
    fn string(&mut self) -> Result<String, Fault> {
        let start = self.at;
        let quote = self.next().expect("the caller saw a quote");
        let mut value = String::new();
        loop {
            let at = self.at;
            match self.next() {
                None => return Err((start, SelectorProblem::Unterminated)),
                Some(c) if c == quote => return Ok(value),
                Some('\n') if quote != '`' => return Err((start, SelectorProblem::Unterminated)),
                Some('\\') if quote != '`' => self.escape(&mut value).ok_or((at, SelectorProblem::Escape))?,
                Some(c) => value.push(c),
            }
        }
    }

    /// The character after a backslash, as Go escapes it. Bytes (`\xff`, `\377`) that make no UTF-8 are refused.
    fn escape(&mut self, value: &mut String) -> Option<()> {
        let c = match self.next()? {
            'a' => '\x07',
            'b' => '\x08',
            'f' => '\x0c',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\x0b',
            c @ ('\\' | '"' | '\'') => c,
            'u' => self.code(4, 16)?,
            'U' => self.code(8, 16)?,
            'x' => self.code(2, 16).filter(char::is_ascii)?,
            '0'..='7' => {
                self.at -= 1;
                self.code(3, 8).filter(char::is_ascii)?
            }
            _ => return None,
        };
        value.push(c);
        Some(())
    }

    fn code(&mut self, digits: usize, radix: u32) -> Option<char> {
        let digits = self.text.get(self.at..self.at + digits).filter(|text| text.chars().all(|c| c.is_digit(radix)))?;
        self.at += digits.len();
        char::from_u32(u32::from_str_radix(digits, radix).ok()?)
    }

    fn skip_blanks(&mut self) {
        loop {
            match self.peek() {
                Some(' ' | '\t' | '\n' | '\r') => self.at += 1,
                Some('#') => self.at += self.text[self.at..].find('\n').unwrap_or(self.text.len() - self.at),
                _ => return,
            }
        }
    }

    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.at += next.len_utf8();
        Some(next)
    }

    fn unexpected<T>(&self, expected: &'static str) -> Result<T, Fault> {
        let found = self.peek().map_or_else(|| "the end".to_owned(), |c| format!("{c:?}"));
        Err((self.at, SelectorProblem::Unexpected { expected, found }))
    }
}
