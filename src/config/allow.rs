//! `[[allow]]`: who may do what, with doubts about rules that can have no effect.

use super::reader::{ConfigReader, Section};
use crate::gateway::rights::{ALLOW_RULES_MAX, AllowRule, AllowRules, Right, RuleSubject};
use crate::node::options::WebSecurity;
use crate::selector::Selector;

/// Pushes a second that a rule can allow, at most.
const RATE_MAX: usize = 1_000_000;

pub(super) fn rules(reader: &mut ConfigReader<'_>, security: &WebSecurity) -> AllowRules {
    let mut rules: Vec<(AllowRule, Option<usize>)> = Vec::new();
    for section in reader.sections(reader.root(), "allow") {
        let Some(rule) = rule(reader, section, rules.len() + 1) else { continue };
        if rules.len() == ALLOW_RULES_MAX {
            reader.mistake_at(section, format!("there are more than {ALLOW_RULES_MAX} rules of this kind"));
            break;
        }
        doubt_subject(reader, section, &rule, security);
        let never = rule.selector.as_ref().and_then(Selector::never_matches_a_group);
        if let Some((why, selector)) = never.zip(rule.selector.as_ref()) {
            reader.doubt(section, "match", format!("{selector} matches no group: {why}"));
        } else if let Some((earlier, line)) = rules.iter().find(|(earlier, _)| earlier.covers(&rule)) {
            let line = line.map_or(String::new(), |line| format!(" in line {line}"));
            let text = format!("this rule has no effect: {earlier}{line} allows all that it allows, and comes first");
            reader.doubt(section, subject_key(&rule.subject), text);
        }
        let line = reader.line_of(section);
        rules.push((rule, line));
    }
    let rules = AllowRules::new(rules.into_iter().map(|(rule, _)| rule).collect());
    doubt_tokens(reader, &rules, security);
    rules
}

fn rule<'a>(reader: &mut ConfigReader<'a>, section: Section<'a>, number: usize) -> Option<AllowRule> {
    let before = reader.mistakes_len();
    let subject = subject(reader, section);
    let mut rights: Vec<Right> = reader.list(section, "may", Vec::new());
    rights.sort();
    rights.dedup();
    let selector: Option<Selector> = reader.maybe(section, "match");
    let (groups_max, series_max) = (reader.maybe(section, "groups_max"), reader.maybe(section, "series_max"));
    let pushes_per_second: Option<usize> = reader.maybe(section, "pushes_per_second");
    if reader.mistakes_len() > before {
        return None;
    }
    if rights.is_empty() {
        reader.mistake(
            section,
            "may",
            "allow.may is not given: add may = [\"push\"]; there are push, delete, read and admin".into(),
        );
    }
    if let Some(selector) = selector.as_ref().filter(|selector| selector.names_metric()) {
        let text = format!("{selector} asks for the name of a metric, but a rule is for whole groups: leave it out");
        reader.mistake(section, "match", text);
    }
    if rights.contains(&Right::Admin) && selector.is_some() {
        let text = "admin is for the whole node, not for some groups: make it a rule of its own, without match".into();
        reader.mistake(section, "may", text);
    }
    let limits = [("groups_max", groups_max), ("series_max", series_max), ("pushes_per_second", pushes_per_second)];
    for (name, _) in limits.into_iter().filter(|(_, max)| max.is_some() && !rights.contains(&Right::Push)) {
        reader.mistake(section, name, format!("{name} limits pushes, but the rule allows none: add \"push\" to may"));
    }
    if pushes_per_second.is_some_and(|rate| rate > RATE_MAX) {
        reader.mistake(
            section,
            "pushes_per_second",
            format!("the most is {RATE_MAX}; without the key there is no limit"),
        );
    }
    if reader.mistakes_len() > before {
        return None;
    }
    let pushes_per_second = pushes_per_second.and_then(|rate| u32::try_from(rate).ok());
    Some(AllowRule { number, subject: subject?, rights, selector, groups_max, series_max, pushes_per_second })
}

/// The one subject of a rule.
fn subject<'a>(reader: &mut ConfigReader<'a>, section: Section<'a>) -> Option<RuleSubject> {
    let user = reader.maybe_text(section, "user").map(RuleSubject::User);
    let certificate = reader.maybe_text(section, "certificate").map(RuleSubject::Certificate);
    let token = reader.maybe_text(section, "token").map(RuleSubject::Token);
    let anonymous = reader.value(section, "anonymous", false).then_some(RuleSubject::Anonymous);
    let mut given: Vec<RuleSubject> = [user, certificate, token, anonymous].into_iter().flatten().collect();
    if given.len() != 1 {
        let text = "a rule is for one subject: give one of user, certificate, token, and anonymous = true".into();
        reader.mistake_at(section, text);
    }
    given.pop()
}

fn subject_key(subject: &RuleSubject) -> &'static str {
    subject.kind()
}

/// A subject that cannot authenticate.
fn doubt_subject<'a>(reader: &mut ConfigReader<'a>, section: Section<'a>, rule: &AllowRule, security: &WebSecurity) {
    let why = match &rule.subject {
        RuleSubject::User(name) if !security.guard.users.has(name) => {
            format!("nobody can be the user {name:?}: web.basic_auth_users, or the file of web.config_file, has none")
        }
        RuleSubject::Token(name) if !security.guard.tokens.names().any(|known| known == name) => {
            format!("nobody can have the token {name:?}: web.tokens has none of that name")
        }
        RuleSubject::Certificate(_) if !security.tls.as_ref().is_some_and(|tls| tls.client_auth.verifies()) => {
            "no certificate counts: set web.tls.client_auth_type to one that verifies, such as VerifyClientCertIfGiven"
                .to_owned()
        }
        _ => return,
    };
    reader.doubt(section, subject_key(&rule.subject), why);
}

/// Tokens that allow nothing.
fn doubt_tokens(reader: &mut ConfigReader<'_>, rules: &AllowRules, security: &WebSecurity) {
    let web = reader.section(reader.root(), "web");
    for name in security.guard.tokens.names() {
        let has_rule = rules.iter().any(|rule| rule.subject == RuleSubject::Token(name.to_owned()));
        if !has_rule {
            reader.doubt(web, "tokens", format!("the token {name:?} allows nothing: no [[allow]] rule names it"));
        }
    }
}
