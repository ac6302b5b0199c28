//! The only source of randomness: SplitMix64, seeded with the number of the run.

/// A generator of random numbers.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// All numbers are a function of `seed`.
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0xd134_2543_de82_ef95).wrapping_add(0x9e37_79b9))
    }

    /// Any number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number that is not zero, for an identifier.
    pub fn id(&mut self) -> u64 {
        self.next() | 1
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    /// A number from `low` to below `high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low)
    }

    /// `true` in `percent` of all calls.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// A random element.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        if of.is_empty() { None } else { of.get(self.below(of.len() as u64) as usize) }
    }

    /// A duration from `low` to `high`. Each power of two is equally likely.
    pub fn span(&mut self, low: u64, high: u64) -> u64 {
        let (mut least, mut steps) = (low.max(1), Vec::with_capacity(40));
        while least < high {
            steps.push(least);
            least *= 2;
        }
        let from = *self.pick(&steps).unwrap_or(&low);
        self.between(from, (2 * from).min(high).max(from + 1))
    }
}
