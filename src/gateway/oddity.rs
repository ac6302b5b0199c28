//! Paths of pushes and deletes that rarely mean what their client meant.
//!
//! Pushgateway reads such paths as they stand, and so does the node: the answers are the same. Several client libraries
//! write values in a way that the path cannot express, and take the answer for success. So the node names the oddity
//! where a person looks: in the body of a redirect, in the log, and on the page of the group.

use std::fmt;

use super::path::BASE64_SUFFIX;
use super::url;

/// The reason why the path of a push or delete probably addresses another group than its client meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PathOddity {
    /// `%2F`, which separates parts as a slash does.
    EscapedSlash,
    /// A part of no characters, which is removed by a redirect.
    EmptyPart,
    /// A part `.` or `..`, which is resolved by a redirect.
    DotPart,
    /// `+` in a value, which is a plus and no space.
    Plus,
}

impl PathOddity {
    /// The oddity of a path as sent, if it has one; of several, the first in the order of the variants.
    pub fn of(raw: &str) -> Option<Self> {
        // Most paths have none of these bytes.
        let is_suspicious = |pair: [u8; 2]| matches!(pair, [b'%', b'2'] | [b'/', b'/' | b'.'] | [b'+', _] | [_, b'+']);
        if !raw.as_bytes().array_windows().any(|pair| is_suspicious(*pair)) {
            return None;
        }
        if raw.as_bytes().array_windows().any(|escape| matches!(escape, b"%2F" | b"%2f")) {
            return Some(Self::EscapedSlash);
        }
        let decoded = url::decode(raw)?;
        let relative = decoded.strip_prefix(b"/").unwrap_or(&decoded);
        // A slash at the end is no empty part: an empty value may end a path.
        let relative = relative.strip_suffix(b"/").unwrap_or(relative);
        let has = |is_odd: fn(&[u8]) -> bool| relative.split(|&byte| byte == b'/').any(is_odd);
        if has(<[u8]>::is_empty) {
            return Some(Self::EmptyPart);
        }
        if has(|part| matches!(part, b"." | b"..")) {
            return Some(Self::DotPart);
        }
        has_plus(raw).then_some(Self::Plus)
    }

    /// Whether a client that means the path as it is may write it so.
    pub fn is_harmless(self) -> bool {
        self == Self::Plus
    }
}

/// Whether a part other than base64 has a plus as sent: one that is escaped is meant.
fn has_plus(raw: &str) -> bool {
    let mut before = "";
    raw.split('/').any(|part| {
        let is_encoded = std::mem::replace(&mut before, part).ends_with(BASE64_SUFFIX);
        part.contains('+') && !is_encoded
    })
}

impl fmt::Display for PathOddity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EscapedSlash => {
                "the path has an escaped slash (%2F), which separates parts as a slash does: clients that do not write \
                 values in base64 (LABEL@base64/VALUE) lose values here"
            }
            Self::EmptyPart => {
                "the path has an empty part, which is removed: clients that do not write values in base64 (an empty \
                 one as LABEL@base64/=) lose values here"
            }
            Self::DotPart => {
                "the path has a part of dots, which is resolved: clients that do not write values in base64 \
                 (LABEL@base64/VALUE) lose values here"
            }
            Self::Plus => {
                "the path has a plus, which is a plus and no space (%20): clients that write a space so name another \
                 group than clients that write %20"
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_lose_values_are_recognized() {
        for (path, expected) in [
            ("/metrics/job/a", None),
            ("/metrics/job/a/x/", None),
            ("/metrics/job/a/x/y.z/u/..v", None),
            ("/metrics/job/a%20b/x/%25%2E", None),
            ("/metrics/job/a/x@base64/YQ+/", None),
            ("/metrics/job/a/x/1%2B2", None),
            ("/metrics/job/a/branch/feature%2Flogin", Some(PathOddity::EscapedSlash)),
            ("/metrics/job/%2fvar", Some(PathOddity::EscapedSlash)),
            ("/metrics/job/a/x//y/z", Some(PathOddity::EmptyPart)),
            ("//metrics/job/a", Some(PathOddity::EmptyPart)),
            ("/metrics/job/a/x/..", Some(PathOddity::DotPart)),
            ("/metrics/job/a/x/%2e", Some(PathOddity::DotPart)),
            ("/metrics/job/nightly+backup", Some(PathOddity::Plus)),
            ("/metrics/job/+", Some(PathOddity::Plus)),
            ("/metrics/job/a+b/x/%2F", Some(PathOddity::EscapedSlash)),
            ("/metrics/job/%2", None),
        ] {
            assert_eq!(PathOddity::of(path), expected, "{path}");
        }
    }
}
