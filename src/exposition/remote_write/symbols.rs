//! The table of texts of a message 2.0, and labels as numbers of its entries.

use std::ops::Range;

use foldhash::HashMap;

use crate::exposition::protobuf::wire::{put_bytes, put_varint, varint};

/// The field of an entry in a message.
const SYMBOL: u8 = 4;

/// The texts of a message, each once.
#[derive(Debug, Default)]
pub(super) struct Symbols {
    /// The number of each text.
    numbers: HashMap<Box<[u8]>, u32>,
    /// The entries as fields of the message.
    fields: Vec<u8>,
    /// The labels of the series before: mostly only some differ.
    last: Vec<u8>,
    /// The labels there, with the numbers of name and value.
    last_labels: Vec<(Range<usize>, [u32; 2])>,
    next_labels: Vec<(Range<usize>, [u32; 2])>,
}

impl Symbols {
    /// The table of a message without series: its first entry is the empty text.
    pub fn new() -> Self {
        let mut symbols = Self::default();
        symbols.number(b"");
        symbols
    }

    /// The number of a text.
    pub fn number(&mut self, text: &[u8]) -> u32 {
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        let number = u32::try_from(self.numbers.len()).unwrap_or(u32::MAX);
        self.numbers.insert(text.into(), number);
        put_bytes(SYMBOL, text, &mut self.fields);
        number
    }

    /// The entries as fields of the message.
    pub fn fields(&self) -> &[u8] {
        &self.fields
    }

    /// Appends the numbers of labels, which are encoded as fields of a message 1.0.
    pub fn put_labels(&mut self, labels: &[u8], into: &mut Vec<u8>) {
        let mut labels_left = labels;
        let mut next = std::mem::take(&mut self.next_labels);
        next.clear();
        while let Some(label) = take_field(&mut labels_left) {
            let range = labels.len() - labels_left.len() - label.len()..labels.len() - labels_left.len();
            let last = self.last_labels.get(next.len());
            // A label is its field after the tag and the length, and fields of one length have these alike.
            let numbers = match last.filter(|(last, _)| self.last[last.clone()] == *label) {
                Some((_, numbers)) => *numbers,
                None => {
                    let mut parts = label;
                    [(); 2].map(|()| take_field(&mut parts).map_or(0, |text| self.number(text)))
                }
            };
            numbers.iter().for_each(|number| put_varint(u64::from(*number), into));
            next.push((range, numbers));
        }
        self.last.clear();
        self.last.extend_from_slice(labels);
        self.next_labels = std::mem::replace(&mut self.last_labels, next);
    }
}

/// The content of the next length-delimited field, which is removed; `None` at the end.
fn take_field<'a>(fields: &mut &'a [u8]) -> Option<&'a [u8]> {
    let mut rest = fields.get(1..)?;
    let length = usize::try_from(varint(&mut rest).ok()?).ok()?;
    let (content, after) = rest.split_at_checked(length)?;
    *fields = after;
    Some(content)
}
