//! Times on the pages, as HTML: the age, with the exact time as machine-readable attribute and as tooltip.

use askama::Template;

use super::super::instant;

#[derive(Template)]
#[template(ext = "html", source = r#"<time datetime="{{ machine }}" title="{{ whole }}">{{ text }}</time>"#)]
struct When<'a> {
    machine: String,
    whole: &'a str,
    text: &'a str,
}

fn html(wall_ns: u64, text: &str) -> String {
    let when = When { machine: instant::rfc3339(wall_ns), whole: &instant::readable(wall_ns), text };
    when.render().unwrap_or_default()
}

/// The age of a time as HTML: `3 min ago`, or `never`.
pub(super) fn ago(wall_ns: Option<u64>, now_ns: u64) -> String {
    match wall_ns {
        None => "never".to_owned(),
        Some(ns) => html(ns, &format!("{} ago", instant::span(now_ns.saturating_sub(ns)))),
    }
}

/// The time that a group has left, as text: `expires in 3 h`.
pub(super) fn left(left_ns: u64) -> String {
    if left_ns == 0 { "has expired".to_owned() } else { format!("expires in {}", instant::span(left_ns)) }
}

/// A time as HTML: `2026-11-22 10:34:13 UTC`, or `never`.
pub(super) fn at(wall_ns: Option<u64>) -> String {
    wall_ns.map_or_else(|| "never".to_owned(), |ns| html(ns, &instant::readable(ns)))
}

/// Converts seconds since the epoch, the store's unit for times of pushes, to nanoseconds; `None` for 0, which means
/// never.
pub(super) fn of_seconds(seconds: f64) -> Option<u64> {
    (seconds > 0.0).then_some((seconds * 1e9) as u64)
}
