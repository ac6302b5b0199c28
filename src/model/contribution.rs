//! Contributions to sums: who added, and how a contribution is named where a group has no other place for it.
//!
//! Each opening of a store adds to a contribution of its own. Nobody else writes to it, so its later state is always the
//! larger one, and last-writer-wins is exact. A store that was rolled back, copied or lost has another epoch when it is
//! opened again, and never continues a contribution of which others may have more.
//!
//! Epoch and [`GaugeRule`] identify a contributor. The birth decides which deletes end the contribution. It only becomes
//! later: after a delete the next increment begins anew, and a clock that was behind is corrected. So of two states with
//! different births the later one replaces the other, which counts no more.
//!
//! On the disk and on the link, the contributions of one contributor are a group of their own: its key is that of the
//! group with the label [`CONTRIBUTION`] added, its families are plain, and its header is empty. The label's value is
//! the birth (time, node) and the epoch, 16 hexadecimal digits each, and a letter for the [`GaugeRule`].

use std::cmp::Ordering;

use super::label::LabelSet;
use super::stamp::{Epoch, NodeId, WriteTimestamp};

/// The label by which the key of a contribution differs from that of its group.
pub const CONTRIBUTION: &str = "pushrelay_contribution";

/// How gauges and untyped metrics are combined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum GaugeRule {
    /// The last write counts.
    #[default]
    Last,
    /// The largest value counts.
    Max,
    /// The smallest value counts.
    Min,
    /// Values are added.
    Sum,
}

impl GaugeRule {
    /// All rules with their names in the configuration.
    pub const NAMES: [(&'static str, Self); 4] =
        [("last", Self::Last), ("max", Self::Max), ("min", Self::Min), ("sum", Self::Sum)];

    fn letter(self) -> char {
        match self {
            Self::Last => 'l',
            Self::Max => 'x',
            Self::Min => 'n',
            Self::Sum => 's',
        }
    }
}

/// The writer of a contribution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Contributor {
    /// The write timestamp of its first increment. A later delete of the group ends the contribution.
    pub birth: WriteTimestamp,
    /// The opening of the store that adds.
    pub epoch: Epoch,
    /// How its gauges are combined.
    pub gauges: GaugeRule,
}

impl Contributor {
    /// Compares the identities. Two states of one contribution have the same, whatever their births.
    pub fn cmp_identity(&self, other: &Self) -> Ordering {
        (self.epoch, self.gauges).cmp(&(other.epoch, other.gauges))
    }

    /// The key of its contributions to the group with that key.
    pub fn join(&self, key: &LabelSet) -> LabelSet {
        let Self { birth: WriteTimestamp { time_ns, node }, epoch, gauges } = self;
        let value = format!("{time_ns:016x}{node}{epoch}{}", gauges.letter());
        let own = key.iter().map(|label| (label.name, label.value));
        LabelSet::new(own.chain([(CONTRIBUTION, &*value)]))
    }

    /// The key of the group and the contributor, if `key` is that of a contribution. No group has an empty key.
    pub fn split(key: &LabelSet) -> Option<(LabelSet, Contributor)> {
        let contributor = Self::read(key.get(CONTRIBUTION)?)?;
        let own = key.iter().filter(|label| label.name != CONTRIBUTION);
        let own = LabelSet::new(own.map(|label| (label.name, label.value)));
        (!own.is_empty()).then_some((own, contributor))
    }

    fn read(value: &str) -> Option<Contributor> {
        const DIGITS: usize = 16;
        let number = |at: usize| {
            let digits = value.get(DIGITS * at..DIGITS * (at + 1))?;
            let lower = digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
            u64::from_str_radix(digits, 16).ok().filter(|_| lower)
        };
        let (time_ns, node, epoch) = (number(0)?, NodeId(number(1)?), Epoch(number(2)?));
        let mut letter = value.get(3 * DIGITS..)?.chars();
        let (letter, end) = (letter.next()?, letter.next());
        let (_, gauges) = GaugeRule::NAMES.into_iter().find(|(_, rule)| rule.letter() == letter && end.is_none())?;
        Some(Contributor { birth: WriteTimestamp { time_ns, node }, epoch, gauges })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_a_contribution_is_split_again() {
        let key = LabelSet::new([("job", "a"), ("zone", "é")]);
        let birth = WriteTimestamp { time_ns: 0x17, node: NodeId(u64::MAX) };
        for (_, gauges) in GaugeRule::NAMES {
            let contributor = Contributor { birth, epoch: Epoch(0x0123_4567_89ab_cdef), gauges };
            let joined = contributor.join(&key);
            assert_eq!(joined.get(CONTRIBUTION).unwrap().len(), 49);
            assert_eq!(Contributor::split(&joined), Some((key.clone(), contributor)));
        }
    }

    #[test]
    fn other_values_of_the_label_are_plain_labels() {
        let digits = "0".repeat(48);
        let values = ["", "x", &digits, &format!("{digits}y"), &format!("{digits}ll"), &format!("{}Fl", &digits[1..])];
        for value in values {
            assert_eq!(Contributor::split(&LabelSet::new([("job", "a"), (CONTRIBUTION, value)])), None, "{value}");
        }
        let valid = format!("{digits}l");
        assert!(Contributor::split(&LabelSet::new([("job", "a"), (CONTRIBUTION, &valid)])).is_some());
        assert_eq!(Contributor::split(&LabelSet::new([(CONTRIBUTION, &valid)])), None, "no group has an empty key");
        assert_eq!(Contributor::split(&LabelSet::new([("job", "a")])), None);
    }
}
