//! Shards: several scrapers share a hub, each with its part of the groups.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::model::LabelSet;

/// Shards of one page, at most.
pub const SHARDS_MAX: u32 = 1_000;

/// One of several parts of all groups. A group belongs to the shard that a hash of its labels gives: the same on every
/// node, and after every restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shard {
    /// From 1 on.
    number: u32,
    of: u32,
}

/// The text is no shard.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "shard {0:?} is not I/N: write a number and the number of shards, from 1/1 to {SHARDS_MAX}/{SHARDS_MAX}, such as 1/4"
)]
pub struct ShardError(String);

impl Shard {
    /// All shards of so many; none if there are more than [`SHARDS_MAX`].
    pub fn all(of: u32) -> impl Iterator<Item = Shard> {
        (1..=of).map(move |number| Shard { number, of }).filter(|shard| shard.of <= SHARDS_MAX)
    }

    /// The number of shards.
    pub fn of(self) -> u32 {
        self.of
    }

    /// Whether the group that is shown under these labels belongs to the shard. The node's own metrics, which have no
    /// group, belong to that of the empty set.
    pub fn has(self, shown: &LabelSet) -> bool {
        // The upper bits of the product: a number from 0 on, below `of`.
        let number = (u128::from(shown.stable_hash()) * u128::from(self.of)) >> 64;
        number + 1 == u128::from(self.number)
    }
}

impl FromStr for Shard {
    type Err = ShardError;

    fn from_str(text: &str) -> Result<Self, ShardError> {
        let error = || ShardError(text.chars().take(40).collect());
        let (number, of) = text.split_once('/').ok_or_else(error)?;
        let parse = |part: &str| part.parse::<u32>().ok().filter(|_| part.bytes().all(|byte| byte.is_ascii_digit()));
        let (number, of) = parse(number).zip(parse(of)).ok_or_else(error)?;
        let is_valid = (1..=of).contains(&number) && of <= SHARDS_MAX;
        is_valid.then_some(Shard { number, of }).ok_or_else(error)
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.of)
    }
}
