//! The first two steps of dialling: names to addresses, and addresses to a TCP connection.
//!
//! A name may have several addresses, of which some may not work: an IPv6 address whose packets a firewall drops, or a
//! machine that is down. A [`Race`] therefore follows RFC 8305 (Happy Eyeballs): it starts an attempt every 250 ms,
//! alternates between IPv6 and IPv4, and takes the first connection that opens. With several targets, the first ones go
//! first, but a name that is resolved slowly delays the others by 250 ms only.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, sleep_until, timeout};

use super::error::{DialFailure, DialStepError};
use super::event::{DialEvent, DialObserver};
use super::way::Way;
use crate::net::address::HostPort;

/// The pause before the next address is tried while an attempt has no answer (RFC 8305, section 5).
pub(super) const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// Addresses of one name that are tried, at most.
pub(super) const ADDRESSES_MAX: usize = 32;

/// An address to connect to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    /// The place of its way among those of the race.
    pub place: usize,
    /// The address.
    pub address: SocketAddr,
}

/// A look-up that is under way: the place of its way, and the result.
type LookUp = Pin<Box<dyn Future<Output = (usize, Result<Vec<SocketAddr>, DialStepError>)> + Send>>;

/// TCP connections to the first hops of ways, one after the other as long as they are asked for.
pub(super) struct Race {
    ways: Vec<Way>,
    /// The time for each look-up, and for the connection to any address.
    limit: Duration,
    look_ups: FuturesUnordered<LookUp>,
    /// Ways whose look-up is under way.
    unresolved: Vec<usize>,
    /// The time from which candidates do not wait for the look-ups of ways before theirs.
    patient_until: Instant,
    /// Addresses that are to be tried, in this order.
    waiting: Vec<Candidate>,
}

impl Race {
    /// Begins to resolve all names.
    pub fn new(ways: Vec<Way>, limit: Duration) -> Self {
        let look_ups = FuturesUnordered::new();
        for (place, hop) in ways.iter().map(|way| way.first_hop().clone()).enumerate() {
            let look_up: LookUp = Box::pin(async move { (place, resolve(&hop, limit).await) });
            look_ups.push(look_up);
        }
        let unresolved = (0..ways.len()).collect();
        let patient_until = Instant::now() + ATTEMPT_DELAY;
        Self { ways, limit, look_ups, unresolved, patient_until, waiting: Vec::new() }
    }

    /// The way to which an address belongs.
    pub fn way(&self, candidate: Candidate) -> &Way {
        &self.ways[candidate.place]
    }

    /// The next connection: tries the next address when an attempt fails, or has no answer within [`ATTEMPT_DELAY`], and
    /// drops the other attempts when one succeeds; their addresses are tried again by the next call. Failures are added
    /// to `failures`. `None` if no address is left.
    pub async fn next(
        &mut self,
        failures: &mut Vec<DialFailure>,
        observer: &mut dyn DialObserver,
    ) -> Option<(Candidate, TcpStream)> {
        let mut attempts = FuturesUnordered::new();
        let mut under_way: Vec<Candidate> = Vec::new();
        let mut deadline = None;
        let mut next_at = Instant::now();
        loop {
            let now = Instant::now();
            if let Some(candidate) = self.take_next(now).filter(|_| attempts.is_empty() || now >= next_at) {
                deadline.get_or_insert(now + self.limit);
                next_at = now + ATTEMPT_DELAY;
                under_way.push(candidate);
                self.waiting.retain(|other| *other != candidate);
                attempts.push(async move { (candidate, connect(candidate.address).await) });
                continue;
            }
            // A name that is resolved later gets the whole time.
            deadline = deadline.filter(|_| !under_way.is_empty() || !self.waiting.is_empty());
            let patience = self.patient_until;
            tokio::select! {
                biased;
                Some((candidate, connected)) = attempts.next() => {
                    under_way.retain(|other| *other != candidate);
                    match connected {
                        Ok(stream) => {
                            self.waiting.splice(0..0, under_way);
                            observer.seen(DialEvent::Connected { address: candidate.address });
                            return Some((candidate, stream));
                        }
                        Err(error) => {
                            next_at = Instant::now();
                            self.fail(candidate, DialStepError::Connect(error), failures, observer);
                        }
                    }
                }
                Some((place, resolved)) = self.look_ups.next() => self.resolved(place, resolved, failures, observer),
                () = sleep_until(deadline.unwrap_or(now)), if deadline.is_some() => {
                    deadline = None;
                    attempts = FuturesUnordered::new();
                    for candidate in under_way.drain(..).chain(std::mem::take(&mut self.waiting)) {
                        self.fail(candidate, DialStepError::ConnectTimedOut(self.limit), failures, observer);
                    }
                }
                () = sleep_until(next_at), if now < next_at && self.take_next(now).is_some() => {}
                () = sleep_until(patience), if now < patience && !self.waiting.is_empty() => {}
                else => return None,
            }
        }
    }

    /// The next address to try. While there is time, it does not pass ways whose names are being resolved.
    fn take_next(&self, now: Instant) -> Option<Candidate> {
        let next = *self.waiting.first()?;
        let passes_one = self.unresolved.iter().any(|place| *place < next.place);
        (!passes_one || now >= self.patient_until).then_some(next)
    }

    fn resolved(
        &mut self,
        place: usize,
        resolved: Result<Vec<SocketAddr>, DialStepError>,
        failures: &mut Vec<DialFailure>,
        observer: &mut dyn DialObserver,
    ) {
        self.unresolved.retain(|other| *other != place);
        let way = &self.ways[place];
        match resolved {
            Ok(addresses) => {
                observer.seen(DialEvent::Resolved { host: way.first_hop(), addresses: &addresses });
                self.waiting.extend(addresses.into_iter().map(|address| Candidate { place, address }));
                self.waiting.sort_by_key(|candidate| candidate.place);
            }
            Err(error) => {
                let failure = DialFailure { way: way.clone(), address: None, error };
                observer.seen(DialEvent::Failed(&failure));
                failures.push(failure);
            }
        }
    }

    fn fail(
        &self,
        candidate: Candidate,
        error: DialStepError,
        failures: &mut Vec<DialFailure>,
        observer: &mut dyn DialObserver,
    ) {
        let (way, address) = (self.way(candidate).clone(), Some(candidate.address));
        let failure = DialFailure { way, address, error };
        observer.seen(DialEvent::Failed(&failure));
        failures.push(failure);
    }
}

/// The addresses of a name, in the order in which they are tried; at least one.
///
/// # Errors
/// If the name cannot be resolved in time.
pub(super) async fn resolve(target: &HostPort, limit: Duration) -> Result<Vec<SocketAddr>, DialStepError> {
    let resolved = timeout(limit, lookup_host((target.host(), target.port())))
        .await
        .map_err(|_| DialStepError::ResolveTimedOut(limit))?
        .map_err(DialStepError::Resolve)?;
    let addresses = interleaved(resolved.collect());
    if addresses.is_empty() { Err(DialStepError::NoAddress) } else { Ok(addresses) }
}

/// The addresses in the resolver's order (RFC 6724), but alternating between the families, so that a family without a
/// route costs one [`ATTEMPT_DELAY`] (RFC 8305, section 4).
pub(super) fn interleaved(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_ipv6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == first_is_ipv6);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut all = Vec::new();
    loop {
        let pair = [first.next(), second.next()];
        if pair == [None, None] || all.len() >= ADDRESSES_MAX {
            return all;
        }
        all.extend(pair.into_iter().flatten().filter(|address| !all.contains(address)).collect::<Vec<_>>());
    }
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    // Messages are written whole, so Nagle's algorithm would only delay them.
    stream.set_nodelay(true)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn the_families_alternate_and_the_resolver_says_which_is_first() {
        let parse = |addresses: &[&str]| addresses.iter().map(|address| address.parse().unwrap()).collect::<Vec<_>>();
        let resolved = parse(&["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1", "[::1]:1", "2.2.2.2:1"]);
        let expected = parse(&["[::1]:1", "1.1.1.1:1", "[::2]:1", "2.2.2.2:1", "[::3]:1"]);
        assert_eq!(interleaved(resolved), expected);
        assert_eq!(interleaved(parse(&["1.1.1.1:1", "[::1]:1"])), parse(&["1.1.1.1:1", "[::1]:1"]));
        assert_eq!(interleaved(Vec::new()), Vec::new());
        let many = (0..1_000).map(|port| SocketAddr::from(([1, 1, 1, 1], port))).collect();
        assert_eq!(interleaved(many).len(), ADDRESSES_MAX);
    }

    /// A race to two listeners; the name of the first one is resolved after that time.
    async fn won_if_the_first_name_takes(delay: Duration) -> usize {
        let listeners =
            [TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap()];
        let addresses = listeners.each_ref().map(|listener| listener.local_addr().unwrap());
        let way = |address: SocketAddr| Way { order: 0, target: address.to_string().parse().unwrap(), proxy: None };
        let mut race = Race::new(addresses.map(way).into(), Duration::from_secs(60));
        race.look_ups = FuturesUnordered::new();
        let look_ups: [LookUp; 2] = [
            Box::pin(async move {
                tokio::time::sleep(delay).await;
                (0, Ok(vec![addresses[0]]))
            }),
            Box::pin(async move { (1, Ok(vec![addresses[1]])) }),
        ];
        race.look_ups.extend(look_ups);
        race.next(&mut Vec::new(), &mut ()).await.unwrap().0.place
    }

    #[tokio::test]
    async fn the_first_target_goes_first_unless_its_name_is_resolved_slowly() {
        assert_eq!(won_if_the_first_name_takes(Duration::from_millis(20)).await, 0);
        assert_eq!(won_if_the_first_name_takes(Duration::from_secs(60)).await, 1);
    }
}
