//! The labels of a shown series: those of its group and its own, in the order of their names.

use crate::model::{Label, LabelSet, SeriesLayout};

/// A label of a shown series.
pub(super) enum ShownLabel<'a> {
    /// A label of the group, equal in all its series.
    Group(Label<'a>),
    /// A label of the series itself.
    Own {
        /// The label's name.
        name: &'a str,
        /// The label's index in the layout's names.
        at: usize,
    },
}

/// The labels of the series of one layout in a group, sorted by name. No name is in both: a family is built without the
/// labels of its group.
pub(super) fn shown<'a>(group: &'a LabelSet, layout: &'a SeriesLayout) -> impl Iterator<Item = ShownLabel<'a>> {
    let mut group = group.iter().peekable();
    let mut own = layout.names.iter().enumerate().peekable();
    std::iter::from_fn(move || match (group.peek(), own.peek()) {
        (Some(label), Some((_, name))) if *label.name <= ***name => group.next().map(ShownLabel::Group),
        (Some(_), None) => group.next().map(ShownLabel::Group),
        (_, Some(_)) => own.next().map(|(at, name)| ShownLabel::Own { name, at }),
        (None, None) => None,
    })
}
