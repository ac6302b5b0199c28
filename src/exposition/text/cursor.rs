//! A position in a body of text, and the tokens that begin there.
//!
//! Token functions start at the byte at the cursor. Reading past the last byte of the body is an error, since every
//! line ends in a line feed.

use std::borrow::Cow;

use super::error::TextError;
use crate::model::{Truncated, truncated, truncated_lossy};

/// The kind of a name. Only metric names may have colons.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum NameKind {
    Metric,
    Label,
}

/// A token: its text, or its bytes if they are not UTF-8.
pub(super) type Token<'a> = Result<Cow<'a, str>, Vec<u8>>;

/// A token, quoted for a message.
pub(super) fn quoted<'t>(token: &'t Token) -> Truncated<'t> {
    match token {
        Ok(text) => truncated(text),
        Err(bytes) => truncated_lossy(bytes),
    }
}

pub(super) struct TextCursor<'a> {
    body: &'a [u8],
    /// The body as text if all of it is UTF-8, so that no token needs another check.
    text: Option<&'a str>,
    at: usize,
    line: usize,
    line_start: usize,
    /// The token that was read last as a whole: an error at its end is about it.
    token: (usize, usize),
}

const LETTER: u8 = 1;
const DIGIT: u8 = 2;
const COLON: u8 = 4;
const QUOTE: u8 = 8;
const WHITE: u8 = 16;

/// The character classes of each byte.
const CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        classes[byte] = match byte as u8 {
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => LETTER,
            b'0'..=b'9' => DIGIT,
            b':' => COLON,
            b'"' => QUOTE,
            b' ' | b'\t' | b'\n' => WHITE,
            _ => 0,
        };
        byte += 1;
    }
    classes
};

fn is(byte: u8, classes: u8) -> bool {
    CLASSES[byte as usize] & classes != 0
}

impl<'a> TextCursor<'a> {
    pub(super) fn new(body: &'a [u8]) -> Self {
        Self { body, text: std::str::from_utf8(body).ok(), at: 0, line: 1, line_start: 0, token: (0, 0) }
    }

    pub(super) fn error(&self, problem: String) -> TextError {
        TextError::Syntax { line: self.line, column: self.column(), problem }
    }

    /// The character of the line, from 1, at which the cursor stands, or the token before it begins.
    fn column(&self) -> usize {
        let at = if self.token.1 == self.at { self.token.0 } else { self.at };
        let before = self.body.get(self.line_start..at).unwrap_or_default();
        // Every character has one byte that continues none.
        before.iter().filter(|&&byte| byte & 0xc0 != 0x80).count() + 1
    }

    pub(super) fn line(&self) -> usize {
        self.line
    }

    /// The byte at the cursor.
    pub(super) fn byte(&self) -> Result<u8, TextError> {
        self.body.get(self.at).copied().ok_or_else(|| self.error("unexpected end of input stream".into()))
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.at >= self.body.len()
    }

    pub(super) fn advance(&mut self) {
        self.at += 1;
    }

    /// Moves past the line feed at the cursor, and returns the length of the line.
    pub(super) fn next_line(&mut self) -> usize {
        let length = self.at - self.line_start;
        self.at += 1;
        self.line += 1;
        self.line_start = self.at;
        length
    }

    /// Skips blanks, if there are any, and returns the byte after them.
    pub(super) fn skip_blanks(&mut self) -> Result<u8, TextError> {
        self.skip_blanks_or_end();
        self.byte()
    }

    pub(super) fn skip_blanks_or_end(&mut self) {
        while matches!(self.body.get(self.at), Some(b' ' | b'\t')) {
            self.at += 1;
        }
    }

    /// Reads a name; empty if none begins here. As in Pushgateway, quotes may begin and end anywhere in it.
    pub(super) fn name(&mut self, kind: NameKind) -> Result<Token<'a>, TextError> {
        let colon = if kind == NameKind::Metric { COLON } else { 0 };
        let start = self.at;
        if !is(self.byte()?, LETTER | QUOTE | colon) {
            return Ok(Ok(Cow::Borrowed("")));
        }
        let rest = &self.body[start..];
        let length = rest.iter().position(|&byte| !is(byte, LETTER | DIGIT | colon)).unwrap_or(rest.len());
        self.at += length;
        if self.byte()? == b'"' {
            let mut name = rest[..length].to_vec();
            self.quoted_name(&mut name, kind)?;
            return Ok(owned(name));
        }
        Ok(self.borrowed(start))
    }

    /// Reads the part of a name from the quote at the cursor to the closing quote, which ends the name.
    fn quoted_name(&mut self, name: &mut Vec<u8>, kind: NameKind) -> Result<(), TextError> {
        let what = if kind == NameKind::Metric { "metric" } else { "label" };
        loop {
            self.at += 1;
            match self.byte()? {
                b'"' => break,
                b'\n' => {
                    let name = truncated_lossy(name);
                    return Err(self.error(format!("{what} name {name:?} contains unescaped new-line")));
                }
                b'\\' => name.push(self.escaped()?),
                other => name.push(other),
            }
        }
        self.at += 1;
        self.byte().map(|_| ())
    }

    /// Decodes the escape sequence at the cursor, and moves to its second byte.
    fn escaped(&mut self) -> Result<u8, TextError> {
        self.at += 1;
        match self.byte()? {
            b'n' => Ok(b'\n'),
            same @ (b'\\' | b'"') => Ok(same),
            other => Err(self.error(format!("invalid escape sequence '\\{}'", char::from(other)))),
        }
    }

    /// Reads a label value, from the opening quote at the cursor to past the closing quote.
    pub(super) fn label_value(&mut self) -> Result<Token<'a>, TextError> {
        self.at += 1;
        let start = self.at;
        let rest = self.body.get(self.at..).unwrap_or_default();
        let length = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | b'\n')).unwrap_or(rest.len());
        self.at += length;
        let mut value = match self.byte()? {
            b'"' => {
                let value = self.borrowed(start);
                self.at += 1;
                return Ok(value);
            }
            _ => rest[..length].to_vec(),
        };
        loop {
            match self.byte()? {
                b'"' => {
                    self.at += 1;
                    return Ok(owned(value));
                }
                b'\n' => {
                    let value = truncated_lossy(&value);
                    return Err(self.error(format!("label value {value:?} contains unescaped new-line")));
                }
                b'\\' => value.push(self.escaped()?),
                other => value.push(other),
            }
            self.at += 1;
        }
    }

    /// Reads up to the next blank or line feed.
    pub(super) fn until_white(&mut self) -> Result<&'a [u8], TextError> {
        let rest = self.body.get(self.at..).unwrap_or_default();
        let length = rest.iter().position(|&byte| is(byte, WHITE)).unwrap_or(rest.len());
        let start = self.at;
        self.at += length;
        self.byte()?;
        self.token = (start, self.at);
        Ok(&rest[..length])
    }

    /// Reads up to the end of the line.
    pub(super) fn until_line_feed(&mut self) -> Result<&'a [u8], TextError> {
        let rest = self.body.get(self.at..).unwrap_or_default();
        let length = rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len());
        let start = self.at;
        self.at += length;
        self.byte()?;
        self.token = (start, self.at);
        Ok(&rest[..length])
    }

    /// The token from `start` to the cursor.
    fn borrowed(&self, start: usize) -> Token<'a> {
        let bytes = &self.body[start..self.at];
        let text = match self.text {
            Some(text) => text.get(start..self.at),
            None => std::str::from_utf8(bytes).ok(),
        };
        text.map(Cow::Borrowed).ok_or_else(|| bytes.to_vec())
    }
}

fn owned<'a>(bytes: Vec<u8>) -> Token<'a> {
    String::from_utf8(bytes).map(Cow::Owned).map_err(|error| error.into_bytes())
}
