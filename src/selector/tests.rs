//! Tests of selectors: a simple model of Prometheus's rules, and each mistake with its column.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

fn matches(selector: &str, labels: &[(&str, &str)]) -> bool {
    let labels: BTreeMap<&str, &str> = labels.iter().copied().collect();
    Selector::parse(selector).unwrap_or_else(|error| panic!("{error}")).matches(|name| labels.get(name).copied())
}

#[test]
fn selectors_match_as_in_prometheus() {
    let backup = [("__name__", "up"), ("IDC", "BJ"), ("job", "backup")];
    for (selector, expected) in [
        ("up", true),
        ("down", false),
        ("up{}", true),
        ("{job=\"backup\"}", true),
        (" { job = 'backup' , } # a comment", true),
        ("{job=`backup`,IDC=~\"SYQ|BJ\"}", true),
        ("{job=\"back\"}", false),
        // Anchored at both ends, alternatives too.
        ("{job=~\"back\"}", false),
        ("{job=~\"back.*\"}", true),
        ("{job=~\"x|back\"}", false),
        ("{job!~\"back\",IDC=\"BJ\"}", true),
        // A missing label is empty.
        ("up{none=\"\"}", true),
        ("up{none!=\"\"}", false),
        ("up{none=~\".*\"}", true),
        ("up{none=~\".+\"}", false),
        ("up{none!=\"x\"}", true),
        ("{__name__=~\"u.\"}", true),
        ("{\"up\",job=\"backup\"}", true),
        ("{\"job\"=\"backup\"}", true),
        ("up{job=\"backup\",job=\"other\"}", false),
    ] {
        assert_eq!(matches(selector, &backup), expected, "{selector}");
    }
    assert!(matches("{job=~\"a.b\"}", &[("job", "a\nb")]), "a dot matches a line feed");
    assert!(matches("{\"a name\"=\"\\u00e9\\x41\\101\\t\"}", &[("a name", "éAA\t")]));
    assert!(matches("ns:up", &[("__name__", "ns:up")]));
}

#[test]
fn each_mistake_has_its_column() {
    let error = |text: &str| Selector::parse(text).expect_err(text);
    for (text, column, part) in [
        ("", 1, "expected a metric name or {, found the end"),
        ("{job}", 5, "expected =, !=, =~ or !~, found '}'"),
        ("{job=\"a\"", 9, "expected a comma or }, found the end"),
        ("{job=\"a\" IDC=\"b\"}", 10, "expected a comma or }, found 'I'"),
        ("{job=a}", 6, "expected a value in quotes, found 'a'"),
        ("{job==\"a\"}", 6, "expected a value in quotes, found '='"),
        ("{,}", 2, "expected the name of a label or }, found ','"),
        ("{job=\"a\"}[5m]", 10, "expected the end of the selector, found '['"),
        ("{\"日本\"=\"a\",job=\"b}", 15, "does not end"),
        ("{job=\"a\nb\"}", 6, "does not end"),
        ("{job=\"a\\d\"}", 8, "unknown escape"),
        ("{job=\"\\xff\"}", 7, "unknown escape"),
        ("{job=~\"(\"}", 7, "not a valid regular expression: unclosed group"),
        ("{job=~\"a)(b\"}", 7, "not a valid regular expression"),
        ("{job=~\"\\\\w{1000}{1000}\"}", 7, "takes more than 262144 bytes"),
        ("up{__name__=\"up\"}", 13, "a second time"),
        ("{\"\"=\"a\"}", 2, "must not be empty"),
        ("{}", 1, "at least one matcher must not match the empty value"),
        ("{job=~\".*\"}", 1, "at least one matcher must not match the empty value"),
        ("{job!=\"a\"}", 1, "at least one matcher must not match the empty value"),
    ] {
        let error = error(text);
        assert_eq!(error.column, column, "{error}");
        assert!(error.to_string().contains(part), "{error}");
    }
    let text = error("{job}").to_string();
    assert_eq!(text, "selector \"{job}\", column 5: expected =, !=, =~ or !~, found '}'");
}

#[test]
fn everything_is_bounded() {
    let problem = |text: String| Selector::parse(&text).expect_err("beyond a bound").problem;
    assert_eq!(problem(format!("{{job=\"{}\"}}", "a".repeat(SELECTOR_BYTES_MAX))), SelectorProblem::TooLong);
    let many = |matcher: &str, times: usize| format!("{{{}}}", vec![matcher; times].join(","));
    assert!(Selector::parse(&many("job=\"a\"", MATCHERS_MAX)).is_ok());
    assert_eq!(problem(many("job=\"a\"", MATCHERS_MAX + 1)), SelectorProblem::TooManyMatchers);
    assert!(Selector::parse(&many("job=~\"a\"", REGEXES_MAX)).is_ok());
    assert_eq!(problem(many("job=~\"a\"", REGEXES_MAX + 1)), SelectorProblem::TooManyRegexes);
    let union = |text: &str, times: usize| Selectors::parse(&vec![text; times]).map_err(|error| error.problem);
    assert!(union("{job=\"a\"}", SELECTORS_MAX).is_ok());
    assert_eq!(union("{job=\"a\"}", SELECTORS_MAX + 1), Err(SelectorProblem::TooManySelectors));
    assert_eq!(union("{job=~\"a\"}", REGEXES_MAX + 1), Err(SelectorProblem::TooManyRegexes));
    assert!(matches!(problem(format!("{{job=~\"{}\"}}", "(".repeat(2_000))), SelectorProblem::Regex(_)));
}

/// An expression that makes backtracking matchers take exponential time.
#[test]
fn matching_takes_no_exponential_time() {
    let selector = Selector::parse("{job=~\"(a|a)*(a|a)*(a|a)*b\"}").unwrap();
    let (value, began) = ("a".repeat(100_000), Instant::now());
    assert!(!selector.matches(|_| Some(&value)));
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[test]
fn selectors_of_labels_match_them() {
    for labels in [
        vec![("IDC", "BJ")],
        vec![("a.b", "x\"y\\z\n\u{7}"), ("job", ""), ("日", "本")],
        vec![("1", "`"), ("__name__", "up")],
    ] {
        let selector = Selector::of_labels(labels.iter().copied()).unwrap();
        assert!(matches(&selector.to_string(), &labels), "{selector}");
        let others: Vec<_> = labels.iter().map(|(name, value)| (*name, format!("{value}x"))).collect();
        let others: Vec<_> = others.iter().map(|(name, value)| (*name, &**value)).collect();
        assert!(!matches(&selector.to_string(), &others), "{selector}");
    }
    assert!(Selector::of_labels([("job", "")]).is_err());
}

/// A matcher of the model: label, operator, and the values that the value or expression stands for.
#[derive(Clone, Debug)]
struct ModelMatcher {
    name: usize,
    is_regex: bool,
    is_negated: bool,
    /// The alternatives of an expression; one value otherwise.
    values: Vec<String>,
    /// Whether the expression ends in `.*`, so that the values are beginnings.
    is_open: bool,
}

const NAMES: [&str; 4] = ["job", "IDC", "__name__", "a.b"];

impl ModelMatcher {
    fn text(&self) -> String {
        let quoted = |text: &str| format!("{text:?}");
        let value = match self.is_regex {
            true => format!("(?:{}){}", self.values.join("|"), if self.is_open { ".*" } else { "" }),
            false => self.values[0].clone(),
        };
        let operator = match (self.is_negated, self.is_regex) {
            (false, false) => "=",
            (true, false) => "!=",
            (false, true) => "=~",
            (true, true) => "!~",
        };
        format!("{}{operator}{}", quoted(NAMES[self.name]), quoted(&value))
    }

    fn accepts(&self, labels: &BTreeMap<&str, String>) -> bool {
        let value = labels.get(NAMES[self.name]).cloned().unwrap_or_default();
        let is_alike = match self.is_regex {
            true => self.values.iter().any(|own| if self.is_open { value.starts_with(own) } else { value == *own }),
            false => value == self.values[0],
        };
        is_alike != self.is_negated
    }
}

fn value() -> impl Strategy<Value = String> {
    "[ab]{0,3}"
}

fn model_matcher() -> impl Strategy<Value = ModelMatcher> {
    (0..NAMES.len(), any::<bool>(), any::<bool>(), prop::collection::vec(value(), 1..4), any::<bool>()).prop_map(
        |(name, is_regex, is_negated, values, is_open)| ModelMatcher { name, is_regex, is_negated, values, is_open },
    )
}

fn labels() -> impl Strategy<Value = BTreeMap<&'static str, String>> {
    let pairs = prop::collection::vec((0..NAMES.len(), value()), 0..4);
    pairs.prop_map(|pairs| pairs.into_iter().map(|(name, value)| (NAMES[name], value)).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn selectors_agree_with_a_simple_model(
        selectors in prop::collection::vec(prop::collection::vec(model_matcher(), 1..4), 1..4),
        labels in labels(),
    ) {
        let text = |matchers: &Vec<ModelMatcher>| {
            format!("{{{}}}", matchers.iter().map(ModelMatcher::text).collect::<Vec<_>>().join(" , "))
        };
        let texts: Vec<String> = selectors.iter().map(text).collect();
        let none = BTreeMap::new();
        let is_name = |matcher: &&ModelMatcher| NAMES[matcher.name] == METRIC_NAME && !matcher.is_regex && !matcher.is_negated;
        let is_refused = |matchers: &Vec<ModelMatcher>| {
            matchers.iter().all(|matcher| matcher.accepts(&none)) || matchers.iter().filter(is_name).count() > 1
        };
        match Selectors::parse(&texts) {
            Ok(parsed) => {
                prop_assert!(!selectors.iter().any(is_refused), "{:?}", texts);
                let expected = selectors.iter().any(|all| all.iter().all(|matcher| matcher.accepts(&labels)));
                prop_assert_eq!(parsed.matches(|name| labels.get(name).map(|value| &**value)), expected, "{:?} {:?}", texts, labels);
            }
            Err(error) => prop_assert!(selectors.iter().any(is_refused), "{}", error),
        }
    }

    #[test]
    fn no_text_makes_it_panic(text in "(\\{|\\}|\"|'|`|=|~|!|,|\\\\|#|job|a|日|[0-9]| |\n|\\(|\\)|\\*|\\[|.){0,24}") {
        if let Err(error) = Selector::parse(&text) {
            prop_assert!(error.column <= text.chars().count() + 1);
        }
    }
}
