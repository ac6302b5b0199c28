//! The state of an edge, and its troubles: what is wrong with it, and what an operator does about it.

use super::edges::EdgeStatus;
use crate::net::identity::EdgeIdentity;

const SECOND_NS: u64 = 1_000_000_000;
/// A certificate that expires within this time is a trouble: 14 days, in seconds.
const CERTIFICATE_SECONDS_MIN: u64 = 14 * 86_400;
/// A clock that differs by more than this is a trouble.
const CLOCK_OFFSET_NS_MAX: u64 = 10 * SECOND_NS;
/// Changes that wait for longer than this are a trouble of a connected edge.
const LAG_NS_MAX: u64 = 300 * SECOND_NS;
/// A disk is almost full with fewer bytes free than this, and less than a twentieth of the disk.
const DISK_FREE_BYTES_MIN: u64 = 1 << 30;

/// The state of an edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EdgeState {
    /// The hub refuses it.
    Refused,
    /// It has no link.
    Away,
    /// It is connected, and has a trouble.
    Degraded,
    /// It is connected, and has no trouble.
    Connected,
    /// An operator took it out of service.
    Retired,
}

impl EdgeState {
    /// The state as the API and the page show it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Away => "away",
            Self::Degraded => "degraded",
            Self::Connected => "connected",
            Self::Retired => "retired",
        }
    }
}

/// A kind of trouble, the gravest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TroubleKind {
    /// The hub refuses the edge.
    Refused,
    /// The edge has no link.
    Away,
    /// The hub knows it by the certificate of something in between.
    IdentityMistaken,
    /// Its disk refuses writes.
    StoreFailing,
    /// Its certificate expires soon.
    CertificateExpires,
    /// Its clock is wrong.
    ClockWrong,
    /// Its disk is almost full.
    DiskAlmostFull,
    /// Its store is near a limit.
    LimitNear,
    /// Changes wait for long although it is connected.
    Lagging,
    /// Files of certificates, keys or passwords cannot be used.
    CredentialsUnusable,
}

impl TroubleKind {
    /// The value of the label `reason`.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Away => "away",
            Self::IdentityMistaken => "identity_mistaken",
            Self::StoreFailing => "store_failing",
            Self::CertificateExpires => "certificate_expires",
            Self::ClockWrong => "clock_wrong",
            Self::DiskAlmostFull => "disk_almost_full",
            Self::LimitNear => "limit_near",
            Self::Lagging => "lagging",
            Self::CredentialsUnusable => "credentials_unusable",
        }
    }

    /// The action that an operator takes.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::Refused => "correct the cause that the hub names; an edge that shall not return can be forgotten",
            Self::Away => "look at the edge's log for the reason; an edge that shall not return can be retired",
            Self::IdentityMistaken => {
                "let the box in between pass TLS as it is, or give the edge a token: all that it sends has another edge's site"
            }
            Self::StoreFailing => "free space on the edge's disk, or repair it: pushers get 503 until then",
            Self::CertificateExpires => "give the edge a new certificate: it is read without a restart",
            Self::ClockWrong => "set the edge's clock, and let NTP keep it right",
            Self::DiskAlmostFull => "free space on the edge's disk before writes fail",
            Self::LimitNear => "delete groups that are not needed, or raise the limit at the edge",
            Self::Lagging => "compare the rate of pushes with the line, and look at the logs of both ends",
            Self::CredentialsUnusable => "correct the files that the edge's log names: the old ones stay in force",
        }
    }
}

/// A trouble of an edge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Its kind.
    pub kind: TroubleKind,
    /// The particulars, for people.
    pub text: String,
}

impl EdgeStatus {
    /// The time before `expiry` from which a certificate of the edge is a trouble, in seconds: a quarter of the validity of
    /// the one that it showed, if that is shorter. A certificate that lives much longer is another one, of an authority.
    pub fn certificate_warning_seconds(&self, expiry: u64) -> u64 {
        let lifetime = self.certificate_expiry_seconds.saturating_sub(self.certificate_start_seconds);
        let is_known = self.certificate_start_seconds > 0;
        let is_like_its_own = expiry <= self.certificate_expiry_seconds.saturating_add(lifetime);
        if is_known && is_like_its_own { CERTIFICATE_SECONDS_MIN.min(lifetime / 4) } else { CERTIFICATE_SECONDS_MIN }
    }

    /// The state at `now_ns`.
    pub fn state(&self, now_ns: u64) -> EdgeState {
        match () {
            () if self.retired_ns > 0 => EdgeState::Retired,
            () if self.link.connected && self.troubles(now_ns).is_empty() => EdgeState::Connected,
            () if self.link.connected => EdgeState::Degraded,
            () if self.refusal.is_some() => EdgeState::Refused,
            () => EdgeState::Away,
        }
    }

    /// The troubles at `now_ns`, the gravest first. A retired edge has none.
    pub fn troubles(&self, now_ns: u64) -> Vec<Trouble> {
        let mut troubles = Vec::new();
        if self.retired_ns > 0 {
            return troubles;
        }
        let mut add = |kind, text: String| troubles.push(Trouble { kind, text });
        let (health, link) = (&self.health, &self.link);
        if !link.connected {
            match &self.refusal {
                Some(refusal) => add(TroubleKind::Refused, format!("{}: {}", refusal.reason, refusal.text)),
                None if link.last_error.is_empty() && link.last_seen_ns == 0 => {
                    add(TroubleKind::Away, "never connected".into());
                }
                None if link.last_error.is_empty() => {
                    add(TroubleKind::Away, "not connected since the hub's start".into())
                }
                None => add(TroubleKind::Away, link.last_error.clone()),
            }
        }
        if let Some(EdgeIdentity { name, labels }) = self.own_identity.as_ref().filter(|_| link.connected) {
            let text = format!(
                "its own certificate says {:?} with the site labels {labels}: something in between dials with this one",
                name.as_str()
            );
            add(TroubleKind::IdentityMistaken, text);
        }
        if link.connected && health.store_failing == Some(1) {
            let text = health.store_failure.as_deref().unwrap_or("the edge names no reason");
            add(TroubleKind::StoreFailing, format!("the edge's store cannot be written: {text}"));
        }
        let certificates = [Some(self.certificate_expiry_seconds), health.certificate_expiry_seconds];
        let now_seconds = now_ns / SECOND_NS;
        if let Some(expiry) = certificates.into_iter().flatten().filter(|seconds| *seconds > 0).min()
            && expiry < now_seconds.saturating_add(self.certificate_warning_seconds(expiry))
        {
            let text = match expiry.checked_sub(now_seconds) {
                Some(left) => format!("a certificate of the edge expires in {} h", left / 3_600),
                None => "a certificate of the edge has expired".into(),
            };
            add(TroubleKind::CertificateExpires, text);
        }
        if link.clock_offset_ns.unsigned_abs() > CLOCK_OFFSET_NS_MAX {
            let seconds = link.clock_offset_ns / SECOND_NS as i64;
            add(TroubleKind::ClockWrong, format!("the edge's clock differs from this hub's by {seconds} s"));
        }
        if !link.connected {
            return troubles;
        }
        if let (Some(free), Some(all)) = (health.disk_free_bytes, health.disk_bytes)
            && free < DISK_FREE_BYTES_MIN
            && free < all / 20
        {
            let text = format!("the edge's disk has {} MiB free of {} MiB", free >> 20, all >> 20);
            add(TroubleKind::DiskAlmostFull, text);
        }
        let limits = [
            ("groups", "limits.groups_max", health.groups, health.groups_max),
            ("series", "limits.series_max", health.series, health.series_max),
        ];
        for (what, key, used, max) in limits {
            if let (Some(used), Some(max)) = (used, max)
                && used.saturating_mul(10) >= max.saturating_mul(9)
            {
                add(TroubleKind::LimitNear, format!("the edge has {used} of at most {max} {what} ({key})"));
            }
        }
        if self.lag_ns(now_ns) > LAG_NS_MAX {
            let seconds = self.lag_ns(now_ns) / SECOND_NS;
            add(TroubleKind::Lagging, format!("changes have waited for {seconds} s although the edge is connected"));
        }
        if health.credentials_failing == Some(1) {
            let text = "files of certificates, keys or passwords have changed and cannot be used";
            add(TroubleKind::CredentialsUnusable, text.into());
        }
        troubles
    }
}

#[cfg(test)]
mod tests {
    use super::super::edges::Refusal;
    use super::*;
    use crate::wire::Health;

    const NOW_NS: u64 = 1_800_000_000 * SECOND_NS;

    fn connected() -> EdgeStatus {
        let mut edge = EdgeStatus::default();
        edge.link.connected = true;
        edge.link.last_seen_ns = NOW_NS;
        edge.certificate_expiry_seconds = NOW_NS / SECOND_NS + 90 * 86_400;
        edge
    }

    fn kinds(edge: &EdgeStatus) -> Vec<TroubleKind> {
        edge.troubles(NOW_NS).into_iter().map(|trouble| trouble.kind).collect()
    }

    #[test]
    fn an_edge_whose_disk_is_full_is_degraded_with_the_words_of_its_store() {
        let mut edge = connected();
        assert_eq!((edge.state(NOW_NS), kinds(&edge)), (EdgeState::Connected, vec![]));
        let health = Health {
            store_failing: Some(1),
            store_failure: Some("no space left".into()),
            disk_free_bytes: Some(0),
            disk_bytes: Some(8 << 30),
            ..Health::default()
        };
        edge.health = health.into();
        assert_eq!(edge.state(NOW_NS), EdgeState::Degraded);
        assert_eq!(kinds(&edge), [TroubleKind::StoreFailing, TroubleKind::DiskAlmostFull]);
        assert!(edge.troubles(NOW_NS)[0].text.contains("no space left"));
    }

    #[test]
    fn limits_certificates_clocks_and_lag_are_troubles() {
        let mut edge = connected();
        edge.health = Health { groups: Some(90), groups_max: Some(100), series: Some(1), ..Health::default() }.into();
        edge.certificate_expiry_seconds = NOW_NS / SECOND_NS + 86_400;
        edge.link.clock_offset_ns = -11 * SECOND_NS as i64;
        edge.missing.since_ns = Some(NOW_NS - 301 * SECOND_NS);
        let expected =
            [TroubleKind::CertificateExpires, TroubleKind::ClockWrong, TroubleKind::LimitNear, TroubleKind::Lagging];
        assert_eq!(kinds(&edge), expected);
    }

    #[test]
    fn a_certificate_of_a_day_is_no_trouble_until_it_is_late() {
        let mut edge = connected();
        let hour = 3_600;
        let expires_in = |edge: &mut EdgeStatus, hours: u64| {
            edge.certificate_expiry_seconds = NOW_NS / SECOND_NS + hours * hour;
            edge.certificate_start_seconds = edge.certificate_expiry_seconds - 24 * hour;
            let expiry = Some(edge.certificate_expiry_seconds + hour);
            edge.health = Health { certificate_expiry_seconds: expiry, ..Health::default() }.into();
        };
        expires_in(&mut edge, 7);
        assert_eq!(kinds(&edge), vec![]);
        expires_in(&mut edge, 5);
        assert_eq!(kinds(&edge), [TroubleKind::CertificateExpires]);
        // An authority that expires within 14 days is one whatever the edge's own certificate is.
        expires_in(&mut edge, 20);
        let authority = Some(NOW_NS / SECOND_NS + 13 * 24 * hour);
        edge.certificate_expiry_seconds = 0;
        edge.health = Health { certificate_expiry_seconds: authority, ..Health::default() }.into();
        assert_eq!(kinds(&edge), [TroubleKind::CertificateExpires]);
    }

    #[test]
    fn an_edge_that_is_refused_is_not_away_and_one_that_is_retired_has_no_trouble() {
        let mut edge = EdgeStatus::default();
        assert_eq!((edge.state(NOW_NS), kinds(&edge)), (EdgeState::Away, vec![TroubleKind::Away]));
        edge.refusal = Some(Refusal { reason: "not authorized".into(), text: "no site".into(), at_ns: NOW_NS });
        assert_eq!((edge.state(NOW_NS), kinds(&edge)), (EdgeState::Refused, vec![TroubleKind::Refused]));
        edge.retired_ns = NOW_NS;
        assert_eq!((edge.state(NOW_NS), kinds(&edge)), (EdgeState::Retired, vec![]));
    }
}
