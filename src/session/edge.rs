//! The edge's side of the handshake: it sends a hello and waits for a welcome.

use std::collections::VecDeque;

use crate::model::{LabelSet, Revision, StoreId};
use crate::wire::{CloseReason, Hello, Message, PeerInfo, VERSION, Welcome};

use super::event::{Config, Established, Event, MILLISECOND_NS, SessionAction, SessionEvent, SessionTime};
use super::fault::SessionFault;
use super::lag::Lag;
use super::offset::Offset;
use super::open::{Agreement, HEARTBEAT_NS_MAX, HEARTBEAT_NS_MIN, LinkEnd, OpenSession, check_message_bytes_max};
use super::progress::PeerProgress;
use super::resume::resume;

/// The configuration of an edge's endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EdgeConfig {
    /// Times and bounds that both ends have.
    pub link: Config,
    /// The site labels that the edge claims.
    pub labels: LabelSet,
    /// The changes made before this session that the hub does not have yet, by the wall clock.
    pub lag: Lag,
    /// The progress of earlier sessions with the same hub.
    pub progress: Option<PeerProgress>,
}

/// The state until the hub's welcome.
#[derive(Debug)]
pub(super) struct EdgeHandshake {
    config: EdgeConfig,
    info: PeerInfo,
    head: Revision,
    offset: Offset,
    deadline_ns: u64,
}

impl EdgeHandshake {
    /// Sends the hello.
    pub fn begin(config: EdgeConfig, info: PeerInfo, now: SessionTime, actions: &mut VecDeque<SessionAction>) -> Self {
        let offset = Offset::default();
        actions.push_back(SessionAction::Send(Message::Hello(Hello {
            version: VERSION,
            info: info.clone(),
            labels: config.labels.clone(),
            message_bytes_max: config.link.message_bytes_max as u64,
            clock: offset.reading(now),
        })));
        let deadline_ns = now.monotonic_ns.saturating_add(config.link.handshake_ns);
        Self { config, head: info.head, info, offset, deadline_ns }
    }

    pub fn deadline_ns(&self) -> u64 {
        self.deadline_ns
    }

    /// Handles an event; returns the session once the handshake is complete.
    pub fn handle(
        &mut self,
        event: Event,
        now: SessionTime,
        actions: &mut VecDeque<SessionAction>,
    ) -> Result<Option<Box<OpenSession>>, SessionFault> {
        match event {
            Event::Message(Message::Welcome(welcome)) => self.open(welcome, now, actions).map(Some),
            Event::Message(other) => Err(SessionFault::unexpected(&other)),
            Event::Head(head) => {
                self.head = self.head.max(head);
                Ok(None)
            }
            Event::Tick if now.monotonic_ns >= self.deadline_ns => {
                Err(SessionFault::new(CloseReason::Handshake, "no welcome came in time".into()))
            }
            _ => Ok(None),
        }
    }

    fn open(
        &mut self,
        welcome: Welcome,
        now: SessionTime,
        actions: &mut VecDeque<SessionAction>,
    ) -> Result<Box<OpenSession>, SessionFault> {
        let heartbeat_ns = u64::from(welcome.heartbeat_ms) * MILLISECOND_NS;
        check(&welcome, self.info.store, heartbeat_ns)?;
        let theirs = welcome.info;
        let resume = match resume(&self.info, &theirs) {
            _ if welcome.resync => None,
            Some((of_ours, _)) => Some((of_ours, self.info.cursor_for(theirs.store).unwrap_or_default())),
            None => return Err(SessionFault::protocol("the hub would resume where the stores must resync".into())),
        };
        let known = self.config.progress.take();
        let progress = PeerProgress::at_start(resume, known, &self.info, &theirs, &welcome.site);
        let offset = self.offset.read(welcome.clock, now);
        actions.push_back(SessionAction::Notify(SessionEvent::Established(Box::new(Established {
            peer: theirs.clone(),
            site: welcome.site,
            resync: welcome.resync,
            heartbeat_ns,
            upstream_stores: welcome.upstream_stores,
            progress: progress.clone(),
        }))));
        actions.extend(offset.map(|offset_ns| SessionAction::Notify(SessionEvent::ClockOffset(offset_ns))));
        let agreement = Agreement {
            end: LinkEnd::Edge,
            config: self.config.link,
            heartbeat_ns,
            theirs: &theirs,
            message_bytes_max: welcome.message_bytes_max,
            resume,
            progress,
            sends_early: welcome.takes_early,
            offset: std::mem::take(&mut self.offset),
            lag: std::mem::take(&mut self.config.lag),
        };
        Ok(Box::new(OpenSession::open(agreement, self.head, now, actions)))
    }
}

fn check(welcome: &Welcome, store: StoreId, heartbeat_ns: u64) -> Result<(), SessionFault> {
    if welcome.version != VERSION {
        let text = format!("the hub speaks version {} of the protocol, this edge {VERSION}", welcome.version);
        return Err(SessionFault::new(CloseReason::Version, text));
    }
    if welcome.info.store == store {
        return Err(SessionFault::same_store(store));
    }
    if welcome.upstream_stores.contains(&store) {
        let text = format!("the hub sends to hubs that send to this node, store {store}: the links form a loop");
        return Err(SessionFault::new(CloseReason::Loop, text));
    }
    if !(HEARTBEAT_NS_MIN..=HEARTBEAT_NS_MAX).contains(&heartbeat_ns) {
        return Err(SessionFault::protocol(format!("heartbeats every {} ms are not allowed", welcome.heartbeat_ms)));
    }
    check_message_bytes_max(welcome.message_bytes_max)
}
