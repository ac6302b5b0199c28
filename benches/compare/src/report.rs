//! Prints the tables: a row's cases and metrics down, the servers across, each cell a median with its spread.

use std::fmt::Write;

use crate::deployment::Kind;
use crate::results::{Figure, Results};
use crate::rows::{ROWS, Row};

/// The whole report, in Markdown.
pub fn print(results: &Results) -> String {
    let mut page = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(page, "Machine:\n");
    for (name, value) in results.machine.iter().chain(&results.versions) {
        let _ = writeln!(page, "- {name}: {value}");
    }
    for missing in &results.missing {
        let _ = writeln!(page, "- {missing}");
    }
    let _ =
        writeln!(page, "\nA cell is the median of the rounds [lowest … highest]; `~` marks those that noise touched.");
    for row in ROWS {
        page.push_str(&table(results, row));
    }
    if !results.failed.is_empty() {
        let _ = writeln!(page, "\n### Not measured\n");
    }
    for failed in &results.failed {
        let _ = writeln!(page, "- `{}`, {}, round {}: {}", failed.row, failed.server, failed.round + 1, failed.reason);
    }
    page
}

fn table(results: &Results, row: &Row) -> String {
    let figures: Vec<&Figure> = results.figures.iter().filter(|figure| figure.row == row.name).collect();
    let servers: Vec<&str> = Kind::ALL
        .iter()
        .map(|kind| kind.name())
        .filter(|server| figures.iter().any(|figure| figure.server == *server))
        .collect();
    let mut lines: Vec<(&str, &str)> = Vec::new();
    for figure in &figures {
        if !lines.contains(&(&figure.case, figure.metric)) {
            lines.push((&figure.case, figure.metric));
        }
    }
    if lines.is_empty() {
        return String::new();
    }
    let cases: Vec<&str> = lines.iter().map(|(case, _)| *case).collect();
    lines.sort_by_key(|(case, _)| cases.iter().position(|other| other == case));
    let mut page = format!("\n### `{}`: {}\n\nGoal: {}\n\n", row.name, row.title, row.goal);
    let _ = writeln!(page, "| case | figure | {} |", servers.join(" | "));
    let _ = writeln!(page, "|---|---|{}", "--:|".repeat(servers.len()));
    for (case, metric) in lines {
        let cell = |server: &&str| {
            let same =
                |figure: &&&Figure| (figure.case.as_str(), figure.metric, figure.server) == (case, metric, *server);
            cell(results, &figures.iter().filter(same).copied().collect::<Vec<_>>())
        };
        let cells: Vec<String> = servers.iter().map(cell).collect();
        let _ = writeln!(page, "| {case} | {} | {} |", metric.replace('_', " "), cells.join(" | "));
    }
    page
}

fn cell(results: &Results, figures: &[&Figure]) -> String {
    let mut values: Vec<f64> = figures.iter().map(|figure| figure.value).collect();
    values.sort_by(f64::total_cmp);
    let (Some(lowest), Some(highest)) = (values.first(), values.last()) else { return "–".into() };
    let noisy = if figures.iter().any(|figure| results.is_noisy(figure)) { "~" } else { "" };
    let middle = number(median(&values));
    match values.len() {
        1 => format!("{noisy}{middle}"),
        _ => format!("{noisy}{middle} [{} … {}]", number(*lowest), number(*highest)),
    }
}

/// The middle of sorted values.
fn median(values: &[f64]) -> f64 {
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}

/// Three significant digits, more only where a whole number has them.
fn number(value: f64) -> String {
    let digits = match value.abs() {
        0.0 => 0,
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::machine::Noise;

    #[test]
    fn a_cell_is_a_median_with_its_spread_and_its_noise() {
        let figure = |round, value, foreign| Figure {
            row: ROWS[0].name,
            case: "empty".into(),
            server: Kind::ALL[0].name(),
            round,
            metric: "p50_ms",
            value,
            noise: Noise { foreign, calibration: Duration::from_millis(9) },
        };
        let figures = vec![figure(0, 3.0, 0.0), figure(1, 1.0, 0.0), figure(2, 250.4, 0.0)];
        let mut results = Results { figures, ..Results::default() };
        assert!(print(&results).contains("| empty | p50 ms | 3.00 [1.00 … 250] |"), "{}", print(&results));
        results.figures.push(figure(3, 2.0, 0.5));
        assert!(print(&results).contains("| ~2.50 [1.00 … 250] |"), "{}", print(&results));
    }
}
