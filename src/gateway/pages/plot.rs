//! Small plots of the last hour, drawn by the server as SVG.

use std::fmt::Write as _;

/// The width and the height of a plot in its own units.
const WIDTH: f64 = 240.0;
const HEIGHT: f64 = 48.0;
/// The room above and below a line.
const MARGIN: f64 = 3.0;

/// A plot of values in equal intervals.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plot {
    /// The quantity.
    pub title: &'static str,
    /// Its present value, as text.
    pub now: String,
    /// The largest value, as text.
    pub most: String,
    /// Lines, each as the points of a polyline. There is one for each run of known values.
    pub(super) lines: Vec<String>,
    /// The begin and the width of each run of unknown values.
    pub(super) gaps: Vec<(String, String)>,
}

impl Plot {
    /// A plot of `values`, the oldest first; `None` is unknown. `text` prints a value.
    pub fn new(title: &'static str, values: &[Option<f64>], text: impl Fn(f64) -> String) -> Self {
        let most = values.iter().flatten().copied().fold(0.0, f64::max);
        let step = WIDTH / values.len().max(1) as f64;
        let (mut lines, mut gaps, mut line, mut gap) = (Vec::new(), Vec::new(), String::new(), 0);
        for (at, value) in values.iter().enumerate() {
            let x = step * at as f64;
            match value {
                Some(value) => {
                    if gap > 0 {
                        gaps.push((
                            format!("{:.1}", x - step * f64::from(gap)),
                            format!("{:.1}", step * f64::from(gap)),
                        ));
                        gap = 0;
                    }
                    let share = if most > 0.0 { value / most } else { 0.0 };
                    let y = HEIGHT - MARGIN - share * (HEIGHT - 2.0 * MARGIN);
                    // A step for each interval, so that a single value is a line too.
                    let _ = write!(line, "{x:.1},{y:.1} {:.1},{y:.1} ", x + step);
                }
                None => {
                    gap += 1;
                    lines.extend((!line.is_empty()).then(|| std::mem::take(&mut line)));
                }
            }
        }
        lines.extend((!line.is_empty()).then_some(line));
        if gap > 0 {
            gaps.push((format!("{:.1}", WIDTH - step * f64::from(gap)), format!("{:.1}", step * f64::from(gap))));
        }
        let now = values.last().copied().flatten().map_or_else(|| "unknown".to_owned(), &text);
        Self { title, now, most: text(most), lines, gaps }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_values_are_gaps_between_lines() {
        let values = [Some(0.0), Some(4.0), None, None, Some(2.0), None];
        let plot = Plot::new("Pushes", &values, |value| format!("{value} a second"));
        assert_eq!((&*plot.now, &*plot.most), ("unknown", "4 a second"));
        assert_eq!(plot.lines, ["0.0,45.0 40.0,45.0 40.0,3.0 80.0,3.0 ", "160.0,24.0 200.0,24.0 "]);
        let gap = |x: &str, width: &str| (x.to_owned(), width.to_owned());
        assert_eq!(plot.gaps, [gap("80.0", "80.0"), gap("200.0", "40.0")]);
        assert_eq!(Plot::new("Lag", &[], |_| String::new()).lines, Vec::<String>::new());
        assert_eq!(Plot::new("Lag", &[Some(0.0)], |value| value.to_string()).now, "0");
    }
}
