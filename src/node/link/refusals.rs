//! The reasons for which a hub refuses edges, counted.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::model::Family;
use crate::net::tls::CertificateRefusal;
use crate::node::metrics::counter;

/// A reason for which a hub refuses an edge; its name is a value of the label `reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalKind {
    /// No authority of the hub signed the certificate.
    WrongAuthority,
    /// The certificate has expired.
    Expired,
    /// The certificate is not yet valid.
    NotYetValid,
    /// The certificate is revoked.
    Revoked,
    /// The certificate is not for an edge.
    WrongPurpose,
    /// The certificate does not name an edge.
    NoIdentity,
    /// The certificate is wrong in another way.
    UnusableCertificate,
    /// The edge's name is not allowed.
    NotAllowed,
    /// The edge lacks a site label that every edge must have.
    LabelsMissing,
    /// The edge has no site labels.
    NoSite,
    /// An operator retired the edge.
    Retired,
}

impl RefusalKind {
    const ALL: [Self; 11] = [
        Self::WrongAuthority,
        Self::Expired,
        Self::NotYetValid,
        Self::Revoked,
        Self::WrongPurpose,
        Self::NoIdentity,
        Self::UnusableCertificate,
        Self::NotAllowed,
        Self::LabelsMissing,
        Self::NoSite,
        Self::Retired,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::WrongAuthority => "wrong_authority",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::Revoked => "revoked",
            Self::WrongPurpose => "wrong_purpose",
            Self::NoIdentity => "no_identity",
            Self::UnusableCertificate => "unusable_certificate",
            Self::NotAllowed => "not_allowed",
            Self::LabelsMissing => "labels_missing",
            Self::NoSite => "no_site",
            Self::Retired => "retired",
        }
    }
}

impl From<CertificateRefusal> for RefusalKind {
    fn from(refusal: CertificateRefusal) -> Self {
        match refusal {
            CertificateRefusal::WrongAuthority => Self::WrongAuthority,
            CertificateRefusal::Expired => Self::Expired,
            CertificateRefusal::NotYetValid => Self::NotYetValid,
            CertificateRefusal::Revoked => Self::Revoked,
            CertificateRefusal::WrongPurpose => Self::WrongPurpose,
            CertificateRefusal::NoIdentity => Self::NoIdentity,
            CertificateRefusal::Unusable => Self::UnusableCertificate,
        }
    }
}

/// The numbers of refusals by reason, since the start.
#[derive(Debug, Default)]
pub struct RefusalCounts([AtomicU64; RefusalKind::ALL.len()]);

impl RefusalCounts {
    /// Counts a refusal, if it is one.
    pub fn count(&self, kind: impl Into<Option<RefusalKind>>) {
        if let Some(kind) = kind.into() {
            self.0[kind as usize].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The counters as a metric.
    pub fn gather(&self) -> Family {
        let counts = RefusalKind::ALL.iter().zip(&self.0);
        let series = counts.map(|(kind, count)| ([("reason", kind.name())], count.load(Ordering::Relaxed) as f64));
        counter("pushrelay_hub_refusals_total", "Edges that the hub refused, by reason.", series)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_counted_under_its_name() {
        let counts = RefusalCounts::default();
        for (at, kind) in RefusalKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, at);
            (0..=at).for_each(|_| counts.count(kind));
        }
        counts.count(None);
        let values: Vec<f64> = (1..=RefusalKind::ALL.len()).map(|count| count as f64).collect();
        let mut shown: Vec<f64> = counts.gather().values().to_vec();
        shown.sort_by(f64::total_cmp);
        assert_eq!(shown, values);
    }
}
