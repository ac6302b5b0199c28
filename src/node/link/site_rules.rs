//! The rules of a hub that say which edges may connect, and which site labels they have.

use super::refusals::RefusalKind;
use crate::model::LabelSet;
use crate::net::identity::{EdgeIdentity, EdgeName, NamePattern, site_labels};
use crate::net::token::TokenDigest;
use crate::node::options::{EdgeOptions, HubOptions};

/// The edges that may connect, and the sources of their site labels.
#[derive(Clone, Debug, Default)]
pub struct SiteRules {
    /// Labels by the name of the edge; they override those of its certificate.
    pub configured: Vec<EdgeOptions>,
    /// Whether labels that an edge only claims are accepted.
    pub trust_claims: bool,
    /// The edges that may connect; empty for all.
    pub allow: Vec<NamePattern>,
    /// The names of the labels that every site must have.
    pub required_labels: Vec<String>,
}

/// The reason for which an edge has no site, or may not connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteRefusal {
    /// The reason for metrics.
    pub kind: RefusalKind,
    /// The reason for the edge and the log, with what to do.
    pub text: String,
}

impl SiteRules {
    /// The rules of these options.
    pub fn new(hub: &HubOptions) -> Self {
        Self {
            configured: hub.edges.clone(),
            trust_claims: hub.trust_edge_labels,
            allow: hub.allow.clone(),
            required_labels: hub.required_labels.clone(),
        }
    }

    /// The edge that has a token with this digest. All digests are compared, each in constant time.
    pub fn name_of_token(&self, digest: &TokenDigest) -> Option<&EdgeName> {
        let has = |edge: &EdgeOptions| edge.tokens.iter().fold(false, |found, token| found | (token == digest));
        self.configured.iter().fold(None, |found, edge| if has(edge) { Some(&edge.name) } else { found })
    }

    /// Checks that an edge may connect, by its name.
    ///
    /// # Errors
    /// If the list of names has no such edge.
    pub fn check_name(&self, identity: &EdgeIdentity) -> Result<(), SiteRefusal> {
        let name = &identity.name;
        if self.allow.is_empty() || self.allow.iter().any(|pattern| pattern.has(name)) {
            return Ok(());
        }
        let text =
            format!("the edge \"{name}\" is not in hub.allow of the hub: add its name there, and reload the hub");
        Err(SiteRefusal { kind: RefusalKind::NotAllowed, text })
    }

    /// The site labels of an edge: those of the configuration, else those of its certificate, else those that it claims, if
    /// claims are trusted.
    ///
    /// # Errors
    /// If the edge may not connect, has no site labels, or lacks one that every edge must have.
    pub fn of(&self, identity: &EdgeIdentity, claimed: &LabelSet) -> Result<LabelSet, SiteRefusal> {
        self.check_name(identity)?;
        let site = self.labels(identity, claimed).map_err(|text| SiteRefusal { kind: RefusalKind::NoSite, text })?;
        let lacks = |name: &&String| !site.iter().any(|label| label.name == name.as_str());
        if let Some(missing) = self.required_labels.iter().find(lacks) {
            let text = format!(
                "the edge \"{}\" has no site label {missing:?}, which hub.required_labels asks for; its site labels are \
                 {site}: issue its certificate with that label (pushrelay pki edge NAME --label {missing}=…) or give it \
                 [[hub.edge]] labels at the hub",
                identity.name
            );
            return Err(SiteRefusal { kind: RefusalKind::LabelsMissing, text });
        }
        Ok(site)
    }

    fn labels(&self, identity: &EdgeIdentity, claimed: &LabelSet) -> Result<LabelSet, String> {
        let configured = self.configured.iter().find(|edge| edge.name == identity.name);
        match configured {
            Some(edge) => Ok(edge.labels.clone()),
            None if !identity.labels.is_empty() => Ok(identity.labels.clone()),
            None if self.trust_claims && !claimed.is_empty() => {
                let pairs = claimed.iter().map(|label| (label.name.to_string(), label.value.to_string()));
                site_labels(pairs.collect()).map_err(|error| {
                    let name = &identity.name;
                    format!("the labels that the edge \"{name}\" claims (uplink.labels) are no site labels: {error}")
                })
            }
            None => Err(format!(
                "the edge \"{}\" has no site: issue its certificate with labels (pushrelay pki edge NAME --label IDC=…) or \
                 give it [[hub.edge]] labels at the hub",
                identity.name
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(labels: &[(&str, &str)]) -> EdgeIdentity {
        EdgeIdentity { name: "syq-1".parse().unwrap(), labels: LabelSet::new(labels.iter().copied()) }
    }

    fn text(site: Result<LabelSet, SiteRefusal>) -> String {
        site.unwrap_err().text
    }

    #[test]
    fn claimed_labels_count_only_if_trusted_and_only_if_they_are_a_valid_site() {
        let (claimed, reserved) = (LabelSet::new([("IDC", "SYQ")]), LabelSet::new([("job", "x")]));
        let none = LabelSet::default();
        let mut sites = SiteRules::default();
        assert!(text(sites.of(&identity(&[]), &claimed)).contains("has no site"));
        sites.trust_claims = true;
        assert_eq!(sites.of(&identity(&[]), &claimed), Ok(claimed.clone()));
        assert!(text(sites.of(&identity(&[]), &reserved)).contains("are no site labels"));
        assert!(text(sites.of(&identity(&[]), &none)).contains("has no site"));
        let certified = LabelSet::new([("IDC", "BJ")]);
        assert_eq!(sites.of(&identity(&[("IDC", "BJ")]), &claimed), Ok(certified));
    }

    #[test]
    fn an_edge_needs_an_allowed_name_and_every_required_label() {
        let mut sites = SiteRules { allow: vec!["bj-*".parse().unwrap()], ..SiteRules::default() };
        let of = |sites: &SiteRules| sites.of(&identity(&[("IDC", "SYQ")]), &LabelSet::default());
        assert_eq!(of(&sites).unwrap_err().kind, RefusalKind::NotAllowed);
        sites.allow.push("syq-1".parse().unwrap());
        assert!(of(&sites).is_ok());
        sites.required_labels = vec!["IDC".into(), "room".into()];
        let refusal = of(&sites).unwrap_err();
        assert_eq!(refusal.kind, RefusalKind::LabelsMissing);
        assert!(refusal.text.contains(r#"no site label "room""#) && refusal.text.contains(r#"{IDC="SYQ"}"#));
    }
}
