//! Rights: which subject may do what, to which groups, and how much of it (`[[allow]]`).
//!
//! # Rules
//!
//! - A rule names a subject, what it may do, and a selector of groups by the labels under which this node shows them.
//!   Rules add up: what one of them allows is allowed, and what none allows is refused.
//! - The first rule of a subject that allows a push or a delete of a group decides about its limits.
//! - A rule for anonymous clients is for everybody, after the subject's own rules: who authenticates can do no less.
//! - Without any rule, everybody may do everything.
//!
//! Each route has a [`Need`]. A route that shows or deletes many groups is narrowed to those that the subject may read or
//! delete.

use std::fmt;
use std::sync::Arc;

use super::route::Route;
use crate::model::LabelSet;
use crate::selector::{Selector, Selectors};

/// Rules of a node, at most. It also bounds the subjects that metrics name.
pub const ALLOW_RULES_MAX: usize = 256;

/// An action that a rule can allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Right {
    /// Push to a group.
    Push,
    /// Delete a group.
    Delete,
    /// See a group.
    Read,
    /// Administer the node: delete everything, retire edges, reload, stop; and see edges and configuration.
    Admin,
}

impl Right {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Push, Self::Delete, Self::Read, Self::Admin];

    /// Its name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::Delete => "delete",
            Self::Read => "read",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The right that a route needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// None.
    Nothing,
    /// A right for the group that the path names.
    Group(Right),
    /// A right for some groups. Of the others, the route shows or deletes none.
    SomeGroups(Right),
    /// To read all groups, or to administer: the route shows what belongs to no group.
    Overview,
    /// To administer.
    Node,
}

impl Route {
    /// The right that the route needs.
    pub fn need(&self) -> Need {
        match self {
            Self::Push { .. } => Need::Group(Right::Push),
            Self::Delete { .. } => Need::Group(Right::Delete),
            Self::GroupFragment { .. } => Need::Group(Right::Read),
            Self::Scrape { .. } | Self::Groups { .. } | Self::Discovery { .. } | Self::Query | Self::Index { .. } => {
                Need::SomeGroups(Right::Read)
            }
            Self::DeleteGroups { .. } => Need::SomeGroups(Right::Delete),
            Self::Status | Self::StatusPage | Self::Edges => Need::Overview,
            Self::ForgetEdge { .. } | Self::RetireEdge { .. } | Self::Wipe | Self::Quit | Self::Reload => Need::Node,
            Self::Healthy | Self::Ready | Self::Answer { .. } => Need::Nothing,
        }
    }
}

/// The sender of a request, as far as it has authenticated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Subject {
    /// It has not.
    #[default]
    Anonymous,
    /// A user with a right password.
    User(Arc<str>),
    /// A client with a verified certificate, by all names that the certificate has.
    Certificate(Arc<[String]>),
    /// A client with a bearer token, by the token's name.
    Token(Arc<str>),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("a client without credentials"),
            Self::User(name) => write!(f, "user {name:?}"),
            Self::Certificate(names) => {
                f.write_str("certificate")?;
                names.iter().enumerate().try_for_each(|(at, name)| write!(f, "{}{name:?}", [" ", " or "][at.min(1)]))
            }
            Self::Token(name) => write!(f, "token {name:?}"),
        }
    }
}

/// The subject of a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RuleSubject {
    /// Everybody.
    Anonymous,
    /// A user of basic authentication.
    User(String),
    /// One of the names of a client's certificate.
    Certificate(String),
    /// The name of a token.
    Token(String),
}

impl RuleSubject {
    /// The kind of the subject, as in the configuration.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Anonymous => "anonymous",
            Self::User(_) => "user",
            Self::Certificate(_) => "certificate",
            Self::Token(_) => "token",
        }
    }

    /// The name; empty for everybody.
    pub fn name(&self) -> &str {
        match self {
            Self::Anonymous => "",
            Self::User(name) | Self::Certificate(name) | Self::Token(name) => name,
        }
    }

    /// Whether the rule is for that subject by name.
    pub fn names(&self, subject: &Subject) -> bool {
        match (self, subject) {
            (Self::Anonymous, Subject::Anonymous) => true,
            (Self::User(name), Subject::User(of)) | (Self::Token(name), Subject::Token(of)) => **name == **of,
            (Self::Certificate(name), Subject::Certificate(names)) => names.contains(name),
            _ => false,
        }
    }
}

impl fmt::Display for RuleSubject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("anonymous"),
            named => write!(f, "{} {:?}", named.kind(), named.name()),
        }
    }
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowRule {
    /// Its number in the configuration, from 1 on.
    pub number: usize,
    /// The subject.
    pub subject: RuleSubject,
    /// What it may do.
    pub rights: Vec<Right>,
    /// The groups; all if there is none.
    pub selector: Option<Selector>,
    /// Groups that the selector matches, at most; more cannot be pushed under this rule.
    pub groups_max: Option<usize>,
    /// Series in these groups, at most.
    pub series_max: Option<usize>,
    /// Pushes and deletes under this rule in a second, at most.
    pub pushes_per_second: Option<u32>,
}

impl AllowRule {
    fn allows(&self, right: Right, group: &LabelSet) -> bool {
        self.rights.contains(&right)
            && self.selector.as_ref().is_none_or(|selector| selector.matches(|name| group.get(name)))
    }

    /// Whether this rule leaves nothing for `later` to allow.
    pub fn covers(&self, later: &AllowRule) -> bool {
        self.subject == later.subject
            && later.rights.iter().all(|right| self.rights.contains(right))
            && match (&self.selector, &later.selector) {
                (None, _) => true,
                (Some(_), None) => false,
                (Some(selector), Some(of)) => selector.covers(of),
            }
    }
}

/// `[[allow]] rule 2 (user "ci")`.
impl fmt::Display for AllowRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[[allow]] rule {} ({})", self.number, self.subject)
    }
}

/// The groups for which a subject has a right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupScope {
    /// None.
    Nothing,
    /// Those that the selectors match.
    Part(Selectors),
    /// All.
    Everything,
}

impl GroupScope {
    /// Whether a group is among them.
    pub fn has(&self, group: &LabelSet) -> bool {
        match self {
            Self::Nothing => false,
            Self::Part(selectors) => selectors.matches(|name| group.get(name)),
            Self::Everything => true,
        }
    }

    /// The selectors that narrow; `None` for all groups.
    pub fn selectors(&self) -> Option<Selectors> {
        match self {
            Self::Nothing => Some(Selectors::of(Vec::new())),
            Self::Part(selectors) => Some(selectors.clone()),
            Self::Everything => None,
        }
    }
}

/// The rules of a node, in order. Without any, nothing is restricted. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowRules(Arc<[AllowRule]>);

impl Default for AllowRules {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

impl AllowRules {
    /// These rules.
    pub fn new(rules: Vec<AllowRule>) -> Self {
        Self(rules.into())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The rules, in order.
    pub fn iter(&self) -> std::slice::Iter<'_, AllowRule> {
        self.0.iter()
    }

    /// The subject's own rules, then those for everybody.
    fn of<'a, 's>(&'a self, subject: &'s Subject) -> impl Iterator<Item = &'a AllowRule> + use<'a, 's> {
        let own = self.iter().filter(|rule| rule.subject.names(subject) && rule.subject != RuleSubject::Anonymous);
        own.chain(self.iter().filter(|rule| rule.subject == RuleSubject::Anonymous))
    }

    /// The rule that lets a subject do that to a group.
    pub fn deciding(&self, subject: &Subject, right: Right, group: &LabelSet) -> Option<&AllowRule> {
        self.of(subject).find(|rule| rule.allows(right, group))
    }

    /// The groups for which a subject has a right.
    pub fn scope(&self, subject: &Subject, right: Right) -> GroupScope {
        let mut selectors = Vec::new();
        for rule in self.of(subject).filter(|rule| rule.rights.contains(&right)) {
            match &rule.selector {
                None => return GroupScope::Everything,
                Some(selector) => selectors.push(selector.clone()),
            }
        }
        if selectors.is_empty() { GroupScope::Nothing } else { GroupScope::Part(Selectors::of(selectors)) }
    }

    /// Whether a subject may see what belongs to no group.
    pub fn has_overview(&self, subject: &Subject) -> bool {
        self.scope(subject, Right::Read) == GroupScope::Everything || self.is_admin(subject)
    }

    /// Whether a subject may administer the node.
    pub fn is_admin(&self, subject: &Subject) -> bool {
        self.scope(subject, Right::Admin) == GroupScope::Everything
    }

    /// The reason for which a subject may not see what belongs to no group.
    pub fn overview_denial(&self, subject: &Subject) -> String {
        format!(
            "{subject} may not see the node itself: that needs an [[allow]] rule with read and no match, or with admin"
        )
    }

    /// The reason for which a subject may not do that: to a group, or at all.
    pub fn denial(&self, subject: &Subject, right: Right, group: Option<&LabelSet>) -> String {
        let own: Vec<String> = self
            .of(subject)
            .filter(|rule| rule.rights.contains(&right))
            .map(|rule| match &rule.selector {
                Some(selector) => format!("{rule} allows it for {selector}"),
                None => format!("{rule} allows it"),
            })
            .collect();
        let to = match (group, right) {
            (Some(group), Right::Push) => format!(" to the group {group}"),
            (Some(group), _) => format!(" the group {group}"),
            (None, _) => String::new(),
        };
        let why = match own.is_empty() {
            true => format!("no [[allow]] rule allows {right} to this subject; have the operator add one"),
            false => format!(
                "{}, and no other rule does; choose such a group, or have the operator add a rule",
                own.join("; ")
            ),
        };
        format!("{subject} may not {right}{to}: {why}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(subject: RuleSubject, rights: &[Right], selector: Option<&str>) -> AllowRule {
        AllowRule {
            number: 1,
            subject,
            rights: rights.to_vec(),
            selector: selector.map(|text| Selector::parse(text).unwrap()),
            groups_max: None,
            series_max: None,
            pushes_per_second: None,
        }
    }

    fn user(name: &str) -> RuleSubject {
        RuleSubject::User(name.to_owned())
    }

    fn group(team: &str) -> LabelSet {
        LabelSet::new([("job", "j"), ("team", team)])
    }

    #[test]
    fn rules_add_up_and_the_first_that_allows_decides() {
        let rules = AllowRules::new(vec![
            rule(RuleSubject::Anonymous, &[Right::Read], Some(r#"{team="public"}"#)),
            rule(user("alice"), &[Right::Read], None),
            AllowRule { number: 3, ..rule(user("alice"), &[Right::Push], Some(r#"{team="a"}"#)) },
            AllowRule { number: 4, ..rule(user("alice"), &[Right::Push, Right::Delete], Some(r#"{team=~"a|b"}"#)) },
        ]);
        let alice = Subject::User("alice".into());
        let decides = |right, team| rules.deciding(&alice, right, &group(team)).map(|rule| rule.number);
        assert_eq!(
            (decides(Right::Push, "a"), decides(Right::Push, "b"), decides(Right::Push, "c")),
            (Some(3), Some(4), None)
        );
        assert_eq!((decides(Right::Delete, "a"), decides(Right::Admin, "a")), (Some(4), None));
        assert_eq!(rules.scope(&alice, Right::Read), GroupScope::Everything);
        for other in [Subject::Anonymous, Subject::User("bob".into()), Subject::Token("alice".into())] {
            let scope = rules.scope(&other, Right::Read);
            assert!(scope.has(&group("public")) && !scope.has(&group("a")), "{other}");
            assert_eq!(rules.scope(&other, Right::Push), GroupScope::Nothing);
        }
    }

    #[test]
    fn a_certificate_has_the_rights_of_each_of_its_names() {
        let named = |name: &str| RuleSubject::Certificate(name.to_owned());
        let rules = AllowRules::new(vec![rule(named("ci.example.org"), &[Right::Push], None)]);
        let certificate = |names: &[&str]| Subject::Certificate(names.iter().map(|name| (*name).to_owned()).collect());
        let may = |subject| rules.scope(&subject, Right::Push) == GroupScope::Everything;
        assert!(may(certificate(&["ci", "ci.example.org"])) && !may(certificate(&["ci"])));
        assert!(!may(Subject::User("ci.example.org".into())));
    }

    #[test]
    fn a_denial_names_the_subject_the_rules_and_a_way_out() {
        let rules = AllowRules::new(vec![rule(user("alice"), &[Right::Push], Some(r#"{team="a"}"#))]);
        let alice = Subject::User("alice".into());
        let text = rules.denial(&alice, Right::Push, Some(&group("b")));
        for part in [
            r#"user "alice" may not push to the group {job="j",team="b"}"#,
            "[[allow]] rule 1",
            r#"{team="a"}"#,
            "choose",
        ] {
            assert!(text.contains(part), "{text}");
        }
        let storage = AllowRules::new(vec![rule(
            RuleSubject::Token("storage".to_owned()),
            &[Right::Push],
            Some(r#"{team="storage"}"#),
        )]);
        let group = LabelSet::new([("job", "backup"), ("team", "web")]);
        let quoted = storage.denial(&Subject::Token("storage".into()), Right::Push, Some(&group));
        let page = include_str!("../../docs/how-to/give-teams-their-own-groups.md");
        assert!(page.lines().any(|line| line == quoted), "the page quotes another text than {quoted}");
        let text = rules.denial(&alice, Right::Admin, None);
        assert!(text.contains("may not admin: no [[allow]] rule allows admin"), "{text}");
    }
}
