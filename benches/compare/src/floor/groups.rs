//! The floor's store: for each group, its series as they are printed, and their values.

use std::collections::HashMap;
use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::Result;

/// The groups, by path.
#[derive(Default)]
pub struct Groups {
    groups: HashMap<String, Group>,
}

#[derive(Default)]
struct Group {
    labels: String,
    /// The series as pushed, one after the other, to recognize a push that repeats them.
    pushed: String,
    /// The series as shown, with the labels of the group.
    shown: String,
    /// The end of each in `pushed` and in `shown`.
    ends: Vec<(u32, u32)>,
    values: Vec<f64>,
    /// The group compressed, if it has not changed since.
    piece: Option<Vec<u8>>,
}

impl Groups {
    /// Stores a push in place of the group's contents.
    pub fn push(&mut self, path: &str, body: &str) -> Result<()> {
        if !self.groups.contains_key(path) {
            let group = Group { labels: labels(path), ..Group::default() };
            self.groups.insert(path.to_owned(), group);
        }
        let group = self.groups.get_mut(path).ok_or("just inserted")?;
        group.replace(body)
    }

    /// The page, not compressed.
    pub fn render(&self) -> Vec<u8> {
        let bytes: usize = self.groups.values().map(|group| group.shown.len() + 12 * group.values.len()).sum();
        let mut page = Vec::with_capacity(bytes);
        for group in self.groups.values() {
            group.render(&mut page);
        }
        page
    }

    /// The page as one gzip member for each group; only changed groups are compressed again.
    pub fn render_pieces(&mut self) -> io::Result<Vec<u8>> {
        let (mut page, mut text) = (Vec::new(), Vec::new());
        for group in self.groups.values_mut() {
            if group.piece.is_none() {
                text.clear();
                group.render(&mut text);
                group.piece = Some(gzip(&text)?);
            }
            page.extend_from_slice(group.piece.as_deref().unwrap_or_default());
        }
        Ok(page)
    }
}

/// Compresses at the fastest level.
pub fn gzip(text: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(text.len() / 8), Compression::fast());
    encoder.write_all(text)?;
    encoder.finish()
}

impl Group {
    fn replace(&mut self, body: &str) -> Result<()> {
        self.piece = None;
        let mut at = 0;
        for line in body.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            let (series, value) = line.rsplit_once(' ').ok_or("a line without a value")?;
            if !self.has(at, series) {
                self.truncate(at);
                self.add(series);
            }
            self.values[at] = value.parse()?;
            at += 1;
        }
        self.truncate(at);
        Ok(())
    }

    fn has(&self, at: usize, series: &str) -> bool {
        let start = if at == 0 { 0 } else { self.ends.get(at - 1).map_or(0, |end| end.0) };
        self.ends.get(at).is_some_and(|end| &self.pushed[start as usize..end.0 as usize] == series)
    }

    fn truncate(&mut self, len: usize) {
        let (pushed, shown) = if len == 0 { (0, 0) } else { self.ends[len - 1] };
        self.ends.truncate(len);
        self.values.truncate(len);
        self.pushed.truncate(pushed as usize);
        self.shown.truncate(shown as usize);
    }

    fn add(&mut self, series: &str) {
        self.pushed.push_str(series);
        match series.strip_suffix('}') {
            Some(series) => self.shown.push_str(&format!("{series},{}}} ", self.labels)),
            None => self.shown.push_str(&format!("{series}{{{}}} ", self.labels)),
        }
        // Bodies are limited to far less than 4 GiB.
        self.ends.push((self.pushed.len() as u32, self.shown.len() as u32));
        self.values.push(0.0);
    }

    fn render(&self, page: &mut Vec<u8>) {
        let (mut start, mut number) = (0, ryu::Buffer::new());
        for ((_, end), value) in self.ends.iter().zip(&self.values) {
            page.extend_from_slice(&self.shown.as_bytes()[start..*end as usize]);
            page.extend_from_slice(number.format(*value).as_bytes());
            page.push(b'\n');
            start = *end as usize;
        }
    }
}

/// The grouping labels of a path such as `/metrics/job/x/instance/y`.
fn labels(path: &str) -> String {
    let words: Vec<&str> = path.split('/').skip(2).collect();
    let labels = words.chunks_exact(2).map(|pair| format!("{}=\"{}\"", pair[0], pair[1]));
    labels.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_push_replaces_the_one_before() {
        let mut groups = Groups::default();
        let page = |groups: &Groups| String::from_utf8(groups.render()).unwrap();
        groups.push("/metrics/job/a", "# TYPE m gauge\nm{x=\"1\"} 1\nm{x=\"2\"} 2\nn 3\n").unwrap();
        groups.push("/metrics/job/a", "m{x=\"1\"} 4\nn 5\n").unwrap();
        assert_eq!(page(&groups), "m{x=\"1\",job=\"a\"} 4.0\nn{job=\"a\"} 5.0\n");
        groups.push("/metrics/job/a", "m{x=\"1\"} 6\nn 7\n").unwrap();
        assert_eq!(page(&groups), "m{x=\"1\",job=\"a\"} 6.0\nn{job=\"a\"} 7.0\n");
    }
}
