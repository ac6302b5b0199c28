//! Splits a list that is too long for one page.

/// The part of a list on a page, and the links to the parts before and after it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Pager {
    /// The first one shown, counted from 1.
    pub first: usize,
    /// The last one shown; less than `first` if there is none.
    pub last: usize,
    /// The length of the list.
    pub total: usize,
    /// The link to the part before this one.
    pub previous: Option<String>,
    /// The link to the part after this one.
    pub next: Option<String>,
}

impl Pager {
    /// The part of `all` that begins at `from`, with at most `per_page` elements; the last part if `from` is past the
    /// end.
    pub fn cut<T>(all: Vec<T>, from: usize, per_page: usize, link: impl Fn(usize) -> String) -> (Vec<T>, Self) {
        let total = all.len();
        let from = if from < total { from } else { total.saturating_sub(1) / per_page * per_page };
        let part: Vec<T> = all.into_iter().skip(from).take(per_page).collect();
        let last = from + part.len();
        let previous = (from > 0).then(|| link(from.saturating_sub(per_page)));
        let next = (last < total).then(|| link(last));
        (part, Self { first: from + 1, last, total, previous, next })
    }

    /// Whether the list has more than one part.
    pub fn is_needed(&self) -> bool {
        self.previous.is_some() || self.next.is_some()
    }

    /// `1–100 of 10,000`.
    pub fn range(&self) -> String {
        format!("{}–{} of {}", grouped(self.first), grouped(self.last), grouped(self.total))
    }
}

/// A count with commas: `10,000`.
pub(super) fn grouped(count: usize) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_cut() {
        let cut = |from| {
            let (part, pager) = Pager::cut((0..250).collect(), from, 100, |from| format!("?from={from}"));
            (part.len(), pager.range(), pager.previous, pager.next)
        };
        let link = |from| Some(format!("?from={from}"));
        assert_eq!(cut(0), (100, "1–100 of 250".into(), None, link(100)));
        assert_eq!(cut(200), (50, "201–250 of 250".into(), link(100), None));
        assert_eq!(cut(30), (100, "31–130 of 250".into(), link(0), link(130)));
        assert_eq!(cut(250), cut(200));
        assert_eq!(cut(usize::MAX), cut(200));
        assert!(!Pager::cut(Vec::<u8>::new(), 7, 100, |_| String::new()).1.is_needed());
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}
