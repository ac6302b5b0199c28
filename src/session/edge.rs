//! The edge's end: it says hello, and waits for a welcome.

use std::collections::VecDeque;

use crate::model::{LabelSet, Revision};
use crate::wire::{CloseReason, Hello, Message, PeerInfo, VERSION, Welcome};

use super::event::{Config, Established, Event, MILLISECOND_NS, SessionAction, SessionTime};
use super::lag::Lag;
use super::offset::Offset;
use super::peer::{
    Agreement, HEARTBEAT_NS_MAX, HEARTBEAT_NS_MIN, LinkEnd, MESSAGE_BYTES_MIN, OpenSession, SessionFault, close,
    closed_by_peer,
};
use super::resume::resume;

/// What an edge has to know besides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EdgeConfig {
    /// Times and bounds.
    pub link: Config,
    /// The place that the edge claims.
    pub labels: LabelSet,
    /// Since when changes wait that were made before this conversation, by the wall clock.
    pub lag: Lag,
}

/// One conversation with a hub.
#[derive(Debug)]
pub struct Edge {
    config: EdgeConfig,
    info: PeerInfo,
    head: Revision,
    offset: Offset,
    state: State,
    actions: VecDeque<SessionAction>,
}

#[derive(Debug)]
enum State {
    Greeting { deadline_ns: u64 },
    Open(Box<OpenSession>),
    Closed,
}

impl Edge {
    /// Begins a conversation on a new connection. The facts are those of the store now; no other session with the same hub
    /// may have commits under way.
    pub fn new(config: EdgeConfig, info: PeerInfo, now: SessionTime) -> Self {
        let offset = Offset::default();
        let hello = Hello {
            version: VERSION,
            info: info.clone(),
            labels: config.labels.clone(),
            message_bytes_max: config.link.message_bytes_max as u64,
            clock: offset.reading(now),
        };
        let deadline_ns = now.monotonic_ns.saturating_add(config.link.handshake_ns);
        let state = State::Greeting { deadline_ns };
        let actions = VecDeque::from([SessionAction::Send(Message::Hello(hello))]);
        Self { config, head: info.head, info, offset, state, actions }
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<SessionAction> {
        self.actions.pop_front()
    }

    /// When [`Event::Tick`] is due, by the monotonic clock; `None` once the conversation is over.
    pub fn next_timeout(&self) -> Option<u64> {
        match &self.state {
            State::Greeting { deadline_ns } => Some(*deadline_ns),
            State::Open(peer) => Some(peer.next_timeout()),
            State::Closed => None,
        }
    }

    /// Whether [`Event::Head`] makes a difference now; where it does not, the newest is to be told as soon as it does.
    pub fn listens(&self) -> bool {
        match &self.state {
            State::Open(peer) => peer.listens(),
            _ => true,
        }
    }

    /// Whether the handshake is over: before, a peer has no updates to send.
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open(_))
    }

    /// Takes an event; what is to be done then comes from [`Edge::poll_action`].
    pub fn handle(&mut self, event: Event, now: SessionTime) {
        let result = match (&mut self.state, event) {
            (State::Closed, _) => Ok(()),
            (_, Event::Message(Message::Close(close))) => {
                closed_by_peer(close, &mut self.actions);
                self.state = State::Closed;
                Ok(())
            }
            (_, Event::Malformed(text)) => Err(SessionFault::new(CloseReason::Malformed, text)),
            (_, Event::CommitFailed(text)) => Err(SessionFault::storage(text)),
            (State::Open(peer), event) => peer.handle(event, now, &mut self.actions),
            (_, Event::Stop(refused)) => Err(refused.into()),
            (State::Greeting { deadline_ns }, event) => {
                let late = now.monotonic_ns >= *deadline_ns;
                self.greeting(event, late, now)
            }
        };
        if let Err(fault) = result {
            close(fault, &mut self.actions);
            self.state = State::Closed;
        }
    }

    fn greeting(&mut self, event: Event, late: bool, now: SessionTime) -> Result<(), SessionFault> {
        match event {
            Event::Message(Message::Welcome(welcome)) => self.open(welcome, now),
            Event::Message(other) => Err(SessionFault::unexpected(&other)),
            Event::Head(head) => {
                self.head = self.head.max(head);
                Ok(())
            }
            Event::Tick if late => Err(SessionFault::new(CloseReason::Handshake, "no welcome came in time".into())),
            _ => Ok(()),
        }
    }

    fn open(&mut self, welcome: Welcome, now: SessionTime) -> Result<(), SessionFault> {
        let heartbeat_ns = u64::from(welcome.heartbeat_ms) * MILLISECOND_NS;
        check(&welcome, self.info.store, heartbeat_ns)?;
        let theirs = welcome.info;
        let resume = match resume(&self.info, &theirs) {
            _ if welcome.resync => None,
            Some((of_ours, _)) => Some((of_ours, self.info.held_of(theirs.store).unwrap_or_default())),
            None => return Err(SessionFault::protocol("the hub would go on where the stores must resync".into())),
        };
        let offset = self.offset.read(welcome.clock, now);
        self.actions.push_back(SessionAction::Established(Established {
            peer: theirs.clone(),
            site: welcome.site,
            resync: welcome.resync,
            heartbeat_ns,
            upstream_stores: welcome.upstream_stores,
        }));
        self.actions.extend(offset.map(SessionAction::ClockOffset));
        let agreement = Agreement {
            role: LinkEnd::Edge,
            config: self.config.link,
            heartbeat_ns,
            ours: &self.info,
            theirs: &theirs,
            message_bytes_max: welcome.message_bytes_max,
            resume,
            offset: std::mem::take(&mut self.offset),
            lag: std::mem::take(&mut self.config.lag),
        };
        self.state = State::Open(Box::new(OpenSession::open(agreement, self.head, now, &mut self.actions)));
        Ok(())
    }
}

fn check(welcome: &Welcome, store: crate::model::StoreId, heartbeat_ns: u64) -> Result<(), SessionFault> {
    if welcome.version != VERSION {
        let text = format!("the hub speaks version {} of the protocol, this edge {VERSION}", welcome.version);
        return Err(SessionFault::new(CloseReason::Version, text));
    }
    if welcome.info.store == store {
        return Err(same_store(store));
    }
    if welcome.upstream_stores.contains(&store) {
        let text = format!("the hub sends to hubs that send to this node, store {store}: what goes around never ends");
        return Err(SessionFault::new(CloseReason::Loop, text));
    }
    if !(HEARTBEAT_NS_MIN..=HEARTBEAT_NS_MAX).contains(&heartbeat_ns) {
        return Err(SessionFault::protocol(format!("heartbeats every {} ms are not allowed", welcome.heartbeat_ms)));
    }
    check_bytes_max(welcome.message_bytes_max)
}

pub(super) fn same_store(store: crate::model::StoreId) -> SessionFault {
    let text = format!(
        "both ends have store {store}: one is a copy of the other and needs a new identity, or this node dials itself"
    );
    SessionFault::new(CloseReason::SameStore, text)
}

pub(super) fn check_bytes_max(message_bytes_max: u64) -> Result<(), SessionFault> {
    if message_bytes_max < MESSAGE_BYTES_MIN {
        let text = format!("a bound of {message_bytes_max} bytes a message is under {MESSAGE_BYTES_MIN}");
        return Err(SessionFault::protocol(text));
    }
    Ok(())
}
