//! The hub's side of the handshake: it waits for a hello, asks whether the edge may join, and sends a welcome.

use std::collections::VecDeque;

use crate::wire::{CloseReason, Hello, Message, VERSION, Welcome};

use super::event::{Admitted, Established, Event, HubConfig, MILLISECOND_NS, SessionAction, SessionEvent, SessionTime};
use super::fault::SessionFault;
use super::lag::Lag;
use super::offset::Offset;
use super::open::{Agreement, HEARTBEAT_NS_MAX, HEARTBEAT_NS_MIN, LinkEnd, OpenSession, check_message_bytes_max};
use super::progress::PeerProgress;
use super::resume::resume;

/// The state until the hub has admitted the edge.
#[derive(Debug)]
pub(super) struct HubHandshake {
    config: HubConfig,
    offset: Offset,
    deadline_ns: u64,
    /// The edge's hello, while the driver decides about it.
    hello: Option<Hello>,
}

impl HubHandshake {
    /// Waits for a hello.
    pub fn new(config: HubConfig, now: SessionTime) -> Self {
        let deadline_ns = now.monotonic_ns.saturating_add(config.link.handshake_ns);
        Self { config, offset: Offset::default(), deadline_ns, hello: None }
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
            Event::Tick if now.monotonic_ns >= self.deadline_ns => {
                Err(SessionFault::new(CloseReason::Handshake, "the handshake took too long".into()))
            }
            Event::Message(Message::Hello(hello)) if self.hello.is_none() => {
                self.consider(hello, now, actions).map(|()| None)
            }
            Event::Message(other) => Err(SessionFault::unexpected(&other)),
            Event::Admitted(admitted) => match self.hello.take() {
                Some(hello) => self.open(hello, admitted, now, actions).map(Some),
                None => Ok(None),
            },
            _ => Ok(None),
        }
    }

    fn consider(
        &mut self,
        hello: Hello,
        now: SessionTime,
        actions: &mut VecDeque<SessionAction>,
    ) -> Result<(), SessionFault> {
        if hello.version != VERSION {
            let text = format!("the edge speaks version {} of the protocol, this hub {VERSION}", hello.version);
            return Err(SessionFault::new(CloseReason::Version, text));
        }
        check_message_bytes_max(hello.message_bytes_max)?;
        self.offset.read(hello.clock, now);
        actions.push_back(SessionAction::Admit(hello.clone()));
        self.hello = Some(hello);
        Ok(())
    }

    fn open(
        &mut self,
        hello: Hello,
        admitted: Admitted,
        now: SessionTime,
        actions: &mut VecDeque<SessionAction>,
    ) -> Result<Box<OpenSession>, SessionFault> {
        let Admitted { info: ours, site, upstream_stores, progress: known } = admitted;
        let theirs = hello.info;
        if theirs.store == ours.store {
            return Err(SessionFault::same_store(ours.store));
        }
        let cursor = ours.cursor_for(theirs.store).unwrap_or_default();
        let resume = resume(&ours, &theirs).map(|(of_ours, _)| (of_ours, cursor));
        let resync = resume.is_none();
        let progress = PeerProgress::at_start(resume, known, &ours, &theirs, &site);
        let heartbeat_ns = self.config.heartbeat_ns.clamp(HEARTBEAT_NS_MIN, HEARTBEAT_NS_MAX);
        actions.push_back(SessionAction::Send(Message::Welcome(Welcome {
            version: VERSION,
            info: ours.clone(),
            site: site.clone(),
            resync,
            heartbeat_ms: u32::try_from(heartbeat_ns / MILLISECOND_NS).unwrap_or(u32::MAX),
            message_bytes_max: self.config.link.message_bytes_max as u64,
            clock: self.offset.reading(now),
            upstream_stores: upstream_stores.clone(),
            takes_early: true,
        })));
        actions.push_back(SessionAction::Notify(SessionEvent::Established(Box::new(Established {
            peer: theirs.clone(),
            site,
            resync,
            heartbeat_ns,
            upstream_stores,
            progress: progress.clone(),
        }))));
        let agreement = Agreement {
            end: LinkEnd::Hub,
            config: self.config.link,
            heartbeat_ns,
            theirs: &theirs,
            message_bytes_max: hello.message_bytes_max,
            resume,
            progress,
            sends_early: false,
            offset: std::mem::take(&mut self.offset),
            lag: Lag::default(),
        };
        Ok(Box::new(OpenSession::open(agreement, ours.head, now, actions)))
    }
}
