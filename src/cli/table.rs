//! Tables on a terminal.

use std::io::{self, Write};

/// Characters of a cell, at most.
const WIDTH_MAX: usize = 120;

/// Prints rows, the first of which is the head, in aligned columns. The last column is as wide as its text.
///
/// # Errors
/// If it cannot print.
pub fn print<const N: usize>(rows: &[[String; N]], out: &mut dyn Write) -> io::Result<()> {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..N).map(|column| width(column).min(WIDTH_MAX)).collect();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{:width$}", shown(cell)));
        writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}

/// The text without characters that move the cursor of a terminal.
pub fn shown(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).take(WIDTH_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_control_characters_are_not_printed() {
        let mut out = Vec::new();
        print(&[["A", "B"], ["é\u{1b}", "x"], ["", "long"]].map(|row| row.map(str::to_owned)), &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "A   B\né\u{fffd}  x\n    long\n");
    }
}
