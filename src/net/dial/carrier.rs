//! Connections to servers that are no hubs: names, addresses and proxy, the first three steps of dialling.

use std::fmt;
use std::time::Duration;

use thiserror::Error;
use tokio_util::either::Either;

use super::error::{DialFailure, DialStepError};
use super::event::{DialEvent, DialObserver};
use super::race::{Race, resolve};
use super::way::Way;
use super::{SOCKS_ADDRESSES_MAX, fail};
use crate::net::address::HostPort;
use crate::net::counted::Counted;
use crate::net::proxy::{Carrier, Proxy, ProxyScheme, target_of};

/// No address of the server could be reached.
#[derive(Debug, Error)]
#[error("cannot connect to {target}: {}", Reasons(failures))]
pub struct CarrierError {
    target: HostPort,
    failures: Vec<DialFailure>,
}

/// The failures, each with its address and proxy.
struct Reasons<'a>(&'a [DialFailure]);

impl fmt::Display for Reasons<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, failure) in self.0.iter().enumerate() {
            f.write_str(if number > 0 { "; " } else { "" })?;
            if let Some(proxy) = &failure.way.proxy {
                write!(f, "through the proxy {proxy}: ")?;
            } else if let Some(address) = failure.address {
                write!(f, "{address}: ")?;
            }
            write!(f, "{}", failure.error)?;
        }
        Ok(())
    }
}

/// Connects to a server, through the proxy if that serves it. `limit` is the time for each look-up, and for the
/// connection to any address.
///
/// # Errors
/// If no address can be reached, or the proxy opens no tunnel.
pub async fn connect(
    target: &HostPort,
    proxy: Option<&Proxy>,
    limit: Duration,
    observer: &mut dyn DialObserver,
) -> Result<Carrier, CarrierError> {
    let proxy = proxy.filter(|proxy| proxy.serves(target));
    let way = Way { order: 0, target: target.clone(), proxy: proxy.map(|proxy| proxy.url().clone()) };
    let mut failures = Vec::new();
    let destinations = match proxy.map(|proxy| proxy.url().scheme()) {
        Some(ProxyScheme::Socks5) => match resolve(target, limit).await {
            Ok(addresses) => {
                observer.seen(DialEvent::Resolved { host: target, addresses: &addresses });
                addresses.iter().filter_map(target_of).take(SOCKS_ADDRESSES_MAX).collect()
            }
            Err(error) => {
                let failure = DialFailure { way, address: None, error };
                observer.seen(DialEvent::Failed(&failure));
                return Err(CarrierError { target: target.clone(), failures: vec![failure] });
            }
        },
        _ => vec![target.clone()],
    };
    for destination in destinations {
        let mut race = Race::new(vec![way.clone()], limit);
        while let Some((candidate, stream)) = race.next(&mut failures, observer).await {
            let stream = Counted::new(stream);
            let Some(proxy) = proxy else { return Ok(Either::Left(stream)) };
            match proxy.open(stream, &destination).await {
                Ok((tunnel, answer)) => {
                    observer.seen(DialEvent::Tunnelled { way: &way, answer: &answer });
                    return Ok(tunnel);
                }
                Err(error) => {
                    let is_answer = error.is_answer();
                    fail(&way, candidate, DialStepError::Proxy(error), &mut failures, observer);
                    if is_answer {
                        // The other addresses of the proxy would lead to the same.
                        break;
                    }
                }
            }
        }
    }
    Err(CarrierError { target: target.clone(), failures })
}
