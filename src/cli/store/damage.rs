//! Damage as the `store` commands print it.

use std::io::{self, Write};

use crate::storage::Report;

/// Prints what is lost, one line for each part.
pub(super) fn print_damage(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    for lost in &report.lost {
        writeln!(out, "DAMAGED: {lost}")?;
    }
    let more = report.lost_count.saturating_sub(report.lost.len() as u64);
    if more > 0 {
        writeln!(out, "DAMAGED: {more} more parts")?;
    }
    Ok(())
}
