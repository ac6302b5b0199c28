//! Stories with narrow windows: each makes one order of events likely that chance alone hardly produces in thousands of
//! seeds. A seed in eight has one ([`draw`]), late in its time of faults. From its first step on there are no other
//! pushes and faults ([`World::is_calm`]), which could repair the damage.
//!
//! - An edge is away for longer than its hubs keep tombstones. Its groups are deleted meanwhile. When it is back, the
//!   link is cut in the middle of the resync, or the hub dies.
//! - An edge links again, and the last push of the run arrives while one end begins to follow its store.
//! - An edge is rolled back to a copy, and links again, while its hub has not yet committed the last update that it sent
//!   before.
//! - A hub writes to a group just before its edge deletes it, and the edge is slow: the hub's change waits to be
//!   committed when the delete is acknowledged.

use pushrelay::model::{GroupId, LabelSet};
use pushrelay::store::WriteOp;

use super::commands::push;
use super::link::Packet;
use super::random::Random;
use super::story::Story;
use super::{Checked, ConnId, EDGE, Event, HUB, MILLISECOND, MINUTE, NodeId, SECOND, World, topology};

/// Chosen so that the seeds that `tests/simulation.rs` names have none of these.
const SALT: u64 = 0x3a11_0002_0000;
/// The time without other pushes in which everything arrives everywhere.
const SETTLING: u64 = 8 * SECOND;
/// The longest story.
const STORY_NS: u64 = 130 * SECOND;
/// The latency of a slow line.
const SLOW_NS: u64 = 400 * MILLISECOND;

/// A step of a story.
#[derive(Clone, Copy, Debug)]
pub enum Window {
    Away,
    Gone {
        edge: NodeId,
        hub: NodeId,
    },
    /// Waits until the edge links.
    Back {
        edge: NodeId,
        hub: NodeId,
        cuts: u64,
    },
    CutAgain {
        edge: NodeId,
        hub: NodeId,
        cuts: u64,
    },
    Joins,
    CutBeforeJoin {
        edge: NodeId,
        hub: NodeId,
    },
    /// Waits until an end of the new link asks for the state of its store.
    Joining {
        edge: NodeId,
        hub: NodeId,
        end: Option<usize>,
    },
    Rewound,
    Saved {
        edge: NodeId,
        hub: NodeId,
    },
    RolledBack {
        edge: NodeId,
        hub: NodeId,
    },
    SlowEdge,
    WritesAtBoth {
        edge: NodeId,
        hub: NodeId,
        times: u64,
    },
    Stalls {
        edge: NodeId,
        hub: NodeId,
        times: u64,
    },
}

/// The story of a seed; `None` for most.
pub fn draw(seed: u64) -> Option<Window> {
    match Random::new(seed ^ SALT).below(100) {
        0..4 => Some(Window::Away),
        4..7 => Some(Window::Joins),
        7..10 => Some(Window::Rewound),
        10..13 => Some(Window::SlowEdge),
        _ => None,
    }
}

impl World {
    /// Schedules the story: there is time for all of it, and none after it.
    pub fn plan_window(&mut self, window: Window) {
        let before = self.script.between(5 * SECOND, 40 * SECOND);
        self.plan.chaos_ns = before + STORY_NS;
        if matches!(window, Window::Away) {
            self.plan.retention_ns = MINUTE;
        }
        self.after(before, Event::Story);
    }

    fn go_on_with(&mut self, wait: u64, window: Window) {
        self.story = Story::Window(window);
        self.after(wait, Event::Story);
    }

    /// Performs the next step.
    pub fn window(&mut self, window: Window) -> Checked {
        match window {
            Window::Away | Window::Joins | Window::Rewound | Window::SlowEdge => self.begin_window(window),
            Window::Gone { edge, hub } => self.is_gone(edge, hub),
            Window::Back { .. } => {}
            Window::CutAgain { edge, hub, cuts } => return self.cut_again(edge, hub, cuts),
            Window::CutBeforeJoin { edge, hub } => {
                self.count("story: an edge links while the last push arrives");
                let end = if self.script.chance(50) { EDGE } else { HUB };
                self.story = Story::Window(Window::Joining { edge, hub, end: Some(end) });
                self.cut(edge, hub);
            }
            Window::Joining { .. } => {}
            Window::Saved { edge, hub } => self.hub_is_slow(edge, hub),
            Window::RolledBack { edge, hub } => return self.is_rewound(edge, hub),
            Window::WritesAtBoth { edge, hub, times } => self.write_at_both(edge, hub, times),
            Window::Stalls { edge, hub, times } => {
                self.count("story: an edge is slow when its delete is acknowledged");
                let until = self.now + self.script.between(3 * SECOND, 15 * SECOND);
                if let Some(running) = &mut self.nodes[edge].running {
                    running.stalled_until = until;
                }
                if times > 1 {
                    let wait = until - self.now + SETTLING;
                    self.go_on_with(wait, Window::WritesAtBoth { edge, hub, times: times - 1 });
                }
            }
        }
        Ok(())
    }

    fn begin_window(&mut self, window: Window) {
        // An edge with one hub: no other heals the damage.
        let links: Vec<(NodeId, NodeId)> = (0..self.nodes.len())
            .filter(|at| !self.nodes[*at].is_hub && self.nodes[*at].twin.is_none() && !self.nodes[*at].diskless)
            .filter_map(|at| {
                Some((at, *self.nodes[at].uplink_hubs().first().filter(|_| self.nodes[at].uplinks.len() == 1)?))
            })
            .collect();
        let Some(&(edge, hub)) = self.script.pick(&links) else { return };
        self.is_calm = true;
        for at in [edge, hub] {
            self.nodes[at].disk.set_capacity(None);
        }
        if self.nodes[edge].running.is_some() {
            for _ in 0..4 {
                let job = self.some_push(edge);
                self.ask(edge, job);
            }
        }
        let next = match window {
            Window::Away => Window::Gone { edge, hub },
            Window::Joins => Window::CutBeforeJoin { edge, hub },
            Window::Rewound => Window::Saved { edge, hub },
            _ => Window::WritesAtBoth { edge, hub, times: 4 },
        };
        self.go_on_with(SETTLING, next);
    }

    /// The connection of an edge with a hub.
    fn link_of(&self, edge: NodeId, hub: NodeId) -> Option<ConnId> {
        self.nodes[edge]
            .uplinks
            .iter()
            .find(|uplink| uplink.hub == hub)?
            .conn
            .filter(|conn| self.conns.contains_key(conn))
    }

    /// Cuts the connection: nothing that is on its way arrives.
    fn cut(&mut self, edge: NodeId, hub: NodeId) {
        let Some(conn) = self.link_of(edge, hub) else { return };
        for end in [EDGE, HUB] {
            self.end(conn, end).inbox.clear();
            if self.is_alive(conn, end) {
                self.push_packet(conn, end, Packet::Fin);
            }
        }
    }

    /// The live groups of an edge, with the labels under which it and its hubs show them.
    fn groups_of(&self, edge: NodeId) -> Vec<(LabelSet, LabelSet)> {
        let Some(site) = self.nodes[edge].site else { return Vec::new() };
        let live = self.nodes[edge].durable.groups.iter().filter(|(_, group)| group.is_live());
        let names = |(id, _): (&GroupId, _)| {
            let site = topology::site(site);
            let labels = site.iter().chain(id.key.iter()).map(|label| (label.name, label.value));
            ((*id.key).clone(), LabelSet::new(labels))
        };
        live.map(names).collect()
    }

    fn is_gone(&mut self, edge: NodeId, hub: NodeId) {
        self.count("story: an edge is away for long, and its groups are deleted");
        let away = self.script.between(78 * SECOND, 95 * SECOND);
        self.partitions.insert((edge, hub), self.now + away);
        self.cut(edge, hub);
        for (_, shown) in self.groups_of(edge) {
            if self.script.chance(80) && self.nodes[hub].running.is_some() {
                self.ask(hub, push(shown, WriteOp::Delete));
            }
        }
        let cuts = self.script.below(4);
        self.story = Story::Window(Window::Back { edge, hub, cuts });
    }

    fn cut_again(&mut self, edge: NodeId, hub: NodeId, cuts: u64) -> Checked {
        let dies = self.script.chance(40) && self.nodes[hub].running.is_some();
        self.story = Story::Window(Window::Back { edge, hub, cuts: cuts - 1 });
        self.cut(edge, hub);
        if !dies {
            return Ok(());
        }
        self.machine_stops(hub, false)?;
        let life = self.nodes[hub].life;
        self.after(SECOND, Event::Start { node: hub, life });
        Ok(())
    }

    /// An end of a connection asks for the state of its store.
    pub fn asked_info(&mut self, conn: ConnId, end: usize) {
        let Story::Window(window) = self.story else { return };
        let open = &self.conns[&conn];
        let nodes = (open.sides[EDGE].node, open.sides[HUB].node);
        match window {
            _ if open.hostile => {}
            Window::Joining { edge, hub, end: Some(due) } if due == end && nodes == (edge, hub) => {
                // The last push arrives just after that.
                self.story = Story::Window(Window::Joining { edge, hub, end: None });
                self.after(0, Event::LastPush { node: if end == EDGE { edge } else { hub } });
            }
            Window::Back { edge, hub, cuts } if cuts > 0 && end == EDGE && nodes == (edge, hub) => {
                // On a slow line, the hub's half of the resync arrives well before the edge's half does.
                self.conns.get_mut(&conn).expect("it is open").latency_ns = SLOW_NS;
                let wait = self.script.between(5 * SLOW_NS / 2, 17 * SLOW_NS / 4);
                self.go_on_with(wait, Window::CutAgain { edge, hub, cuts });
            }
            _ => {}
        }
    }

    /// The last push: to a group of the edge that links.
    pub fn last_push(&mut self, at: NodeId) {
        let Story::Window(Window::Joining { edge, .. }) = self.story else { return };
        let groups = self.groups_of(edge);
        let Some((own, shown)) = self.script.pick(&groups).cloned() else { return };
        if self.nodes[at].running.is_some() {
            let shown = if at == edge { own } else { shown };
            let op = self.some_post();
            self.ask(at, push(shown, op));
        }
    }

    fn hub_is_slow(&mut self, edge: NodeId, hub: NodeId) {
        if self.link_of(edge, hub).is_none() || self.nodes[edge].running.is_none() {
            return;
        }
        self.save(edge);
        let until = self.now + 30 * SECOND;
        if let Some(running) = &mut self.nodes[hub].running {
            running.stalled_until = until;
        }
        for _ in 0..self.script.between(1, 5) {
            let job = self.some_push(edge);
            self.ask(edge, job);
        }
        // Until the hub has the update, and has not committed it.
        let wait = self.script.between(SECOND / 2, 5 * SECOND);
        self.go_on_with(wait, Window::RolledBack { edge, hub });
    }

    fn is_rewound(&mut self, edge: NodeId, hub: NodeId) -> Checked {
        let Some(conn) = self.link_of(edge, hub) else { return Ok(()) };
        self.count("story: an edge is rolled back before its hub has committed its update");
        // The hub does not hear that the edge has ended.
        self.end(conn, HUB).deaf = true;
        self.roll_back(edge)?;
        let life = self.nodes[edge].life;
        self.after(SECOND / 10, Event::Start { node: edge, life });
        Ok(())
    }

    fn write_at_both(&mut self, edge: NodeId, hub: NodeId, times: u64) {
        let groups = self.groups_of(edge);
        let (Some((own, shown)), Some(conn)) = (self.script.pick(&groups).cloned(), self.link_of(edge, hub)) else {
            return;
        };
        if self.nodes[edge].running.is_none() || self.nodes[hub].running.is_none() {
            return;
        }
        self.conns.get_mut(&conn).expect("it is open").latency_ns = SLOW_NS;
        let op = self.some_post();
        self.ask(hub, push(shown, op));
        self.ask(edge, push(own, WriteOp::Delete));
        let wait = self.script.between(120 * MILLISECOND, 250 * MILLISECOND);
        self.go_on_with(wait, Window::Stalls { edge, hub, times });
    }
}
