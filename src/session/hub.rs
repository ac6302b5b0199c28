//! The hub's end: it waits for a hello, asks whether the edge may come in, and welcomes it.

use std::collections::VecDeque;

use crate::wire::{CloseReason, Hello, Message, VERSION, Welcome};

use super::edge::{check_bytes_max, same_store};
use super::event::{Admitted, Established, Event, HubConfig, MILLISECOND_NS, SessionAction, SessionTime};
use super::lag::Lag;
use super::offset::Offset;
use super::peer::{
    Agreement, HEARTBEAT_NS_MAX, HEARTBEAT_NS_MIN, LinkEnd, OpenSession, SessionFault, close, closed_by_peer,
};
use super::resume::resume;

/// One conversation with an edge.
#[derive(Debug)]
pub struct Hub {
    config: HubConfig,
    offset: Offset,
    state: State,
    actions: VecDeque<SessionAction>,
}

#[derive(Debug)]
enum State {
    Waiting { deadline_ns: u64 },
    Deciding { deadline_ns: u64, hello: Box<Hello> },
    Open(Box<OpenSession>),
    Closed,
}

impl Hub {
    /// Begins a conversation on a new connection.
    pub fn new(config: HubConfig, now: SessionTime) -> Self {
        let deadline_ns = now.monotonic_ns.saturating_add(config.link.handshake_ns);
        let state = State::Waiting { deadline_ns };
        Self { config, offset: Offset::default(), state, actions: VecDeque::new() }
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<SessionAction> {
        self.actions.pop_front()
    }

    /// When [`Event::Tick`] is due, by the monotonic clock; `None` once the conversation is over.
    pub fn next_timeout(&self) -> Option<u64> {
        match &self.state {
            State::Waiting { deadline_ns } | State::Deciding { deadline_ns, .. } => Some(*deadline_ns),
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

    /// Takes an event; what is to be done then comes from [`Hub::poll_action`].
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
            (_, Event::Stop(refused) | Event::Refused(refused)) => Err(refused.into()),
            (State::Waiting { deadline_ns } | State::Deciding { deadline_ns, .. }, Event::Tick) => {
                let late = now.monotonic_ns >= *deadline_ns;
                let fault = || SessionFault::new(CloseReason::Handshake, "the handshake took too long".into());
                if late { Err(fault()) } else { Ok(()) }
            }
            (State::Waiting { deadline_ns }, Event::Message(Message::Hello(hello))) => {
                let deadline_ns = *deadline_ns;
                self.consider(hello, deadline_ns, now)
            }
            (State::Deciding { .. }, Event::Admitted(admitted)) => self.open(admitted, now),
            (_, Event::Message(other)) => Err(SessionFault::unexpected(&other)),
            _ => Ok(()),
        };
        if let Err(fault) = result {
            close(fault, &mut self.actions);
            self.state = State::Closed;
        }
    }

    fn consider(&mut self, hello: Hello, deadline_ns: u64, now: SessionTime) -> Result<(), SessionFault> {
        if hello.version != VERSION {
            let text = format!("the edge speaks version {} of the protocol, this hub {VERSION}", hello.version);
            return Err(SessionFault::new(CloseReason::Version, text));
        }
        check_bytes_max(hello.message_bytes_max)?;
        self.offset.read(hello.clock, now);
        self.actions.push_back(SessionAction::Admit(hello.clone()));
        self.state = State::Deciding { deadline_ns, hello: Box::new(hello) };
        Ok(())
    }

    fn open(&mut self, admitted: Admitted, now: SessionTime) -> Result<(), SessionFault> {
        let State::Deciding { hello, .. } = std::mem::replace(&mut self.state, State::Closed) else {
            return Ok(());
        };
        let Admitted { info: ours, site, resync, upstream_stores } = admitted;
        let theirs = hello.info;
        if theirs.store == ours.store {
            return Err(same_store(ours.store));
        }
        let held = ours.held_of(theirs.store).unwrap_or_default();
        let resume = resume(&ours, &theirs).filter(|_| !resync).map(|(of_ours, _)| (of_ours, held));
        let resync = resume.is_none();
        let heartbeat_ns = self.config.heartbeat_ns.clamp(HEARTBEAT_NS_MIN, HEARTBEAT_NS_MAX);
        let welcome = Welcome {
            version: VERSION,
            info: ours.clone(),
            site: site.clone(),
            resync,
            heartbeat_ms: u32::try_from(heartbeat_ns / MILLISECOND_NS).unwrap_or(u32::MAX),
            message_bytes_max: self.config.link.message_bytes_max as u64,
            clock: self.offset.reading(now),
            upstream_stores: upstream_stores.clone(),
        };
        self.actions.push_back(SessionAction::Send(Message::Welcome(welcome)));
        self.actions.push_back(SessionAction::Established(Established {
            peer: theirs.clone(),
            site,
            resync,
            heartbeat_ns,
            upstream_stores,
        }));
        let agreement = Agreement {
            role: LinkEnd::Hub,
            config: self.config.link,
            heartbeat_ns,
            ours: &ours,
            theirs: &theirs,
            message_bytes_max: hello.message_bytes_max,
            resume,
            offset: std::mem::take(&mut self.offset),
            lag: Lag::default(),
        };
        self.state = State::Open(Box::new(OpenSession::open(agreement, ours.head, now, &mut self.actions)));
        Ok(())
    }
}
