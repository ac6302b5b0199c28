//! A limit on wrong invitations from one address: they can be guessed only by luck, but each costs a look-up on the disk.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Wrong invitations from one address in [`WINDOW`], at most.
const WRONG_MAX: u32 = 10;
/// The time in which they are counted.
const WINDOW: Duration = Duration::from_secs(60);
/// Addresses that are remembered, at most. Beyond that, no new address may try until others are forgotten.
const ADDRESSES_MAX: usize = 1_000;

/// The addresses from which wrong invitations came lately.
#[derive(Debug, Default)]
pub(super) struct WrongInvitations(HashMap<IpAddr, (Instant, u32)>);

impl WrongInvitations {
    /// Whether an address may try.
    pub fn may_try(&mut self, address: IpAddr, now: Instant) -> bool {
        let address = network(address);
        self.0.retain(|_, (since, _)| now.duration_since(*since) < WINDOW);
        match self.0.get(&address) {
            Some((_, wrong)) => *wrong < WRONG_MAX,
            None => self.0.len() < ADDRESSES_MAX,
        }
    }

    /// Counts a wrong invitation.
    pub fn count(&mut self, address: IpAddr, now: Instant) {
        let address = network(address);
        if self.0.len() < ADDRESSES_MAX || self.0.contains_key(&address) {
            self.0.entry(address).or_insert((now, 0)).1 += 1;
        }
    }
}

/// The network that one party has: an IPv4 address, or 64 bits of an IPv6 address.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::from((u128::from(address) >> 64 << 64).to_be_bytes()),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_with_many_wrong_invitations_waits_and_others_do_not() {
        let (mut wrong, now) = (WrongInvitations::default(), Instant::now());
        let [one, same, other]: [IpAddr; 3] =
            ["2001:db8::1", "2001:db8::2", "192.0.2.1"].map(|text| text.parse().unwrap());
        for _ in 0..WRONG_MAX {
            assert!(wrong.may_try(one, now));
            wrong.count(one, now);
        }
        assert!(!wrong.may_try(same, now) && wrong.may_try(other, now));
        assert!(wrong.may_try(one, now + WINDOW));
        for number in 0..2 * ADDRESSES_MAX as u32 {
            wrong.count(IpAddr::from(number.to_be_bytes()), now);
        }
        assert!(wrong.0.len() == ADDRESSES_MAX && !wrong.may_try(other, now) && wrong.may_try(other, now + WINDOW));
    }
}
