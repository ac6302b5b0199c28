//! The options that name one group, and the check of the text that is pushed to it.

use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use crate::exposition::{NameValidation, PushLimits, text};
use crate::gateway::path::group_path;
use crate::model::{Family, LabelSet};
use crate::net::identity::parse_label;

/// The label that every group has.
const JOB: &str = "job";

/// The group.
#[derive(Clone, Debug, Args)]
pub struct GroupArgs {
    /// The job: the first label of the group
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    job: String,
    /// A further label of the group, such as instance=db1; may be repeated
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = parse_label)]
    labels: Vec<(String, String)>,
}

impl GroupArgs {
    /// The labels of the group.
    ///
    /// # Errors
    /// A label has no name, or a name that is given twice.
    pub fn labels(&self) -> Result<LabelSet, String> {
        let mut names = vec![JOB];
        for (name, _) in &self.labels {
            let reason = match &**name {
                "" => "a label needs a name: write NAME=VALUE",
                JOB => "the job is set by --job",
                name if names.contains(&name) => "a label can be given once",
                _ => {
                    names.push(name);
                    continue;
                }
            };
            return Err(format!("--label {name:?}: {reason}"));
        }
        let job = (JOB.to_owned(), self.job.clone());
        Ok(LabelSet::new(std::iter::once(job).chain(self.labels.iter().cloned())))
    }
}

/// The path of a group's pushes and deletes.
pub fn push_path(labels: &LabelSet) -> String {
    let is_legacy = labels.iter().all(|label| NameValidation::Legacy.allows_label(label.name));
    let names = if is_legacy { NameValidation::Legacy } else { NameValidation::Utf8 };
    format!("/metrics/{}", group_path(labels, names))
}

/// Reads text that is to be pushed to the group: its families, each as the group stores it. `file` names the text in
/// errors.
///
/// # Errors
/// `FILE:LINE:COLUMN: …`, or the reason for which a node would refuse the text.
pub fn read_text(body: &[u8], labels: &LabelSet, file: &str) -> Result<Vec<Family>, String> {
    let parsed = text::parse(body, NameValidation::Utf8, &PushLimits::default());
    let raw = parsed.map_err(|error| {
        let (line, column, problem) = error.parts();
        format!("{file}:{line}:{column}: {problem}")
    })?;
    raw.iter()
        .map(|family| family.family(labels))
        .collect::<Result<_, _>>()
        .map_err(|refusal| format!("{file}: {refusal}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_in_text_have_line_and_column() {
        let labels = LabelSet::new([("job", "j")]);
        let mistake = |text: &str| read_text(text.as_bytes(), &labels, "f").unwrap_err();
        assert_eq!(mistake("a 1\nb{x=\"ü\"} one\n"), "f:2:10: expected float as value, got \"one\"");
        assert_eq!(mistake("a{x=1} 1\n"), "f:1:5: expected '\"' at start of label value, found '1'");
        assert_eq!(mistake("# TYPE a guage\n"), "f:1:10: unknown metric type \"guage\"");
        assert_eq!(mistake("a 1\n%\n"), "f:2:1: invalid metric name");
        assert_eq!(mistake("a 1\nb 2"), "f:2:4: unexpected end of input stream");
        assert!(mistake("a 1\na 1\n").starts_with("f: ") && mistake("a 1 5\n").contains("timestamps"));
        assert_eq!(read_text(b"# TYPE a counter\na 1\nb 2\n", &labels, "f").unwrap().len(), 2);
    }

    #[test]
    fn a_group_has_each_label_once() {
        let group = |labels: &[(&str, &str)]| {
            let labels = labels.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
            GroupArgs { job: "a/b".into(), labels }.labels()
        };
        assert_eq!(push_path(&group(&[("x", "1")]).unwrap()), "/metrics/job@base64/YS9i/x/1");
        for bad in [&[("job", "1")][..], &[("", "1")], &[("x", "1"), ("x", "2")]] {
            assert!(group(bad).is_err(), "{bad:?}");
        }
    }
}
