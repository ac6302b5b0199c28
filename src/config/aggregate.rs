//! `[aggregate]`: pushes that add up.

use std::time::Duration;

use super::reader::{ConfigReader, Section};
use super::value::ConfigValue;
use crate::gateway::adding::AggregateRule;
use crate::model::GaugeRule;
use crate::node::options::AggregateOptions;
use crate::selector::Selector;

/// The longest time for which keys are remembered.
const WINDOW_MAX: Duration = Duration::from_hours(24);

pub(super) fn aggregate(reader: &mut ConfigReader<'_>) -> AggregateOptions {
    let section = reader.section(reader.root(), "aggregate");
    let default = AggregateOptions::default();
    let idempotency_window: Duration = reader.value(section, "idempotency_window", default.idempotency_window);
    if idempotency_window > WINDOW_MAX {
        let text = format!("the time must be {} or less", WINDOW_MAX.to_text());
        reader.mistake(section, "idempotency_window", text);
    }
    let sections = reader.sections(section, "aggregate.rule");
    let rules = sections.into_iter().filter_map(|section| rule(reader, section)).collect();
    AggregateOptions { idempotency_window, rules }
}

fn rule<'a>(reader: &mut ConfigReader<'a>, section: Section<'a>) -> Option<AggregateRule> {
    let text: Option<String> = reader.required(section, "match");
    let gauges = reader.value(section, "gauge", GaugeRule::default());
    let every_path = reader.value(section, "every_path", false);
    let selector = match Selector::parse(&text?) {
        Ok(selector) if selector.names_metric() => Err("a rule selects groups: leave the metric's name out".to_owned()),
        Ok(selector) => Ok(selector),
        Err(error) => Err(error.to_string()),
    };
    match selector {
        Ok(selector) => Some(AggregateRule { selector, gauges, every_path }),
        Err(text) => {
            reader.mistake(section, "match", text);
            None
        }
    }
}
