//! How far long work is, on a terminal: a bar on standard error, which goes when the work ends. Elsewhere nothing.

use std::borrow::Cow;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::storage::StepObserver;

/// Time between two drawings of a bar.
const TICK: Duration = Duration::from_millis(100);

/// What is drawn of a step of unknown length.
const SPINNER: &str = "{spinner} {msg} {elapsed}";

/// The bar of one piece of work.
#[derive(Debug)]
pub struct Bar(ProgressBar);

impl Bar {
    /// A bar without a step. It is drawn only if standard error is a terminal.
    pub fn new() -> Self {
        let bar = ProgressBar::no_length().with_style(style(SPINNER));
        bar.enable_steady_tick(TICK);
        Self(bar)
    }

    /// A bar with one step of unknown length.
    pub fn of(step: impl Into<Cow<'static, str>>) -> Self {
        let bar = Self::new();
        bar.0.set_message(step);
        bar
    }

    /// Sets how many of `total` things are done.
    pub fn set(&self, done: u64, total: u64) {
        self.0.set_style(style("{msg} {wide_bar} {human_pos}/{human_len} {eta}"));
        self.0.set_length(total);
        self.0.set_position(done);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

impl StepObserver for Bar {
    fn step(&self, name: &'static str, bytes: u64) {
        self.0.reset();
        match bytes {
            0 => {
                self.0.set_style(style(SPINNER));
                self.0.unset_length();
            }
            bytes => {
                self.0.set_length(bytes);
                self.0.set_style(style("{msg} {wide_bar} {binary_bytes}/{binary_total_bytes} {eta}"));
            }
        }
        self.0.set_message(name);
    }

    fn advance(&self, bytes: u64) {
        self.0.inc(bytes);
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("a valid template")
}
