//! The rules of `[[allow]]` in force: they grant or refuse each request, limit the rate of pushes, and count requests by
//! subject.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use tokio::time::Instant;

use super::bucket::{RateLimit, TokenBucket};
use crate::gateway::HttpReply;
use crate::gateway::rights::{AllowRule, AllowRules, GroupScope, Need, Right, RuleSubject, Subject};
use crate::model::{Family, LabelSet};
use crate::node::metrics::counter;
use crate::selector::Selectors;
use crate::store::{Published, Quota};

/// The kinds of subjects that no rule names, for metrics.
const UNNAMED: [&str; 4] = ["anonymous", "user", "certificate", "token"];

/// One rule with the state of its limits.
struct Limited {
    rate: Option<Mutex<TokenBucket>>,
    quota: Option<Arc<Quota>>,
}

impl Limited {
    fn new(rule: &AllowRule) -> Self {
        let rate = rule.pushes_per_second.map(|rate| {
            let limit = RateLimit { interval: Duration::from_secs(1) / rate.max(1), burst: rate.max(1) };
            Mutex::new(TokenBucket::full(Some(limit)))
        });
        let has_quota = rule.groups_max.is_some() || rule.series_max.is_some();
        let quota = has_quota
            .then(|| Arc::new(Quota::new(rule.to_string(), rule.selector.clone(), rule.groups_max, rule.series_max)));
        Self { rate, quota }
    }
}

/// The rules in force.
pub struct Access {
    rules: AllowRules,
    /// The limits of each rule, by its number.
    limits: BTreeMap<usize, Limited>,
    /// Whether there are users, so that a client without a password is asked for one.
    asks: bool,
}

impl Access {
    fn new(rules: AllowRules, asks: bool) -> Self {
        let limits = rules.iter().map(|rule| (rule.number, Limited::new(rule))).collect();
        Self { rules, limits, asks }
    }

    /// Whether a client needs credentials for requests that need no right.
    pub fn is_closed(&self) -> bool {
        self.asks && self.rules.iter().all(|rule| rule.subject != RuleSubject::Anonymous)
    }
}

/// The outcome of a request, for metrics.
#[derive(Clone, Copy)]
enum GrantOutcome {
    Granted,
    Forbidden,
    Limited,
}

impl GrantOutcome {
    const NAMES: [&str; 3] = ["granted", "forbidden", "limited"];
}

/// Requests of one subject by outcome.
type OutcomeCounts = [AtomicU64; GrantOutcome::NAMES.len()];

/// The rules in force, and the counts of requests. Without rules, it costs a request one atomic load.
#[derive(Default)]
pub struct AccessControl {
    is_on: AtomicBool,
    access: RwLock<Option<Arc<Access>>>,
    /// By kind and name: the subjects that the rules name, and those of [`UNNAMED`] with an empty name.
    counts: RwLock<BTreeMap<(&'static str, String), Arc<OutcomeCounts>>>,
}

impl fmt::Debug for AccessControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessControl").field("is_on", &self.is_on).finish_non_exhaustive()
    }
}

impl AccessControl {
    /// Replaces the rules for later requests. Limits begin anew if rules have changed. `has_users`: see [`Access`].
    pub fn replace(&self, rules: AllowRules, has_users: bool, published: &Published) {
        let mut access = self.access.write().unwrap_or_else(PoisonError::into_inner);
        if access.as_ref().is_some_and(|access| access.rules == rules && access.asks == has_users) {
            return;
        }
        let mut counts = self.counts.write().unwrap_or_else(PoisonError::into_inner);
        let named = rules.iter().map(|rule| (rule.subject.kind(), rule.subject.name().to_owned()));
        let unnamed = UNNAMED.map(|kind| (kind, String::new()));
        let subjects = named.chain(unnamed).filter(|_| !rules.is_empty());
        *counts = subjects.map(|key| (key.clone(), counts.get(&key).cloned().unwrap_or_default())).collect();
        drop(counts);
        let fresh = (!rules.is_empty()).then(|| Arc::new(Access::new(rules, has_users)));
        let quotas = fresh.iter().flat_map(|access| access.limits.values()).filter_map(|limited| limited.quota.clone());
        published.set_quotas(quotas.collect());
        self.is_on.store(fresh.is_some(), Ordering::Release);
        *access = fresh;
    }

    /// One with a rule.
    #[cfg(test)]
    pub fn example() -> Self {
        let access = Self::default();
        let rule = AllowRule {
            number: 1,
            subject: RuleSubject::Anonymous,
            rights: vec![Right::Read],
            selector: None,
            groups_max: None,
            series_max: None,
            pushes_per_second: None,
        };
        access.replace(AllowRules::new(vec![rule]), false, &Published::default());
        access
    }

    /// The rules as they were given.
    pub fn rules(&self) -> AllowRules {
        self.current().map(|access| access.rules.clone()).unwrap_or_default()
    }

    /// The rules; `None` without any.
    pub fn current(&self) -> Option<Arc<Access>> {
        if !self.is_on.load(Ordering::Acquire) {
            return None;
        }
        self.access.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// OutcomeCounts an answered request.
    pub fn count(&self, grant: &Grant, status: u16) {
        let Some(access) = &grant.access else { return };
        let outcome = match status {
            _ if grant.is_limited.load(Ordering::Relaxed) => GrantOutcome::Limited,
            401 | 403 => GrantOutcome::Forbidden,
            _ => GrantOutcome::Granted,
        };
        let rule = access.rules.iter().find(|rule| rule.subject.names(&grant.subject));
        let kind = match &grant.subject {
            Subject::Anonymous => "anonymous",
            Subject::User(_) => "user",
            Subject::Certificate(_) => "certificate",
            Subject::Token(_) => "token",
        };
        let key = (kind, rule.map(|rule| rule.subject.name().to_owned()).unwrap_or_default());
        if let Some(counts) = self.counts.read().unwrap_or_else(PoisonError::into_inner).get(&key) {
            counts[outcome as usize].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The metrics of requests by subject.
    pub fn gather(&self) -> Family {
        let counts = self.counts.read().unwrap_or_else(PoisonError::into_inner);
        let series = counts.iter().flat_map(|((kind, name), counts)| {
            GrantOutcome::NAMES.iter().zip(&**counts).map(move |(result, count)| {
                (
                    [("kind", *kind), ("subject", name.as_str()), ("result", *result)],
                    count.load(Ordering::Relaxed) as f64,
                )
            })
        });
        let help = "Requests by the subject of [[allow]] rules.";
        counter("pushrelay_web_subject_requests_total", help, series)
    }
}

/// What the sender of a request may do.
#[derive(Default)]
pub struct Grant {
    access: Option<Arc<Access>>,
    subject: Subject,
    /// Whether a limit refused the request.
    is_limited: AtomicBool,
}

impl Grant {
    /// The grant of a subject. Without `access` everything is allowed.
    pub fn new(access: Option<Arc<Access>>, subject: Subject) -> Self {
        Self { access, subject, is_limited: AtomicBool::new(false) }
    }

    /// The sender.
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    /// Checks what can be checked before the request is carried out.
    ///
    /// # Errors
    /// The subject lacks the right that the route needs, whatever the group.
    pub fn check(&self, need: Need) -> Result<(), HttpReply> {
        let Some(Access { rules, .. }) = self.access.as_deref() else { return Ok(()) };
        let subject = &self.subject;
        let denial = match need {
            Need::Group(right) | Need::SomeGroups(right) if rules.scope(subject, right) == GroupScope::Nothing => {
                rules.denial(subject, right, None)
            }
            Need::Overview if !rules.has_overview(subject) => rules.overview_denial(subject),
            Need::Node if !rules.is_admin(subject) => rules.denial(subject, Right::Admin, None),
            _ => return Ok(()),
        };
        Err(self.denied(denial))
    }

    /// Checks a right for one group. A push and a delete count in the rate. Returns the quota of a push.
    ///
    /// # Errors
    /// No rule allows it, or the rate of the rule that does is exceeded.
    pub fn check_group(&self, right: Right, group: &LabelSet) -> Result<Option<Arc<Quota>>, HttpReply> {
        let Some(access) = self.access.as_deref() else { return Ok(None) };
        let Some(rule) = access.rules.deciding(&self.subject, right, group) else {
            return Err(self.denied(access.rules.denial(&self.subject, right, Some(group))));
        };
        let Some(Limited { rate, quota }) = access.limits.get(&rule.number) else { return Ok(None) };
        if let Some(rate) = rate.as_ref().filter(|_| right != Right::Read)
            && let Err(wait) = rate.lock().unwrap_or_else(PoisonError::into_inner).take(Instant::now())
        {
            self.note_limited();
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            let max = rule.pushes_per_second.unwrap_or_default();
            let text = format!("{rule} has the limit pushes_per_second = {max}: try again in {} s", seconds.max(1));
            return Err(HttpReply::error(429, text).with("Retry-After", seconds.max(1).to_string()));
        }
        Ok(quota.clone())
    }

    /// Records that a limit refused the request.
    pub fn note_limited(&self) {
        self.is_limited.store(true, Ordering::Relaxed);
    }

    /// The groups for which the subject has a right, as selectors; `None` for all.
    pub fn scope(&self, right: Right) -> Option<Selectors> {
        self.access.as_deref()?.rules.scope(&self.subject, right).selectors()
    }

    /// Whether the subject may see what belongs to no group.
    pub fn has_overview(&self) -> bool {
        self.access.as_deref().is_none_or(|access| access.rules.has_overview(&self.subject))
    }

    /// Whether the subject may administer the node.
    pub fn is_admin(&self) -> bool {
        self.access.as_deref().is_none_or(|access| access.rules.is_admin(&self.subject))
    }

    /// Whether the subject has a right for a group.
    pub fn may(&self, right: Right, group: &LabelSet) -> bool {
        self.access.as_deref().is_none_or(|access| access.rules.deciding(&self.subject, right, group).is_some())
    }

    /// Whether the subject has a right for some group.
    pub fn has(&self, right: Right) -> bool {
        self.access.as_deref().is_none_or(|access| access.rules.scope(&self.subject, right) != GroupScope::Nothing)
    }

    /// The reply to a sender that lacks a right. One without credentials is asked for a password if there are users.
    fn denied(&self, text: String) -> HttpReply {
        let asks = self.access.as_deref().is_some_and(|access| access.asks);
        if asks && self.subject == Subject::Anonymous {
            return HttpReply::error(401, text).with("WWW-Authenticate", "Basic");
        }
        HttpReply::error(403, text)
    }
}

/// Whether selectors, if there are any, match a group.
pub fn is_in(scope: Option<&Selectors>, group: &LabelSet) -> bool {
    scope.is_none_or(|selectors| selectors.matches(|name| group.get(name)))
}
