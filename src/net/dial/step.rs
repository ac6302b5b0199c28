//! The steps of dialling a hub, in their order.

/// A step of dialling a hub; its name is a value of the label `step`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DialStep {
    /// Resolving names: the hub's, or the proxy's.
    Names,
    /// Opening a TCP connection to an address.
    Addresses,
    /// Asking the proxy for a tunnel.
    Proxy,
    /// TLS with the hub.
    Tls,
    /// Requesting the WebSocket.
    Transport,
    /// The handshake of the link: the hello and the welcome.
    Hello,
}

impl DialStep {
    /// All steps, in their order.
    pub const ALL: [Self; 6] = [Self::Names, Self::Addresses, Self::Proxy, Self::Tls, Self::Transport, Self::Hello];

    /// The name of the step.
    pub fn name(self) -> &'static str {
        match self {
            Self::Names => "names",
            Self::Addresses => "addresses",
            Self::Proxy => "proxy",
            Self::Tls => "tls",
            Self::Transport => "transport",
            Self::Hello => "hello",
        }
    }
}

/// Dialled in vain: the number of attempts by the step that they reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DialFailures([u64; DialStep::ALL.len()]);

impl DialFailures {
    /// Counts an attempt that ended in that step.
    pub fn add(&mut self, step: DialStep) {
        self.0[step as usize] += 1;
    }

    /// The numbers of attempts by the step that they reached.
    pub fn counts(&self) -> impl Iterator<Item = (DialStep, u64)> {
        DialStep::ALL.into_iter().zip(self.0)
    }
}
