//! The reasons for which a hub refuses edges, counted.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::model::Family;
use crate::net::tls::CertificateRefusal;
use crate::node::metrics::counter;

/// A reason for which a hub refuses an edge; its name is a value of the label `reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalKind {
    /// The edge's certificate is refused.
    Certificate(CertificateRefusal),
    /// The edge's name is not allowed.
    NotAllowed,
    /// The edge lacks a site label that every edge must have.
    LabelsMissing,
    /// The edge has no site labels.
    NoSite,
    /// An operator retired the edge.
    Retired,
    /// The hub does not know the edge's token.
    UnknownToken,
    /// The edge showed neither a certificate nor a token.
    NoCredentials,
    /// The edge sent its token without TLS.
    TokenInTheClear,
}

impl RefusalKind {
    const ALL: [(Self, &'static str); 14] = [
        (Self::Certificate(CertificateRefusal::WrongAuthority), "wrong_authority"),
        (Self::Certificate(CertificateRefusal::Expired), "expired"),
        (Self::Certificate(CertificateRefusal::NotYetValid), "not_yet_valid"),
        (Self::Certificate(CertificateRefusal::Revoked), "revoked"),
        (Self::Certificate(CertificateRefusal::WrongPurpose), "wrong_purpose"),
        (Self::Certificate(CertificateRefusal::NoIdentity), "no_identity"),
        (Self::Certificate(CertificateRefusal::Unusable), "unusable_certificate"),
        (Self::NotAllowed, "not_allowed"),
        (Self::LabelsMissing, "labels_missing"),
        (Self::NoSite, "no_site"),
        (Self::Retired, "retired"),
        (Self::UnknownToken, "unknown_token"),
        (Self::NoCredentials, "no_credentials"),
        (Self::TokenInTheClear, "token_in_the_clear"),
    ];

    /// The position in [`Self::ALL`].
    fn index(self) -> Option<usize> {
        Self::ALL.iter().position(|(kind, _)| *kind == self)
    }
}

/// The numbers of refusals by reason, since the start.
#[derive(Debug, Default)]
pub struct RefusalCounts([AtomicU64; RefusalKind::ALL.len()]);

impl RefusalCounts {
    /// Counts a refusal, if it is one.
    pub fn count(&self, kind: impl Into<Option<RefusalKind>>) {
        if let Some(index) = kind.into().and_then(RefusalKind::index) {
            self.0[index].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The counters as a metric.
    pub fn gather(&self) -> Family {
        let counts = RefusalKind::ALL.iter().zip(&self.0);
        let series = counts.map(|((_, name), count)| ([("reason", *name)], count.load(Ordering::Relaxed) as f64));
        counter("pushrelay_hub_refusals_total", "Edges that the hub refused, by reason.", series)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_counted_under_its_name() {
        let counts = RefusalCounts::default();
        for (at, (kind, _)) in RefusalKind::ALL.into_iter().enumerate() {
            assert_eq!(kind.index(), Some(at));
            (0..=at).for_each(|_| counts.count(kind));
        }
        counts.count(None);
        let values: Vec<f64> = (1..=RefusalKind::ALL.len()).map(|count| count as f64).collect();
        let mut shown: Vec<f64> = counts.gather().values().to_vec();
        shown.sort_by(f64::total_cmp);
        assert_eq!(shown, values);
    }
}
