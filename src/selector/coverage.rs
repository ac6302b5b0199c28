//! Facts about selectors before any group is there: one matches no group, or another matches all of its groups. A "yes" is
//! certain; a "no" may also mean that the answer is unknown.

use super::Selector;
use super::matcher::Matcher;

/// The label that every group has, with a value that is not empty.
const JOB: &str = "job";
/// Labels of groups do not begin with this.
const RESERVED_PREFIX: &str = "__";

impl Selector {
    /// The reason for which no group can match, if there is one.
    pub fn never_matches_a_group(&self) -> Option<String> {
        self.matchers().iter().find_map(|matcher| {
            let name = matcher.name();
            if name.starts_with(RESERVED_PREFIX) && !matcher.accepts("") {
                return Some(format!("no group has a label {name:?}"));
            }
            let values = self.values_of(name)?;
            if values.is_empty() {
                return Some(format!("no value of {name} is accepted by all its comparisons"));
            }
            let is_empty = name == JOB && values.iter().all(|value| value.is_empty());
            is_empty.then(|| "every group has a job that is not empty".to_owned())
        })
    }

    /// Whether this selector matches every group that the other one matches.
    pub fn covers(&self, other: &Selector) -> bool {
        self.matchers().iter().all(|matcher| {
            let name = matcher.name();
            let is_named = other.matchers().iter().any(|of| of.name() == name && of.is_same(matcher));
            let is_listed = || other.values_of(name).is_some_and(|values| values.iter().all(|v| matcher.accepts(v)));
            let is_any = || matcher.accepts_all() || (name == JOB && matcher.accepts_all_filled());
            is_named || is_listed() || is_any()
        })
    }

    /// The values that all comparisons of a label accept, if one of them lists its values.
    fn values_of(&self, name: &str) -> Option<Vec<String>> {
        let of_label = || self.matchers().iter().filter(|matcher| matcher.name() == name);
        let mut values = of_label().find_map(Matcher::listed_values)?;
        values.retain(|value| of_label().all(|matcher| matcher.accepts(value)));
        Some(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selector(text: &str) -> Selector {
        Selector::parse(text).unwrap()
    }

    #[test]
    fn selectors_that_match_no_group_are_known() {
        for (text, why) in [
            (r#"{job="a",job="b"}"#, "no value of job is accepted"),
            (r#"{job=~"a|b",job!~"a|b"}"#, "no value of job"),
            (r#"{job="",IDC="SYQ"}"#, "every group has a job"),
            (r#"{__param_x="1"}"#, "no group has a label"),
        ] {
            let found = selector(text).never_matches_a_group();
            assert!(found.as_ref().is_some_and(|found| found.contains(why)), "{text}: {found:?}");
        }
        for text in [r#"{job="a"}"#, r#"{job=~"a|b",job!="a"}"#, r#"{job=~".+",IDC=""}"#, r#"{job="a",job=~"a.*"}"#] {
            assert_eq!(selector(text).never_matches_a_group(), None, "{text}");
        }
    }

    #[test]
    fn a_selector_covers_those_that_ask_for_more() {
        for (wide, narrow) in [
            (r#"{job="a"}"#, r#"{job="a"}"#),
            (r#"{job="a"}"#, r#"{job="a",IDC="SYQ"}"#),
            (r#"{job=~"ci-.*"}"#, r#"{job="ci-1"}"#),
            (r#"{job=~"ci-.*"}"#, r#"{job=~"ci-.*",x!=""}"#),
            (r#"{job=~"a|b|c"}"#, r#"{job=~"a|c"}"#),
            (r#"{job=~".+"}"#, r#"{instance="x"}"#),
            (r#"{job!=""}"#, r#"{job=~"x.*"}"#),
            (r#"{job="a",x=~".*"}"#, r#"{job="a"}"#),
        ] {
            assert!(selector(wide).covers(&selector(narrow)), "{wide} {narrow}");
        }
        for (wide, narrow) in [
            (r#"{job="a",IDC="SYQ"}"#, r#"{job="a"}"#),
            (r#"{job=~"ci-.*"}"#, r#"{job=~"ci-1.*"}"#),
            (r#"{job=~"a|b"}"#, r#"{job=~"a|c"}"#),
            (r#"{job!="a",IDC="SYQ"}"#, r#"{job="a",IDC="SYQ"}"#),
            (r#"{instance=~".+"}"#, r#"{job="a"}"#),
        ] {
            assert!(!selector(wide).covers(&selector(narrow)), "{wide} {narrow}");
        }
    }
}
