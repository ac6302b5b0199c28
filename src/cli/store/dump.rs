//! `pushrelay store dump PATH`: the groups of a store as text that can be pushed again.
//!
//! Without `--script`, each group is a comment with the request that pushes it, followed by the body of that request
//! in the text format. The output for one group can be piped to `curl --data-binary @-`. With `--script`, the output
//! is a bash script with one request for each group. If text would lose something (native histograms, exemplars), the
//! body is protobuf in base64.
//!
//! Comments contain everything that cannot be pushed: tombstones, families that are held back, groups with refused
//! pushes only, and the times of pushes. A group with families held back is pushed by POST, which replaces only the
//! families in the body; PUT would delete the others from the node.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use crate::cli::family_text::as_text;
use crate::exposition::name::NameValidation;
use crate::exposition::{Escaping, protobuf};
use crate::gateway::base64url;
use crate::gateway::instant::rfc3339;
use crate::gateway::path::group_path;
use crate::model::{Family, LabelSet, Lifetime};
use crate::storage::Inspection;
use crate::store::GroupEntry;

/// Ends a body in the script. No line of the text format looks like this: it has no value.
const END: &str = "END-OF-GROUP";

/// Which groups to print, and in which form.
pub(super) struct Dump {
    pub labels: Vec<(String, String)>,
    pub script: bool,
    pub without_place: bool,
}

impl Dump {
    /// Prints the groups, sorted by their labels.
    pub(super) fn print(&self, path: &Path, inspection: &Inspection, out: &mut dyn Write) -> io::Result<()> {
        let wanted =
            |entry: &Arc<GroupEntry>| self.labels.iter().all(|(name, value)| entry.shown().get(name) == Some(value));
        let mut entries = inspection.store.published().entries();
        entries.retain(wanted);
        entries.sort_by(|a, b| a.id().cmp(b.id()));
        let live = entries.iter().filter(|entry| entry.group.is_live()).count();
        if self.script {
            script_head(&path.display().to_string(), live, out)?;
        }
        let names = names(&entries);
        for entry in &entries {
            self.group(entry, names, out)?;
        }
        Ok(())
    }

    fn group(&self, entry: &GroupEntry, names: NameValidation, out: &mut dyn Write) -> io::Result<()> {
        let labels = if self.without_place { &entry.id().key } else { entry.shown() };
        let group = &entry.group;
        if !group.is_live() {
            let at = rfc3339(group.deleted().time_ns);
            return writeln!(out, "# deleted: {} at {at}", one_line(entry.shown()));
        }
        writeln!(out, "# group {}", one_line(labels))?;
        if self.without_place && !entry.id().site.is_empty() {
            writeln!(out, "# of the site {}", one_line(&entry.id().site))?;
        }
        if let Some(failed) = group.failed() {
            writeln!(out, "# last refused push: {}", rfc3339(failed.wall_ns))?;
        }
        let Some(pushed) = group.pushed() else {
            writeln!(out, "# no push was ever accepted\n")?;
            return Ok(());
        };
        writeln!(out, "# last accepted push: {}", rfc3339(pushed.wall_ns))?;
        if let Some(lifetime) = group.lifetime() {
            writeln!(out, "# lifetime after it: {lifetime}")?;
        }
        let is_shadowed = entry.header.suppressed && !self.without_place;
        self.comment_suppressed(entry, is_shadowed, out)?;
        if is_shadowed {
            // If it were pushed again, it would replace the group that is shown.
            return writeln!(out);
        }
        let families: Vec<&Family> = entry
            .leaders()
            .filter(|(.., mark, _)| !mark.suppressed)
            .map(|(at, f, ..)| if self.without_place && !group.is_adding() { &f.family } else { entry.whole(at) })
            .collect();
        let method = if families.len() < entry.leaders().count() { "POST" } else { "PUT" };
        let root = if group.is_adding() { "aggregate/metrics" } else { "metrics" };
        let target =
            PushTarget { method, path: format!("{root}/{}", group_path(labels, names)), lifetime: group.lifetime() };
        self.request(&target, &families, out)
    }

    /// The request that pushes the families again.
    fn request(&self, target: &PushTarget, families: &[&Family], out: &mut dyn Write) -> io::Result<()> {
        let PushTarget { method, path, lifetime } = target;
        let has_more = families.iter().any(|family| family.raw_metrics().is_some());
        if !self.script {
            if has_more {
                writeln!(out, "# native histograms or exemplars are not in this text; --script keeps them")?;
            }
            writeln!(out, "# {method} /{path}")?;
            out.write_all(&as_text(families))?;
            return writeln!(out);
        }
        let (path, text) = (path.replace('\'', "%27"), as_text(families));
        let after = lifetime.map_or(String::new(), |lifetime| format!(" {lifetime}"));
        // bash drops zero bytes.
        if has_more || text.contains(&0) {
            writeln!(out, "push_protobuf {method} '{path}'{after} <<'{END}'")?;
            writeln!(out, "{}", base64url::encode(&as_protobuf(families)))?;
        } else {
            writeln!(out, "push_text {method} '{path}'{after} <<'{END}'")?;
            out.write_all(&text)?;
        }
        writeln!(out, "{END}\n")
    }

    /// Prints families that conflict with others, because a push with them would be refused as a whole. Prints all
    /// families of a group that is hidden by another one with the same labels.
    fn comment_suppressed(&self, entry: &GroupEntry, is_shadowed: bool, out: &mut dyn Write) -> io::Result<()> {
        for (at, _, _, state) in entry.leaders().filter(|(.., mark, _)| mark.suppressed || is_shadowed) {
            let why = state.conflict.as_ref().map_or("it conflicts with another group".into(), ToString::to_string);
            writeln!(out, "# held back: {}", why.replace('\n', " "))?;
            for line in String::from_utf8_lossy(&as_text(&[entry.whole(at)])).lines() {
                writeln!(out, "#   {line}")?;
            }
        }
        Ok(())
    }
}

/// The request that pushes a group again.
struct PushTarget {
    method: &'static str,
    path: String,
    lifetime: Option<Lifetime>,
}

/// The rules for names at the node that the groups are pushed to. An escaped name is decoded only where names may be
/// UTF-8; that is assumed if some names need it.
fn names(entries: &[Arc<GroupEntry>]) -> NameValidation {
    let legacy = NameValidation::Legacy;
    let labels = |entry: &GroupEntry| entry.shown().iter().all(|label| legacy.allows_label(label.name));
    let metrics = |entry: &GroupEntry| entry.families().all(|(f, ..)| legacy.allows_metric(f.family.name()));
    if entries.iter().all(|entry| labels(entry) && metrics(entry)) { legacy } else { NameValidation::Utf8 }
}

/// The labels on one line: values may contain line feeds, but the text format's escapes contain none.
fn one_line(labels: &LabelSet) -> String {
    labels.to_string().replace(['\n', '\r'], " ")
}

fn as_protobuf(families: &[&Family]) -> Vec<u8> {
    let (mut renderer, none) = (protobuf::ProtobufRenderer::delimited(Escaping::AllowUtf8), LabelSet::default());
    let mut page = Vec::new();
    families.iter().for_each(|family| renderer.block(family.schema(), [(&none, *family)], &mut page));
    page
}

fn script_head(path: &str, groups: usize, out: &mut dyn Write) -> io::Result<()> {
    let path = path.replace(['\n', '\r'], " ");
    write!(
        out,
        r#"#!/usr/bin/env bash
# {groups} groups of the store in {path}. Pushes them to the node with the given URL; each replaces the same group there.
# Usage: bash SCRIPT http://HOST:9091
# A group with a family held back is pushed with POST: that family stays as it is at the node.
# What a group that adds up has is added to what the same group has there.
# UTF-8 names need a node with push.enable_utf8_names. Times of pushes are those of this run.
set -euo pipefail
url=${{1:?the URL of a node, such as http://127.0.0.1:9091}}
push_text() {{ curl -fsS -X "$1" ${{3:+-H "Pushrelay-Expire-After: $3"}} --data-binary @- "$url/$2"; }}
push_protobuf() {{
  local type='application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited' text
  read -r text
  while [ $((${{#text}} % 4)) != 0 ]; do text+='='; done
  tr -- '-_' '+/' <<<"$text" | base64 -d |
    curl -fsS -X "$1" -H "Content-Type: $type" ${{3:+-H "Pushrelay-Expire-After: $3"}} --data-binary @- "$url/$2"
}}

"#
    )
}
