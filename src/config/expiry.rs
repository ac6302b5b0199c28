//! `[[expire]]`: the rules by which groups expire, with doubts about those that can have no effect.

use super::reader::ConfigReader;
use crate::model::Lifetime;
use crate::selector::Selector;
use crate::store::{EXPIRY_RULES_MAX, ExpiryRule, ExpiryRules};

pub(super) fn rules(reader: &mut ConfigReader<'_>) -> ExpiryRules {
    let mut rules: Vec<(ExpiryRule, Option<usize>)> = Vec::new();
    for section in reader.sections(reader.root(), "expire") {
        let selector: Option<Selector> = reader.required(section, "match");
        let lifetime: Option<Lifetime> = reader.required(section, "after");
        let (Some(selector), Some(lifetime)) = (selector, lifetime) else { continue };
        if selector.names_metric() {
            let text =
                format!("{selector} asks for the name of a metric, but a rule is for whole groups: leave it out");
            reader.mistake(section, "match", text);
            continue;
        }
        if rules.len() == EXPIRY_RULES_MAX {
            reader.mistake_at(section, format!("there are more than {EXPIRY_RULES_MAX} rules of this kind"));
            break;
        }
        if let Some(why) = selector.never_matches_a_group() {
            reader.doubt(section, "match", format!("{selector} matches no group: {why}"));
        } else if let Some((earlier, line)) = rules.iter().find(|(earlier, _)| earlier.selector.covers(&selector)) {
            let line = line.map_or(String::new(), |line| format!(" in line {line}"));
            let text = format!(
                "this rule has no effect: the rule {}{line} matches every group that {selector} matches, and comes first",
                earlier.selector
            );
            reader.doubt(section, "match", text);
        }
        let line = reader.line_of(section);
        rules.push((ExpiryRule { selector, lifetime }, line));
    }
    ExpiryRules::new(rules.into_iter().map(|(rule, _)| rule).collect())
}
