//! The values of a family: the part of it that changes from push to push.

use std::ops::Deref;
use std::sync::Arc;

/// The values of a family: read more often than written, and cheap to clone. Several values are shared by reference; a
/// single value, which most families have, is stored inline.
#[derive(Clone, Debug)]
pub struct Values(Repr);

#[derive(Clone, Debug)]
enum Repr {
    One([f64; 1]),
    Shared(Arc<[f64]>),
}

impl Values {
    /// `len` times +0.0, to be overwritten.
    pub fn zeros(len: usize) -> Self {
        std::iter::repeat_n(0.0, len).collect()
    }

    /// The values for changing; shared values are copied first.
    pub fn make_mut(&mut self) -> &mut [f64] {
        match &mut self.0 {
            Repr::One(value) => value,
            Repr::Shared(values) => Arc::make_mut(values),
        }
    }

    /// Whether the two are certainly equal, bit by bit. Compares at most one value.
    pub fn shares(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Repr::One([a]), Repr::One([b])) => a.to_bits() == b.to_bits(),
            (Repr::Shared(a), Repr::Shared(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }
}

impl Deref for Values {
    type Target = [f64];
    fn deref(&self) -> &[f64] {
        match &self.0 {
            Repr::One(value) => value,
            Repr::Shared(values) => values,
        }
    }
}

impl From<&[f64]> for Values {
    fn from(values: &[f64]) -> Self {
        match values {
            [value] => Self(Repr::One([*value])),
            _ => Self(Repr::Shared(values.into())),
        }
    }
}

impl FromIterator<f64> for Values {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        let mut values = values.into_iter();
        if values.size_hint() == (1, Some(1))
            && let Some(value) = values.next()
        {
            return Self(Repr::One([value]));
        }
        Self(Repr::Shared(values.collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_value_is_no_larger_than_a_reference() {
        assert_eq!(size_of::<Values>(), size_of::<Arc<[f64]>>());
    }

    #[test]
    fn a_change_does_not_affect_clones() {
        for len in 0..4 {
            let before = Values::zeros(len);
            let mut after = before.clone();
            assert!(after.shares(&before) && before.len() == len);
            after.make_mut().iter_mut().for_each(|value| *value = 1.0);
            assert_eq!((&before[..], &after[..]), (&vec![0.0; len][..], &vec![1.0; len][..]));
            assert!(len == 0 || !after.shares(&before));
        }
    }

    #[test]
    fn one_value_is_compared_by_its_bits() {
        let one = |value: f64| Values::from(&[value][..]);
        assert!(one(f64::NAN).shares(&one(f64::NAN)) && !one(0.0).shares(&one(-0.0)));
        assert!(!one(0.0).shares(&Values::zeros(2)));
        let filtered: Values = [1.0, 2.0].into_iter().filter(|value| *value > 1.0).collect();
        assert_eq!(filtered[..], [2.0]);
    }
}
